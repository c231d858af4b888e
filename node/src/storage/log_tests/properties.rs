//! What holds for any run of the log, any power cut and any damage.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::log::{Event, Options, Recovered};
use super::super::segment::list;
use super::test_disk::TestDisk;
use super::{Opened, numbers, open, options, record, segments};

#[derive(Debug, Clone)]
enum Step {
    Append { body_bytes: usize },
    Wait,
    Cut { back: u64 },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let body = prop_oneof![4 => 0..100_usize, 3 => 100..9000_usize, 1 => 60_000..140_000_usize];
    let step = prop_oneof![
        12 => body.prop_map(|body_bytes| Step::Append { body_bytes }),
        3 => Just(Step::Wait),
        1 => (0..20_u64).prop_map(|back| Step::Cut { back }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// How the blocks of a write that was never synced look after the power is back.
#[derive(Debug, Clone)]
enum Tear {
    /// The first ones are written.
    Prefix(prop::sample::Index),
    /// Any of them are written.
    Any(u64),
    /// Any of them are written, others are garbage.
    Garbage(u64),
}

fn tear() -> impl Strategy<Value = Tear> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Tear::Prefix),
        any::<u64>().prop_map(Tear::Any),
        any::<u64>().prop_map(Tear::Garbage),
    ]
}

/// What a run of steps left behind.
#[derive(Debug, Default)]
struct Written {
    records: BTreeMap<u64, usize>,
    durable: u64,
    cut: u64,
}

fn run(disk: &Arc<TestDisk>, options: &Options, steps: &[Step], written: &mut Written) -> Opened {
    let mut opened = open(disk, options);
    for step in steps {
        let next = written.records.last_key_value().map_or(1, |(number, _)| number + 1);
        match step {
            Step::Append { body_bytes } => {
                opened.append(next..next + 1, *body_bytes);
                written.records.insert(next, *body_bytes);
            }
            Step::Wait if next > written.durable + 1 => {
                opened.wait_durable(next - 1);
                written.durable = next - 1;
            }
            Step::Wait => {}
            Step::Cut { back } => {
                let before = next.saturating_sub(*back);
                opened.log.cut(before).unwrap();
                written.cut = written.cut.max(before);
            }
            Step::Reopen => {
                opened.close();
                written.durable = next - 1;
                opened = open(disk, options);
                assert_eq!(opened.recovery.missing, []);
            }
        }
    }
    opened
}

fn assert_true_record(record_found: &Recovered, written: &Written) {
    let Recovered { number, head, body, .. } = record_found;
    let body_bytes = written.records.get(number).unwrap_or_else(|| panic!("record {number} was never written"));
    let (expected_head, expected_body) = record(*number, *body_bytes);
    assert_eq!(*head, expected_head, "head of record {number}");
    assert!(body.as_ref().is_none_or(|body| *body == expected_body), "body of record {number}");
}

/// Applies `tear` to every write that was not synced.
fn crash(disk: &TestDisk, options: &Options, tear: &Tear) {
    let listing = list(&options.folder).unwrap();
    let files = listing.segments.iter().chain(&listing.spares);
    let by_inode: BTreeMap<u64, &Path> =
        files.map(|file| (fs::metadata(&file.path).unwrap().ino(), file.path.as_path())).collect();
    for write in disk.unsynced.lock().unwrap().drain(..) {
        let file = OpenOptions::new().write(true).open(by_inode[&write.inode]).unwrap();
        let blocks = write.before.len().div_ceil(512);
        for (index, block) in write.before.chunks(512).enumerate() {
            let garbage = vec![0xa5; block.len()];
            let content = match tear {
                Tear::Prefix(kept) if index < kept.index(blocks + 1) => continue,
                Tear::Any(bits) | Tear::Garbage(bits) if bits >> (index % 64) & 1 == 0 => continue,
                Tear::Garbage(bits) if bits >> (index % 61) & 2 == 0 => garbage.as_slice(),
                Tear::Prefix(_) | Tear::Any(_) | Tear::Garbage(_) => block,
            };
            file.write_all_at(content, write.position + index as u64 * 512).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_power_cut_all_that_was_durable_is_there_and_nothing_that_was_not_written(
        before in steps(),
        lost in prop::collection::vec(0..9000_usize, 1..12),
        tear in tear(),
        after in steps(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
        let mut written = Written::default();
        let opened = run(&disk, &options, &before, &mut written);
        let next = written.records.last_key_value().map_or(1, |(number, _)| number + 1);
        disk.refuse_syncs.store(true, Ordering::SeqCst);
        for (number, body_bytes) in (next..).zip(&lost) {
            let (head, body) = record(number, *body_bytes);
            if opened.log.append(number, head, body).is_err() {
                break;
            }
            written.records.insert(number, *body_bytes);
        }
        let events = opened.wait_for(|event| matches!(event, Event::Failed(_)));
        for event in events {
            if let Event::Durable(durable) = event {
                written.durable = written.durable.max(durable);
            }
        }
        drop(opened);
        disk.refuse_syncs.store(false, Ordering::SeqCst);
        crash(&disk, &options, &tear);

        let mut again = open(&disk, &options);
        let found = numbers(&again.found);
        for record in &again.found {
            assert_true_record(record, &written);
            prop_assert!(record.number > written.durable || record.body.is_some() && !record.head_repaired);
        }
        let first = again.recovery.first.unwrap_or(1);
        prop_assert!(first <= written.cut.max(1));
        for number in first..=written.durable {
            prop_assert!(found.binary_search(&number).is_ok(), "record {number} was durable");
        }
        for missing in &again.recovery.missing {
            prop_assert!(!missing.was_durable && missing.numbers.start > written.durable, "{missing:?}");
        }
        if matches!(tear, Tear::Prefix(_)) {
            prop_assert_eq!(&again.recovery.missing, &[]);
        }
        // Life goes on: what was found is durable, what follows is found beside it.
        let holes = again.recovery.missing.clone();
        let next = again.recovery.next.unwrap_or(1);
        written.records.retain(|number, _| *number < next);
        if written.records.is_empty() {
            prop_assert!(found.is_empty());
        }
        let after: Vec<&Step> = after.iter().filter(|step| matches!(step, Step::Append { .. })).collect();
        let start = written.records.last_key_value().map_or(next, |(number, _)| number + 1);
        prop_assert_eq!(start, next);
        for (number, step) in (start..).zip(&after) {
            let Step::Append { body_bytes } = step else { continue };
            again.append(number..number + 1, *body_bytes);
            written.records.insert(number, *body_bytes);
        }
        again.close();
        again = open(&disk, &options);
        for record in &again.found {
            assert_true_record(record, &written);
        }
        prop_assert_eq!(again.recovery.missing, holes);
        let mut expected = found;
        expected.extend(start..start + after.len() as u64);
        prop_assert_eq!(numbers(&again.found), expected);
    }

    #[test]
    fn a_flipped_byte_is_repaired_or_reported_and_never_a_wrong_record(
        steps in steps(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u32), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
        let mut written = Written::default();
        run(&disk, &options, &steps, &mut written).close();
        let whole = open(&disk, &options);
        let wanted = numbers(&whole.found);
        whole.close();
        let paths = segments(&options);
        for (path, position, bit) in &flips {
            let Some(path) = (!paths.is_empty()).then(|| path.get(&paths)) else { continue };
            let mut bytes = fs::read(path).unwrap();
            // Most of a segment may never have been written: harm what was.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            bytes[position.index(used)] ^= 1 << bit;
            fs::write(path, bytes).unwrap();
        }
        let again = open(&disk, &options);
        for record in &again.found {
            assert_true_record(record, &written);
        }
        let found = numbers(&again.found);
        let next = again.recovery.next.unwrap_or(0);
        for number in &wanted {
            let is_found = found.binary_search(number).is_ok();
            let is_missing = again.recovery.missing.iter().any(|missing| missing.numbers.contains(number));
            let is_cut = *number >= next && *number >= again.recovery.synced_before;
            prop_assert!(is_found || is_missing || is_cut, "record {number} is silently gone: {:?}", again.recovery);
            prop_assert!(is_found || flips.len() > 1, "one flip lost record {number}");
        }
        let whole = again.found.iter().filter(|record| record.body.is_some() && !record.head_repaired).count();
        prop_assert!(whole + flips.len() >= wanted.len() || flips.len() > 1, "more is harmed than was flipped");
    }

    #[test]
    fn no_content_of_a_folder_makes_opening_panic(
        steps in steps(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..70_000_u64), 0..3),
        garbage in prop::collection::vec((any::<prop::sample::Index>(), 0..66_000_u64, prop::collection::vec(any::<u8>(), 1..600)), 0..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
        let mut written = Written::default();
        run(&disk, &options, &steps, &mut written).close();
        let paths = segments(&options);
        prop_assume!(!paths.is_empty());
        for (path, position, bytes) in &garbage {
            let file = OpenOptions::new().write(true).open(path.get(&paths)).unwrap();
            file.write_all_at(bytes, *position).unwrap();
        }
        for (path, length) in &cuts {
            OpenOptions::new().write(true).open(path.get(&paths)).unwrap().set_len(*length).unwrap();
        }
        let again = open(&disk, &options);
        for record in &again.found {
            assert_true_record(record, &written);
        }
        // And it can be used and read back.
        let next = again.recovery.next.unwrap_or(1);
        again.append(next..next + 3, 2000);
        again.close();
        let last = open(&disk, &options);
        prop_assert_eq!(last.recovery.next, Some(next + 3));
        prop_assert!(numbers(&last.found).ends_with(&[next, next + 1, next + 2]));
    }
}

/// Cases of each property; more with `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}
