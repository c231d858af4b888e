//! One attack of the matrix: a testnet as a process of its own, loaded and told what to play by this program's own commands.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use quorate_simulator::history::{Call, check, read};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader as AsyncBufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::matrix::{Measured, Row};
use super::spin::{Spin, processor_time};
use crate::error::Problem;

/// Replicas of the testnet.
pub(super) const REPLICAS: u8 = 4;

/// Who attacks: the primary of the first view.
pub(super) const ATTACKER: u8 = 0;

/// Longest that a testnet may take to start, or to stop.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Longest that a command may take beyond what it was asked for.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// Longest that the correct replicas may take to come to one state once an attack is over.
const AGREE_LIMIT: Duration = Duration::from_secs(30);

/// How long load is driven before the attack begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// What answers are counted in.
const BIN: Duration = Duration::from_millis(100);

/// So many of them in a row are looked at together.
const STRETCH: u8 = 5;

/// The load: few keys, so that their values are compared, and all kinds of operations.
const LOAD: [&str; 8] = ["--keys", "1000", "--reads", "20%", "--cas", "10%", "--deletes", "5%"];

/// What an attacker may take of a processor, beyond what a correct replica takes, before the run that it is compared with has a
/// loop beside it that takes as much.
const TAKEN_MAX: f64 = 0.05;

/// A testnet that is to be attacked.
pub(super) struct Siege {
    testnet: Child,
    /// The attacker's process.
    attacker: u64,
    net: PathBuf,
    scratch: TempDir,
}

/// What a run of load left.
struct Run {
    report: Option<Value>,
    history: PathBuf,
    /// How much of a processor the attacker took meanwhile.
    taken: f64,
}

impl Siege {
    /// Starts a testnet, in which nothing is wrong yet.
    pub(super) async fn begin() -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("quorate-matrix-").tempdir().context("making a folder")?;
        let mut command = program()?;
        command.args(["testnet", "--json", "--quiet", "--replicas"]).arg(REPLICAS.to_string());
        command.arg("--malicious").arg(format!("{ATTACKER}=none"));
        command.stdout(Stdio::piped());
        let mut testnet = command.spawn().context("starting a testnet")?;
        let said = testnet.stdout.take().context("a testnet has a stdout")?;
        let mut siege = Self { testnet, attacker: 0, net: PathBuf::new(), scratch };
        let mut line = String::new();
        let ready = AsyncBufReader::new(said);
        let mut ready = tokio::io::AsyncReadExt::take(ready, 1 << 20);
        timeout(START_LIMIT, ready.read_line(&mut line)).await.context("a testnet is not ready in time")??;
        let ready: Value = serde_json::from_str(&line).map_err(|_no_line| {
            Problem::failed("a testnet did not start", "see whether `quorate testnet --malicious 0=none` does")
        })?;
        siege.net = PathBuf::from(ready["dir"].as_str().unwrap_or_default());
        siege.attacker = ready["replicas"][usize::from(ATTACKER)]["pid"].as_u64().unwrap_or_default();
        Ok(siege)
    }

    /// Measures without faults, then with the attack, and looks at what came of it.
    pub(super) async fn play(mut self, attack: &str, each: Duration) -> anyhow::Result<Row> {
        let alone = self.load(each, "control").await?;
        let mut control = must_measure(&alone)?;
        let view_before = highest_view(&self.status().await?);
        let begin = async {
            sleep(WARM_UP).await;
            self.tell(&["start", &format!("{ATTACKER}={attack}")]).await
        };
        let (run, begun) = tokio::join!(self.load(each, "attacked"), begin);
        let (run, ()) = (run?, begun?);
        self.tell(&["stop"]).await?;
        let (roots_equal, last) = self.agree().await?;
        let taken = (run.taken - alone.taken).max(0.0);
        if taken > TAKEN_MAX {
            let _spin = Spin::begin(taken);
            control = must_measure(&self.load(each, "beside").await?)?;
        }
        let attacked = run.report.as_ref().map(measured);
        let calls = read_history(&run.history)?;
        let row = Row {
            attack: attack.to_owned(),
            alone: must_measure(&alone)?,
            taken,
            throughput_share: attacked
                .map_or(0.0, |attacked| attacked.operations_per_second / control.operations_per_second),
            p99_share: attacked.map(|attacked| attacked.p99_ms / control.p99_ms),
            silence_ms: run.report.as_ref().and_then(|report| report["longest_gap_ms"].as_f64()),
            recovered_ms: recovered_ms(&calls, control.operations_per_second),
            view_changes: highest_view(&last).saturating_sub(view_before),
            evidence: accused(&last),
            roots_equal,
            linearizable: check(&calls).violations.is_empty(),
            control,
            attacked,
        };
        self.end().await;
        Ok(row)
    }

    async fn load(&self, each: Duration, name: &str) -> anyhow::Result<Run> {
        let history = self.scratch.path().join(format!("{name}.jsonl"));
        let mut arguments: Vec<OsString> = vec!["bench".into(), "--quiet".into(), "--net".into()];
        arguments.push(self.client().into());
        arguments.extend(["--duration".into(), format!("{}ms", each.as_millis()).into()]);
        arguments.extend(["--warm-up".into(), format!("{}ms", WARM_UP.as_millis()).into()]);
        arguments.extend(LOAD.map(OsString::from));
        arguments.extend(["--history".into(), history.clone().into()]);
        let (begun, before) = (Instant::now(), processor_time(self.attacker).unwrap_or_default());
        let (is_done, report) = self.ask(&arguments, each + WARM_UP).await?;
        let taken = processor_time(self.attacker).unwrap_or_default().saturating_sub(before);
        let taken = taken.as_secs_f64() / begun.elapsed().as_secs_f64();
        Ok(Run { report: is_done.then_some(report), history, taken })
    }

    async fn tell(&self, order: &[&str]) -> anyhow::Result<()> {
        let mut arguments: Vec<OsString> = vec!["attack".into()];
        arguments.extend(order.iter().map(OsString::from));
        arguments.extend(["--dir".into(), self.net.clone().into()]);
        let (is_done, said) = self.ask(&arguments, Duration::ZERO).await?;
        anyhow::ensure!(is_done, "the attacker takes no orders: {said}");
        Ok(())
    }

    async fn status(&self) -> anyhow::Result<Value> {
        let arguments = ["status".into(), "--net".into(), self.client().into()];
        Ok(self.ask::<OsString>(&arguments, Duration::ZERO).await?.1)
    }

    /// Waits until the correct replicas have executed the same and have the same state; says whether they do.
    async fn agree(&self) -> anyhow::Result<(bool, Value)> {
        let begun = Instant::now();
        loop {
            let status = self.status().await?;
            let agree = do_agree(&status);
            if agree || begun.elapsed() > AGREE_LIMIT {
                return Ok((agree, status));
            }
        }
    }

    fn client(&self) -> PathBuf {
        self.net.join("client")
    }

    /// Runs a command of this program: whether it was done, and what it said as JSON.
    async fn ask<A: AsRef<OsStr>>(&self, arguments: &[A], more: Duration) -> anyhow::Result<(bool, Value)> {
        let mut command = program()?;
        command.args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::null());
        let name = arguments.first().map(|name| name.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
        let ended = timeout(COMMAND_LIMIT + more, command.output()).await;
        let ended = ended.with_context(|| format!("`quorate {name}` did not end in time"))?;
        let ended = ended.with_context(|| format!("running `quorate {name}`"))?;
        let said =
            serde_json::from_slice(&ended.stdout).with_context(|| format!("reading what `quorate {name}` said"))?;
        Ok((ended.status.success(), said))
    }

    async fn end(&mut self) {
        self.stop();
        if timeout(START_LIMIT, self.testnet.wait()).await.is_err() {
            self.testnet.start_kill().ok();
        }
    }

    /// Asks the testnet to end and to remove what it made.
    fn stop(&self) {
        let id = self.testnet.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, Signal::TERM).ok();
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command.stdin(Stdio::null());
    Ok(command)
}

/// What a run without faults came to.
fn must_measure(run: &Run) -> anyhow::Result<Measured> {
    let silent = || Problem::failed("nothing was answered without any attack", "give the machine more time");
    Ok(run.report.as_ref().map(measured).ok_or_else(silent)?)
}

fn measured(report: &Value) -> Measured {
    Measured {
        operations_per_second: report["operations_per_second"].as_f64().unwrap_or_default(),
        p99_ms: report["latency_ms"]["p99"].as_f64().unwrap_or_default(),
    }
}

/// The rows of the correct replicas.
fn correct(status: &Value) -> impl Iterator<Item = &Value> {
    let rows = status["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().filter(|row| row["id"] != ATTACKER)
}

fn do_agree(status: &Value) -> bool {
    let rows: Vec<&Value> = correct(status).collect();
    let is_same = |pair: &[&Value]| ["executed", "stable", "state_root"].iter().all(|key| pair[0][key] == pair[1][key]);
    rows.len() + 1 == usize::from(REPLICAS)
        && rows.iter().all(|row| row["reachable"] == true)
        && rows.windows(2).all(is_same)
}

fn highest_view(status: &Value) -> u64 {
    correct(status).filter_map(|row| row["view"].as_u64()).max().unwrap_or_default()
}

fn accused(status: &Value) -> Vec<u64> {
    let all = correct(status).filter_map(|row| row["evidence"].as_array()).flatten().filter_map(Value::as_u64);
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn read_history(path: &Path) -> anyhow::Result<Vec<Call>> {
    let opened = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    read(BufReader::new(opened).lines()).with_context(|| format!("{}", path.display()))
}

/// The longest time in which less than half of `usual` a second was answered, after the first answer; nothing if it was so at
/// the end. Looked at in stretches, since answers come in bursts.
fn recovered_ms(calls: &[Call], usual: f64) -> Option<u64> {
    let ends: Vec<u64> = calls.iter().filter_map(|call| call.end_ns).collect();
    let (first, last) = (*ends.iter().min()?, *calls.iter().map(|call| &call.start_ns).chain(&ends).max()?);
    let bin_ns = u64::try_from(BIN.as_nanos()).unwrap_or(u64::MAX);
    // The last bin is not whole.
    let bins = usize::try_from((last - first) / bin_ns).unwrap_or_default();
    let mut answered = vec![0_u32; bins];
    for end in ends {
        if let Some(bin) = usize::try_from((end - first) / bin_ns).ok().and_then(|bin| answered.get_mut(bin)) {
            *bin += 1;
        }
    }
    let half = usual * BIN.as_secs_f64() * f64::from(STRETCH) / 2.0;
    let (mut longest, mut lasting) = (0_u64, 0_u64);
    for stretch in answered.windows(STRETCH.into()) {
        lasting = if f64::from(stretch.iter().sum::<u32>()) < half { lasting + 1 } else { 0 };
        longest = longest.max(lasting);
    }
    (lasting == 0).then_some(longest * bin_ns / 1_000_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A cluster whose replica 3 has something else.
    fn status(key: &str, value: Value) -> Value {
        let row = |id| json!({"id": id, "reachable": true, "executed": 9, "stable": 8, "state_root": "ab", "view": id, "evidence": [0]});
        let mut rows: Vec<Value> = (0..REPLICAS).map(row).collect();
        rows[3][key] = value;
        json!({"replicas": rows})
    }

    #[test]
    fn correct_replicas_agree_that_are_all_there_and_have_the_same() {
        assert!(do_agree(&status("view", json!(7))));
        for (key, value) in
            [("reachable", json!(false)), ("executed", json!(8)), ("stable", json!(0)), ("state_root", json!("cd"))]
        {
            assert!(!do_agree(&status(key, value)), "{key}");
        }
        assert!(!do_agree(&json!({"replicas": []})));
        // What the attacker says of itself does not matter.
        let mut other = status("view", json!(7));
        other["replicas"][usize::from(ATTACKER)]["state_root"] = json!("cd");
        assert!(do_agree(&other));
        assert_eq!(highest_view(&other), 7);
        assert_eq!(accused(&status("evidence", json!([2, 0]))), [0, 2]);
    }

    /// So many answers in each tenth of a second.
    fn recovered(answers: &[u32]) -> Option<u64> {
        let bins = answers.iter().zip(0_u64..);
        let lines = bins.flat_map(|(count, bin)| (0..*count).map(move |_| bin * 100_000_000));
        let lines = lines.chain([answers.len() as u64 * 100_000_000]).map(|end| {
            format!(
                r#"{{"client":0,"number":1,"operation":"get","key":"k","start_ns":{end},"end_ns":{end},"outcome":"ok"}}"#
            )
        });
        recovered_ms(&read(lines.map(Ok)).unwrap(), 100.0)
    }

    #[test]
    fn the_longest_time_with_less_than_half_of_the_usual_is_told_unless_it_lasts() {
        assert_eq!(recovered(&[10; 20]), Some(0));
        assert_eq!(recovered(&[&[10; 8][..], &[0; 2], &[10; 8]].concat()), Some(0), "a burst came late");
        let twice = [&[10; 8][..], &[0; 6], &[10; 8], &[0, 1, 2, 0, 0, 0, 0, 0, 0, 0], &[10; 8]].concat();
        assert_eq!(recovered(&twice), Some(1_000));
        assert_eq!(recovered(&[&[10; 8][..], &[1; 6]].concat()), None);
        assert_eq!(recovered_ms(&[], 100.0), None);
    }
}
