//! Reading what is durable while the log is written: damage is found wherever it is, and nothing else is taken for it.

use super::*;
use crate::storage::reading::{Pass, Step};

/// What a pass over the whole log comes to: the bytes that are right, and the damaged file, if any.
fn read(mut pass: Pass) -> (u64, Option<PathBuf>) {
    let mut right = 0;
    loop {
        match pass.step() {
            Step::Right(bytes) => right += bytes,
            Step::Damaged(path) => return (right, Some(path)),
            Step::Over => return (right, None),
        }
    }
}

fn read_all(log: &Log) -> (u64, Option<PathBuf>) {
    read(log.reading().begin().unwrap())
}

fn flip(path: &Path, position: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 1], position).unwrap();
}

#[test]
fn a_log_that_is_what_was_written_is_right_over_restarts_rolls_and_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let log = open(&disk, &options);
    assert_eq!(read_all(&log.log), (0, None), "nothing is there");
    log.append(1..40, 5_000);
    log.wait_durable(39);
    let (bytes, damaged) = read_all(&log.log);
    assert!(bytes > 39 * 5_000 && damaged.is_none(), "{bytes} {damaged:?}");
    log.close();
    let log = open(&disk, &options);
    assert_eq!(read_all(&log.log), (bytes, None));
    log.append(40..50, 10);
    log.log.begin_segment().unwrap();
    log.append(50..52, 10);
    log.wait_durable(51);
    let all = read_all(&log.log);
    assert!(all.0 > bytes && all.1.is_none(), "{all:?}");
    // A pass that began before a cut goes on with what is left.
    let (mut pass, whole) = (log.log.reading().begin().unwrap(), log.log.reading().begin().unwrap());
    assert!(matches!(pass.step(), Step::Right(_)));
    log.log.cut(50).unwrap();
    log.wait_for(|event| matches!(event, Event::Cut(_)));
    // Spares are made of them, and used again.
    log.append(52..90, 9_000);
    log.wait_durable(89);
    assert_eq!((read(pass).1, read(whole).1, read_all(&log.log).1), (None, None, None));
    log.close();
}

/// "in a segment of its own" (PROTOCOL §9)
#[test]
fn what_follows_the_beginning_of_a_segment_is_all_that_a_cut_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let log = open(&disk, &options);
    log.log.begin_segment().unwrap();
    log.append(1..4, 10);
    log.wait_durable(3);
    assert_eq!(segments(&options).len(), 1, "nothing was before it");
    log.append(4..6, 10);
    log.log.begin_segment().unwrap();
    log.append(6..8, 10);
    log.log.cut(6).unwrap();
    log.append(8..9, 10);
    log.close();
    assert_eq!(segments(&options).len(), 1);
    let again = open(&disk, &options);
    assert_eq!(numbers(&again.found), [6, 7, 8]);
    again.close();
}

#[test]
fn any_byte_of_a_record_or_header_that_changed_is_found_and_what_lies_between_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let log = open(&disk, &options);
    for number in 1..30 {
        log.append(number..number + 1, 3_000);
        log.wait_durable(number);
    }
    let (all, _) = read_all(&log.log);
    let segments = segments(&options);
    assert!(segments.len() > 1, "{segments:?}");
    let frame = frame_bytes(u32::try_from(record(1, 0).0.len()).unwrap(), 3_000);
    let mut unread = 0;
    for path in &segments[..2] {
        for position in (0..8192).step_by(37).chain([4096, 4096 + frame - 1, 8191]) {
            flip(path, position);
            let (right, damaged) = read_all(&log.log);
            if damaged.is_none() {
                // Only padding: within a frame up to a multiple of 8, or up to the next group.
                unread += 1;
                assert!(right == all && position > 4096 + 64, "{position} of {}", path.display());
            } else {
                assert!(damaged.as_ref() == Some(path) && right < all, "{position} of {}", path.display());
            }
            flip(path, position);
        }
    }
    let between = 2 * (4096 - frame) / 37;
    assert!(unread <= between + 8, "{unread} positions are of no interest, {between} lie between groups");
    assert_eq!(read_all(&log.log), (all, None));
    // A file that is shorter than it was, or gone.
    let last = OpenOptions::new().write(true).open(&segments[0]).unwrap();
    last.set_len(20_000).unwrap();
    assert_eq!(read_all(&log.log).1, Some(segments[0].clone()));
    fs::remove_file(&segments[1]).unwrap();
    fs::remove_file(&segments[0]).unwrap();
    assert_eq!(read_all(&log.log).1, None, "as after a cut");
    drop(log);
}

#[test]
fn what_is_not_durable_yet_and_what_never_was_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, options) = (Arc::new(TestDisk::default()), options(folder.path()));
    let log = open(&disk, &options);
    log.append(1..4, 100);
    log.wait_durable(3);
    log.append(4..7, 100);
    log.wait_durable(6);
    log.close();
    // The last write was torn in its middle: its second record is gone, heads and all.
    let segment = segments(&options).remove(0);
    let frames: Vec<u64> = positions(&segment);
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    let [.., second, third] = frames[..] else { panic!("{frames:?}") };
    file.write_all_at(&vec![0; usize::try_from(third - second).unwrap()], second).unwrap();
    let log = open(&disk, &options);
    assert_eq!(numbers(&log.found), [1, 2, 3, 4, 6]);
    log.append(7..9, 100);
    log.wait_durable(8);
    assert_eq!(read_all(&log.log).1, None, "a header remembers that it never was durable");
    flip(&segment, frames[0] + 70);
    assert_eq!(read_all(&log.log).1, Some(segment));
    log.close();
}

/// Where the frames of a segment begin.
fn positions(segment: &Path) -> Vec<u64> {
    use crate::storage::frame::FrameHeader;
    let bytes = fs::read(segment).unwrap();
    let is_front = |position: &usize| {
        FrameHeader::decode(&bytes[*position..]).is_some_and(|(_, header)| header.position == *position as u64)
    };
    (4096..bytes.len()).step_by(8).filter(is_front).map(|position| position as u64).collect()
}
