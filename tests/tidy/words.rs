//! What must not be written, and where.
//!
//! The words are put together from halves, so that this file may be checked, too.

use std::path::Path;

use crate::source::{sources, text_files};

/// Names of files and folders that say nothing.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "manager", "misc", "utils"];

/// What must not be in any file: paths of somebody's machine, hosts of a registry, unfinished work.
const NOWHERE: [&str; 11] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/tmp", "/q/"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("registry", "+http"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("TO", "DO"),
];

/// Where honest code is.
const HONEST: [&str; 3] = ["crypto/src/", "protocol/src/", "node/src/"];

/// Where in there people ask for something else.
const LABORATORY: [&str; 2] = ["node/src/lab", "node/src/cli"];

/// What honest code must have neither switch, hook nor word of: malice lives in the simulator.
const MALICE: [&str; 8] =
    ["malicious", "malice", "byzantine", "adversary", "attack", "evil", "equivocat", "misbehave_"];

/// Why a file may hold one of the words all the same: this one lists where packages come from.
const LOCK_FILE: &str = "Cargo.lock";

#[test]
fn no_file_names_a_machine_a_registry_or_unfinished_work() {
    for file in text_files().iter().filter(|file| file.path != LOCK_FILE) {
        for (number, line) in file.text.lines().enumerate() {
            let word = NOWHERE.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "{}:{}: {word:?} in: {line}", file.path, number + 1);
        }
    }
}

#[test]
fn honest_code_knows_nothing_of_malice() {
    for source in sources() {
        let is_honest = HONEST.iter().any(|folder| source.path.starts_with(folder));
        if !is_honest || LABORATORY.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        for (number, line) in source.without_comments.lines().enumerate() {
            let lower = line.to_lowercase();
            let word = MALICE.iter().find(|word| lower.contains(**word));
            let ships = !source.is_test[number];
            assert!(!ships || word.is_none(), "{}:{}: {word:?} in: {}", source.path, number + 1, line.trim());
        }
    }
}

#[test]
fn every_file_says_at_its_top_what_it_is() {
    let sources = sources();
    let silent = sources.iter().filter(|source| !source.text.starts_with("//! ")).map(|source| &*source.path);
    assert_eq!(silent.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn names_of_files_say_something() {
    for source in sources() {
        let parts = source.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        let empty: Vec<&str> = parts.filter(|part| EMPTY_NAMES.contains(part)).collect();
        assert!(empty.is_empty(), "{}: {empty:?} says nothing", source.path);
    }
}

#[test]
fn exceptions_from_lints_give_their_reason() {
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            let is_silent = line.contains("#[allow(") || line.contains("#![allow(");
            assert!(!is_silent, "{}:{}: write #[expect(…, reason = …)]", source.path, number + 1);
        }
    }
}

#[test]
fn pages_point_only_at_files_that_are_there() {
    let files = text_files();
    for file in files.iter().filter(|file| Path::new(&file.path).extension().is_some_and(|extension| extension == "md"))
    {
        let folder = Path::new(&file.path).parent().unwrap_or_else(|| Path::new(""));
        for target in links(&file.text) {
            let path = crate::source::root().join(folder).join(target);
            assert!(path.exists(), "{} points at {target}, which is not there", file.path);
        }
    }
}

/// Relative targets of links in a page.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}
