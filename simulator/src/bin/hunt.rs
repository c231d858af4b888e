//! Plays seeds until one fails: what the planted bugs are hunted with, in a scratch copy of the sources.
//!
//! `hunt FIRST..LAST [--replicas N] [--attack A] [--faults F] [--threads N] [--all]` prints one line of JSON: how many
//! seeds were played, and the first that failed, with the invariant; with `--all`, every seed is played and every failure
//! listed. `--trace FILE` draws the last one played, as it is, without making it smaller. What it says does not depend on the number of threads, which is that of the processors if none is given.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mimalloc::MiMalloc;

use quorate_simulator::campaign::{Choice, Schedule, draw};
use quorate_simulator::play::{Complaint, Watch, play};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

struct Arguments {
    seeds: core::ops::Range<u64>,
    choice: Choice,
    threads: usize,
    trace: Option<String>,
    plays_all: bool,
}

/// What came of one seed.
struct Played {
    seed: u64,
    steps: u64,
    delivered: u64,
    fingerprint: u64,
    failure: Option<Complaint>,
}

fn arguments() -> Result<Arguments, String> {
    let mut words = std::env::args().skip(1);
    let seeds = words.next().ok_or("say which seeds: hunt 0..1000")?;
    let (first, last) = seeds.split_once("..").ok_or("write the seeds as FIRST..LAST")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    let mut arguments = Arguments {
        seeds: number(first)?..number(last)?,
        choice: Choice::default(),
        threads: 0,
        trace: None,
        plays_all: false,
    };
    while let Some(word) = words.next() {
        if word == "--all" {
            arguments.plays_all = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
        match word.as_str() {
            "--replicas" => arguments.choice.replicas = Some(value.parse().map_err(|error| format!("{error}"))?),
            "--trace" => arguments.trace = Some(value),
            "--threads" => arguments.threads = value.parse().map_err(|error| format!("{error}"))?,
            "--attack" => arguments.choice.attack = Some(value),
            "--faults" => {
                arguments.choice.faults = Some(value.parse::<Schedule>().map_err(|error| error.to_string())?);
            }
            _ => return Err(format!("`{word}` means nothing here")),
        }
    }
    Ok(arguments)
}

/// Takes seeds from `next` on, until they are all taken or one below them failed.
fn work(arguments: &Arguments, next: &AtomicU64, failed: &AtomicU64) -> Result<Vec<Played>, String> {
    let mut played = Vec::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= arguments.seeds.end || (!arguments.plays_all && seed > failed.load(Ordering::Relaxed)) {
            return Ok(played);
        }
        let watch = Watch { is_traced: arguments.trace.is_some(), ..Watch::default() };
        let outcome = play(&draw(seed, &arguments.choice), watch);
        let outcome = outcome.map_err(|error| format!("seed {seed}: {error}"))?;
        if let Some((file, page)) = arguments.trace.as_ref().zip(outcome.page) {
            std::fs::write(file, page).map_err(|error| format!("{file}: {error}"))?;
        }
        let (steps, delivered) = (outcome.counts.steps, outcome.counts.delivered);
        if outcome.failure.is_some() {
            failed.fetch_min(seed, Ordering::Relaxed);
        }
        let fingerprint = outcome.fingerprint;
        played.push(Played { seed, steps, delivered, fingerprint, failure: outcome.failure });
    }
}

fn play_all(arguments: &Arguments) -> Result<Vec<Played>, String> {
    let (next, failed) = (AtomicU64::new(arguments.seeds.start), AtomicU64::new(u64::MAX));
    let count =
        if arguments.threads > 0 { arguments.threads } else { thread::available_parallelism().map_or(1, usize::from) };
    let mut played = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| work(arguments, &next, &failed))).collect();
        let parts = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        parts.collect::<Result<Vec<_>, String>>()
    })?
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    played.sort_unstable_by_key(|played| played.seed);
    // Seeds beyond the first that failed were begun before it was known.
    if !arguments.plays_all {
        let first = failed.load(Ordering::Relaxed);
        played.retain(|played| played.seed <= first);
    }
    Ok(played)
}

fn hunt() -> Result<bool, String> {
    let arguments = arguments()?;
    // A replica that panics is a find like others: its seed is in the line that is printed.
    std::panic::set_hook(Box::new(|_| {}));
    let began = std::time::Instant::now();
    let all = play_all(&arguments)?;
    let (steps, delivered) = (all.iter().map(|played| played.steps), all.iter().map(|played| played.delivered));
    let (played, steps, delivered) = (all.len(), steps.sum::<u64>(), delivered.sum::<u64>());
    // Stands for all the runs: equal only if each of them is equal, step by step.
    let fold =
        |sum: u64, played: &Played| (sum.rotate_left(7) ^ played.fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fingerprint = format!("{:016x}", all.iter().fold(0, fold));
    let failures = all.into_iter().filter_map(|played| Some((played.seed, played.failure?)));
    let failures: Vec<(u64, Complaint)> = failures.collect();
    let failed: Vec<serde_json::Value> = failures
        .iter()
        .map(|(seed, complaint)| {
            let account = complaint.to_string();
            let message = account.clone();
            serde_json::json!({ "seed": seed, "invariant": complaint.name(), "message": message })
        })
        .collect();
    let wall = began.elapsed().as_secs_f64();
    let line = serde_json::json!({
        "seeds": played, "fingerprint": fingerprint, "steps": steps, "delivered": delivered, "wall_s": wall, "violations": failed
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
