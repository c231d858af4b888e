//! `quorate replay`: a stopped replica's recorded inputs, fed to a fresh core.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::Output;
use crate::configuration::ReplicaConfiguration;
use crate::error::Exit;
use crate::replay::{self, Options};

/// Most steps that are shown at once.
const SHOWN_MAX: u64 = 10_000;

/// Feed what a stopped replica recorded to a fresh core, and compare what comes out
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate replay net/replica-0
  quorate replay net/replica-0 --start 2 --show 100..120 --until 120

The replica must have been started with --record, or with `on = true` in [recording] of its replica.toml. Inputs are \
counted from 1 in each start; 0 is the start itself. For a debugger: break on \
quorate_node::replay::player::before_last_input, run with --until N, and step into input N. docs/OPERATIONS.md says more.

Exit status: 0 if the same came out, 1 if something else did, or the recording is not whole.")]
pub(super) struct Arguments {
    /// The replica's folder, as `quorate init` made it: its key and its genesis are needed
    folder: PathBuf,
    /// A folder of recordings, if they are not where the replica wrote them
    #[arg(long, value_name = "FOLDER")]
    recording: Option<PathBuf>,
    /// Replay this start alone [default: all; with --until or --show the last]
    #[arg(long, value_name = "N")]
    start: Option<u64>,
    /// Feed no input after this one
    #[arg(long, value_name = "N")]
    until: Option<u64>,
    /// Show these inputs and what came of them
    #[arg(long, value_name = "FROM..TO")]
    show: Option<Shown>,
}

/// Inputs that are to be shown, the last one included.
#[derive(Debug, Clone)]
struct Shown(RangeInclusive<u64>);

impl FromStr for Shown {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no range of inputs: write the first and the last, as 100..120");
        let (first, last) = text.split_once("..").ok_or_else(refused)?;
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_not_a_number| refused());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(refused());
        }
        if last - first >= SHOWN_MAX {
            return Err(format!("`{text}` are more than {SHOWN_MAX} inputs: show fewer at once"));
        }
        Ok(Self(first..=last))
    }
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let files = ReplicaConfiguration::load(&arguments.folder)?;
    let options = Options {
        recording: arguments.recording.clone(),
        start: arguments.start,
        until: arguments.until,
        show: arguments.show.clone().map(|Shown(range)| range),
    };
    let mut steps = Vec::new();
    let is_json = output.is_json();
    let mut replayed = replay::replay(&files, &options, &mut |step| {
        if is_json {
            steps.push(step);
            return Ok(());
        }
        Ok(output.write(&format!("{step}\n"))?)
    })?;
    replayed.steps = steps;
    output.show(&replayed)?;
    Ok(if replayed.same { Exit::Done } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_inputs_has_both_its_ends_and_a_bound() {
        assert_eq!("0..3".parse::<Shown>().unwrap().0, 0..=3);
        assert_eq!("5..5".parse::<Shown>().unwrap().0, 5..=5);
        for text in ["5", "5..4", "a..b", "..", "0..10000"] {
            assert!(text.parse::<Shown>().is_err(), "{text}");
        }
        assert!("0..9999".parse::<Shown>().is_ok());
    }
}
