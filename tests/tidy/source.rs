//! The project's files, and what of a Rust file is code, what is comment, and what is test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders of the crates.
pub(crate) const CRATES: [&str; 5] = ["crypto", "protocol", "simulator", "node", "tests"];

/// Folders without files of the project, should it not be a repository.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// A text file of the project.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Its path in the project, with `/`.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
}

/// A Rust file of the project.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path in the project, with `/`.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
    /// The same with blanks for comments.
    pub(crate) without_comments: String,
    /// The same with blanks for comments and for what stands in strings and characters.
    pub(crate) code: String,
    /// Whether each line belongs to a test.
    pub(crate) is_test: Vec<bool>,
}

impl Source {
    /// Lines that ship.
    pub(crate) fn production_lines(&self) -> usize {
        self.is_test.iter().filter(|is_test| !**is_test).count()
    }

    /// The number of the line, from 0, that the byte at `position` stands in.
    pub(crate) fn line_at(&self, position: usize) -> usize {
        self.text[..position].matches('\n').count()
    }

    fn read(TextFile { path, text }: TextFile) -> Self {
        let (without_comments, code) = blank(&text);
        let is_test = mark_tests(&path, &code, text.lines().count());
        Self { path, text, without_comments, code, is_test }
    }
}

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the project's folder")
}

/// All text files of the project: those that the repository has or would take.
pub(crate) fn text_files() -> Vec<TextFile> {
    let files = listed().unwrap_or_else(|| walked(root()));
    assert!(files.len() > 100, "the project has more than {} files", files.len());
    let read = |path: PathBuf| {
        // One that was removed and not committed yet is still listed; what is no text is none of ours to read.
        let text = String::from_utf8(fs::read(root().join(&path)).ok()?).ok()?;
        Some(TextFile { path: path.to_str()?.to_owned(), text })
    };
    files.into_iter().filter_map(read).collect()
}

/// All Rust files of the crates.
pub(crate) fn sources() -> Vec<Source> {
    let is_ours = |file: &TextFile| {
        let folder = file.path.split('/').next().unwrap_or_default();
        CRATES.contains(&folder) && Path::new(&file.path).extension().is_some_and(|extension| extension == "rs")
    };
    let sources: Vec<Source> = text_files().into_iter().filter(is_ours).map(Source::read).collect();
    assert!(sources.len() > 100, "the crates have more than {} files", sources.len());
    sources
}

fn listed() -> Option<Vec<PathBuf>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
    let names = String::from_utf8(listed.stdout).ok().filter(|names| listed.status.success() && !names.is_empty())?;
    Some(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

fn walked(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("the project can be read") {
            let path = entry.expect("it can be listed").path();
            let is_skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|skipped| name == *skipped));
            match path.is_dir() {
                true if !is_skipped => waiting.push(path),
                true => {}
                false => found.extend(path.strip_prefix(root).map(Path::to_owned)),
            }
        }
    }
    found
}

/// What the reader of a Rust file is in the midst of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
    Character,
}

/// The text without comments, and that without the content of strings, too. Lengths and lines stay as they are.
fn blank(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut without_comments, mut code) = (bytes.to_vec(), bytes.to_vec());
    let mut within = Within::Code;
    let mut at = 0;
    while at < bytes.len() {
        let (next, length) = step(within, &bytes[at..]);
        let is_comment = |state| matches!(state, Within::LineComment | Within::BlockComment { .. });
        for position in at..(at + length).min(bytes.len()) {
            if bytes[position] == b'\n' {
                continue;
            }
            if is_comment(within) || is_comment(next) {
                without_comments[position] = b' ';
            }
            if within != Within::Code || is_comment(next) {
                code[position] = b' ';
            }
        }
        (within, at) = (next, at + length);
    }
    let text = |bytes| String::from_utf8(bytes).expect("only whole comments and strings were blanked");
    (text(without_comments), text(code))
}

/// Where the reader is after the next bytes, and how many they are.
fn step(within: Within, rest: &[u8]) -> (Within, usize) {
    match within {
        Within::Code => enter(rest),
        Within::LineComment if rest[0] == b'\n' => (Within::Code, 1),
        Within::BlockComment { depth } if rest.starts_with(b"*/") => {
            (if depth == 1 { Within::Code } else { Within::BlockComment { depth: depth - 1 } }, 2)
        }
        Within::BlockComment { depth } if rest.starts_with(b"/*") => (Within::BlockComment { depth: depth + 1 }, 2),
        Within::Text { hashes: None } | Within::Character if rest[0] == b'\\' => (within, 2),
        Within::Text { hashes: None } if rest[0] == b'"' => (Within::Code, 1),
        Within::Character if rest[0] == b'\'' => (Within::Code, 1),
        Within::Text { hashes: Some(hashes) } if rest[0] == b'"' && has_hashes(&rest[1..], hashes) => {
            (Within::Code, 1 + hashes)
        }
        _ => (within, 1),
    }
}

fn enter(rest: &[u8]) -> (Within, usize) {
    if rest.starts_with(b"//") {
        return (Within::LineComment, 2);
    }
    if rest.starts_with(b"/*") {
        return (Within::BlockComment { depth: 1 }, 2);
    }
    match rest {
        [b'"', ..] => (Within::Text { hashes: None }, 1),
        [b'r', tail @ ..] => match tail.iter().position(|byte| *byte != b'#') {
            Some(hashes) if tail[hashes] == b'"' => (Within::Text { hashes: Some(hashes) }, hashes + 2),
            _ => (Within::Code, 1),
        },
        // A lifetime is no character: that has its second quote after one character, or after an escape.
        [b'\'', b'\\', ..] => (Within::Character, 1),
        [b'\'', tail @ ..] => {
            let length = tail.first().map_or(1, |byte| utf8_length(*byte));
            if tail.get(length) == Some(&b'\'') { (Within::Character, 1) } else { (Within::Code, 1) }
        }
        // A word is taken whole, so that no `r` within it begins a string.
        [byte, ..] if is_word(*byte) => {
            let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
            let is_prefix = matches!(&rest[..length], b"br" | b"cr");
            (Within::Code, if is_prefix { 1 } else { length })
        }
        _ => (Within::Code, 1),
    }
}

fn has_hashes(rest: &[u8], hashes: usize) -> bool {
    rest.len() >= hashes && rest[..hashes].iter().all(|byte| *byte == b'#')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn utf8_length(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// Which lines are tests: whole files by their names, and modules that are compiled for tests only.
fn mark_tests(path: &str, code: &str, lines: usize) -> Vec<bool> {
    let is_test_part = |part: &str| {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        name == "tests" || name == "benches" || name.ends_with("_tests")
    };
    let mut is_test = vec![path.split('/').any(is_test_part); lines];
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let end = end_of_item(code, start);
        let line_of = |position: usize| code[..position].matches('\n').count();
        is_test[line_of(start)..=line_of(end).min(lines - 1)].fill(true);
    }
    is_test
}

/// Where the item that begins at `start` ends: at its closing brace, or its semicolon.
pub(crate) fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, character) in code[start..].char_indices() {
        match character {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && character == '}' {
                    return start + offset;
                }
            }
            ';' if depth == 0 => return start + offset,
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = "let a = \"// no comment\"; // a comment\nlet b = 'x'; /* one /* within */ another */ fn f<'a>() {}\n";
    let (without_comments, code) = blank(text);
    assert!(without_comments.contains("// no comment") && !without_comments.contains("a comment"));
    assert!(!code.contains("no comment") && !code.contains("another") && code.contains("fn f<'a>() {}"));
    let (_, raw) = blank("const R: &str = r#\"a \" fn g() {\"#; fn h() {}");
    assert!(!raw.contains("fn g") && raw.contains("fn h() {}"));
    let (_, escaped) = blank("let q = '\\''; let s = \"\\\" fn g\"; let b = br\"fn k\"; fn h() {}");
    assert!(!escaped.contains("fn g") && !escaped.contains("fn k") && escaped.contains("fn h() {}"), "{escaped}");
    assert_eq!(code.len(), text.len());
}

#[test]
fn modules_for_tests_are_told_from_what_ships() {
    let text = "fn ships() {}\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nfn ships_too() {}\n";
    let marked = mark_tests("node/src/a.rs", text, 6);
    assert_eq!(marked, [false, true, true, true, true, false]);
    assert!(mark_tests("node/src/a/tests.rs", text, 6).into_iter().all(|is_test| is_test));
}
