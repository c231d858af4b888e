//! Plays scenarios with twins, and prints one line of JSON.
//!
//! `twins --all` plays all 262,144 of them, `twins --sample N [--seed S]` so many, each another; `twins FIRST..LAST` those
//! with these numbers. `--threads N` plays them side by side. It fails if one of them does.

use std::io::Write as _;
use std::process::ExitCode;

use mimalloc::MiMalloc;
use quorate_simulator::twins::{Plan, SCENARIOS};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How far apart the scenarios of a sample are: no factor in common with their number, so none comes twice.
const STRIDE: u64 = 99_991;

const _: () = assert!(STRIDE % 2 == 1 && SCENARIOS.is_power_of_two());

/// Failures that are listed.
const LISTED_MAX: usize = 20;

struct Arguments {
    first: u64,
    count: u64,
    stride: u64,
    threads: u64,
}

/// What some scenarios came to.
#[derive(Default)]
struct Sum {
    scenarios: u64,
    delivered: u64,
    views_entered: u64,
    rounds_begun: u64,
    rounds_that_can_begin: u64,
    failures: Vec<(u64, String, String)>,
}

fn arguments() -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut arguments = Arguments { first: 0, count: 0, stride: 1, threads };
    let mut words = std::env::args().skip(1);
    let number = |text: &str| text.replace('_', "").parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    while let Some(word) = words.next() {
        if word == "--all" {
            arguments.count = SCENARIOS;
        } else if let Some((first, last)) = word.split_once("..") {
            arguments.first = number(first)?;
            arguments.count = number(last)?.min(SCENARIOS).saturating_sub(arguments.first);
        } else {
            let value = number(&words.next().ok_or_else(|| format!("`{word}` wants a number"))?)?;
            match word.as_str() {
                "--sample" => (arguments.count, arguments.stride) = (value.min(SCENARIOS), STRIDE),
                "--seed" => arguments.first = value % SCENARIOS,
                "--threads" => arguments.threads = value.max(1),
                _ => return Err(format!("`{word}` means nothing here")),
            }
        }
    }
    if arguments.count == 0 {
        return Err("say which: --all, --sample N or FIRST..LAST".to_owned());
    }
    Ok(arguments)
}

/// Plays every scenario that falls to one thread.
fn play(arguments: &Arguments, thread: u64) -> Sum {
    let mut sum = Sum::default();
    for index in (thread..arguments.count).step_by(usize::try_from(arguments.threads).unwrap_or(1)) {
        let number = (arguments.first + index * arguments.stride) % SCENARIOS;
        let plan = Plan::new(number);
        let outcome = plan.play();
        sum.scenarios += 1;
        sum.delivered += outcome.counts.delivered;
        sum.views_entered += outcome.counts.views_entered;
        sum.rounds_that_can_begin += plan.rounds_that_can_begin();
        sum.rounds_begun += u64::from(outcome.rounds_begun);
        if let Some(complaint) = outcome.complaint {
            let account = complaint.to_string();
            let line = account.lines().next().unwrap_or_default();
            sum.failures.push((number, complaint.name(), format!("{plan}: {line}")));
        }
    }
    sum
}

fn run() -> Result<bool, String> {
    let arguments = arguments()?;
    let began = std::time::Instant::now();
    let arguments = &arguments;
    let sums: Vec<Sum> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..arguments.threads).map(|thread| scope.spawn(move || play(arguments, thread))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let wall = began.elapsed();
    let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).max(1);
    let total = |count: fn(&Sum) -> u64| sums.iter().map(count).sum::<u64>();
    let mut failures: Vec<_> = sums.iter().flat_map(|sum| &sum.failures).collect();
    failures.sort();
    let listed: Vec<serde_json::Value> = failures
        .iter()
        .take(LISTED_MAX)
        .map(|(number, invariant, message)| {
            serde_json::json!({ "scenario": number, "invariant": invariant, "message": message })
        })
        .collect();
    let scenarios = total(|sum| sum.scenarios);
    let line = serde_json::json!({
        "scenarios": scenarios,
        "wall_s": wall.as_secs_f64(),
        "scenarios_per_s": scenarios * 1_000 / wall_ms,
        "delivered": total(|sum| sum.delivered),
        "views_entered": total(|sum| sum.views_entered),
        "rounds_that_can_begin": total(|sum| sum.rounds_that_can_begin),
        "rounds_begun": total(|sum| sum.rounds_begun),
        "failed": failures.len(),
        "violations": listed,
    });
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())?;
    Ok(failures.is_empty() && scenarios == arguments.count)
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
