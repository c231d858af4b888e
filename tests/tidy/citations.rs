//! That code and docs/PROTOCOL.md name each other's rules: each citation leads somewhere, and each section of the heart
//! of the protocol is cited where it is enforced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use quorate_tests::say;

use crate::source::{root, sources};

/// How a citation begins.
const CITED: &str = "PROTOCOL §";

/// Sections whose rules are the core's own.
const HEART: [u32; 4] = [4, 5, 6, 7];

/// Sections whose rules are listed where nothing names them.
const LISTED: [u32; 7] = [3, 4, 5, 6, 7, 8, 9];

/// A section, and the rule in it, or 0 for the section.
type Place = (u32, u32);

/// Sections and numbered rules of the page.
fn places() -> BTreeSet<Place> {
    let page = fs::read_to_string(root().join("docs/PROTOCOL.md")).expect("the page is there");
    let mut places = BTreeSet::new();
    let mut section = 0;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = leading_number(heading).unwrap_or_default();
            places.insert((section, 0));
        } else if let Some(rule) = leading_number(line).filter(|_| section > 0) {
            places.insert((section, rule));
        }
    }
    places
}

/// The number before a full stop at the start.
fn leading_number(text: &str) -> Option<u32> {
    text.split_once(". ").and_then(|(number, _)| number.parse().ok())
}

/// All places that a text cites: `PROTOCOL §4.1, §4.6`.
fn citations(text: &str) -> impl Iterator<Item = (usize, Place)> {
    text.match_indices(CITED).flat_map(|(start, _)| {
        let mut rest = &text[start + CITED.len()..];
        let mut found = Vec::new();
        while let Some((place, after)) = place(rest) {
            found.push((start, place));
            let next = [", §", " and §", ",\n/// §", " to §"].iter().find_map(|joint| after.strip_prefix(joint));
            let Some(next) = next else { break };
            rest = next;
        }
        found
    })
}

/// The place at the start of a text, and what follows it.
fn place(text: &str) -> Option<(Place, &str)> {
    let (section, rest) = number(text)?;
    match rest.strip_prefix('.').and_then(number) {
        Some((rule, rest)) => Some(((section, rule), rest)),
        None => Some(((section, 0), rest)),
    }
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn show((section, rule): Place) -> String {
    if rule == 0 { format!("§{section}") } else { format!("§{section}.{rule}") }
}

#[test]
fn every_citation_leads_to_a_section_that_is_there() {
    let places = places();
    assert!(places.len() > 30, "{places:?}");
    for source in sources() {
        for (position, place) in citations(&source.text) {
            let line = source.line_at(position) + 1;
            assert!(places.contains(&place), "{}:{line}: {} is not in docs/PROTOCOL.md", source.path, show(place));
        }
    }
}

#[test]
fn the_rules_of_the_core_are_cited_where_they_are_enforced() {
    // Whether what ships cites a place, and whether a test does.
    let mut cited: BTreeMap<Place, [bool; 2]> = BTreeMap::new();
    for source in sources() {
        for (position, (section, rule)) in citations(&source.text) {
            let is_test = source.is_test.get(source.line_at(position)).copied().unwrap_or_default();
            let is_test = is_test || source.path.starts_with("simulator/") || source.path.starts_with("tests/");
            for place in [(section, 0), (section, rule)] {
                cited.entry(place).or_default()[usize::from(is_test)] = true;
            }
        }
    }
    let places = places();
    for (who, index) in [("code that ships", 0), ("test", 1)] {
        let is_uncited = |place: &&Place| LISTED.contains(&place.0) && !cited.get(*place).is_some_and(|by| by[index]);
        let uncited: Vec<String> = places.iter().filter(is_uncited).map(|place| show(*place)).collect();
        say(&format!("rules that no {who} cites: {}", uncited.join(" ")));
    }
    for section in HEART {
        assert!(cited.get(&(section, 0)).is_some_and(|by| by[0]), "no code cites §{section}");
    }
}

#[test]
fn a_citation_may_name_several_places() {
    let text = "(PROTOCOL §4.1, §4.6, §12) and (PROTOCOL §9: what) but not RFC 9000 §14";
    let found: Vec<Place> = citations(text).map(|(_, place)| place).collect();
    assert_eq!(found, [(4, 1), (4, 6), (12, 0), (9, 0)]);
}
