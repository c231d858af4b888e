//! `quorate attacks`: every malicious strategy, what it breaks, and what correct replicas do about it. (Feature `lab`.)

mod matrix;
mod siege;
mod spin;

use std::fmt;
use std::time::Duration;

use clap::{Args, value_parser};
use quorate_simulator::adversary::{self, Account};
use serde::Serialize;

use super::Output;
use crate::configuration::parse_positive_duration;
use crate::error::{Exit, Problem};
use crate::lab::wire;

/// Columns of a line.
const COLUMNS: usize = 100;

/// Columns before a text.
const INDENT: usize = 10;

/// How long each run of the matrix is unless something else is said.
const EACH_DEFAULT: Duration = Duration::from_secs(5);

/// List the attacks that a malicious replica can play, or play them all
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate attacks
  quorate attacks equivocate lie-to-clients
  quorate attacks --matrix --each 5s
  quorate attacks --matrix --each 10s --rounds 3
  quorate attacks --matrix --only silent equivocate

The names are those of `testnet --malicious`, `replica --malicious`, `attack start`, `simulate --attack` and scenario files. \
Each can be given a moment: silent@from:5s, censor@view:3, flood@slot:100, replay@random:0.1. Those on the transport \
(flood-handshakes and so on) are played live only, and their moment is a time. docs/attacks.md says how they are run and which \
tests play them.

With --matrix each attack is played by the first primary of a testnet of four under load, after a run without faults in the same \
testnet. The attacker shares the machine with the correct replicas: what it takes of the processors beyond what it takes as a \
correct one is told, and if that is more than a twentieth of one, another run without faults has a loop beside it that takes as \
much. Throughput and p99 are shares of that run's. A row takes two or three runs and some seconds, once for each round.

Exit status: 0; with --matrix 1 if a promise was broken: the correct replicas did not come to one state, what clients saw is not \
linearizable, nothing was answered, or a correct replica is accused.")]
pub(super) struct Arguments {
    /// The attacks to tell of [default: all]
    #[arg(value_name = "NAME", conflicts_with = "matrix")]
    names: Vec<String>,
    /// Play the attacks against a live testnet under load, one after the other
    #[arg(long)]
    matrix: bool,
    /// How long each run is measured [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration, requires = "matrix")]
    each: Option<Duration>,
    /// How often each attack is played: the round with the median throughput is shown, and a promise has to hold in all
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(1..=9), requires = "matrix", default_value_t = 1)]
    rounds: u8,
    /// The attacks to play [default: all]
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "matrix")]
    only: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let known: Vec<&str> = adversary::names().into_iter().chain(wire::names()).collect();
    let Arguments { names, matrix, each, rounds, only } = arguments;
    if let Some(unknown) = names.iter().chain(only).find(|name| !known.contains(&name.as_str())) {
        let what = format!("there is no attack `{unknown}`; there are: {}", known.join(", "));
        return Err(Problem::usage(what, "name one of them, or none for all").into());
    }
    if *matrix {
        let is_meant = |name: &&str| only.is_empty() || only.iter().any(|meant| meant == name);
        let attacks: Vec<&str> = known.into_iter().filter(is_meant).collect();
        return matrix::run(&attacks, each.unwrap_or(EACH_DEFAULT), *rounds, output);
    }
    let is_meant = |account: &Account| names.is_empty() || names.iter().any(|name| name == account.name);
    let attacks = accounts().into_iter().filter(is_meant).collect();
    output.show(&List { attacks })?;
    Ok(Exit::Done)
}

/// All attacks, those on the transport behind the others.
fn accounts() -> Vec<Account> {
    adversary::accounts().into_iter().chain(wire::accounts()).collect()
}

/// What is told.
#[derive(Debug, Serialize)]
struct List {
    attacks: Vec<Account>,
}

impl fmt::Display for List {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Account { name, does, breaks, defence, source }) in self.attacks.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{name}")?;
            for (title, text) in [("does", does), ("breaks", breaks), ("defence", defence), ("source", source)] {
                write!(formatter, "\n  {title:<8}{}", wrap(text))?;
            }
            if index + 1 < self.attacks.len() {
                writeln!(formatter)?;
            }
        }
        Ok(())
    }
}

/// A text broken into lines, the first of which has something before it.
fn wrap(text: &str) -> String {
    let mut lines = String::new();
    let mut column = INDENT;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > INDENT && column + 1 + length > COLUMNS {
            lines.push('\n');
            lines.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else if column > INDENT {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that the command line promises.
    const PROMISED: &str = "silent crash-loop slow censor reorder empty-batches equivocate conflicting-votes double-vote \
        impersonate outdated future jump-sequence early-view-change hide-certificates stale-certificates \
        forge-certificates jump-view flood-views wrong-new-view two-new-views forge-checkpoint lie-in-transfer \
        withhold-body withhold-votes bad-client-signature lie-to-clients amnesia replay flood mutate twin";

    #[test]
    fn every_attack_that_is_promised_is_told_of() {
        let told: Vec<&str> = accounts().iter().map(|account| account.name).collect();
        for name in PROMISED.split_whitespace() {
            assert!(told.contains(&name), "{name}");
        }
    }

    #[test]
    fn lines_are_of_a_width_that_a_terminal_has() {
        let text = List { attacks: accounts() }.to_string();
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= COLUMNS), "{longest:?}");
        assert!(text.starts_with("amnesia\n  does    Starts again"), "{}", &text[..80]);
    }
}
