//! `quorate check-history FILE`: whether a recorded history is linearizable. (Feature `lab`.)

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use quorate_simulator::history::{Verdict, check, read};
use serde::Serialize;

use super::Output;
use crate::error::{Exit, Problem};

/// Check that what clients saw is linearizable
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  quorate bench --net net/client --duration 10s --reads 50% --cas 10% --history history.jsonl
  quorate check-history history.jsonl

Exit status: 0 if the history is linearizable, 1 if not, or if no call in it was executed: nothing was checked then.")]
pub(super) struct Arguments {
    /// The history, as `quorate bench --history` records it
    file: PathBuf,
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { file } = arguments;
    let opened = File::open(&file).with_context(|| format!("reading {}", file.display()))?;
    let refused = |reason: &dyn fmt::Display| {
        Problem::failed(format!("{}: {reason}", file.display()), "name a file that `quorate bench --history` wrote")
    };
    let calls = read(BufReader::new(opened).lines()).map_err(|error| refused(&error))?;
    let verdict = check(&calls);
    if verdict.executed == 0 {
        return Err(refused(&"no call in it was executed, so nothing was checked").into());
    }
    let is_linearizable = verdict.violations.is_empty();
    output.show(&Report { is_linearizable, verdict })?;
    Ok(if is_linearizable { Exit::Done } else { Exit::Failed })
}

/// The verdict, and what it means.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(rename = "linearizable")]
    is_linearizable: bool,
    #[serde(flatten)]
    verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { calls, executed, unknown, keys, violations } = &self.verdict;
        writeln!(
            formatter,
            "calls         {calls}: {executed} executed, {unknown} of unknown outcome, on {keys} keys"
        )?;
        for violation in violations {
            writeln!(formatter, "violation     {violation}")?;
        }
        write!(formatter, "linearizable  {}", if self.is_linearizable { "yes" } else { "NO" })
    }
}
