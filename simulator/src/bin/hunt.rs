//! Plays seeds until one fails: what the planted bugs are hunted with, in a scratch copy of the sources.
//!
//! `hunt FIRST..LAST [--replicas N] [--attack A] [--faults F] [--all]` prints one line of JSON: how many seeds were played,
//! and the first that failed, with the invariant; with `--all`, every seed is played and every failure listed.

use std::io::Write as _;
use std::process::ExitCode;

use quorate_simulator::campaign::{Choice, Schedule, draw};
use quorate_simulator::play::{Complaint, Watch, play};

struct Arguments {
    seeds: core::ops::Range<u64>,
    choice: Choice,
    plays_all: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut words = std::env::args().skip(1);
    let seeds = words.next().ok_or("say which seeds: hunt 0..1000")?;
    let (first, last) = seeds.split_once("..").ok_or("write the seeds as FIRST..LAST")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    let mut arguments = Arguments { seeds: number(first)?..number(last)?, choice: Choice::default(), plays_all: false };
    while let Some(word) = words.next() {
        if word == "--all" {
            arguments.plays_all = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
        match word.as_str() {
            "--replicas" => arguments.choice.replicas = Some(value.parse().map_err(|error| format!("{error}"))?),
            "--attack" => arguments.choice.attack = Some(value),
            "--faults" => {
                arguments.choice.faults = Some(value.parse::<Schedule>().map_err(|error| error.to_string())?);
            }
            _ => return Err(format!("`{word}` means nothing here")),
        }
    }
    Ok(arguments)
}

fn hunt() -> Result<bool, String> {
    let Arguments { seeds, choice, plays_all } = arguments()?;
    // A replica that panics is a find like others: its seed is in the line that is printed.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut played, mut steps, mut delivered, mut failures) = (0_u64, 0_u64, 0_u64, Vec::<(u64, Complaint)>::new());
    let began = std::time::Instant::now();
    for seed in seeds {
        let outcome = play(&draw(seed, &choice), Watch::default()).map_err(|error| format!("seed {seed}: {error}"))?;
        played += 1;
        steps += outcome.counts.steps;
        delivered += outcome.counts.delivered;
        if let Some(complaint) = outcome.failure {
            failures.push((seed, complaint));
            if !plays_all {
                break;
            }
        }
    }
    let failed: Vec<serde_json::Value> = failures
        .iter()
        .map(|(seed, complaint)| {
            let account = complaint.to_string();
            let message = account.lines().next().unwrap_or_default();
            serde_json::json!({ "seed": seed, "invariant": complaint.name(), "message": message })
        })
        .collect();
    let wall = began.elapsed().as_secs_f64();
    let line = serde_json::json!({
        "seeds": played, "steps": steps, "delivered": delivered, "wall_s": wall, "violations": failed
    });
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(failures.is_empty())
}

fn main() -> ExitCode {
    match hunt() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            drop(writeln!(std::io::stderr(), "error: {error}"));
            ExitCode::from(2)
        }
    }
}
