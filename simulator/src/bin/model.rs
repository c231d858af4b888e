//! The model check: explores the orders of events of a small cluster, and prints one line of JSON.
//!
//! `model [--slots N] [--views N] [--restarts N] [--states N] [--walked N] [--faulty 0..3] [--threads N]` checks each choice
//! of the faulty replica in turn, or the one that is asked for, with an equal share of the states. It fails if a property
//! does not hold. `is_complete` says whether all that can happen within the bounds did; if not, random walks through `walked`
//! states go on where the search gave up.

use std::io::Write as _;
use std::process::ExitCode;

use mimalloc::MiMalloc;
use quorate_protocol::number::ReplicaId;
use quorate_simulator::model::{Bounds, Counterexample, Report, check};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

struct Arguments {
    bounds: Bounds,
    faulty: Vec<u8>,
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn arguments() -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bounds = Bounds { slots: 1, views: 1, restarts: 0, states: 2_000_000, walked: 200_000, threads };
    let mut arguments = Arguments { bounds, faulty: vec![0, 1, 2, 3] };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` wants a number"))?;
        let number: u64 = value.replace('_', "").parse().map_err(|error| format!("`{value}`: {error}"))?;
        let bounds = &mut arguments.bounds;
        match (word.as_str(), number) {
            ("--states", 1..) => bounds.states = index(number),
            ("--walked", _) => bounds.walked = index(number),
            ("--slots", 1..=2) => bounds.slots = number,
            ("--views", 1..=2) => bounds.views = number,
            ("--restarts", 0..=9) => bounds.restarts = number,
            ("--threads", 1..=64) => bounds.threads = index(number),
            ("--faulty", 0..=3) => arguments.faulty = u8::try_from(number).into_iter().collect(),
            _ => return Err(format!("`{word} {value}` means nothing here")),
        }
    }
    let shares = arguments.faulty.len();
    arguments.bounds.states = arguments.bounds.states.div_ceil(shares);
    arguments.bounds.walked = arguments.bounds.walked.div_ceil(shares);
    Ok(arguments)
}

fn run() -> Result<bool, String> {
    let Arguments { bounds, faulty } = arguments()?;
    let began = std::time::Instant::now();
    let mut reports: Vec<Report> = Vec::new();
    for id in faulty {
        let report = check(ReplicaId::new(id), bounds);
        let is_bad = !report.violations.is_empty();
        reports.push(report);
        if is_bad {
            break;
        }
    }
    let violations: Vec<Counterexample> =
        reports.iter_mut().flat_map(|report| core::mem::take(&mut report.violations)).collect();
    let sum = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    let line = serde_json::json!({
        "states": sum(|report| report.states),
        "unique": sum(|report| report.unique),
        "depth": reports.iter().map(|report| report.depth).max(),
        "walked": sum(|report| report.walked),
        "is_complete": reports.iter().all(|report| report.is_complete),
        "wall_s": began.elapsed().as_secs_f64(),
        "violations": violations,
        "runs": reports,
    });
    let is_good = violations.is_empty();
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(is_good)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            drop(writeln!(std::io::stderr(), "error: {error}"));
            ExitCode::from(2)
        }
    }
}
