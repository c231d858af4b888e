//! `quorate attacks --matrix`: every attack against a live testnet under load, beside a run without faults. (Feature `lab`.)

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::runtime;

use super::siege::{ATTACKER, REPLICAS, Siege};
use crate::cli::Output;
use crate::cli::signals::StopSignals;
use crate::error::{Exit, Problem};

/// Plays the attacks one after the other, each in a testnet of its own.
pub(super) fn run(attacks: &[&str], each: Duration, rounds: u8, output: &mut Output) -> anyhow::Result<Exit> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let matrix = runtime.block_on(async {
        let mut signals = StopSignals::listen().context("cannot listen for signals")?;
        tokio::select! {
            matrix = play(attacks, each, rounds) => matrix,
            signal = signals.next() => {
                Err(Problem::failed(format!("{signal}: the matrix is not whole"), "let it run to its end").into())
            }
        }
    })?;
    output.show(&matrix)?;
    Ok(if matrix.holds { Exit::Done } else { Exit::Failed })
}

async fn play(attacks: &[&str], each: Duration, rounds: u8) -> anyhow::Result<Matrix> {
    let mut rows = Vec::new();
    for (index, attack) in attacks.iter().enumerate() {
        tracing::info!("{attack}, {} of {}", index + 1, attacks.len());
        let mut played = Vec::new();
        for _round in 0..rounds {
            played.push(Siege::begin().await?.play(attack, each).await?);
        }
        rows.extend(Row::of_rounds(played));
    }
    let holds = rows.iter().all(Row::holds);
    Ok(Matrix { replicas: REPLICAS, attacker: ATTACKER, each_s: each.as_secs_f64(), rounds, holds, rows })
}

/// All attacks.
#[derive(Debug, Serialize)]
struct Matrix {
    replicas: u8,
    /// Which replica plays: the primary of the first view.
    attacker: u8,
    /// How long each run is measured.
    each_s: f64,
    /// How often each attack was played.
    rounds: u8,
    /// Whether after each the correct replicas agree, and what clients saw is linearizable.
    holds: bool,
    rows: Vec<Row>,
}

/// What a run of load came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Measured {
    pub(super) operations_per_second: f64,
    pub(super) p99_ms: f64,
}

/// One attack, and runs without faults in the same testnet.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) attack: String,
    /// The run just before.
    pub(super) alone: Measured,
    /// How much of a processor the attacker took beyond what it took as a correct replica.
    pub(super) taken: f64,
    /// The run that is compared with: beside a loop that took as much, if that was much.
    pub(super) control: Measured,
    /// Nothing if no request was answered.
    pub(super) attacked: Option<Measured>,
    /// Of the control's; more than 1 if it was faster.
    pub(super) throughput_share: f64,
    /// The same of the latency's 99th percentile.
    pub(super) p99_share: Option<f64>,
    /// Longest time without any answer.
    pub(super) silence_ms: Option<f64>,
    /// The longest time in which less than half of what the control does was answered; null if that was so at the end still.
    pub(super) recovered_ms: Option<u64>,
    /// Views that the correct replicas passed.
    pub(super) view_changes: u64,
    /// Against whom a correct replica holds a proof.
    pub(super) evidence: Vec<u64>,
    /// Whether the correct replicas came to the same state once the attack was over.
    pub(super) roots_equal: bool,
    /// Whether what clients saw meanwhile is linearizable.
    pub(super) linearizable: bool,
}

impl Row {
    /// The round with the median throughput, with what was found in any.
    fn of_rounds(mut rounds: Vec<Self>) -> Option<Self> {
        rounds.sort_by(|left, right| left.throughput_share.total_cmp(&right.throughput_share));
        let median = rounds.get(rounds.len() / 2)?.clone();
        let evidence: BTreeSet<u64> = rounds.iter().flat_map(|row| row.evidence.iter().copied()).collect();
        Some(Self {
            evidence: evidence.into_iter().collect(),
            roots_equal: rounds.iter().all(|row| row.roots_equal),
            linearizable: rounds.iter().all(|row| row.linearizable),
            attacked: if rounds.iter().all(|row| row.attacked.is_some()) { median.attacked } else { None },
            ..median
        })
    }

    /// Nothing that is promised was broken, and nobody but the attacker is accused.
    fn holds(&self) -> bool {
        let is_fair = self.evidence.iter().all(|accused| *accused == u64::from(ATTACKER));
        self.roots_equal && self.linearizable && is_fair && self.attacked.is_some()
    }
}

/// The columns, with their widths.
const COLUMNS: [(&str, usize); 10] = [
    ("attack", 21),
    ("takes", 7),
    ("throughput", 11),
    ("p99", 8),
    ("silence", 9),
    ("recovered", 10),
    ("views", 6),
    ("evidence", 10),
    ("roots", 7),
    ("history", 0),
];

impl fmt::Display for Matrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |cells: [String; 10]| {
            let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:<width$}"));
            padded.collect::<String>().trim_end().to_owned()
        };
        writeln!(formatter, "{}", line(COLUMNS.map(|(title, _)| title.to_owned())))?;
        for row in &self.rows {
            writeln!(formatter, "{}", line(row.cells()))?;
        }
        let alone = median(self.rows.iter().map(|row| row.alone.operations_per_second).collect());
        let latency = median(self.rows.iter().map(|row| row.alone.p99_ms).collect());
        let Self { replicas, attacker, each_s, rounds, holds, .. } = self;
        writeln!(
            formatter,
            "without: {alone:.0} operations/s, p99 {latency:.0} ms (medians); replica {attacker} of {replicas} attacks, each run {each_s} s, rounds: {rounds}"
        )?;
        write!(formatter, "{}", if *holds { "nothing that is promised was broken" } else { "A PROMISE WAS BROKEN" })
    }
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let yes = |is: bool, what: &str| if is { what.to_owned() } else { format!("NOT {what}") };
        let evidence: Vec<String> = self.evidence.iter().map(ToString::to_string).collect();
        let share = |share: f64| format!("{:.0} %", share * 100.0);
        [
            self.attack.clone(),
            share(self.taken),
            share(self.throughput_share),
            self.p99_share.map_or_else(|| "-".to_owned(), |share| format!("x {share:.1}")),
            self.silence_ms.map_or_else(|| "-".to_owned(), |silence| format!("{silence:.0} ms")),
            self.recovered_ms.map_or_else(|| "no".to_owned(), |recovered| format!("{recovered} ms")),
            self.view_changes.to_string(),
            if evidence.is_empty() { "-".to_owned() } else { format!("against {}", evidence.join(", ")) },
            yes(self.roots_equal, "equal"),
            yes(self.linearizable, "linearizable"),
        ]
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let control = Measured { operations_per_second: 1000.0, p99_ms: 10.0 };
        Row {
            attack: "silent".to_owned(),
            alone: control,
            taken: 0.25,
            control,
            attacked: Some(Measured { operations_per_second: 500.0, p99_ms: 25.0 }),
            throughput_share: 0.5,
            p99_share: Some(2.5),
            silence_ms: Some(300.0),
            recovered_ms: Some(400),
            view_changes: 1,
            evidence: vec![0],
            roots_equal: true,
            linearizable: true,
        }
    }

    #[test]
    fn a_row_holds_unless_a_promise_is_broken_or_a_correct_replica_is_accused() {
        assert!(row().holds());
        assert!(!Row { roots_equal: false, ..row() }.holds());
        assert!(!Row { linearizable: false, ..row() }.holds());
        assert!(!Row { evidence: vec![0, 2], ..row() }.holds());
        assert!(!Row { attacked: None, ..row() }.holds());
        assert!(Row { recovered_ms: None, evidence: Vec::new(), ..row() }.holds());
    }

    #[test]
    fn the_table_has_a_line_for_each_attack() {
        let rows = vec![row(), Row { roots_equal: false, p99_share: None, ..row() }];
        let matrix = Matrix { replicas: REPLICAS, attacker: ATTACKER, each_s: 5.0, rounds: 1, holds: false, rows };
        let text = matrix.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("silent               25 %   50 %       x 2.5   300 ms"), "{text}");
        assert!(lines[2].contains("NOT equal"), "{text}");
        assert!(lines[3].starts_with("without: 1000 operations/s, p99 10 ms") && lines.len() == 5, "{text}");
    }

    #[test]
    fn of_several_rounds_the_median_is_shown_and_promises_hold_in_all() {
        let round = |throughput_share, roots_equal| Row { throughput_share, roots_equal, ..row() };
        let shown = |rounds| Row::of_rounds(rounds).expect("there are rounds");
        let all = shown(vec![round(0.9, true), round(0.2, true), round(0.7, true)]);
        assert!(all.holds() && (all.throughput_share - 0.7).abs() < f64::EPSILON);
        assert!(!shown(vec![round(0.9, true), round(0.2, false), round(0.7, true)]).holds());
        let accusing = Row { evidence: vec![2], ..row() };
        assert_eq!(shown(vec![row(), accusing]).evidence, [0, 2]);
        let unanswered = Row { attacked: None, throughput_share: 0.0, ..row() };
        assert!(!shown(vec![row(), unanswered, row()]).holds());
        assert!(Row::of_rounds(Vec::new()).is_none());
    }
}
