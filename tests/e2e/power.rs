//! Power that is cut, and disks that fail. A kill leaves what was written in the page cache, so it proves nothing about
//! syncs; here the disk of each replica forgets what was not synced, or keeps and tears some of it. (PROTOCOL §9)
//!
//! ```text
//! cargo test --release -p quorate-tests --test e2e -- --ignored --nocapture power::
//! ```
//!
//! The seed is printed, and `QUORATE_SEED` takes it again; `QUORATE_CYCLES` sets how often power is cut, or a disk fails, in
//! the long stories.

use std::ffi::OsString;
use std::fs;
use std::sync::mpsc;
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use quorate_tests::{Cluster, Draw, Forgotten, LIMIT, Load, Signed, Which, quorate, say, wait_until};

use crate::long::History;

/// Longest that a cut waits for the operation at which it is to happen: a replica may be idle.
const CUT_LIMIT: Duration = Duration::from_millis(500);

/// How long it may take until a replica whose disk failed has ended. What a failure of its store's own thread leads to
/// shows at the next checkpoint.
const END_LIMIT: Duration = Duration::from_secs(20);

/// What values have, in bytes: segments of the log fill up, and are cut and used again, all the while.
const VALUE_BYTES: usize = 2_000;

/// The last things that were done to a cluster, told if the story ends badly.
#[derive(Default)]
struct Account(Vec<String>);

impl Drop for Account {
    fn drop(&mut self) {
        if panicking() {
            self.0.iter().rev().take(4).rev().for_each(|line| say(line));
        }
    }
}

/// A cluster on disks that can fail, each replica of which records what it signs.
fn cluster() -> Option<Cluster> {
    let mut cluster = Cluster::builder(4).recorded().found_on_power_disks()?;
    cluster.start_all();
    Some(cluster)
}

/// How many times, unless the environment says otherwise.
pub(crate) fn cycles(default: u64) -> u64 {
    std::env::var("QUORATE_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(default)
}

/// Nothing that any replica signed contradicts anything else that it signed, over all its runs.
fn assert_no_contradiction(cluster: &Cluster) {
    let files = cluster.ids().map(|id| cluster.replica_folder(id).join("signed.jsonl").into_os_string());
    let words = ["evidence", "check-signed", "--json"].map(Into::into).into_iter();
    let judged = quorate(words.chain(files).collect::<Vec<OsString>>());
    say(&format!("signed: {}", judged.text().trim()));
    assert_eq!(judged.status, Some(0), "{judged:?}");
    assert!(judged.json()["statements"].as_u64() > Some(100), "{judged:?}");
}

/// Whom power fails: mostly one, often some, sometimes all.
fn struck(draw: &mut Draw) -> Vec<u8> {
    let count = match draw.below(8) {
        0 => 4,
        1 => 3,
        2 => 2,
        _ => 1,
    };
    let first = draw.below(4);
    (first..first + count).map(|id| u8::try_from(id % 4).unwrap()).collect()
}

/// A cluster whose power is cut again and again.
struct Story {
    cluster: Cluster,
    draw: Draw,
    signed: Vec<Signed>,
    forgotten: Forgotten,
    /// Statements that were found on disks.
    held: usize,
    account: Account,
}

impl Story {
    fn begin(draw: Draw) -> Option<Self> {
        let cluster = cluster()?;
        let signed = cluster.ids().map(Signed::of).collect();
        Some(Self { cluster, draw, signed, forgotten: Forgotten::default(), held: 0, account: Account::default() })
    }

    /// Power fails at some operation of a replica's disk, and at others in the same moment; they forget, and start again.
    fn cut(&mut self, cycle: u64) {
        let ids = struck(&mut self.draw);
        let disk = self.cluster.disk(ids[0]);
        let (which, after) = match self.draw.below(3) {
            0 => (Which::Names, self.draw.below(8)),
            _ => (Which::All, self.draw.below(400)),
        };
        disk.cut_after(which, after);
        let armed = Instant::now();
        while !disk.is_cut() && armed.elapsed() < CUT_LIMIT {
            sleep(Duration::from_millis(1));
        }
        let seed = self.draw.number();
        let forgotten = self.cluster.cut_power(&ids, seed);
        self.account.0.push(format!("cycle {cycle}: {ids:?} at {which:?} {after}, seed {seed}: {forgotten:?}"));
        self.forgotten += forgotten;
        for id in &ids {
            self.held += self.signed[usize::from(*id)].assert_durable(&self.cluster);
        }
        self.start(&ids);
    }

    /// Starts replicas, which must come back without having lost anything.
    fn start(&mut self, ids: &[u8]) {
        for id in ids {
            self.cluster.launch(*id);
        }
        for id in ids {
            self.cluster.process(*id).wait_ready();
            let log = self.cluster.log_of(*id);
            let is_lost = log.contains("lost votes") || log.contains("records of the log are lost");
            assert!(!is_lost, "replica {id} takes for lost what it never had");
        }
    }
}

/// Cuts power so many times, in rounds of a load and a history of which each is judged.
fn survive_cuts(cycles: u64, round: &str) {
    let Some(mut story) = Story::begin(Draw::begin()) else { return };
    let began = Instant::now();
    let (mut cycle, mut written) = (0, 0);
    while cycle < cycles {
        let load = Load::with_values(&story.cluster, 3, VALUE_BYTES);
        let mut history = History::record(&story.cluster, round);
        while cycle < cycles && !history.has_ended() {
            cycle += 1;
            story.cut(cycle);
            load.wait_for(2);
        }
        written += load.acknowledged();
        story.cluster.assert_nothing_lost(load);
        history.judge();
    }
    assert_no_contradiction(&story.cluster);
    let (seconds, Forgotten { kept, lost, torn }) = (began.elapsed().as_secs_f64(), story.forgotten);
    say(&format!(
        "{cycles} power cuts in {seconds:.0} s, {written} writes: of what was not synced {lost} changes were lost, {kept} \
         kept and {torn} torn; {} statements were looked for on disks and found",
        story.held
    ));
    assert!(story.held > 0, "nothing was looked for");
}

#[test]
fn what_was_acknowledged_or_signed_survives_power_cuts() {
    survive_cuts(10, "8s");
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn five_hundred_power_cuts() {
    survive_cuts(cycles(500), "30s");
}

/// What is made to fail, and after how many of its kind.
fn failure(draw: &mut Draw) -> (Which, u64) {
    match draw.below(6) {
        0 => (Which::SyncsOfFolders, draw.below(3)),
        1 | 2 => (Which::Writes, draw.below(200)),
        _ => (Which::Syncs, draw.below(200)),
    }
}

/// Operations of a replica's disk fail so many times, one at a time.
fn survive_failures(runs: u64) {
    let Some(mut story) = Story::begin(Draw::begin()) else { return };
    let load = Load::with_values(&story.cluster, 3, VALUE_BYTES);
    let mut failed = std::collections::BTreeMap::<String, u64>::new();
    let mut later = 0;
    for run in 1..=runs {
        let id = u8::try_from(story.draw.below(4)).unwrap();
        let (which, after) = failure(&mut story.draw);
        let (for_good, is_cut, seed) = (story.draw.one_in(2), story.draw.one_in(2), story.draw.number());
        let record = story.cluster.replica_folder(id).join("signed.jsonl");
        let (tell, told) = mpsc::channel();
        let disk = story.cluster.disk(id);
        disk.fail_after(which, after, for_good, seed, {
            let record = record.clone();
            move || tell.send(fs::metadata(record).map_or(0, |found| found.len())).unwrap()
        });
        load.wait_for(1);
        let before = told.recv_timeout(LIMIT).unwrap();
        let what = story.cluster.disk(id).failed().unwrap();
        story.account.0.push(format!("run {run}: replica {id} could not {what}, for good: {for_good}, seed {seed}"));
        let sort = what.split_inclusive('/').take(2).collect::<String>();
        *failed.entry(sort).or_default() += 1;
        if is_dispensable(&what) {
            story.forgotten += story.cluster.cut_power(&[id], seed);
            story.start(&[id]);
            continue;
        }
        wait_until(&format!("replica {id} to end: it could not {what}"), END_LIMIT, || !story.cluster.is_running(id));
        assert_ended_in_order(&mut story.cluster, id, &what);
        later += fs::metadata(&record).map_or(0, |found| found.len()).saturating_sub(before);
        // The others go on.
        load.wait_for(5);
        if !is_cut {
            // What the system shows is not what the disk holds: what is read back has to be made durable again.
            story.cluster.disk(id).switch_on();
            story.start(&[id]);
            load.wait_for(1);
        }
        let forgotten = story.cluster.cut_power(&[id], seed);
        story.forgotten += forgotten;
        story.held += story.signed[usize::from(id)].assert_durable(&story.cluster);
        story.start(&[id]);
    }
    story.cluster.assert_nothing_lost(load);
    assert_no_contradiction(&story.cluster);
    say(&format!(
        "{runs} failures: {failed:?}; {later} bytes of statements after them, all of which were durable before: {} were \
         looked for on disks and found",
        story.held
    ));
}

/// The store merges the list of what it holds when it has written that, and syncs a journal once more when it closes it, also
/// one whose file has no name any more: for nothing, and if that fails it goes on.
fn is_dispensable(what: &str) -> bool {
    what.contains("/keyspaces/0/") || what.contains("/state.new/0.jnl") || what.ends_with(' ')
}

/// A replica whose disk failed has said what failed and what to do, and its exit status says that something did.
fn assert_ended_in_order(cluster: &mut Cluster, id: u8, what: &str) {
    let status = cluster.process(id).wait();
    let tail = cluster.process(id).log_tail();
    assert_eq!(status.code(), Some(1), "{what}: {status}: {tail}");
    let said = tail.lines().rev().take(3).collect::<Vec<_>>().join("\n");
    assert!(said.contains("Input/output error"), "{what}: {tail}");
    assert!(said.contains("mend: "), "{what}: {tail}");
}

#[test]
fn a_replica_whose_disk_fails_ends_and_comes_back() {
    survive_failures(6);
}

#[test]
#[ignore = "takes ten minutes"]
fn two_hundred_failures_of_a_disk() {
    survive_failures(cycles(200));
}
