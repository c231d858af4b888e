//! `quorate simulate`: whole clusters in simulated time, from seeds or from a file. (Feature `lab`.)

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_simulator::campaign::{Choice, Schedule, Summary, draw};
use quorate_simulator::marks::Mark;
use quorate_simulator::play::{Outcome, Watch, play};
use quorate_simulator::scenario::{Scenario, ScenarioError};
use quorate_simulator::shrink::shrink;
use quorate_simulator::span::Span;
use serde::Serialize;

use super::Output;
use crate::error::{Exit, Problem};

/// Happenings before a failure that its account lists.
const HISTORY: usize = 60;

/// Scenarios that are played to make a failing one smaller.
const SHRINK_PLAYS: u32 = 1_000;

/// Simulate whole clusters in one thread each, with faults, attackers and checks of every invariant
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quorate simulate --seeds 0..1000
  quorate simulate --seeds 0..500 --replicas 7 --attack equivocate --faults partition-half
  quorate simulate --seed 17 --trace run.html
  quorate simulate --scenario suspicion.json

The same seed gives the same run on every machine. Each run has a phase in which anything goes wrong, and then one in
which every call must be answered in time. The first seed that fails ends the campaign: it is made smaller and written as a
scenario file, in the folder of --out. With --json stdout is one object. docs/simulator.md says how to write a scenario, simulator/scenarios has
examples.

Exit status: 0 if every invariant held, 1 if one did not.")]
pub(super) struct Arguments {
    /// Seeds to play, the last one left out
    #[arg(long, value_name = "FIRST..LAST", required_unless_present_any = ["seed", "scenario"])]
    seeds: Option<Seeds>,
    /// One seed to play, and to tell about
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A written scenario to play instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "replicas", "attack", "faults", "duration"])]
    scenario: Option<PathBuf>,
    /// Replicas of every cluster, instead of 4, 5, 6, 7 and 10 in turns
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(4..=31))]
    replicas: Option<u8>,
    /// What up to a third of the replicas do, instead of anything: names of attacks, or `none`
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,
    /// What goes wrong around them, instead of anything
    #[arg(long, value_name = "NAME")]
    faults: Option<Schedule>,
    /// Play clusters of stores that answer reads without ordering them; else some are
    #[arg(long)]
    fast_reads: bool,
    /// How long things go wrong in each run, in simulated time
    #[arg(long, value_name = "DURATION")]
    duration: Option<Span>,
    /// Draw the run in space and time as a page that a browser shows
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    trace: Option<PathBuf>,
    /// Runs at a time [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Where to write scenarios of what failed
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
}

/// A range of seeds.
#[derive(Debug, Clone)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("`{text}` is no range of seeds: write the first and the one after the last, as 0..1000");
        let (first, last) = text.split_once("..").ok_or_else(refused)?;
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_not_a_number| refused());
        let range = number(first)?..number(last)?;
        if range.is_empty() { Err(refused()) } else { Ok(Self(range)) }
    }
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let choice = Choice {
        replicas: arguments.replicas,
        attack: arguments.attack.clone(),
        faults: arguments.faults,
        duration: arguments.duration,
        signatures: None,
        fast_reads: arguments.fast_reads,
    };
    quiet_panics();
    let began = Instant::now();
    let (summary, failures) = if let Some(Seeds(seeds)) = &arguments.seeds {
        play_seeds(seeds.clone(), &choice, arguments.jobs)?
    } else {
        play_one(&arguments, &choice, output)?
    };
    let mut report = Report::new(&summary, began.elapsed().as_secs_f64());
    for (scenario, outcome) in failures {
        report.violations.push(look_into(&scenario, &outcome, &arguments.out)?);
    }
    let exit = if report.violations.is_empty() { Exit::Done } else { Exit::Failed };
    output.show(&report)?;
    Ok(exit)
}

/// A replica that loses an invariant of its own panics: that is a find like others, and told like others.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

type Failures = Vec<(Scenario, Outcome)>;

fn play_one(arguments: &Arguments, choice: &Choice, output: &Output) -> anyhow::Result<(Summary, Failures)> {
    let scenario = match &arguments.scenario {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            Scenario::from_json(&text).map_err(|error| refused(arguments.scenario.as_deref(), &error))?
        }
        None => draw(arguments.seed.unwrap_or_default(), choice),
    };
    let watch = Watch { history: HISTORY, is_traced: arguments.trace.is_some(), ..Watch::default() };
    let outcome = play(&scenario, watch).map_err(|error| refused(arguments.scenario.as_deref(), &error))?;
    if let (Some(file), Some(page)) = (&arguments.trace, &outcome.page) {
        fs::write(file, page).with_context(|| format!("writing {}", file.display()))?;
        if !output.is_json() {
            tracing::info!("drew the run in {}: open it in a browser", file.display());
        }
    }
    let mut summary = Summary::default();
    let failures = if outcome.failure.is_some() { vec![(scenario.clone(), outcome.clone())] } else { Vec::new() };
    summary.add(scenario.seed, &scenario, outcome);
    Ok((summary, failures))
}

/// What cannot be played, with the file that it stands in and the way out.
fn refused(file: Option<&Path>, error: &ScenarioError) -> Problem {
    match file {
        Some(file) => Problem::failed(format!("{}: {error}", file.display()), error.mend()),
        None => Problem::usage(error.to_string(), error.mend()),
    }
}

/// Plays seeds on several threads, until all are played or one failed.
fn play_seeds(seeds: Range<u64>, choice: &Choice, jobs: Option<usize>) -> anyhow::Result<(Summary, Failures)> {
    // What is wrong with the choice is found before any thread starts.
    play(&draw(seeds.start, choice), Watch::default()).map_err(|error| refused(None, &error))?;
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let (next, is_over) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let total = Mutex::new(Ok((Summary::default(), Failures::new())));
    let bar = progress(seeds.end - seeds.start);
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let scenario = draw(seed, choice);
            let played = play(&scenario, Watch::default());
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            match (played, &mut *total) {
                (Ok(outcome), Ok((summary, failures))) => {
                    if outcome.failure.is_some() {
                        is_over.store(true, Ordering::Relaxed);
                        failures.push((scenario.clone(), outcome.clone()));
                    }
                    summary.add(seed, &scenario, outcome);
                    bar.inc(1);
                }
                // A seed that is not played must not pass for one without a failure.
                (Err(error), Ok(_)) => {
                    is_over.store(true, Ordering::Relaxed);
                    *total = Err(error);
                }
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _job in 0..jobs {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (summary, mut failures) = total.map_err(|error| refused(None, &error))?;
    failures.sort_by_key(|(scenario, _)| scenario.seed);
    Ok((summary, failures))
}

fn progress(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_error| ProgressStyle::default_bar()));
    bar
}

/// Makes a failing scenario smaller, writes it down, and tells what happened in it.
fn look_into(scenario: &Scenario, outcome: &Outcome, folder: &Path) -> anyhow::Result<Violated> {
    let Some(complaint) = &outcome.failure else { bail!("seed {} did not fail", scenario.seed) };
    let name = complaint.name();
    tracing::info!("seed {} fails ({name}): making it smaller", scenario.seed);
    let small = shrink(scenario, &name, SHRINK_PLAYS).scenario;
    let file = folder.join(format!("seed-{}-{}.json", scenario.seed, name.to_lowercase()));
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    fs::write(&file, small.to_json()).with_context(|| format!("writing {}", file.display()))?;
    let again = play(&small, Watch { history: HISTORY, ..Watch::default() })?;
    let account = again.failure.as_ref().unwrap_or(complaint).to_string();
    Ok(Violated {
        invariant: name,
        seed: scenario.seed,
        step: again.counts.steps,
        message: account.lines().next().unwrap_or_default().to_owned(),
        account,
        scenario: file.display().to_string(),
        steps_left: small.steps.len(),
    })
}

/// What a campaign came to.
#[derive(Debug, Serialize)]
struct Report {
    seeds: u64,
    steps: u64,
    delivered: u64,
    simulated_s: f64,
    wall_s: f64,
    faults: BTreeMap<String, u64>,
    /// How often correct replicas came into each situation that a rule is for.
    marks: BTreeMap<String, u64>,
    executed: u64,
    violations: Vec<Violated>,
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-9)
}

/// An invariant that did not hold.
#[derive(Debug, Serialize)]
struct Violated {
    invariant: String,
    seed: u64,
    step: u64,
    message: String,
    scenario: String,
    #[serde(skip)]
    account: String,
    #[serde(skip)]
    steps_left: usize,
}

impl Report {
    fn new(summary: &Summary, wall_s: f64) -> Self {
        Self {
            seeds: summary.seeds,
            steps: summary.steps,
            delivered: summary.delivered,
            simulated_s: summary.simulated.as_secs_f64(),
            wall_s,
            faults: summary.faults.clone(),
            marks: Mark::all().map(|mark| (mark.to_string(), summary.marks.count(mark))).collect(),
            executed: summary.executed,
            violations: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, steps, delivered, simulated_s, wall_s, executed, .. } = self;
        writeln!(formatter, "seeds       {seeds} in {wall_s:.1} s, {:.0} a second", rate(*seeds, *wall_s))?;
        writeln!(formatter, "simulated   {simulated_s:.0} s, {:.0} times real time", simulated_s / wall_s.max(1e-9))?;
        writeln!(formatter, "happened    {steps} steps, {delivered} messages delivered, {executed} slots executed")?;
        write!(formatter, "injected   ")?;
        for (name, count) in self.faults.iter().filter(|(name, _)| !name.starts_with("attack-")) {
            write!(formatter, " {name} {count}")?;
        }
        let attacks: u64 =
            self.faults.iter().filter(|(name, _)| name.starts_with("attack-")).map(|(_, count)| count).sum();
        writeln!(formatter, "\nattackers   {attacks}")?;
        let reached = self.marks.values().filter(|count| **count > 0).count();
        writeln!(formatter, "reached     {reached} of {} marks", self.marks.len())?;
        for violated in &self.violations {
            let Violated { account, scenario, steps_left, .. } = violated;
            writeln!(formatter, "\n{account}\n\nmade smaller, {steps_left} steps are left: {scenario}")?;
        }
        match self.violations.len() {
            0 => write!(formatter, "violations  none"),
            count => write!(formatter, "violations  {count}"),
        }
    }
}
