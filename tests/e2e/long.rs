//! Stories that take minutes: run by hand, each alone.
//!
//! ```text
//! cargo test --release -p quorate-tests --test e2e -- --ignored --nocapture long::
//! ```
//!
//! Nothing is waited for by sleeping: where one of these sleeps, the moment of a kill or the length of a frost is the story.
//! Where something is drawn, the seed is printed, and `QUORATE_SEED` takes it again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate_tests::damage::{files, flip};
use quorate_tests::{Cluster, Draw, LIMIT, Load, quorate, say, start, wait_until};

use crate::transport::{memory, sent};

/// How often a replica is killed.
const KILLS: u64 = 200;

/// How often bytes of a replica's files are flipped.
const FLIPS: u64 = 50;

/// How many datagrams and frames are sent that are none.
const MALFORMED: u64 = 10_000_000;

/// What a replica's memory may grow by meanwhile, in KiB.
const GROWTH_MAX: u64 = 64 << 10;

/// Longest pause before a kill.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// `quorate bench` in the background, which writes down every call and answer.
pub(crate) struct History {
    bench: Child,
    file: std::path::PathBuf,
}

impl History {
    /// Starts it, for so long.
    pub(crate) fn record(cluster: &Cluster, duration: &str) -> Self {
        let file = cluster.scratch().join("history.jsonl");
        let words =
            ["bench", "--clients", "6", "--window", "2", "--keys", "50", "--reads", "50%", "--duration", duration];
        let mut command = start(words.map(OsStr::new));
        command.arg("--net").arg(cluster.client_folder()).arg("--history").arg(&file);
        let bench = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { bench, file }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.bench.try_wait().unwrap().is_some()
    }

    /// Waits for its end and has it judged.
    pub(crate) fn judge(mut self) {
        wait_until("the load to end", 20 * LIMIT, || self.has_ended());
        let lines = fs::read_to_string(&self.file).unwrap().lines().count();
        let judged = quorate([OsStr::new("check-history"), self.file.as_os_str()]);
        say(&format!("{lines} calls: {}", judged.text().trim()));
        assert_eq!(judged.status, Some(0), "{judged:?}");
    }
}

#[test]
#[ignore = "takes five minutes"]
fn two_hundred_kills_at_random_moments() {
    let mut draw = Draw::begin();
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    let history = History::record(&cluster, "120s");
    let began = Instant::now();
    for kill in 1..=KILLS {
        sleep(Duration::from_millis(draw.below(u64::try_from(PAUSE_MAX.as_millis()).unwrap())));
        if kill % 20 == 0 {
            // All at once, now and then.
            cluster.ids().for_each(|id| cluster.kill(id));
            cluster.start_all();
            continue;
        }
        let id = u8::try_from(draw.below(4)).unwrap();
        cluster.kill(id);
        sleep(Duration::from_millis(draw.below(300)));
        cluster.restart(id);
    }
    say(&format!("{KILLS} kills in {:.0} s, {} writes", began.elapsed().as_secs_f64(), load.acknowledged()));
    cluster.assert_nothing_lost(load);
    history.judge();
}

#[test]
#[ignore = "takes five minutes"]
fn fifty_times_random_bytes_of_a_replica_are_flipped() {
    let mut draw = Draw::begin();
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    let (mut started, mut refused) = (0, 0);
    for _ in 0..FLIPS {
        load.wait_for(50);
        let id = u8::try_from(draw.below(4)).unwrap();
        cluster.kill(id);
        let data = cluster.replica_folder(id).join("data");
        let damage = damage(&mut draw, &data);
        cluster.launch(id);
        if settles(&mut cluster, id) {
            started += 1;
        } else {
            refused += 1;
            let said = cluster.process(id).log_tail();
            assert!(said.contains("mend: ") && !said.contains("panicked"), "{damage}: {said}");
            // What it says is to be done, or more: it has the state from the others.
            fs::remove_dir_all(data.join("state")).unwrap();
            cluster.launch(id);
            if !settles(&mut cluster, id) {
                fs::remove_dir_all(&data).unwrap();
                cluster.restart(id);
            }
        }
        // One that lost votes counts among the faulty: the next waits until it votes again.
        wait_until("the damaged replica to take part", 3 * LIMIT, || {
            let status = cluster.status_of(id);
            status.reachable && status.waits_for.is_none()
        });
    }
    say(&format!("{FLIPS} times bytes were flipped: {started} starts, {refused} refusals"));
    cluster.assert_nothing_lost(load);
}

/// Flips up to 64 bytes somewhere in the files of a folder. Says where.
fn damage(draw: &mut Draw, data: &Path) -> String {
    let files: Vec<_> = files(data).into_iter().filter(|(_, length)| *length > 0).collect();
    let (path, length) = &files[usize::try_from(draw.below(files.len() as u64)).unwrap()];
    // Mostly where something stands: logs are made ahead, and are zero beyond what was written.
    let used = fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(*length, |last| last as u64 + 1);
    let bound = if draw.below(8) == 0 { *length } else { used };
    let position = draw.below(bound);
    let count = (1 + draw.below(64)).min(length - position);
    flip(path, position, count);
    format!("{count} bytes from {position} of {length} in {}", path.display())
}

/// Whether a replica gets ready; if not, it has ended.
fn settles(cluster: &mut Cluster, id: u8) -> bool {
    let mut is_ready = false;
    wait_until("the replica to start or to refuse", LIMIT, || {
        is_ready = cluster.process(id).is_ready();
        is_ready || !cluster.is_running(id)
    });
    is_ready
}

#[test]
#[ignore = "takes a minute"]
fn two_of_four_are_frozen_for_half_a_minute() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    let primary = cluster.status().primary();
    let frozen = [primary, (primary + 1) % 4];
    for id in frozen {
        cluster.pause(id);
    }
    sleep(Duration::from_secs(30));
    for id in frozen {
        cluster.resume(id);
    }
    let took = load.wait_for(50);
    say(&format!("{} ms from the end of the frost to 50 writes", took.as_millis()));
    cluster.assert_nothing_lost(load);
}

#[test]
#[ignore = "takes ten minutes"]
fn ten_million_frames_and_datagrams_that_mean_nothing_take_no_memory_and_stop_nobody() {
    let mut cluster = Cluster::builder(4).malicious(0, "none").start();
    let load = Load::start(&cluster, 3);
    // The load has its own share: a while of it alone, first.
    load.wait_for(5_000);
    let before = [1, 2, 3].map(|id| memory(&mut cluster, id));
    let told = cluster.attack(&["start", "0=flood-datagrams,flood-frames"]);
    assert_eq!(told.status, Some(0), "{told:?}");
    let (began, mut most) = (Instant::now(), before);
    while sent(&cluster, "flood-datagrams") + sent(&cluster, "flood-frames") < MALFORMED {
        sleep(Duration::from_secs(1));
        for (most, id) in most.iter_mut().zip([1, 2, 3]) {
            *most = (*most).max(memory(&mut cluster, id));
        }
    }
    let (datagrams, frames) = (sent(&cluster, "flood-datagrams"), sent(&cluster, "flood-frames"));
    let (longest, took) = (load.longest_gap_since(began), began.elapsed().as_secs_f64());
    say(&format!("{datagrams} datagrams and {frames} frames in {took:.0} s: silence {longest:?} at most"));
    let counted =
        cluster.status().replicas.iter().map(|row| row.invalid_from_peers + row.invalid_from_clients).sum::<u64>();
    say(&format!("{counted} of them were read; memory before and at most, in KiB: {before:?}, {most:?}"));
    for (before, most) in before.iter().zip(&most) {
        assert!(most - before < GROWTH_MAX, "{before} KiB, then {most}");
    }
    let stopped = cluster.attack(&["stop"]);
    assert_eq!(stopped.status, Some(0), "{stopped:?}");
    cluster.assert_nothing_lost(load);
}

/// How fast a gibibyte is written and synced beside the cluster's files, in MiB/s.
fn copied(cluster: &Cluster) -> f64 {
    let began = Instant::now();
    let mut file = File::create(cluster.scratch().join("copy")).unwrap();
    let mebibyte: Vec<u8> = (0..1 << 20).map(|at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    (0..1024).for_each(|_| file.write_all(&mebibyte).unwrap());
    file.sync_all().unwrap();
    1024.0 / began.elapsed().as_secs_f64()
}

#[test]
#[ignore = "takes minutes, and 6 GB of disk"]
fn a_replica_that_was_away_while_a_gigabyte_was_written_catches_up() {
    let mut cluster = Cluster::builder(4).parameter("checkpoint_interval", 128).parameter("window", 512).start();
    cluster.kill(3);
    let net = cluster.client_folder();
    let bench = |words: &[&str]| {
        let words = ["bench", "--json"].into_iter().chain(words.iter().copied()).map(OsStr::new);
        let measured = quorate(words.chain([OsStr::new("--net"), net.as_os_str()]));
        assert_eq!(measured.status, Some(0), "{measured:?}");
        measured.json()
    };
    // Each client's keys are drawn of all: a few are written twice.
    let large =
        ["--value-size", "4KiB", "--keys", "100000000", "--clients", "16", "--window", "4", "--requests", "262144"];
    let written = bench(&large);
    say(&format!("written: {} values of 4 KiB in {} s", written["operations"], written["duration_s"]));
    let small = ["--clients", "16", "--window", "4", "--duration", "10s"];
    let without = bench(&small);
    cluster.launch(3);
    let began = Instant::now();
    let (with, status) = (bench(&small), cluster.status_of(3));
    assert_eq!(status.mode, "state transfer", "the load was to meet the transfer: {status:?}");
    cluster.process(3).wait_ready();
    wait_until("it to catch up", 20 * LIMIT, || {
        let status = cluster.status();
        status.replicas[3].executed + 1_000 > status.executed() && status.replicas[3].mode == "normal"
    });
    let took = began.elapsed().as_secs_f64();
    say(&format!("caught up in {took:.1} s, {:.1} MiB/s; a plain copy: {:.0} MiB/s", 1024.0 / took, copied(&cluster)));
    // The one that catches up takes its share of the machine as any other that runs does.
    let after = bench(&small);
    for (what, report) in [("three of four ran", &without), ("one caught up", &with), ("all four ran", &after)] {
        let (rate, tail) = (&report["operations_per_second"], &report["latency_ms"]["p99"]);
        say(&format!("clients while {what}: {rate} operations/s, p99 {tail} ms"));
    }
    cluster.assert_converged();
}

/// Bytes that each thread of a replica has had written to disk, by the thread's name.
fn written(cluster: &mut Cluster, id: u8) -> BTreeMap<String, u64> {
    let tasks = format!("/proc/{}/task", cluster.process(id).pid().as_raw_nonzero());
    let mut written = BTreeMap::new();
    for task in fs::read_dir(tasks).unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        let io = fs::read_to_string(task.join("io")).unwrap();
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
        *written.entry(name).or_default() += bytes.parse::<u64>().unwrap();
    }
    written
}

/// What a large state costs: memory, silence while checkpoints are taken, what is written for them, and a start. (PROTOCOL §5)
#[test]
#[ignore = "takes minutes and 3 GB of memory, and means something on a quiet machine only"]
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "these numbers are far below 2^52")]
fn what_two_million_keys_cost() {
    const OPERATIONS: u64 = 64;
    const ENTRY_BYTES: f64 = 14.0 + 100.0;
    let keys: u64 = std::env::var("QUORATE_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(2_000_000);
    let mut cluster = Cluster::builder(4).parameter("checkpoint_interval", 128).parameter("window", 512).start();
    let net = cluster.client_folder();
    let bench = |requests: u64| {
        let [keys, requests] = [keys, requests].map(|number| number.to_string());
        let words =
            ["bench", "--json", "--clients", "16", "--window", "4", "--operations", "64", "--value-size", "100"];
        let words = words.into_iter().chain(["--keys", &keys, "--requests", &requests, "--warm-up", "0s", "--net"]);
        let measured = quorate(words.map(OsStr::new).chain([net.as_os_str()]));
        assert_eq!(measured.status, Some(0), "{measured:?}");
        measured.json()
    };
    // Keys are drawn: of so many draws as there are keys three times, one in twenty is never met. In portions, as no program may
    // take longer than two minutes.
    (0..12).for_each(|_| drop(bench(keys / 4 / OPERATIONS)));
    let (before, first) = (written(&mut cluster, 1), cluster.status_of(1).executed);
    let measured = bench(keys / 4 / OPERATIONS);
    let (after, slots) = (written(&mut cluster, 1), cluster.status_of(1).executed - first);
    let (rate, gap) = (&measured["operations_per_second"], &measured["longest_gap_ms"]);
    say(&format!(
        "with the state there: {rate} operations/s, p99 {} ms, silence {gap} ms",
        measured["latency_ms"]["p99"]
    ));
    let of = |drawn: f64| keys as f64 * (1.0 - (-drawn / keys as f64).exp());
    let drawn = (keys / 4) as f64;
    let intervals = slots as f64 / 128.0;
    let changed = intervals * of(drawn / intervals) * ENTRY_BYTES;
    let wrote = |name: &str| (after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0)) as f64;
    let for_log: f64 = after.keys().filter(|name| name.starts_with("log")).map(|name| wrote(name)).sum();
    let all: f64 = after.keys().map(|name| wrote(name)).sum();
    say(&format!("{slots} slots, {intervals:.0} checkpoints; written by thread: {before:?}, then {after:?}"));
    say(&format!("for checkpoints {:.2} bytes for each that changed", (all - for_log) / changed));
    let raw = of(3.0 * keys as f64 + drawn) * ENTRY_BYTES / 1024.0;
    for id in 0..4 {
        let held = memory(&mut cluster, id);
        say(&format!("replica {id}: {held} KiB for {raw:.0} KiB of keys and values, {:.2} times", held as f64 / raw));
    }
    cluster.kill(1);
    let began = Instant::now();
    cluster.restart(1);
    let ready = began.elapsed();
    wait_until("it to be with the others", 20 * LIMIT, || {
        let status = cluster.status();
        status.replicas[1].executed == status.executed() && status.replicas[1].mode == "normal"
    });
    say(&format!(
        "ready {:.1} s after a crash, with the others {:.1} s",
        ready.as_secs_f64(),
        began.elapsed().as_secs_f64()
    ));
    let held = memory(&mut cluster, 1);
    say(&format!("started anew: {held} KiB, {:.2} times", held as f64 / raw));
    cluster.assert_converged();
}

/// The interval of checkpoints against what clients get, what the log takes, and what a start after a crash takes. (PROTOCOL §5)
#[test]
#[ignore = "takes minutes, and means something on a quiet machine only"]
fn what_an_interval_of_checkpoints_costs_and_saves() {
    for interval in [32_u64, 64, 128, 256] {
        let builder =
            Cluster::builder(4).resource("log_segment_bytes", "\"1MiB\"").resource("disk_bytes_max", "\"4GiB\"");
        let builder = builder.parameter("checkpoint_interval", interval).parameter("window", 4 * interval);
        let mut cluster = builder.start();
        let net = cluster.client_folder();
        let words = ["bench", "--json", "--clients", "32", "--value-size", "1KiB", "--duration", "15s", "--net"];
        let log = cluster.replica_folder(1).join("data/log");
        let (report, most) = std::thread::scope(|scope| {
            let bench = scope.spawn(|| quorate(words.iter().map(OsStr::new).chain([net.as_os_str()])).json());
            let mut most = 0;
            while !bench.is_finished() {
                most = most.max(files(&log).iter().map(|(_, length)| *length).sum::<u64>());
                sleep(Duration::from_millis(50));
            }
            (bench.join().expect("a report"), most)
        });
        let load = Load::with_values(&cluster, 8, 1024);
        load.wait_for(500);
        cluster.kill(1);
        let began = Instant::now();
        cluster.restart(1);
        let ready = began.elapsed();
        // With too small a window the others go on faster than a state is fetched, as long as the load lasts.
        let is_there = || {
            let status = cluster.status();
            status.replicas[1].executed + 50 > status.executed() && status.replicas[1].mode == "normal"
        };
        while !is_there() && began.elapsed() < LIMIT / 2 {
            sleep(Duration::from_millis(20));
        }
        say(&format!(
            "every {interval} slots: {} operations/s, p99 {} ms, {} MiB of log; ready {:.2} s after a crash, there {:.2} s",
            report["operations_per_second"],
            report["latency_ms"]["p99"],
            most >> 20,
            ready.as_secs_f64(),
            began.elapsed().as_secs_f64()
        ));
        cluster.assert_nothing_lost(load);
    }
}
