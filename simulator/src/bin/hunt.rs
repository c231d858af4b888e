//! Plays seeds until one fails, or scenario files: what planted bugs are hunted with, in a scratch copy of the sources.
//!
//! `hunt FIRST..LAST [--replicas N] [--attack A] [--faults F] [--real-signatures] [--fast-reads] [--threads N] [--trace FILE]
//! [--all] [--marks]` prints one line of JSON: how many seeds were played, and the first that failed, with the invariant; with `--all`, every seed is played and every
//! failure listed; with `--marks`, it fails if correct replicas never came into a situation that they are to come into, and
//! lists how often they came into each. What it says does not depend on the number of threads, which is that of the processors if none is given.
//! `--trace` draws the seed that was played last, as it is. `hunt FILE.json …` plays these scenarios, all of them, and lists
//! every one that fails.

use core::ops::Range;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use mimalloc::MiMalloc;
use quorate_simulator::campaign::{Choice, Schedule, draw};
use quorate_simulator::marks::{Mark, Marks};
use quorate_simulator::play::{Complaint, Outcome, Watch, play};
use quorate_simulator::scenario::Scenario;
use quorate_simulator::signature::Scheme;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What is played.
enum Game {
    Seeds(Campaign),
    Files(Vec<String>),
}

struct Campaign {
    seeds: Range<u64>,
    choice: Choice,
    threads: usize,
    trace: Option<String>,
    plays_all: bool,
    demands_marks: bool,
}

/// What came of one run.
struct Played {
    name: Value,
    order: u64,
    steps: u64,
    delivered: u64,
    fingerprint: u64,
    marks: Marks,
    failure: Option<Complaint>,
}

impl Played {
    fn new(name: Value, order: u64, outcome: Outcome) -> Self {
        let Outcome { counts, fingerprint, marks, failure, .. } = outcome;
        Self { name, order, steps: counts.steps, delivered: counts.delivered, fingerprint, marks, failure }
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
    let seeds = number(first)?..number(last)?;
    let mut game =
        Campaign { seeds, choice: Choice::default(), threads: 0, trace: None, plays_all: false, demands_marks: false };
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--all" => game.plays_all = true,
            "--marks" => game.demands_marks = true,
            "--fast-reads" => game.choice.fast_reads = true,
            "--real-signatures" => game.choice.signatures = Some(Scheme::Ed25519),
            _ => {
                let value = words.next().ok_or_else(|| format!("`{word}` wants a value, or means nothing here"))?;
                take(word, value, &mut game)?;
            }
        }
    }
    Ok(Game::Seeds(game))
}

fn take(word: &str, value: &str, game: &mut Campaign) -> Result<(), String> {
    match word {
        "--replicas" => game.choice.replicas = Some(value.parse().map_err(|error| format!("{error}"))?),
        "--attack" => game.choice.attack = Some(value.to_owned()),
        "--faults" => game.choice.faults = Some(value.parse::<Schedule>().map_err(|error| error.to_string())?),
        "--threads" => game.threads = value.parse().map_err(|error| format!("{error}"))?,
        "--trace" => game.trace = Some(value.to_owned()),
        _ => return Err(format!("`{word}` means nothing here")),
    }
    Ok(())
}

/// Takes seeds from `next` on, until they are all taken or one below them failed.
fn work(game: &Campaign, next: &AtomicU64, failed: &AtomicU64) -> Result<Vec<Played>, String> {
    let watch = Watch { is_traced: game.trace.is_some(), ..Watch::default() };
    let mut played = Vec::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= game.seeds.end || (!game.plays_all && seed > failed.load(Ordering::Relaxed)) {
            return Ok(played);
        }
        let mut outcome = play(&draw(seed, &game.choice), watch).map_err(|error| format!("seed {seed}: {error}"))?;
        if let Some((file, page)) = game.trace.as_ref().zip(outcome.page.take()) {
            std::fs::write(file, page).map_err(|error| format!("{file}: {error}"))?;
        }
        if outcome.failure.is_some() {
            failed.fetch_min(seed, Ordering::Relaxed);
        }
        played.push(Played::new(json!(seed), seed, outcome));
    }
}

fn play_seeds(game: &Campaign) -> Result<Vec<Played>, String> {
    let (next, failed) = (AtomicU64::new(game.seeds.start), AtomicU64::new(u64::MAX));
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let count = if game.threads > 0 { game.threads } else { processors() };
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| work(game, &next, &failed))).collect();
        let parts = threads.into_iter().map(|thread| thread.join().map_err(|_panic| "a thread panicked".to_owned())?);
        parts.collect::<Result<Vec<_>, String>>()
    })?;
    let mut played: Vec<Played> = parts.into_iter().flatten().collect();
    played.sort_unstable_by_key(|played| played.order);
    // Seeds beyond the first that failed were begun before it was known.
    if !game.plays_all {
        let first = failed.load(Ordering::Relaxed);
        played.retain(|played| played.order <= first);
    }
    Ok(played)
}

fn play_file(file: &str) -> Result<Played, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let scenario = Scenario::from_json(&text).map_err(|error| format!("{file}: {error}"))?;
    let outcome = play(&scenario, Watch::default()).map_err(|error| format!("{file}: {error}"))?;
    Ok(Played::new(json!(file), 0, outcome))
}

fn hunt() -> Result<bool, String> {
    let game = game()?;
    // A replica that panics is a find like others: what was played is in the line that is printed.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let (units, unit, all) = match &game {
        Game::Seeds(seeds) => ("seeds", "seed", play_seeds(seeds)?),
        Game::Files(files) => {
            ("scenarios", "scenario", files.iter().map(|file| play_file(file)).collect::<Result<_, _>>()?)
        }
    };
    let wall = began.elapsed().as_secs_f64();
    // Stands for all the runs: equal only if each of them is equal, step by step.
    let fold =
        |sum: u64, played: &Played| (sum.rotate_left(7) ^ played.fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let fingerprint = format!("{:016x}", all.iter().fold(0, fold));
    let (steps, delivered) = (all.iter().map(|played| played.steps), all.iter().map(|played| played.delivered));
    let (steps, delivered) = (steps.sum::<u64>(), delivered.sum::<u64>());
    let failed = all.iter().filter_map(|played| Some((&played.name, played.failure.as_ref()?)));
    let violations: Vec<Value> = failed
        .map(|(name, complaint)| json!({ unit: name, "invariant": complaint.name(), "message": complaint.to_string() }))
        .collect();
    let mut marks = Marks::default();
    for played in &all {
        marks.merge(&played.marks);
    }
    let demands_marks = matches!(&game, Game::Seeds(Campaign { demands_marks: true, .. }));
    let missed: Vec<String> = marks.missed().filter(|_| demands_marks).map(|mark| mark.to_string()).collect();
    let reached = demands_marks
        .then(|| Mark::all().map(|mark| (mark.to_string(), marks.count(mark))).collect::<BTreeMap<_, _>>());
    let line = json!({
        units: all.len(), "fingerprint": fingerprint, "steps": steps, "delivered": delivered, "wall_s": wall,
        "violations": violations, "marks": reached, "missed": missed
    });
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(violations.is_empty() && missed.is_empty())
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
