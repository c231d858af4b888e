//! Files and functions that have grown long: the longest are shown, and what is far too long must say why at its top.

use std::cmp::Reverse;

use quorate_tests::say;

use crate::source::{Source, end_of_item, sources};

/// Lines that ship, in a file that gives no reason.
const FILE_LINES_MAX: usize = 700;

/// How a file's top says that it is long for a reason.
const REASON: &str = "long because";

/// How many are shown.
const SHOWN: usize = 8;

#[test]
fn files_are_one_idea_long() {
    let sources = sources();
    let mut by_length: Vec<(usize, &Source)> =
        sources.iter().map(|source| (source.production_lines(), source)).collect();
    by_length.sort_by_key(|(lines, _)| Reverse(*lines));
    say("the longest files, in lines that ship:");
    by_length.iter().take(SHOWN).for_each(|(lines, source)| say(&format!("{lines:5}  {}", source.path)));
    let too_long = by_length.iter().filter(|(lines, source)| *lines > FILE_LINES_MAX && !gives_reason(source));
    let too_long: Vec<&str> = too_long.map(|(_, source)| &*source.path).collect();
    assert!(too_long.is_empty(), "above {FILE_LINES_MAX} lines, without `{REASON} …` at the top: {too_long:?}");
}

#[test]
fn functions_fit_a_screen_or_are_few() {
    let sources = sources();
    let mut functions: Vec<(usize, String)> = sources.iter().flat_map(functions).collect();
    assert!(functions.len() > 1_000, "{} functions", functions.len());
    functions.sort_by_key(|(lines, _)| Reverse(*lines));
    say("the longest functions, in lines:");
    functions.iter().take(SHOWN).for_each(|(lines, name)| say(&format!("{lines:5}  {name}")));
    let long = functions.iter().filter(|(lines, _)| *lines > 60).count();
    say(&format!("{long} of {} functions are longer than 60 lines", functions.len()));
    assert!(long * 100 < functions.len(), "{long} of {}", functions.len());
}

fn gives_reason(source: &Source) -> bool {
    source.text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(REASON))
}

/// Lengths and names of the functions that ship.
fn functions(source: &Source) -> Vec<(usize, String)> {
    let starts = source.code.match_indices("fn ").filter(|(start, _)| {
        let before = source.code[..*start].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    });
    let named = starts.filter_map(|(start, _)| {
        let rest = &source.code[start + 3..];
        let name = rest.split(|character: char| !character.is_alphanumeric() && character != '_').next()?;
        let (first, last) = (source.line_at(start), source.line_at(end_of_item(&source.code, start)));
        let ships = !name.is_empty() && !source.is_test.get(first).copied().unwrap_or(true);
        ships.then(|| (last - first + 1, format!("{} {name}", source.path)))
    });
    named.collect()
}

#[test]
fn the_length_of_a_function_is_that_from_its_name_to_its_brace() {
    let text = "//! x\nfn one() -> [u8; 2] {\n    [1, 2]\n}\n\nfn two();\n".to_owned();
    let source = Source {
        path: "a.rs".to_owned(),
        without_comments: text.clone(),
        code: text.replace("//! x", "     "),
        is_test: vec![false; 6],
        text,
    };
    assert_eq!(functions(&source), [(3, "a.rs one".to_owned()), (1, "a.rs two".to_owned())]);
}
