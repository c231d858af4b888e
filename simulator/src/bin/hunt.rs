//! Plays seeds until one fails, or scenario files: what planted bugs are hunted with, in a scratch copy of the sources.
//!
//! `hunt FIRST..LAST [--replicas N] [--attack A] [--faults F] [--all]` prints one line of JSON: how many seeds were played,
//! and the first that failed, with the invariant; with `--all`, every seed is played and every failure listed.
//! `hunt FILE.json …` plays these scenarios, all of them, and lists every one that fails.

use core::ops::Range;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use quorate_simulator::campaign::{Choice, Schedule, draw};
use quorate_simulator::play::{Watch, play};
use quorate_simulator::scenario::Scenario;
use serde_json::{Value, json};

/// What is played.
enum Game {
    Seeds { seeds: Range<u64>, choice: Choice, plays_all: bool },
    Files(Vec<String>),
}

/// What came of it.
#[derive(Default)]
struct Tally {
    played: u64,
    steps: u64,
    delivered: u64,
    violations: Vec<Value>,
}

impl Tally {
    /// Plays a scenario, which the report calls `name`: whether all was well.
    fn play(&mut self, scenario: &Scenario, key: &str, name: Value) -> Result<bool, String> {
        let outcome = play(scenario, Watch::default()).map_err(|error| format!("{key} {name}: {error}"))?;
        self.played += 1;
        self.steps += outcome.counts.steps;
        self.delivered += outcome.counts.delivered;
        let Some(complaint) = outcome.failure else { return Ok(true) };
        let account = complaint.to_string();
        let message = account.lines().next().unwrap_or_default();
        self.violations.push(json!({ key: name, "invariant": complaint.name(), "message": message }));
        Ok(false)
    }
}

fn game() -> Result<Game, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let first = words.first().ok_or("say which seeds: hunt 0..1000; or which scenarios: hunt FILE.json …")?;
    if Path::new(first).extension() == Some("json".as_ref()) { Ok(Game::Files(words)) } else { seeds(&words) }
}

fn seeds(words: &[String]) -> Result<Game, String> {
    let (first, last) = words[0].split_once("..").ok_or("write the seeds as FIRST..LAST")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    let (mut choice, mut plays_all) = (Choice::default(), false);
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        if word == "--all" {
            plays_all = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
        match word.as_str() {
            "--replicas" => choice.replicas = Some(value.parse().map_err(|error| format!("{error}"))?),
            "--attack" => choice.attack = Some(value.clone()),
            "--faults" => choice.faults = Some(value.parse::<Schedule>().map_err(|error| error.to_string())?),
            _ => return Err(format!("`{word}` means nothing here")),
        }
    }
    Ok(Game::Seeds { seeds: number(first)?..number(last)?, choice, plays_all })
}

fn hunt() -> Result<bool, String> {
    let game = game()?;
    // A replica that panics is a find like others: what was played is in the line that is printed.
    std::panic::set_hook(Box::new(|_| {}));
    let mut tally = Tally::default();
    let began = Instant::now();
    let unit = match game {
        Game::Seeds { seeds, choice, plays_all } => {
            for seed in seeds {
                if !tally.play(&draw(seed, &choice), "seed", json!(seed))? && !plays_all {
                    break;
                }
            }
            "seeds"
        }
        Game::Files(files) => {
            for file in files {
                let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
                let scenario = Scenario::from_json(&text).map_err(|error| format!("{file}: {error}"))?;
                tally.play(&scenario, "scenario", json!(file))?;
            }
            "scenarios"
        }
    };
    let Tally { played, steps, delivered, violations } = tally;
    let is_clean = violations.is_empty();
    let wall = began.elapsed().as_secs_f64();
    let line =
        json!({ unit: played, "steps": steps, "delivered": delivered, "wall_s": wall, "violations": violations });
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(is_clean)
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
