//! Files that are damaged and disks that are full: what can be repaired is, what can not is said, and no vote is ever
//! forgotten in silence. (PROTOCOL §9)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_tests::damage::{Frame, files, flip, frames};
use quorate_tests::{Builder, Cluster, LIMIT, Load, SmallDisk, say, wait_until};

/// A cluster whose replica 1 was killed under load, so that its log holds something.
fn killed_under_load(writers: usize) -> (Cluster, Load) {
    // Checkpoints far apart: the log is not cut meanwhile.
    let mut cluster = Cluster::builder(4).parameter("checkpoint_interval", 128).parameter("window", 512).start();
    let load = Load::start(&cluster, writers);
    load.wait_for(400);
    cluster.kill(1);
    (cluster, load)
}

fn log_frames(cluster: &Cluster) -> Vec<Frame> {
    let frames = frames(&cluster.replica_folder(1).join("data/log"));
    assert!(frames.len() > 20, "{} records", frames.len());
    frames
}

#[test]
fn one_rotten_copy_of_a_vote_is_repaired_from_the_other() {
    let (mut cluster, load) = killed_under_load(4);
    let frames = log_frames(&cluster);
    let middle = &frames[frames.len() / 2];
    flip(&middle.path, middle.front_head(), 8);
    cluster.restart(1);
    assert!(cluster.log_of(1).contains("the log is damaged"), "{}", cluster.process(1).log_tail());
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_rotten_batch_is_fetched_from_the_others() {
    let (mut cluster, load) = killed_under_load(4);
    let frames = log_frames(&cluster);
    let middle = frames[frames.len() / 2..].iter().find(|frame| frame.body_length > 0).unwrap();
    flip(&middle.path, middle.body() + middle.body_length / 2, 4);
    cluster.restart(1);
    assert!(cluster.log_of(1).contains("the log is damaged"), "{}", cluster.process(1).log_tail());
    cluster.assert_nothing_lost(load);
}

/// Else the next start would find votes lost: both copies of one are.
#[test]
fn a_log_that_rots_under_a_running_replica_is_written_anew_and_no_vote_is_lost() {
    let mut cluster = Cluster::builder(4).parameter("checkpoint_interval", 128).parameter("window", 512).start();
    let load = Load::start(&cluster, 4);
    load.wait_for(200);
    // A replica that is not needed may take its time; what it wrote stays where it is.
    for id in [0, 2] {
        cluster.pause(id);
    }
    let frames = log_frames(&cluster);
    let middle = &frames[frames.len() / 2];
    flip(&middle.path, middle.position, middle.length);
    let found = wait_until("the damage to be found", LIMIT, || cluster.status_of(1).scrub.log_damaged > 0);
    say(&format!("a damaged record was found after {:.1} s", found.as_secs_f64()));
    wait_until("the damaged part to be cut", LIMIT, || !middle.path.exists());
    assert!(cluster.log_of(1).contains("the log on this disk is damaged"), "{}", cluster.process(1).log_tail());
    for id in [0, 2] {
        cluster.resume(id);
    }
    load.wait_for(50);
    cluster.ids().for_each(|id| cluster.kill(id));
    cluster.start_all();
    cluster.wait_until_all_vote();
    assert!(!cluster.replica_folder(1).join("data/log.damaged-0").exists());
    assert!(!cluster.log_of(1).contains("records of the log are lost"));
    load.wait_for(50);
    cluster.assert_nothing_lost(load);
}

/// Waits until replica 1, which lost votes, votes again: with the epoch after the one in which it cast them.
fn wait_until_it_votes_again(cluster: &Cluster, epoch: u64) {
    wait_until("replica 1 to vote again", LIMIT, || {
        let status = cluster.status_of(1);
        status.epoch > epoch && status.role != "learner" && status.waits_for.is_none()
    });
}

#[test]
fn a_replica_with_records_lost_sets_its_log_aside_and_votes_again_in_the_next_epoch() {
    let (mut cluster, load) = killed_under_load(4);
    let frames = log_frames(&cluster);
    let middle = &frames[frames.len() / 2];
    flip(&middle.path, middle.position, middle.length);
    cluster.restart(1);
    assert!(cluster.log_of(1).contains("records of the log are lost"), "{}", cluster.process(1).log_tail());
    assert!(cluster.replica_folder(1).join("data/log.damaged-0").is_dir());
    wait_until_it_votes_again(&cluster, 0);
    load.wait_for(50);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_replica_whose_disk_is_gone_is_started_again_and_votes_in_the_next_epoch() {
    let (mut cluster, load) = killed_under_load(4);
    fs::remove_dir_all(cluster.replica_folder(1).join("data")).unwrap();
    cluster.restart(1);
    wait_until_it_votes_again(&cluster, 0);
    // It is needed: another one is down.
    cluster.kill(2);
    load.wait_for(50);
    cluster.restart(2);
    cluster.assert_nothing_lost(load);
}

#[test]
fn replicas_that_are_started_again_in_a_later_epoch_vote() {
    let (mut cluster, load) = killed_under_load(4);
    fs::remove_dir_all(cluster.replica_folder(1).join("data")).unwrap();
    cluster.restart(1);
    wait_until_it_votes_again(&cluster, 0);
    cluster.assert_nothing_lost(load);
    cluster.stop_all();
    cluster.start_all();
    for id in cluster.ids() {
        wait_until("the replica to vote", LIMIT, || {
            let status = cluster.status_of(id);
            status.epoch > 0 && status.waits_for.is_none()
        });
    }
    // All that are left are needed.
    cluster.kill(1);
    cluster.wait_until_orders();
}

#[test]
fn a_replica_whose_disk_was_rolled_back_notices_and_votes_again_in_the_next_epoch() {
    let (mut cluster, load) = killed_under_load(4);
    let data = cluster.replica_folder(1).join("data");
    let copy = cluster.scratch().join("copy");
    copy_folder(&data, &copy);
    cluster.restart(1);
    load.wait_for(400);
    cluster.kill(1);
    fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data);
    cluster.restart(1);
    wait_until("replica 1 to be shown what it lost", LIMIT, || cluster.log_of(1).contains("Shown"));
    wait_until_it_votes_again(&cluster, 0);
    cluster.assert_nothing_lost(load);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_torn_tail_is_cut() {
    let (mut cluster, load) = killed_under_load(4);
    let last = log_frames(&cluster).pop().unwrap();
    // What a write leaves behind that the power failed in: the front is there, the rest is not.
    flip(&last.path, last.body(), last.position + last.length - last.body());
    flip(&last.path, last.position, 64);
    cluster.restart(1);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_last_write_that_is_torn_in_its_middle_is_no_loss() {
    let (mut cluster, load) = killed_under_load(8);
    // A group of which an earlier record is missing and a later one is whole: blocks reach the disk in any order, and
    // nobody was told of any of them. A replica that catches up writes many records at once.
    let log = cluster.replica_folder(1).join("data/log");
    let newest = |frames: &[Frame]| frames.last().map_or(0, |frame| frame.number);
    let mut rounds = 0;
    let torn = loop {
        let found = frames(&log);
        if let Some(torn) = last_but_one_of_the_last_write(&found) {
            break torn;
        }
        rounds += 1;
        assert!(rounds <= 50, "the last write never held two records");
        load.wait_for(30);
        cluster.restart(1);
        wait_until("a few more records", LIMIT, || newest(&frames(&log)) > newest(&found) + 4);
        cluster.kill(1);
    };
    flip(&torn.path, torn.position, torn.length);
    cluster.restart(1);
    cluster.assert_nothing_lost(load);
}

fn last_but_one_of_the_last_write(frames: &[Frame]) -> Option<Frame> {
    let synced_before = frames.last()?.synced_before;
    let unsynced: Vec<&Frame> = frames.iter().filter(|frame| frame.number >= synced_before).collect();
    unsynced.iter().rev().nth(1).map(|frame| Frame::clone(frame))
}

#[test]
fn a_rotten_state_is_named_or_made_good_but_never_believed() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 4);
    load.wait_for(300);
    cluster.stop(1);
    let folder = cluster.replica_folder(1).join("data/state");
    let state: Vec<(PathBuf, u64)> = files(&folder).into_iter().filter(|(_, length)| *length > 0).collect();
    let copy = cluster.scratch().join("copy");
    let (mut damaged, mut named, mut started) = (0, 0, BTreeSet::new());
    for (path, length) in &state {
        let used = used_bytes(path).min(*length);
        if used == 0 {
            continue;
        }
        damaged += 1;
        fs::copy(path, &copy).unwrap();
        flip(path, used / 2, 1.max(used / 100));
        cluster.launch(1);
        if settles(&mut cluster) {
            // What it has is checked against what the others vouch for, below.
            started.insert(path.strip_prefix(&folder).unwrap().display().to_string());
            load.wait_for(50);
            cluster.kill(1);
        } else {
            let said = cluster.process(1).log_tail();
            assert!(said.contains("error: replica 1") && said.contains("data/state"), "{}: {said}", path.display());
            assert!(said.contains("mend: move ") && said.contains("keep the log"), "{}: {said}", path.display());
            assert!(!said.contains("panicked"), "{}: {said}", path.display());
            named += 1;
            fs::copy(&copy, path).unwrap();
        }
    }
    say(&format!("{damaged} files of the state: {named} times refused by name, started with {started:?}"));
    assert_eq!(named + started.len(), damaged, "each was one or the other");
    assert!(named > 0, "rot is never noticed");
    assert!(!started.is_empty(), "nothing is ever made good");
    cluster.launch(1);
    cluster.process(1).wait_ready();
    cluster.assert_nothing_lost(load);
}

/// Bytes up to the last one that is not zero.
fn used_bytes(path: &Path) -> u64 {
    // The store removes files of its own when it was opened meanwhile.
    let bytes = fs::read(path).unwrap_or_default();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |position| position as u64 + 1)
}

/// Whether replica 1 gets ready; if not, it has ended.
fn settles(cluster: &mut Cluster) -> bool {
    let mut is_ready = false;
    wait_until("the replica to start or to refuse", LIMIT, || {
        is_ready = cluster.process(1).is_ready();
        is_ready || !cluster.is_running(1)
    });
    is_ready
}

#[test]
fn a_replica_whose_state_is_gone_but_not_its_log_takes_the_state_of_the_others() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 4);
    load.wait_for(300);
    cluster.stop(1);
    fs::remove_dir_all(cluster.replica_folder(1).join("data/state")).unwrap();
    load.wait_for(20);
    cluster.restart(1);
    wait_until("the transfer", LIMIT, || cluster.log_of(1).contains("state transfer ended"));
    cluster.assert_nothing_lost(load);
}

/// A cluster whose logs take many segments: checkpoints far apart, and large values.
fn with_long_logs(replicas: u8) -> Builder {
    Cluster::builder(replicas).parameter("checkpoint_interval", 256).parameter("window", 512)
}

/// A cluster that needs little for its logs: batches are small, so is the least that a log may be given.
fn with_small_batches() -> Builder {
    let far_apart = Cluster::builder(4).parameter("checkpoint_interval", 512).parameter("window", 1024);
    far_apart.parameter("request_bytes_max", 1 << 10).parameter("batch_bytes_max", 2 << 10)
}

/// Fills the log of replica `id`, which was given the least: most of an interval is ordered, and then views change, each
/// of which brings those slots along and casts the votes on them again.
fn fill_by_view_changes(cluster: &mut Cluster, id: u8) {
    const VIEW_CHANGES_MAX: usize = 20;
    let store = cluster.store();
    for number in 0..400 {
        store.put(&format!("fill/{number}"), &[7; 500]).unwrap();
    }
    for number in 0..VIEW_CHANGES_MAX {
        let status = cluster.status();
        if status.replicas[usize::from(id)].disk_full {
            return;
        }
        let primary = status.primary();
        cluster.pause(primary);
        // Not answered if the log gets full just now: two of four vote no more then, until the primary is back.
        cluster.kv(&["put", &format!("view/{number}"), "changes", "--timeout", "2s"]);
        cluster.resume(primary);
    }
    assert!(cluster.status_of(id).disk_full, "not full after {VIEW_CHANGES_MAX} view changes");
}

fn load_with_large_values(cluster: &Cluster) -> Load {
    Load::with_values(cluster, 2, 32 << 10)
}

/// Waits until replica `id` says that it is full, and sees that the others go on.
fn wait_until_full(cluster: &mut Cluster, id: u8, load: &Load) {
    let start = Instant::now();
    wait_until("the replica to say that its disk is full", LIMIT, || {
        assert!(cluster.is_running(id), "{}", cluster.process(id).log_tail());
        cluster.status_of(id).disk_full
    });
    load.wait_for(50);
    assert!(cluster.log_of(id).contains("the disk is full: nothing is accepted until there is room"));
    let gap = load.longest_gap_since(start);
    say(&format!("one disk is full, the others went on: {} ms of silence at most", gap.as_millis()));
    assert!(gap < Duration::from_secs(5), "{gap:?}");
}

#[test]
fn a_full_disk_stops_one_of_four_until_there_is_room_and_nobody_else() {
    a_full_disk_stops_some_until_there_is_room_and_nobody_else(4, 1);
}

#[test]
fn full_disks_stop_two_of_seven_until_there_is_room_and_nobody_else() {
    a_full_disk_stops_some_until_there_is_room_and_nobody_else(7, 2);
}

/// The disks of the last replicas get full, of as many as may be faulty.
fn a_full_disk_stops_some_until_there_is_room_and_nobody_else(replicas: u8, full: u8) {
    let mut cluster = with_long_logs(replicas).found();
    let ids = replicas - full..replicas;
    let mount = |id| SmallDisk::mount(&cluster.replica_folder(id).join("data/log"), 64 << 20);
    let Some(disks) = ids.clone().map(mount).collect::<Option<Vec<_>>>() else { return };
    cluster.start_all();
    disks.iter().for_each(SmallDisk::fill);
    let load = load_with_large_values(&cluster);
    for id in ids.clone() {
        wait_until_full(&mut cluster, id, &load);
    }
    disks.iter().for_each(SmallDisk::make_room);
    for id in ids {
        wait_until("the replica to go on", LIMIT, || !cluster.status_of(id).disk_full);
    }
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_disk_that_has_no_room_for_a_checkpoint_ends_one_replica_which_comes_back_when_there_is_room() {
    let mut cluster = Cluster::builder(4).found();
    let Some(disk) = SmallDisk::mount(&cluster.replica_folder(3).join("data/state"), 80 << 20) else { return };
    cluster.start_all();
    let load = Load::with_values(&cluster, 4, 4096);
    load.wait_for(50);
    disk.fill();
    // What the store holds after a failed write is not known: it stops, and says what it is about. (PROTOCOL §9)
    wait_until("the replica to give up or to wait", LIMIT, || !cluster.is_running(3) || cluster.status_of(3).disk_full);
    let said = cluster.log_of(3);
    assert!(cluster.is_running(3) || said.contains("No space left on device"), "{said}");
    load.wait_for(50);
    disk.make_room();
    if !cluster.is_running(3) {
        cluster.restart(3);
    }
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_log_that_may_take_no_more_says_so_and_goes_on_when_it_may() {
    let mut cluster = with_small_batches().found();
    cluster.set(2, "disk_bytes_max", "\"6MiB\"");
    let refused = cluster.refused(2);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("the log needs 7MiB") && refused.stderr.contains("mend: "), "{}", refused.stderr);
    cluster.set(2, "disk_bytes_max", "\"7MiB\"");
    cluster.start_all();
    fill_by_view_changes(&mut cluster, 2);
    cluster.stop(2);
    assert!(cluster.log_of(2).contains("the log was full: what had no room was not accepted"));
    cluster.restart(2);
    // From here on each cut gives room for a while.
    let load = Load::start(&cluster, 2);
    load.wait_for(200);
    assert!(cluster.is_running(2), "{}", cluster.process(2).log_tail());
    cluster.stop(2);
    cluster.set(2, "disk_bytes_max", "\"64MiB\"");
    cluster.restart(2);
    assert!(!cluster.status_of(2).disk_full);
    cluster.assert_nothing_lost(load);
}

#[test]
fn what_the_log_takes_on_disk_is_bounded_under_load() {
    const VALUE_BYTES: usize = 16 << 10;
    const WRITES: u64 = 2_000;
    let cluster = Cluster::start(4);
    let load = Load::with_values(&cluster, 4, VALUE_BYTES);
    let mut most = 0;
    wait_until("enough writes", LIMIT, || {
        let logs = files(&cluster.replica_folder(0).join("data/log"));
        most = most.max(logs.iter().map(|(_, length)| *length).sum::<u64>());
        load.acknowledged() >= WRITES
    });
    let written = load.stop();
    let bytes = written.count() * VALUE_BYTES;
    say(&format!("{} MiB were written through a log of at most {} MiB", bytes >> 20, most >> 20));
    // A window of slots and some segments in reserve, whatever was written.
    assert!(most <= 12 << 20, "{most}");
    cluster.assert_converged();
    assert_eq!(written.unknown(), []);
    written.assert_all_acknowledged_readable();
}
