//! That docs/threat-model.md names tests that there are: a promise whose test is gone is one that nobody keeps.

use std::fs;

use crate::source::{root, sources};

/// Words of the shortest name that is taken for that of a test.
const WORDS_MIN: usize = 4;

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let page = fs::read_to_string(root().join("docs/threat-model.md")).expect("the page is there");
    let quoted = page.split('`').skip(1).step_by(2);
    let is_name = |text: &&str| {
        let is_plain =
            text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        is_plain && text.split('_').count() >= WORDS_MIN
    };
    let names: Vec<&str> = quoted.filter(is_name).collect();
    assert!(names.len() > 40, "only {} tests are named", names.len());
    let sources = sources();
    let is_there = |name: &&&str| sources.iter().any(|source| source.text.contains(&format!("fn {name}(")));
    let gone: Vec<&&str> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "docs/threat-model.md names tests that are not there: {gone:?}");
}
