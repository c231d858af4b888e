//! Tests of the whole log: over real files, and over a disk that counts, refuses and forgets.

mod properties;
mod reading;
mod test_disk;

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::test_disk::TestDisk;
use super::disk::Disk;
use super::frame::{BODY_BYTES_MAX, HEAD_BYTES_MAX, frame_bytes};
use super::log::{Error, Event, Identity, Log, Missing, Options, Recovered, Recovery};
use super::segment::{list, segment_name};
use super::supply::{Order, Preparer, Spare};

const PATIENCE: Duration = Duration::from_secs(20);
const SEGMENT_BYTES: u64 = 64 << 10;

struct Opened {
    log: Log,
    found: Vec<Recovered>,
    recovery: Recovery,
    events: Receiver<Event>,
}

impl Opened {
    fn wait_for(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("only {seen:?}"));
            seen.push(event);
            if wanted(&seen[seen.len() - 1]) {
                return seen;
            }
        }
    }

    fn wait_durable(&self, number: u64) -> Vec<Event> {
        self.wait_for(|event| matches!(event, Event::Durable(durable) if *durable >= number))
    }

    fn append(&self, numbers: Range<u64>, body_bytes: usize) {
        for number in numbers {
            let (head, body) = record(number, body_bytes);
            self.log.append(number, head, body).unwrap();
        }
    }

    fn close(self) {
        self.log.close().unwrap();
    }
}

/// Content that differs from record to record.
fn record(number: u64, body_bytes: usize) -> (Bytes, Bytes) {
    let head = format!("vote {number}, {}", "x".repeat(usize::try_from(number % 23).unwrap()));
    let body: Vec<u8> = (0..body_bytes).map(|index| (index as u64 * 31 + number * 7).to_le_bytes()[0]).collect();
    (head.into(), body.into())
}

fn options(folder: &Path) -> Options {
    let identity = Identity { cluster: [3; 32], replica: 2 };
    Options { segment_bytes: SEGMENT_BYTES, disk_bytes_max: 1 << 30, ..Options::new(folder.join("log"), identity) }
}

fn try_open(disk: &Arc<TestDisk>, options: &Options) -> Result<Opened, Error> {
    let (sender, events) = mpsc::channel();
    let mut found = Vec::new();
    let on_event = Box::new(move |event| {
        sender.send(event).ok();
    });
    let disk: Arc<dyn Disk> = Arc::<TestDisk>::clone(disk);
    let (log, recovery) = Log::open_on(disk, options, &mut |record| found.push(record), on_event)?;
    Ok(Opened { log, found, recovery, events })
}

fn open(disk: &Arc<TestDisk>, options: &Options) -> Opened {
    try_open(disk, options).unwrap()
}

fn numbers(found: &[Recovered]) -> Vec<u64> {
    found.iter().map(|record| record.number).collect()
}

fn assert_whole(found: &[Recovered], body_bytes: usize) {
    for Recovered { number, head, body, head_repaired } in found {
        let (expected_head, expected_body) = record(*number, body_bytes);
        assert_eq!((head, body, head_repaired), (&expected_head, &Some(expected_body), &false), "record {number}");
    }
}

/// The segments in use. While the log is open, a file may change its name under our eyes; then look again.
fn segments(options: &Options) -> Vec<PathBuf> {
    let until = Instant::now() + PATIENCE;
    loop {
        match list(&options.folder) {
            Ok(listing) => return listing.segments.into_iter().map(|file| file.path).collect(),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

fn flip(path: &Path, position: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
}

#[test]
fn a_record_that_nobody_waits_for_shares_the_sync_of_the_next_and_never_waits_long() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    let at_leisure = |number| {
        let (head, body) = record(number, 10);
        opened.log.append_at_leisure(number, head, body).unwrap();
    };
    let durable = |events: &[Event]| {
        let numbers = events.iter().filter_map(|event| match event {
            Event::Durable(number) => Some(*number),
            _other => None,
        });
        numbers.collect::<Vec<_>>()
    };
    // Whether the thread sleeps deeply or not. A busy machine may take longer than a record is left lying.
    let mut shared = 0;
    for (first, pause) in [(1, 0), (4, 0), (7, 100), (10, 5)] {
        std::thread::sleep(Duration::from_millis(pause));
        at_leisure(first);
        opened.append(first + 1..first + 2, 10);
        shared += usize::from(durable(&opened.wait_durable(first + 1)) == [first + 1]);
        let start = Instant::now();
        at_leisure(first + 2);
        assert_eq!(durable(&opened.wait_durable(first + 2)), [first + 2]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    assert!(shared > 0, "never one sync for both");
    // Many of them do not fill the queue up.
    (13..13 + options.queue_records_max as u64 * 3 / 4).for_each(at_leisure);
    let last = 12 + options.queue_records_max as u64 * 3 / 4;
    assert!(durable(&opened.wait_durable(last)).len() < 100);
    at_leisure(last + 1);
    opened.close();
    assert_eq!(numbers(&open(&disk, &options).found).last(), Some(&(last + 1)), "closing writes what waits");
}

#[test]
fn what_was_durable_is_found_again_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let first = open(&disk, &options);
    assert_eq!((first.recovery.first, first.recovery.next, first.found.len()), (None, None, 0));
    first.append(1..100, 5000);
    first.wait_durable(99);
    first.close();
    let second = open(&disk, &options);
    assert_eq!(numbers(&second.found), (1..100).collect::<Vec<_>>());
    assert_whole(&second.found, 5000);
    assert_eq!((second.recovery.first, second.recovery.next), (Some(1), Some(100)));
    assert_eq!(second.recovery.missing, []);
    second.append(100..110, 5000);
    second.close();
    let third = open(&disk, &options);
    assert_eq!(numbers(&third.found), (1..110).collect::<Vec<_>>());
    assert_whole(&third.found, 5000);
}

#[test]
fn the_name_of_a_new_log_is_durable_before_anything_is_appended() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    open(&disk, &options(folder.path())).close();
    assert!(disk.synced_folders.lock().unwrap().iter().any(|synced| synced == folder.path()));
}

#[test]
fn all_that_waits_is_written_once_and_synced_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = Options { segment_bytes: 1 << 20, ..options(folder.path()) };
    let opened = open(&disk, &options);
    let gate = disk.gate.lock().unwrap();
    opened.append(1..2, 10);
    let until = Instant::now() + PATIENCE;
    while disk.syncs.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the first record is never synced");
        std::thread::yield_now();
    }
    opened.append(2..1001, 10);
    drop(gate);
    let events = opened.wait_durable(1000);
    assert!(matches!(events.as_slice(), [Event::Durable(1), Event::Durable(1000)]), "{events:?}");
    assert_eq!((disk.writes.load(Ordering::SeqCst), disk.syncs.load(Ordering::SeqCst)), (2, 2));
}

#[test]
fn a_cut_gives_whole_segments_back_and_they_are_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let options = Options { disk_bytes_max: 6 * SEGMENT_BYTES, ..options };
    let opened = open(&disk, &options);
    let mut inodes = Vec::new();
    for round in 0..40_u64 {
        let start = 1 + round * 10;
        opened.append(start..start + 10, 6000);
        opened.log.cut(start).unwrap();
        opened.wait_for(|event| matches!(event, Event::Cut(_)));
        // A file may change its name between listing and looking: it was seen before or will be.
        let mut now = segments(&options).iter().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect();
        inodes.append(&mut now);
    }
    inodes.sort_unstable();
    inodes.dedup();
    assert!(inodes.len() <= 6, "{} files for 40 segments", inodes.len());
    opened.close();
    let again = open(&disk, &options);
    let found = numbers(&again.found);
    assert_eq!(found.last(), Some(&400));
    assert!(found.len() < 40 && found.contains(&391), "{found:?}");
    assert_eq!(again.recovery.first, found.first().copied());
    assert_eq!(again.recovery.missing, []);
    assert_whole(&again.found, 6000);
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    opened.append(1..3, 100);
    opened.append(3..4, 1 << 20);
    opened.append(4..6, 100);
    opened.close();
    let again = open(&disk, &options);
    let bodies: Vec<usize> = again.found.iter().map(|record| record.body.as_ref().unwrap().len()).collect();
    assert_eq!(bodies, [100, 100, 1 << 20, 100, 100]);
    assert_whole(&again.found[2..3], 1 << 20);
    again.log.cut(6).unwrap();
    again.wait_for(|event| matches!(event, Event::Cut(6)));
    again.close();
    assert_eq!(segments(&options).len(), 1);
}

#[test]
fn the_largest_record_passes_and_a_larger_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = options(folder.path());
    let opened = open(&disk, &options);
    let head = Bytes::from(vec![1; HEAD_BYTES_MAX as usize]);
    let body = Bytes::from(vec![2; BODY_BYTES_MAX as usize]);
    opened.log.append(1, head.clone(), body.clone()).unwrap();
    let larger = Bytes::from(vec![1; HEAD_BYTES_MAX as usize + 1]);
    assert!(matches!(opened.log.append(2, larger, body.clone()), Err(Error::TooLarge { .. })));
    let larger = Bytes::from(vec![2; BODY_BYTES_MAX as usize + 1]);
    assert!(matches!(opened.log.append(2, head.clone(), larger), Err(Error::TooLarge { .. })));
    opened.wait_durable(1);
    opened.close();
    let again = open(&disk, &options);
    assert!(again.found == [Recovered { number: 1, head, body: Some(body), head_repaired: false }]);
}

#[test]
fn numbers_are_consecutive_and_the_first_one_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    opened.append(70..71, 0);
    for wrong in [69, 70, 72, u64::MAX] {
        let refused = opened.log.append(wrong, Bytes::new(), Bytes::new());
        assert!(matches!(refused, Err(Error::OutOfOrder { expected: 71, found }) if found == wrong));
    }
    opened.close();
    let again = open(&disk, &options);
    assert_eq!((again.recovery.first, again.recovery.next), (Some(70), Some(71)));
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_it_has_drained() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = Options { queue_records_max: 10, queue_bytes_max: 1000, ..options(folder.path()) };
    let opened = open(&disk, &options);
    let gate = disk.gate.lock().unwrap();
    opened.append(1..11, 10);
    let one = |number| opened.log.append(number, Bytes::from_static(b"head"), Bytes::new());
    assert!(matches!(one(11), Err(Error::QueueFull)));
    drop(gate);
    opened.wait_durable(10);
    one(11).unwrap();
    opened.wait_durable(11);
    let gate = disk.gate.lock().unwrap();
    one(12).unwrap();
    let large = || opened.log.append(13, Bytes::new(), vec![0; 2000].into());
    assert!(matches!(large(), Err(Error::QueueFull)));
    drop(gate);
    opened.wait_durable(12);
    large().unwrap();
    opened.wait_durable(13);
}

#[test]
fn after_a_failed_sync_nothing_is_tried_again_and_everything_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    opened.append(1..5, 100);
    opened.wait_durable(4);
    disk.refuse_syncs.store(true, Ordering::SeqCst);
    opened.append(5..6, 100);
    let events = opened.wait_for(|event| matches!(event, Event::Failed(_)));
    assert!(matches!(events.as_slice(), [Event::Failed(Error::Io { action: "sync", .. })]), "{events:?}");
    disk.refuse_syncs.store(false, Ordering::SeqCst);
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!(matches!(opened.log.append(6, Bytes::new(), Bytes::new()), Err(Error::Stopped)));
    assert!(matches!(opened.log.cut(1), Err(Error::Stopped)));
    assert!(matches!(opened.log.close(), Err(Error::Stopped)));
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs);
    assert!(opened.events.try_recv().is_err());
}

#[test]
fn after_a_failed_write_nothing_is_reported_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    disk.refuse_writes.store(true, Ordering::SeqCst);
    opened.append(1..2, 100);
    let events = opened.wait_for(|event| matches!(event, Event::Failed(_)));
    assert!(matches!(events.as_slice(), [Event::Failed(Error::Io { action: "write to", .. })]), "{events:?}");
}

#[test]
fn a_full_log_says_so_once_keeps_what_waits_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    disk.refuse_space.store(true, Ordering::SeqCst);
    let opened = open(&disk, &options);
    opened.append(1..20, 10_000);
    let events = opened.wait_for(|event| matches!(event, Event::Full(_)));
    assert!(matches!(events.as_slice(), [Event::Full(Error::Full { source: Some(_), .. })]), "{events:?}");
    let attempts = disk.allocations.load(Ordering::SeqCst);
    assert!(opened.events.recv_timeout(Duration::from_millis(900)).is_err(), "said more than once");
    // One ahead, one for the record, and one more: what is free meanwhile is left to others.
    assert!(disk.allocations.load(Ordering::SeqCst) <= attempts + 3, "room is looked for all the time");
    disk.refuse_space.store(false, Ordering::SeqCst);
    let events = opened.wait_for(|event| matches!(event, Event::Room));
    assert!(events[..events.len() - 1].iter().all(|event| matches!(event, Event::Durable(_))), "{events:?}");
    opened.close();
    let again = open(&disk, &options);
    assert_eq!(numbers(&again.found), (1..20).collect::<Vec<_>>());
}

#[test]
fn the_disk_bound_holds_and_a_full_log_can_be_closed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = Options { disk_bytes_max: 4 * SEGMENT_BYTES, ..options(folder.path()) };
    let opened = open(&disk, &options);
    opened.append(1..101, 10_000);
    let events = opened.wait_for(|event| matches!(event, Event::Full(_)));
    assert!(matches!(events.last(), Some(Event::Full(Error::Full { source: None, .. }))), "{events:?}");
    let used: u64 = fs::read_dir(&options.folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(used <= options.disk_bytes_max, "{used}");
    assert!(matches!(opened.log.close(), Err(Error::Full { .. })));
    let used: u64 = fs::read_dir(&options.folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(used, options.disk_bytes_max, "the last segment is used once the log is full");
    let events: Vec<Event> = events.into_iter().chain(opened.events.try_iter()).collect();
    assert!(events.iter().all(|event| !matches!(event, Event::Failed(_))), "what the disk holds is known");
    let durable =
        events.iter().filter_map(|event| if let Event::Durable(number) = event { Some(*number) } else { None });
    let durable = durable.max().unwrap();
    let again = open(&disk, &options);
    assert_eq!(numbers(&again.found), (1..=durable).collect::<Vec<_>>());
    again.log.cut(durable + 1).unwrap();
    again.append(durable + 1..durable + 10, 10_000);
    again.wait_durable(durable + 9);
}

/// Also where what waits is written at once.
#[test]
fn a_log_says_that_it_is_full_before_it_uses_its_last_segment() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = Options { disk_bytes_max: 4 * SEGMENT_BYTES, ..options(folder.path()) };
    let opened = open(&disk, &options);
    let gate = disk.gate.lock().unwrap();
    opened.append(1..2, 10_000);
    let until = Instant::now() + PATIENCE;
    while disk.syncs.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the first record is never synced");
        std::thread::yield_now();
    }
    // A segment holds five or six of them: the last of these is in the fourth.
    opened.append(2..19, 10_000);
    drop(gate);
    let events = opened.wait_durable(18);
    let [.., Event::Full(_), Event::Durable(18)] = &events[..] else { panic!("{events:?}") };
}

#[test]
fn a_full_log_still_takes_what_a_cut_says_again_and_then_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = Options { disk_bytes_max: 5 * SEGMENT_BYTES, ..options(folder.path()) };
    let opened = open(&disk, &options);
    let is_full = |event: &Event| matches!(event, Event::Full(_));
    let filled = (1..100).find(|number| {
        opened.append(*number..*number + 1, 10_000);
        let events = opened.wait_for(|event| is_full(event) || matches!(event, Event::Durable(_)));
        events.iter().any(is_full)
    });
    let next = filled.unwrap() + 1;
    // A segment holds five of them, each in a group of its own: one is written when the log says that it is full.
    opened.append(next..next + 3, 10_000);
    opened.log.cut(next).unwrap();
    let events = opened.wait_for(|event| matches!(event, Event::Room));
    assert!(events.iter().any(|event| matches!(event, Event::Cut(_))), "{events:?}");
    opened.append(next + 3..next + 20, 10_000);
    opened.wait_durable(next + 19);
}

#[test]
fn a_cut_segment_that_cannot_be_taken_back_ends_the_log_and_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    opened.append(1..30, 10_000);
    opened.wait_durable(29);
    let oldest = &segments(&options)[0];
    let away = folder.path().join("away");
    fs::rename(oldest, &away).unwrap();
    opened.log.cut(8).unwrap();
    opened.wait_for(|event| matches!(event, Event::Cut(_)));
    opened.append(30..50, 10_000);
    let events = opened.wait_for(|event| matches!(event, Event::Failed(_)));
    assert!(matches!(events.last(), Some(Event::Failed(Error::Io { action: "take back", .. }))), "{events:?}");
    drop(opened);
    fs::rename(&away, oldest).unwrap();
    let again = open(&disk, &options);
    assert_eq!((again.recovery.first, again.recovery.missing.as_slice()), (Some(1), [].as_slice()));
}

/// The system shows what it kept in memory, also to the next process, and takes it for written.
#[test]
fn what_is_read_after_a_failed_sync_is_on_the_disk_before_it_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    disk.refuse_syncs.store(true, Ordering::SeqCst);
    let opened = open(&disk, &options);
    opened.append(1..4, 3000);
    opened.wait_for(|event| matches!(event, Event::Failed(_)));
    drop(opened);
    disk.refuse_syncs.store(false, Ordering::SeqCst);
    let forgotten = std::mem::take(&mut *disk.unsynced.lock().unwrap());
    disk.written.lock().unwrap().clear();
    let again = open(&disk, &options);
    let read = again.found.clone();
    assert_whole(&read, 3000);
    again.close();
    // Power fails: of what the failed sync was to write, the disk holds what was written again since.
    let written = disk.written.lock().unwrap().clone();
    let file = OpenOptions::new().write(true).open(&segments(&options)[0]).unwrap();
    for write in forgotten {
        for (at, byte) in (write.position..).zip(&write.before) {
            if !written.iter().any(|(inode, place)| *inode == write.inode && place.contains(&at)) {
                file.write_all_at(&[*byte], at).unwrap();
            }
        }
    }
    let last = open(&disk, &options);
    assert_eq!((&last.found, last.recovery.damaged_segments), (&read, 0));
    assert_eq!(last.recovery.missing, []);
}

fn preparer(disk: &Arc<TestDisk>, folder: &Path) -> Preparer {
    let disk: Arc<dyn Disk> = Arc::<TestDisk>::clone(disk);
    let (segment_bytes, disk_bytes_max) = (SEGMENT_BYTES, 100 * SEGMENT_BYTES);
    Preparer { disk, folder: folder.to_owned(), segment_bytes, disk_bytes_max, used: 0, spares: vec![], serial: 1 }
}

/// What a preparer answers to orders.
fn answers(preparer: Preparer, orders: impl IntoIterator<Item = Order>) -> Vec<Result<Spare, Error>> {
    let ((order, orders_taken), (answer, answers)) = (mpsc::channel(), mpsc::channel());
    orders.into_iter().for_each(|given| order.send(given).unwrap());
    drop(order);
    preparer.run(orders_taken, answer);
    answers.iter().collect()
}

/// Power may fail at any time: an older segment never stays without a newer one.
#[test]
fn segments_that_are_cut_go_one_after_the_other_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    // Large ones, and more than are kept for reuse.
    let bytes = [SEGMENT_BYTES + 4096; 3].into_iter().chain([SEGMENT_BYTES; 7]);
    let retired = (1..).zip(bytes).map(|(ordinal, bytes)| {
        let path = folder.path().join(segment_name(ordinal));
        fs::write(&path, []).unwrap();
        Order::Retire(Spare { path, bytes })
    });
    let retired: Vec<Order> = retired.collect();
    assert!(answers(preparer(&disk, folder.path()), retired).is_empty());
    assert_eq!(*disk.names_synced.lock().unwrap(), [9, 8, 7, 7, 7, 7, 7, 6, 5, 4]);
}

#[test]
fn a_segment_whose_name_has_no_room_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    disk.refuse_folder_syncs.store(true, Ordering::SeqCst);
    let wanted = || Order::Prepare { bytes: SEGMENT_BYTES, reserve: 0 };
    let answers = answers(preparer(&disk, folder.path()), [wanted(), wanted()]);
    assert!(matches!(&answers[..], [Err(Error::Full { .. }), Err(Error::Full { .. })]), "{answers:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "what is not counted is not there");
}

#[test]
fn a_log_of_another_replica_or_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    opened.append(1..2, 0);
    opened.close();
    for identity in [Identity { replica: 1, ..options.identity }, Identity { cluster: [4; 32], ..options.identity }] {
        let refused = try_open(&disk, &Options { identity, ..options.clone() }).err();
        assert!(matches!(refused, Some(Error::Foreign { found, .. }) if found == options.identity));
    }
    let path = &segments(&options)[0];
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut header = [0; 128];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 9;
    let checksum = crc32fast::hash(&header[..124]).to_le_bytes();
    header[124..].copy_from_slice(&checksum);
    file.write_all_at(&header, 0).unwrap();
    assert!(matches!(try_open(&disk, &options).err(), Some(Error::Version { version: 9, .. })));
}

#[test]
fn options_out_of_bounds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let options = options(folder.path());
    for segment_bytes in [0, 4096, SEGMENT_BYTES + 8, 2 << 30, u64::MAX] {
        let refused = try_open(&disk, &Options { segment_bytes, ..options.clone() }).err();
        assert!(matches!(refused, Some(Error::Options { option: "segment_bytes", .. })), "{segment_bytes}");
    }
    let refused = try_open(&disk, &Options { disk_bytes_max: SEGMENT_BYTES, ..options }).err();
    assert!(matches!(refused, Some(Error::Options { option: "disk_bytes_max", .. })));
}

#[test]
fn a_damaged_header_of_a_segment_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    opened.append(1..31, 6000);
    opened.close();
    let paths = segments(&options);
    assert!(paths.len() >= 3);
    for path in &paths {
        flip(path, 20);
        flip(path, 2048 + 30);
    }
    let again = open(&disk, &options);
    assert_eq!(numbers(&again.found), (1..31).collect::<Vec<_>>());
    assert_eq!(again.recovery.damaged_segments, paths.len() as u64);
    assert_eq!((again.recovery.first, again.recovery.missing.as_slice()), (Some(1), [].as_slice()));
}

#[test]
fn a_lost_segment_or_its_end_is_missing_and_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    for number in 1..61 {
        opened.append(number..number + 1, 6000);
        opened.wait_durable(number);
    }
    opened.close();
    let paths = segments(&options);
    fs::remove_file(&paths[1]).unwrap();
    let file = OpenOptions::new().write(true).open(&paths[2]).unwrap();
    file.write_all_at(&vec![0; 30_000], SEGMENT_BYTES - 30_000).unwrap();
    let again = open(&disk, &options);
    let missing: Vec<u64> = again.recovery.missing.iter().flat_map(|missing| missing.numbers.clone()).collect();
    assert!(again.recovery.missing.iter().all(|missing| missing.was_durable), "{:?}", again.recovery.missing);
    let mut all = [numbers(&again.found), missing].concat();
    all.sort_unstable();
    assert_eq!(all, (1..61).collect::<Vec<_>>());
    assert_eq!(again.recovery.missing.len(), 2);
}

/// Writes 1..=3, then 4, then 5..=8 as one group, the last.
fn with_a_group_at_the_end(disk: &Arc<TestDisk>, options: &Options) {
    let opened = open(disk, options);
    opened.append(1..4, 3000);
    opened.wait_durable(3);
    let gate = disk.gate.lock().unwrap();
    let syncs = disk.syncs.load(Ordering::SeqCst);
    opened.append(4..5, 3000);
    let until = Instant::now() + PATIENCE;
    while disk.syncs.load(Ordering::SeqCst) == syncs {
        assert!(Instant::now() < until, "the record is never synced");
        std::thread::yield_now();
    }
    opened.append(5..9, 3000);
    drop(gate);
    let events = opened.wait_durable(8);
    assert!(matches!(events.as_slice(), [Event::Durable(4), Event::Durable(8)]), "{events:?}");
    opened.close();
}

#[test]
fn a_hole_in_the_last_group_was_not_durable_and_stays_so_after_more_records() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    with_a_group_at_the_end(&disk, &options);
    // The second of the last group.
    harm_heads(&segments(&options)[0], 6);
    let torn = vec![Missing { numbers: 6..7, was_durable: false }];
    let second = open(&disk, &options);
    assert_eq!(numbers(&second.found), [1, 2, 3, 4, 5, 7, 8]);
    assert_eq!(second.recovery.missing, torn);
    second.append(9..12, 3000);
    second.close();
    let third = open(&disk, &options);
    assert_eq!(numbers(&third.found), [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]);
    assert_eq!(third.recovery.missing, torn);
    assert!(third.recovery.synced_before >= 9);
}

#[test]
fn a_hole_that_was_not_durable_stays_so_when_the_first_write_after_it_is_torn_too() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    with_a_group_at_the_end(&disk, &options);
    harm_heads(&segments(&options)[0], 6);
    let second = open(&disk, &options);
    second.append(9..10, 10_000);
    second.close();
    // As if power had failed before the first block of that write was written.
    let file = OpenOptions::new().write(true).open(&segments(&options)[1]).unwrap();
    file.write_all_at(&[0; 4096], disk.last_write.load(Ordering::SeqCst)).unwrap();
    let third = open(&disk, &options);
    assert_eq!(third.recovery.missing[0], Missing { numbers: 6..7, was_durable: false });
    assert!(third.recovery.missing.iter().all(|missing| !missing.was_durable), "{:?}", third.recovery.missing);
}

#[test]
fn a_hole_before_the_last_group_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    with_a_group_at_the_end(&disk, &options);
    harm_heads(&segments(&options)[0], 4);
    let again = open(&disk, &options);
    assert_eq!(again.recovery.missing, [Missing { numbers: 4..5, was_durable: true }]);
}

/// A frame says where it belongs, so that one that the disk put elsewhere is none there.
#[test]
fn a_write_that_went_astray_is_damage_and_no_record() {
    // The segment and the block of what went astray, and of what it was written over.
    for (from, over) in [((0, 9), (0, 4)), ((0, 4), (0, 9)), ((1, 2), (0, 7)), ((0, 7), (1, 2))] {
        let folder = tempfile::tempdir().unwrap();
        let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
        let opened = open(&disk, &options);
        // A block each, 15 in a segment behind that of its header.
        for number in 1..25 {
            opened.append(number..number + 1, 1000);
            opened.wait_durable(number);
        }
        opened.close();
        let paths = segments(&options);
        let file = |segment: usize| OpenOptions::new().read(true).write(true).open(&paths[segment]).unwrap();
        let mut block = vec![0; 4096];
        file(from.0).read_exact_at(&mut block, 4096 * from.1).unwrap();
        file(over.0).write_all_at(&block, 4096 * over.1).unwrap();
        let again = open(&disk, &options);
        let lost = 15 * over.0 as u64 + over.1;
        assert_eq!(
            again.recovery.missing,
            [Missing { numbers: lost..lost + 1, was_durable: true }],
            "{from:?} {over:?}"
        );
        assert_eq!(numbers(&again.found), (1..25).filter(|number| *number != lost).collect::<Vec<_>>());
        assert_whole(&again.found, 1000);
    }
}

/// Harms both copies of a record's head, and nothing else.
fn harm_heads(path: &Path, number: u64) {
    let bytes = fs::read(path).unwrap();
    let head = record(number, 0).0;
    let places = bytes.windows(head.len()).enumerate().filter(|(_, part)| *part == head);
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    assert_eq!(places.len(), 2, "record {number}");
    for place in places {
        flip(path, place as u64);
    }
}

#[test]
fn a_last_frame_without_a_head_is_the_tail_and_never_met_again() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    with_a_group_at_the_end(&disk, &options);
    harm_heads(&segments(&options)[0], 8);
    let again = open(&disk, &options);
    assert_eq!(numbers(&again.found), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((again.recovery.next, again.recovery.missing.as_slice()), (Some(8), [].as_slice()));
    again.append(8..10, 20);
    again.close();
    let last = open(&disk, &options);
    assert_eq!(numbers(&last.found), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(last.found[7].body, Some(record(8, 20).1));
    assert_eq!(last.recovery.missing, []);
}

#[test]
fn a_last_frame_without_a_head_still_testifies_to_a_durable_record_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    for number in 1..4 {
        opened.append(number..number + 1, 100);
        opened.wait_durable(number);
    }
    opened.close();
    let path = &segments(&options)[0];
    harm_heads(path, 2);
    harm_heads(path, 3);
    for _ in 0..2 {
        let again = open(&disk, &options);
        assert_eq!((numbers(&again.found), again.recovery.next), (vec![1], Some(4)));
        let lost = [Missing { numbers: 2..3, was_durable: true }, Missing { numbers: 3..4, was_durable: false }];
        assert_eq!(again.recovery.missing, lost);
        again.close();
    }
}

#[test]
fn a_segment_begun_by_a_torn_write_is_classified_alike_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let opened = open(&disk, &options);
    let gate = disk.gate.lock().unwrap();
    opened.append(1..2, 50_000);
    let until = Instant::now() + PATIENCE;
    while disk.syncs.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the record is never synced");
        std::thread::yield_now();
    }
    opened.append(2..5, 10_000);
    drop(gate);
    let events = opened.wait_durable(4);
    assert!(matches!(events.as_slice(), [Event::Durable(1), Event::Durable(4)]), "{events:?}");
    opened.close();
    // As if power had failed before the header and the first record of the second segment were written.
    let path = &segments(&options)[1];
    let frame = frame_bytes(u32::try_from(record(2, 0).0.len()).unwrap(), 10_000);
    let lost = vec![0; usize::try_from(4096 + frame).unwrap()];
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&lost, 0).unwrap();
    for damaged_segments in [1, 0, 0] {
        let again = open(&disk, &options);
        assert_eq!(again.recovery.missing, [Missing { numbers: 2..3, was_durable: false }]);
        assert_eq!((numbers(&again.found), again.recovery.damaged_segments), (vec![1, 3, 4], damaged_segments));
        again.close();
    }
}
