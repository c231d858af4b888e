//! That code and docs/PROTOCOL.md name each other's rules: each citation leads somewhere, each rule of the core is cited
//! where it is enforced and where it is tested, and what a test quotes stands on the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::source::{Source, root, sources};

/// How a citation begins.
const CITED: &str = "PROTOCOL §";

/// The same in the core's own tests, which cite nothing else.
const CITED_IN_TESTS: &str = "§";

/// The core's own tests.
const TESTS: &str = "protocol/tests/";

/// Those that quote the page.
const QUOTING_TESTS: &str = "protocol/tests/paper/";

/// Sections whose every rule is cited by what ships and by a test.
const CORE: [u32; 7] = [3, 4, 5, 6, 7, 8, 9];

/// A section, and the rule in it, or 0 for the section.
type Place = (u32, u32);

fn page() -> String {
    fs::read_to_string(root().join("docs/PROTOCOL.md")).expect("the page is there")
}

/// Sections and numbered rules of the page.
fn places(page: &str) -> BTreeSet<Place> {
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

/// All places that a text cites, and where: `PROTOCOL §4.1, §4.6`.
fn citations<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = (usize, Place)> + 'a {
    text.match_indices(begin).flat_map(move |(start, _)| {
        let mut rest = &text[start + begin.len()..];
        let mut found = Vec::new();
        while let Some((place, after)) = place(rest) {
            found.push((start, place));
            let next =
                [", §", " and §", ",\n/// §", ",\n//! §", " to §"].iter().find_map(|joint| after.strip_prefix(joint));
            let Some(next) = next else { break };
            rest = next;
        }
        found
    })
}

/// All places that a file cites, with the line of each from 0.
fn cited_by(source: &Source) -> Vec<(usize, Place)> {
    let begin = if source.path.starts_with(TESTS) { CITED_IN_TESTS } else { CITED };
    citations(&source.text, begin).map(|(position, place)| (source.line_at(position), place)).collect()
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

/// What a comment quotes, and the section that it says this is from.
#[derive(Debug, PartialEq, Eq)]
struct Quote {
    text: String,
    section: Option<u32>,
}

/// All that the comments of a text quote, with the line of each comment from 0.
fn quotes(text: &str) -> Vec<(usize, Quote)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    let mut first = 0;
    for (number, line) in text.lines().chain([""]).enumerate() {
        let line = line.trim_start();
        let content = ["/// ", "//! ", "// "].iter().find_map(|mark| line.strip_prefix(mark));
        match content {
            Some(content) if comment.is_empty() => (first, comment) = (number, content.to_owned()),
            Some(content) => comment = format!("{comment} {content}"),
            None => {
                found.extend(quotes_in(&comment).map(|quote| (first, quote)));
                comment.clear();
            }
        }
    }
    found
}

fn quotes_in(comment: &str) -> impl Iterator<Item = Quote> {
    let parts: Vec<&str> = comment.split('"').collect();
    let quoted = (1..parts.len()).step_by(2).map(|index| {
        // The section stands behind the quotation, or behind the last of several.
        let behind = parts[index + 1..].iter().step_by(2).find_map(|text| text.split_once('§'));
        Quote { text: parts[index].to_owned(), section: behind.and_then(|(_, rest)| number(rest)).map(|(n, _)| n) }
    });
    quoted.collect::<Vec<_>>().into_iter()
}

/// A text without marks and line breaks, so that it can be compared with another.
fn plain(text: &str) -> String {
    let words = text.split(|character: char| character.is_whitespace() || "*`".contains(character));
    let spaced = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    [",", ".", ":", ";", ")"]
        .iter()
        .fold(spaced, |text, mark| text.replace(&format!(" {mark}"), mark))
        .replace("( ", "(")
}

/// What each section of the page says, without marks; of a table, each row as its first and its last cell.
fn sections(page: &str) -> BTreeMap<u32, String> {
    let mut sections: BTreeMap<u32, String> = BTreeMap::new();
    let mut section = 0;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = leading_number(heading).unwrap_or_default();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let said = match (line.starts_with('|'), &cells[..]) {
            (true, [first, .., last]) => format!("{first}: {last}"),
            _ => line.to_owned(),
        };
        let text = sections.entry(section).or_default();
        *text = format!("{text}\n{said}");
    }
    sections.into_iter().map(|(section, text)| (section, plain(&text))).collect()
}

/// Whether a section says what is quoted, what is left out by `...` aside.
fn says(section: &str, quoted: &str) -> bool {
    let mut rest = section;
    plain(quoted).split("...").all(|part| match rest.split_once(part.trim()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn every_citation_leads_to_a_section_that_is_there() {
    let places = places(&page());
    assert!(places.len() > 30, "{places:?}");
    for source in sources() {
        for (line, place) in cited_by(&source) {
            assert!(places.contains(&place), "{}:{}: {} is not on the page", source.path, line + 1, show(place));
        }
    }
}

#[test]
fn each_rule_of_the_core_is_cited_where_it_is_enforced_and_where_it_is_tested() {
    // Whether what ships cites a place, and whether a test does.
    let mut cited: BTreeMap<Place, [bool; 2]> = BTreeMap::new();
    for source in sources() {
        for (line, (section, rule)) in cited_by(&source) {
            let is_test = source.is_test.get(line).copied().unwrap_or_default();
            let is_test = is_test || source.path.starts_with("simulator/") || source.path.starts_with("tests/");
            for place in [(section, 0), (section, rule)] {
                cited.entry(place).or_default()[usize::from(is_test)] = true;
            }
        }
    }
    let places = places(&page());
    let uncited = |index: usize| -> Vec<String> {
        let of_core = places.iter().filter(|place| CORE.contains(&place.0));
        of_core.filter(|place| !cited.get(*place).is_some_and(|by| by[index])).map(|place| show(*place)).collect()
    };
    assert_eq!(uncited(0), Vec::<String>::new(), "no code that ships cites these");
    assert_eq!(uncited(1), Vec::<String>::new(), "no test cites these");
}

#[test]
fn what_a_test_quotes_stands_on_the_page() {
    let sections = sections(&page());
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in sources().iter().filter(|source| source.path.starts_with(QUOTING_TESTS)) {
        for (line, quote) in quotes(&source.text) {
            count += 1;
            let section = quote.section.and_then(|section| sections.get(&section));
            if !section.is_some_and(|section| says(section, &quote.text)) {
                wrong.push(format!("{}:{}: {quote:?}", source.path, line + 1));
            }
        }
    }
    assert!(count > 100, "{count} quotations");
    assert!(wrong.is_empty(), "not in the section that is named:\n{}", wrong.join("\n"));
}

#[test]
fn a_citation_may_name_several_places() {
    let text = "(PROTOCOL §4.1, §4.6, §12) and (PROTOCOL §9: what) but not RFC 9000 §14";
    let found: Vec<Place> = citations(text, CITED).map(|(_, place)| place).collect();
    assert_eq!(found, [(4, 1), (4, 6), (12, 0), (9, 0)]);
}

#[test]
fn a_quotation_is_compared_without_marks_line_breaks_and_what_it_leaves_out() {
    let page =
        "## 3. One\n\n**A** says\n`B` (or *C*), and\ngoes. It ends.\n\n| `X` | y | two a member |\n## 4. Two\nno\n";
    let sections = sections(page);
    for quoted in ["A says B (or C), and goes.", "A ... goes", "X: two a member", "**A** says `B`"] {
        assert!(says(&sections[&3], quoted), "{quoted}");
    }
    for quoted in ["A goes", "goes ... A", "X: y", "a says", "no"] {
        assert!(!says(&sections[&3], quoted), "{quoted}");
    }
    let text = "/// \"one\nfn no() { \"two\" }\n    // \"three\n    // four\" and \"five\" (§7.1); \"six\"\n";
    let found: Vec<(usize, String, Option<u32>)> =
        quotes(text).into_iter().map(|(line, quote)| (line, quote.text, quote.section)).collect();
    let expected = [(2, "three four", Some(7)), (2, "five", Some(7)), (2, "six", None)];
    let expected: Vec<_> = expected.map(|(line, text, section)| (line, text.to_owned(), section)).into();
    assert_eq!(found[1..], expected, "{found:?}");
}
