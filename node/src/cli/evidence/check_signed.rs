//! `quorate evidence check-signed FILE...`: whether what a replica recorded of its own statements contradicts itself.
//! (Feature `lab`; PROTOCOL §2.6)

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::cli::Output;
use crate::error::{Exit, Problem};
use crate::lab::recorder::{About, Statement};

/// Longest line that is read: a statement fits many times over.
const LINE_BYTES_MAX: u64 = 4_096;

/// Contradictions that are listed; all are counted.
const SHOWN_MAX: usize = 16;

/// Look for contradictions in what replicas recorded of their own statements
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate replica --dir net/replica-0 --record-signed signed.jsonl
  quorate evidence check-signed signed.jsonl

A correct replica says one thing about each slot, checkpoint and view, over all its runs. Name all files of a replica at once: \
what it says in one may contradict another. A record proves nothing to others: proofs have signatures, and are what `evidence \
verify` checks.

Exit status: 0 if nothing contradicts, 1 if something does.")]
pub(in crate::cli) struct CheckSignedArguments {
    /// What `replica --record-signed` wrote
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(super) fn run(arguments: &CheckSignedArguments, output: &mut Output) -> anyhow::Result<Exit> {
    let mut found = Found::default();
    let mut said = BTreeMap::new();
    for file in &arguments.files {
        read(file, |statement| found.weigh(&mut said, statement))?;
    }
    output.show(&found)?;
    Ok(if found.contradictions == 0 { Exit::Done } else { Exit::Failed })
}

fn read(path: &Path, mut take: impl FnMut(Statement)) -> anyhow::Result<()> {
    let opened = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = BufReader::new(opened);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let length = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if length.with_context(|| format!("reading {}", path.display()))? == 0 {
            break;
        }
        let statement = serde_json::from_slice(&line).map_err(|error| {
            let what = format!("{}:{number}: no statement: {error}", path.display());
            Problem::failed(what, "name files that `quorate replica --record-signed` wrote")
        })?;
        take(statement);
    }
    Ok(())
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Found {
    statements: u64,
    contradictions: u64,
    /// The first of them. Bound: [`SHOWN_MAX`].
    listed: Vec<Contradiction>,
}

/// Two things said about one.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Contradiction {
    #[serde(flatten)]
    about: About,
    says: [String; 2],
}

impl Found {
    fn weigh(&mut self, said: &mut BTreeMap<About, String>, statement: Statement) {
        let Statement { about, says } = statement;
        self.statements += 1;
        let before = said.entry(about.clone()).or_insert_with(|| says.clone());
        if *before != says {
            self.contradictions += 1;
            if self.listed.len() < SHOWN_MAX {
                self.listed.push(Contradiction { about, says: [before.clone(), says] });
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { statements, contradictions, listed } = self;
        for Contradiction { about: About { replica, kind, epoch, view, slot }, says } in listed {
            write!(formatter, "replica {replica} signed two {kind}s")?;
            slot.map_or(Ok(()), |slot| write!(formatter, " for slot {slot}"))?;
            view.map_or(Ok(()), |view| write!(formatter, " in view {view}"))?;
            let [first, second] = says.each_ref().map(|digest| digest.get(..8).unwrap_or(digest));
            writeln!(formatter, " of epoch {epoch}: {first}… and {second}…")?;
        }
        match contradictions {
            0 => write!(formatter, "{statements} statements, none contradicts another"),
            _ => write!(formatter, "{statements} statements, {contradictions} CONTRADICT one before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(texts: &[&str]) -> anyhow::Result<Exit> {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..texts.len()).map(|index| folder.path().join(format!("{index}.jsonl"))).collect();
        files.iter().zip(texts).for_each(|(file, text)| fs::write(file, text).unwrap());
        run(&CheckSignedArguments { files }, &mut Output::stdout(true))
    }

    /// A prepare for slot 7, in a view, of a batch.
    fn prepare(view: u64, says: &str) -> String {
        format!("{{\"replica\":2,\"kind\":\"prepare\",\"epoch\":0,\"view\":{view},\"slot\":7,\"says\":\"{says}\"}}\n")
    }

    #[test]
    fn what_is_said_twice_or_in_another_view_contradicts_nothing() {
        let text = [prepare(0, "aa"), prepare(0, "aa"), prepare(1, "bb")].concat();
        assert_eq!(check(&[&text]).unwrap(), Exit::Done);
        assert_eq!(check(&[""]).unwrap(), Exit::Done);
    }

    #[test]
    fn two_things_said_about_one_contradict_each_other_also_over_two_runs() {
        assert_eq!(check(&[&[prepare(0, "aa"), prepare(0, "bb")].concat()]).unwrap(), Exit::Failed);
        assert_eq!(check(&[&prepare(0, "aa"), &prepare(0, "bb")]).unwrap(), Exit::Failed);
    }

    #[test]
    fn a_line_that_is_no_statement_is_named() {
        let error = check(&[&format!("{}rubbish\n", prepare(0, "aa"))]).unwrap_err();
        assert!(error.to_string().contains("0.jsonl:2"), "{error}");
        assert!(check(&[&"7".repeat(10_000)]).is_err());
    }
}
