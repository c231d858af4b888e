//! That docs/attacks.md tells of every attack as its file does, and names tests that there are.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_simulator::adversary::{Account, accounts};

/// The project's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the project's folder").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("the file is there")
}

/// A text with single blanks.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_tells_of_every_attack_in_the_words_of_its_file_and_names_its_tests() {
    let page = read("docs/attacks.md");
    let (_, page) = page.split_once("\n## Each attack\n").expect("the page has that part");
    // What follows is not the adversary's.
    let (page, _) = page.split_once("\n## ").unwrap_or((page, ""));
    let sections: Vec<(&str, &str)> =
        page.split("\n### ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, accounts().iter().map(|account| account.name).collect::<Vec<_>>());
    let tests: String = ["main", "safety", "service", "collusion", "forensics"]
        .map(|file| read(&format!("simulator/tests/attacks/{file}.rs")))
        .into_iter()
        .chain([read("tests/e2e/byzantine.rs")])
        .collect();
    for ((_, section), Account { name, does, breaks, defence, source }) in sections.into_iter().zip(accounts()) {
        let (told, shown) = section.split_once("- Shown by ").unwrap_or_default();
        let expected = format!("{does} - Breaks {breaks} - {defence} - From: {source}");
        assert_eq!(plain(told), expected, "{name}");
        let shown: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!shown.is_empty(), "{name}");
        for test in shown {
            assert!(tests.contains(&format!("fn {test}(")), "{name}: there is no test {test}");
        }
    }
}
