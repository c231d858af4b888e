//! What is to be said of an attack: read from the head of its file, so that it stands in one place.
//!
//! A head has two paragraphs. The first says what the attack does, and ends with its sources in brackets; the second says
//! what it breaks, and from the word "Correct" on what correct replicas and clients do about it.

use serde::Serialize;

/// What an attack does, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub does: String,
    /// Whom it breaks, and how.
    pub breaks: String,
    /// What correct replicas and clients do about it.
    pub defence: String,
    /// Where it is known from, and the rules that are for it.
    pub source: String,
}

/// How the second paragraph begins.
const BREAKS: &str = "It breaks ";

/// How its last part begins.
const CORRECT: &str = "Correct ";

impl Account {
    /// The account in the head of a file; nothing if it has another form.
    pub fn read(name: &'static str, file: &str) -> Option<Self> {
        let head = file.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        let head = head.collect::<Vec<_>>().join("\n").replace('`', "");
        let (first, second) = head.split_once("\n\n")?;
        let [first, second] = [first, second].map(|paragraph| paragraph.replace('\n', " "));
        let (does, source) = split_source(&first)?;
        let (breaks, defence) = second.strip_prefix(BREAKS)?.split_once(CORRECT)?;
        Some(Self {
            name,
            does: does.to_owned(),
            breaks: breaks.trim().to_owned(),
            defence: format!("{CORRECT}{defence}"),
            source: source.to_owned(),
        })
    }
}

/// Parts a paragraph from the brackets at its end.
fn split_source(paragraph: &str) -> Option<(&str, &str)> {
    let within = paragraph.strip_suffix(')')?;
    let mut depth = 1_usize;
    let start = within.char_indices().rev().find_map(|(position, character)| {
        match character {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(position)
    })?;
    Some((within[..start].trim(), &within[start + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::accounts;
    use super::*;

    #[test]
    fn every_attack_gives_account_of_itself() {
        for Account { name, does, breaks, defence, source } in accounts() {
            for (part, text) in [("does", &does), ("breaks", &breaks), ("defence", &defence), ("source", &source)] {
                assert!(text.len() > 10 && !text.contains("  "), "{name}: {part}: {text}");
            }
            assert!(does.ends_with('.') && breaks.ends_with('.'), "{name}: {does} {breaks}");
            assert!(source.contains("PROTOCOL §"), "{name}: {source}");
        }
    }

    #[test]
    fn a_head_is_parted_where_it_says_so() {
        let file = "//! Lies. (Somebody, 1999 (twice), page 3;\n//! PROTOCOL §1)\n//!\n//! It breaks who\n//! believes. Correct \
                    `replicas` do not. (PROTOCOL §2)\n\nuse x;\n";
        let account = Account::read("lie", file).expect("it has the form");
        let expected = Account {
            name: "lie",
            does: "Lies.".to_owned(),
            breaks: "who believes.".to_owned(),
            defence: "Correct replicas do not. (PROTOCOL §2)".to_owned(),
            source: "Somebody, 1999 (twice), page 3; PROTOCOL §1".to_owned(),
        };
        assert_eq!(account, expected);
        for other in
            ["", "//! Lies.\n", "//! Lies. (X)\n//!\n//! It breaks all.\n", "//! Lies.\n//!\n//! It breaks. Correct x."]
        {
            assert_eq!(Account::read("lie", other), None, "{other}");
        }
    }
}
