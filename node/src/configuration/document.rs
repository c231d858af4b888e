//! A TOML file with its path, so that whatever is wrong in it is said with path, line, key and value.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file_error::FileError;

/// Largest configuration file that is read, in bytes: a genesis with every client key that may be listed fits.
const BYTES_MAX: u64 = 1 << 20;

/// Longest value that an error message quotes, in characters.
const QUOTED_MAX: usize = 80;

/// A file that was read but not yet understood.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads the file at `path`, at most [`BYTES_MAX`].
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::io("open", path))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
        Self::of(path, bytes)
    }

    /// What stands in a file at `path`, at most [`BYTES_MAX`].
    pub(super) fn of(path: &Path, bytes: Vec<u8>) -> Result<Self, FileError> {
        if bytes.len() as u64 > BYTES_MAX {
            return Err(FileError::TooLarge { path: path.to_owned(), bytes_max: BYTES_MAX });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path: path.to_owned(), text }),
            Err(error) => Err(FileError::Content {
                path: path.to_owned(),
                line: line_of(error.as_bytes(), error.utf8_error().valid_up_to()),
                problem: "not text in UTF-8".into(),
                mend: "restore the file: it is damaged, or not a configuration".into(),
            }),
        }
    }

    /// The content as a `T`.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, FileError> {
        toml::from_str(&self.text).map_err(|error| self.explain(&error))
    }

    /// The error that says `problem` of the value of `key`: a path of names, and indices of arrays, with dots between.
    pub(super) fn refuse_key(&self, key: &str, problem: impl Into<Box<str>>, mend: impl Into<Box<str>>) -> FileError {
        let span = DeTable::parse(&self.text).ok().and_then(|table| value_span(table.get_ref(), key));
        let (problem, mend) = (problem.into(), mend.into());
        match span {
            Some(span) => self.key_error(key, span, problem, mend),
            None => self.refuse(1, format!("key `{key}`: {problem}"), mend),
        }
    }

    /// The error that says `problem` of a line.
    pub(super) fn refuse(&self, line: usize, problem: impl Into<Box<str>>, mend: impl Into<Box<str>>) -> FileError {
        FileError::Content { path: self.path.clone(), line, problem: problem.into(), mend: mend.into() }
    }

    /// Where the parser was when it gave up, in our words.
    fn explain(&self, error: &toml::de::Error) -> FileError {
        let problem = error.message().lines().collect::<Vec<_>>().join("; ");
        let mend = if problem.starts_with("unknown field") {
            "correct its spelling or remove the line"
        } else if problem.starts_with("missing field") {
            "add the line; `quorate init` writes files to compare with"
        } else {
            "correct the line; `quorate init` writes files to compare with"
        };
        let span = error.span().unwrap_or(0..0);
        let key = DeTable::parse(&self.text).ok().and_then(|table| key_of(table.get_ref(), &span));
        match key {
            Some(key) => self.key_error(&key, span, problem.into(), mend.into()),
            None => self.refuse(self.line(span.start), problem, mend),
        }
    }

    fn key_error(&self, key: &str, span: Range<usize>, problem: Box<str>, mend: Box<str>) -> FileError {
        let value = self.text.get(span.clone()).unwrap_or_default();
        let mut quoted: String = value.chars().take(QUOTED_MAX).collect();
        if quoted.len() < value.len() {
            quoted.push('…');
        }
        let (key, value) = (key.into(), quoted.replace(['\n', '\r'], " ").into());
        FileError::Key { path: self.path.clone(), line: self.line(span.start), key, value, problem, mend }
    }

    fn line(&self, offset: usize) -> usize {
        line_of(self.text.as_bytes(), offset)
    }
}

/// The line, from 1, that byte `offset` stands in.
fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes.iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

/// Where the value of `key` stands in the text.
fn value_span(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (_, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    let Some(rest) = rest else { return Some(value.span()) };
    match value.get_ref() {
        DeValue::Table(table) => value_span(table, rest),
        DeValue::Array(array) => {
            let (index, rest) = rest.split_once('.').map_or((rest, None), |(index, rest)| (index, Some(rest)));
            let element = array.get(index.parse::<usize>().ok()?)?;
            match (rest, element.get_ref()) {
                (None, _) => Some(element.span()),
                (Some(rest), DeValue::Table(table)) => value_span(table, rest),
                (Some(_), _) => None,
            }
        }
        _ => None,
    }
}

/// The key, as [`value_span`] takes it, of the plain value or array that stands exactly at `span`.
fn key_of(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(name, value)| key_within(value, name.get_ref().to_string(), span))
}

fn key_within(value: &Spanned<DeValue<'_>>, key: String, span: &Range<usize>) -> Option<String> {
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().find_map(|(name, value)| key_within(value, format!("{key}.{}", name.get_ref()), span))
        }
        _ if value.span() == *span => Some(key),
        DeValue::Array(array) => {
            array.iter().enumerate().find_map(|(index, value)| key_within(value, format!("{key}.{index}"), span))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only whether it can be read is asked")]
        limits: Limits,
        #[expect(dead_code, reason = "only whether it can be read is asked")]
        list: Vec<u32>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        #[expect(dead_code, reason = "only whether it can be read is asked")]
        depth: u32,
    }

    fn problem_of(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        std::fs::write(&path, text).unwrap();
        let error = Document::read(&path).and_then(|document| document.parse::<Example>()).unwrap_err();
        assert!(error.mend().is_some(), "{error}");
        error.to_string().replace(&format!("{}:", path.display()), "")
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line_and_key() {
        let wrong = problem_of("# heading\nlist = []\n[limits]\ndepth = \"deep\"\n");
        assert_eq!(wrong, "4: key `limits.depth` is \"deep\": invalid type: string \"deep\", expected u32");
        let wrong = problem_of("list = [1,\n 2, -3]\n[limits]\ndepth = 1\n");
        assert_eq!(wrong, "2: key `list.2` is -3: invalid value: integer `-3`, expected u32");
    }

    #[test]
    fn a_key_that_means_nothing_is_named_with_its_line() {
        let wrong = problem_of("list = []\n[limits]\ndepth = 1\nheight = 2\n");
        assert_eq!(wrong, "4: unknown field `height`, expected `depth`");
    }

    #[test]
    fn a_key_that_lacks_is_named_with_the_line_of_its_table() {
        assert_eq!(problem_of("list = []\n[limits]\n"), "2: missing field `depth`");
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        assert!(
            problem_of("list = []\nlimits = = 3\n").starts_with("2: "),
            "{}",
            problem_of("list = []\nlimits = = 3\n")
        );
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        std::fs::write(&path, vec![b'#'; usize::try_from(BYTES_MAX).unwrap() + 1]).unwrap();
        assert!(matches!(Document::read(&path), Err(FileError::TooLarge { .. })));
        std::fs::write(&path, b"# fine\nlist = \"\xff\"").unwrap();
        assert!(matches!(Document::read(&path), Err(FileError::Content { line: 2, .. })));
    }
}
