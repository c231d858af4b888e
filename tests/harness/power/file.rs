//! A file: what a process sees of it, what the disk holds of it, and the changes that stand between the two.
//!
//! A disk writes sectors, each whole or not at all; which of those that were not synced it has written when power fails
//! nobody knows. A sector that it has is one that a process saw at some time: with what was written to it before.

use std::ops::AddAssign;

use super::content::Content;
use crate::draw::Draw;

/// What is written whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Where writes of some disks tear.
const BLOCK_BYTES: u64 = 4096;

/// What was not synced.
#[derive(Debug, Clone)]
enum Change {
    /// Whole sectors as they stood after a write.
    Sectors { position: u64, bytes: Vec<u8> },
    /// The length.
    Length(u64),
}

/// What becomes of changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The disk has none.
    Lost,
    /// The disk has all.
    Kept,
    /// Each is kept, lost or torn, by draw.
    Drawn,
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    seen: Content,
    durable: Content,
    changes: Vec<Change>,
}

/// How many changes there were, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Changes that the disk has.
    pub kept: u64,
    /// Changes that it has not.
    pub lost: u64,
    /// Writes of which it has a part.
    pub torn: u64,
}

impl AddAssign for Forgotten {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.lost += other.lost;
        self.torn += other.torn;
    }
}

impl File {
    pub(super) const fn length(&self) -> u64 {
        self.seen.length()
    }

    pub(super) fn read(&self, position: u64, count: usize) -> Vec<u8> {
        self.seen.read(position, count)
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.seen.put(position, bytes);
        let end = position + bytes.len() as u64;
        let begin = position - position % SECTOR_BYTES;
        let count = usize::try_from(end.next_multiple_of(SECTOR_BYTES) - begin).expect("a write fits into memory");
        self.changes.push(Change::Sectors { position: begin, bytes: self.seen.stretch(begin, count) });
        if end > self.length() {
            self.set_length(end);
        }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length != self.length() {
            self.seen.set_length(length);
            self.changes.push(Change::Length(length));
        }
    }

    /// How many changes are not synced.
    pub(super) fn unsynced(&self) -> usize {
        self.changes.len()
    }

    /// Makes all durable. What a failed sync left behind is not: the system takes it for written.
    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Sectors { position, bytes } => {
                    self.durable.put(position, &self.seen.stretch(position, bytes.len()));
                }
                Change::Length(length) => self.durable.set_length(length),
            }
        }
    }

    /// A sync that fails: the disk has of the writes what it has, and no later sync makes up for the rest, though processes
    /// go on to see it. That is what Linux does. (Rebello and others, "Can Applications Recover from fsync Failures?", ATC
    /// 2020.)
    pub(super) fn fail_sync(&mut self, draw: &mut Draw) {
        let (sectors, lengths): (Vec<_>, Vec<_>) =
            self.changes.drain(..).partition(|change| matches!(change, Change::Sectors { .. }));
        self.changes = lengths;
        let mut forgotten = Forgotten::default();
        reach(&mut self.durable, &sectors, Fate::Drawn, draw, &mut forgotten);
    }

    /// Power fails.
    pub(super) fn forget(&mut self, fate: Fate, draw: &mut Draw, forgotten: &mut Forgotten) {
        let changes = std::mem::take(&mut self.changes);
        reach(&mut self.durable, &changes, fate, draw, forgotten);
        // Sectors beyond the length are no part of the file, and never come back.
        let length = self.durable.length();
        self.durable.set_length(u64::MAX);
        self.durable.set_length(length);
        self.seen = self.durable.clone();
    }
}

/// What reaches the disk of some changes. Lengths reach it in order, whatever becomes of what is written: a file can be
/// longer than what was written, and has zeros there.
fn reach(durable: &mut Content, changes: &[Change], fate: Fate, draw: &mut Draw, forgotten: &mut Forgotten) {
    let lengths = changes.iter().filter(|change| matches!(change, Change::Length(_))).count() as u64;
    let mut lengths_kept = match fate {
        Fate::Lost => 0,
        Fate::Kept => lengths,
        Fate::Drawn => draw.below(lengths + 1),
    };
    for change in changes {
        match change {
            Change::Length(length) if lengths_kept > 0 => {
                lengths_kept -= 1;
                forgotten.kept += 1;
                durable.set_length(*length);
            }
            Change::Length(_) => forgotten.lost += 1,
            Change::Sectors { position, bytes } => {
                let extent = match fate {
                    Fate::Lost => Extent::None,
                    Fate::Kept => Extent::All,
                    Fate::Drawn => Extent::drawn(draw),
                };
                let (all, kept) = extent.put(durable, *position, bytes, draw);
                *match kept {
                    0 => &mut forgotten.lost,
                    _ if kept == all => &mut forgotten.kept,
                    _ => &mut forgotten.torn,
                } += 1;
            }
        }
    }
}

/// How much of a write reaches the disk.
enum Extent {
    None,
    All,
    /// What stands before a border of units of so many bytes.
    Head(u64),
    /// What stands after one.
    Tail(u64),
    /// Some of the units.
    Some(u64),
}

impl Extent {
    fn drawn(draw: &mut Draw) -> Self {
        let unit = if draw.one_in(2) { SECTOR_BYTES } else { BLOCK_BYTES };
        match draw.below(8) {
            0 | 1 => Self::None,
            2 | 3 => Self::All,
            4 | 5 => Self::Head(unit),
            6 => Self::Tail(unit),
            _ => Self::Some(unit),
        }
    }

    /// Gives how many units there are, and how many reached the disk.
    fn put(&self, durable: &mut Content, position: u64, bytes: &[u8], draw: &mut Draw) -> (u64, u64) {
        let (Self::Head(unit) | Self::Tail(unit) | Self::Some(unit)) = self else {
            let reaches = matches!(self, Self::All);
            if reaches {
                durable.put(position, bytes);
            }
            return (1, u64::from(reaches));
        };
        let end = position + bytes.len() as u64;
        let first = position / unit;
        let all = end.div_ceil(*unit) - first;
        let border = draw.below(all + 1);
        let mut kept = 0;
        for number in 0..all {
            let reaches = match self {
                Self::Head(_) => number < border,
                Self::Tail(_) => number >= border,
                _ => draw.one_in(2),
            };
            if reaches {
                let begin = ((first + number) * unit).max(position);
                let stop = ((first + number + 1) * unit).min(end);
                let at = |place: u64| usize::try_from(place - position).expect("a write fits into memory");
                durable.put(begin, &bytes[at(begin)..at(stop)]);
                kept += 1;
            }
        }
        (all, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forget(file: &mut File, fate: Fate, seed: u64) -> Forgotten {
        let mut forgotten = Forgotten::default();
        file.forget(fate, &mut Draw::of(seed), &mut forgotten);
        forgotten
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_is_kept_or_lost() {
        let mut file = File::default();
        file.write(0, &[1; 600]);
        file.sync();
        file.write(100, &[2; 600]);
        assert_eq!(file.read(0, 1_000), [vec![1; 100], vec![2; 600]].concat());
        let mut other = file.clone();
        assert_eq!(forget(&mut file, Fate::Lost, 1), Forgotten { lost: 2, ..Forgotten::default() });
        assert_eq!(file.read(0, 1_000), [1; 600]);
        assert_eq!(forget(&mut other, Fate::Kept, 1), Forgotten { kept: 2, ..Forgotten::default() });
        assert_eq!(other.read(0, 1_000), [vec![1; 100], vec![2; 600]].concat());
    }

    #[test]
    fn every_sector_of_a_torn_write_is_as_it_was_or_as_it_became_and_all_ways_to_tear_are_met() {
        let mut before = File::default();
        before.write(0, &vec![1; 8 * 4096]);
        before.sync();
        before.write(300, &vec![2; 6 * 4096]);
        let became = before.read(0, 8 * 4096);
        let (mut heads, mut tails, mut blocks, mut sectors, mut none, mut all) = (0, 0, 0, 0, 0, 0);
        for seed in 0..400 {
            let mut file = before.clone();
            forget(&mut file, Fate::Drawn, seed);
            let found = file.read(0, 8 * 4096);
            let is_new: Vec<bool> = found
                .chunks(512)
                .zip(became.chunks(512))
                .map(|(found, became)| {
                    assert!(found == became || found == [1; 512], "a sector is torn");
                    found == became
                })
                .collect();
            // The last sectors were not written to.
            let is_new = &is_new[..=48];
            match (is_new[0], is_new[48], is_new.iter().filter(|is_new| **is_new).count()) {
                (_, _, 0) => none += 1,
                (_, _, 49) => all += 1,
                (true, false, _) => heads += 1,
                (false, true, _) => tails += 1,
                _ => {}
            }
            let borders: Vec<usize> = (1..49).filter(|at| is_new[*at] != is_new[at - 1]).collect();
            if borders.iter().any(|at| at % 8 != 0) {
                sectors += 1;
            } else if !borders.is_empty() {
                blocks += 1;
            }
        }
        let met = [heads, tails, blocks, sectors, none, all];
        assert!(met.iter().all(|count| *count > 10), "{met:?}");
    }

    #[test]
    fn a_file_can_be_longer_than_what_was_written_and_has_zeros_there() {
        let mut met = false;
        for seed in 0..100 {
            let mut file = File::default();
            file.write(0, &[1; 512]);
            forget(&mut file, Fate::Drawn, seed);
            let found = file.read(0, 1_000);
            assert!(found.is_empty() || found == [1; 512] || found == [0; 512], "{found:?}");
            met |= found == [0; 512];
        }
        assert!(met);
    }

    #[test]
    fn a_sync_after_a_failed_one_does_not_make_up_for_it_unless_all_is_written_again() {
        let mut met = false;
        for seed in 0..20 {
            let mut file = File::default();
            file.write(0, &[1; 512]);
            file.fail_sync(&mut Draw::of(seed));
            file.sync();
            assert_eq!(file.read(0, 600), [1; 512], "processes go on to see it");
            let mut again = file.clone();
            forget(&mut file, Fate::Lost, 0);
            met |= file.read(0, 600) == [0; 512];
            again.write(0, &[1; 512]);
            again.sync();
            forget(&mut again, Fate::Lost, 0);
            assert_eq!(again.read(0, 600), [1; 512]);
        }
        assert!(met);
    }

    #[test]
    fn the_same_changes_and_the_same_seed_leave_the_same() {
        let left = |seed| {
            let mut file = File::default();
            for number in 0..50_u8 {
                file.write(u64::from(number) * 700, &[number; 3_000]);
                file.set_length(u64::from(number) * 900);
            }
            forget(&mut file, Fate::Drawn, seed);
            file.read(0, 100_000)
        };
        assert_eq!(left(7), left(7));
        assert_ne!(left(7), left(8));
    }
}
