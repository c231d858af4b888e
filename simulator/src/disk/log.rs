//! The write-ahead log: append, sync in groups, cut, and what a crash leaves. (PROTOCOL §9)

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::number::{Epoch, Incarnation, RecordNumber, ReplicaId, View};
use quorate_protocol::record::{Record, Recovered};

use crate::random::{Chance, Random};
use crate::statement::{Said, Subject, in_record};

/// The number of the first record of a log: the one that names its life.
pub const FIRST: RecordNumber = RecordNumber::ZERO;

/// A record on disk.
#[derive(Debug, Clone)]
struct Frame {
    head: Bytes,
    /// `None` once it is damaged.
    body: Option<Bytes>,
    said: Vec<Said>,
}

/// A replica's log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Consecutive; the first has the number `first`.
    frames: VecDeque<Frame>,
    first: RecordNumber,
    /// All below are durable.
    durable_end: RecordNumber,
    /// All below are durable once the sync under way ends.
    syncing_end: Option<RecordNumber>,
    /// Cuts that wait for what was appended before them: (all below are durable, cut below).
    cuts: VecDeque<(RecordNumber, RecordNumber)>,
    /// How many durable records say each statement of the replica's own.
    durable_said: BTreeMap<Said, u32>,
    /// All that was synced from here on is only said to be durable: the first crash loses it.
    lies_from: Option<RecordNumber>,
    segment_records: u64,
    /// Where a segment was begun before the one before it was full.
    segment_from: RecordNumber,
    appended: u64,
    syncs: u64,
}

/// The number of an appended record is not the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {given} was appended where {expected} is next")]
pub struct Gap {
    /// The number that the record was given.
    pub given: RecordNumber,
    /// The next number.
    pub expected: RecordNumber,
}

impl Log {
    pub(super) fn new(segment_records: u64) -> Self {
        // What `init` writes.
        let first = Record::Incarnation(Incarnation::ZERO).encode();
        let frame = Frame { head: first.head, body: Some(first.body), said: Vec::new() };
        Self {
            frames: VecDeque::from([frame]),
            first: FIRST,
            durable_end: FIRST.saturating_add(1),
            syncing_end: None,
            cuts: VecDeque::new(),
            durable_said: BTreeMap::new(),
            lies_from: None,
            segment_records: segment_records.max(1),
            segment_from: FIRST,
            appended: 0,
            syncs: 0,
        }
    }

    /// A log of which nothing is left, not even its first record.
    pub(super) fn gone(segment_records: u64) -> Self {
        let mut log = Self::new(segment_records);
        log.frames.clear();
        log.durable_end = log.first;
        log
    }

    /// A log with what is durable, and nothing under way.
    pub(super) fn durable(&self) -> Self {
        let mut copy = self.clone();
        copy.frames.truncate(copy.index(copy.durable_end));
        copy.syncing_end = None;
        copy.cuts.clear();
        copy
    }

    /// The number that the next record gets.
    pub fn end(&self) -> RecordNumber {
        self.first.saturating_add(self.frames.len() as u64)
    }

    /// The number of the oldest record that is kept.
    pub const fn first(&self) -> RecordNumber {
        self.first
    }

    /// Whether a crash would lose something.
    pub fn has_unsynced(&self) -> bool {
        self.durable_end < self.end()
    }

    /// How many records are kept.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// How many records were appended, and how many syncs ended, since the disk was new.
    pub const fn totals(&self) -> (u64, u64) {
        (self.appended, self.syncs)
    }

    /// Whether a durable record holds this statement of the replica's own.
    pub fn is_durable(&self, said: &Said) -> bool {
        self.durable_said.contains_key(said)
    }

    /// Whether a durable record shows that the replica asked for this view or a later one, or entered it: after a crash it
    /// would ask for a later one still.
    pub fn is_past_view(&self, epoch: Epoch, view: View) -> bool {
        self.durable_said.keys().any(|said| match said.subject {
            Subject::ViewChange(of, reached) | Subject::NewView(of, reached) => (of, reached) >= (epoch, view),
            Subject::Prepare(..) | Subject::Commit(..) | Subject::Checkpoint(..) => false,
        })
    }

    /// Appends a record, which is not durable yet.
    ///
    /// # Errors
    /// [`Gap`], if its number is not the next one.
    pub fn append(
        &mut self,
        number: RecordNumber,
        record: &Record,
        replica: ReplicaId,
        members: u64,
    ) -> Result<(), Gap> {
        if number != self.end() {
            return Err(Gap { given: number, expected: self.end() });
        }
        let encoded = record.encode();
        let said = in_record(record, replica, members);
        self.frames.push_back(Frame { head: encoded.head, body: Some(encoded.body), said });
        self.appended += 1;
        Ok(())
    }

    /// Drops all records below `before`, once all that were appended by now are durable.
    pub fn cut(&mut self, before: RecordNumber) {
        self.cuts.push_back((self.end(), before));
        self.apply_cuts();
    }

    /// The next record begins a segment.
    pub fn begin_segment(&mut self) {
        self.segment_from = self.end();
    }

    /// Begins a sync of all that was appended by now, unless one is under way or there is nothing to do.
    pub fn begin_sync(&mut self) -> bool {
        let is_needed = self.syncing_end.is_none() && self.durable_end < self.end();
        if is_needed {
            self.syncing_end = Some(self.end());
        }
        is_needed
    }

    /// Ends the sync under way: the last record that is durable now.
    pub fn end_sync(&mut self) -> Option<RecordNumber> {
        let end = self.syncing_end.take()?;
        self.syncs += 1;
        self.make_durable(end);
        self.apply_cuts();
        Some(end.saturating_sub(1))
    }

    /// From now on syncs end, and nothing is durable.
    pub(super) fn lie(&mut self) {
        self.lies_from.get_or_insert(self.durable_end);
    }

    /// All that is said to be durable is so, from now on and before.
    pub(super) fn be_honest(&mut self) {
        self.lies_from = None;
    }

    /// Damages the body of a record, if there is one: it is found at the next start.
    pub fn rot_body(&mut self, number: RecordNumber) -> bool {
        let index = self.index(number);
        match self.frames.get_mut(index) {
            Some(frame) if number >= self.first && frame.body.as_ref().is_some_and(|body| !body.is_empty()) => {
                frame.body = None;
                true
            }
            _ => false,
        }
    }

    /// Loses what was not synced, but for some records in order, the last of which may be torn.
    pub(super) fn crash(&mut self, torn: Chance, random: &mut Random, configuration: &Configuration) {
        if let Some(kept) = self.lies_from {
            return self.lose_from(kept);
        }
        let unsynced = self.end().distance_from(self.durable_end);
        let survives = random.between(0, unsynced);
        let mut end = self.durable_end.saturating_add(survives);
        if survives < unsynced && random.happens(torn) && self.tear(end, random, configuration) {
            end = end.saturating_add(1);
        }
        self.frames.truncate(self.index(end));
        self.syncing_end = None;
        self.cuts.clear();
        self.make_durable(end);
    }

    /// Loses all from `kept` on, durable or not.
    fn lose_from(&mut self, kept: RecordNumber) {
        let end = kept.max(self.first);
        let lost = self.frames.split_off(self.index(end));
        let durable = self.durable_end.distance_from(end);
        let durable = usize::try_from(durable).expect("records are in memory");
        lost.iter().take(durable).flat_map(|frame| &frame.said).for_each(|said| self.forget(said));
        self.durable_end = end;
        self.lies_from = Some(end);
        self.syncing_end = None;
        self.cuts.clear();
    }

    /// Tears a record: whether anything of it is left. Without its body it is what its head says; with no whole head it
    /// is not there.
    fn tear(&mut self, number: RecordNumber, random: &mut Random, configuration: &Configuration) -> bool {
        let index = self.index(number);
        let frame = &mut self.frames[index];
        let [first_head, body, second_head] = [random.below(2), random.below(2), random.below(2)];
        if first_head + second_head == 0 {
            return false;
        }
        let is_whole = Recovered::decode(&frame.head, None, configuration)
            .is_ok_and(|recovered| matches!(recovered, Recovered::Whole(_)));
        if body == 0 && !is_whole {
            frame.body = None;
        }
        true
    }

    fn make_durable(&mut self, end: RecordNumber) {
        let range = self.index(self.durable_end)..self.index(end);
        for said in self.frames.range(range).flat_map(|frame| &frame.said) {
            *self.durable_said.entry(*said).or_default() += 1;
        }
        self.durable_end = end;
    }

    fn apply_cuts(&mut self) {
        while let Some(&(waits_for, before)) = self.cuts.front() {
            if waits_for > self.durable_end {
                return;
            }
            self.cuts.pop_front();
            let full = RecordNumber::new(before.value() - before.value() % self.segment_records);
            let segment_first = if self.segment_from <= before { full.max(self.segment_from) } else { full };
            self.drop_below(segment_first.min(self.durable_end));
        }
    }

    fn drop_below(&mut self, before: RecordNumber) {
        while self.first < before {
            let Some(frame) = self.frames.pop_front() else {
                return;
            };
            self.first = self.first.saturating_add(1);
            frame.said.iter().for_each(|said| self.forget(said));
        }
    }

    /// One record less says this.
    fn forget(&mut self, said: &Said) {
        let Some(count) = self.durable_said.get_mut(said) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.durable_said.remove(said);
        }
    }

    /// Where a record stands among those that are kept; zero for those before.
    fn index(&self, number: RecordNumber) -> usize {
        usize::try_from(number.distance_from(self.first)).expect("records are in memory")
    }

    /// All records, as they are found at a start.
    pub fn recover(&self, configuration: &Configuration) -> Vec<(RecordNumber, Recovered)> {
        let decode = |frame: &Frame| {
            Recovered::decode(&frame.head, frame.body.as_ref(), configuration)
                .expect("a frame holds what the encoding of a record gave")
        };
        let numbers = (self.first.value()..).map(RecordNumber::new);
        numbers.zip(self.frames.iter().map(decode)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, DiskOptions};
    use crate::fabricate::{Fabricated, configuration};
    use crate::random::Stream;

    fn disk_with(records: u64, synced: u64) -> Disk {
        let fabricated = Fabricated::new();
        let mut disk = Disk::new(DiskOptions { segment_records: 4, ..DiskOptions::default() });
        disk.lose();
        for number in 0..records {
            let record = fabricated.accepted(0, number + 1);
            disk.log.append(RecordNumber::new(number), &record, ReplicaId::new(0), 4).expect("the next number");
            if number + 1 == synced {
                disk.log.begin_sync();
                disk.log.end_sync();
            }
        }
        disk
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_some_of_the_rest_in_order() {
        let configuration = configuration();
        let mut kept = Vec::new();
        for seed in 0..200 {
            let mut disk = disk_with(10, 5);
            disk.crash(&mut Random::new(seed, Stream::Disk), &configuration);
            let records = disk.log.recover(&configuration);
            assert!(records.len() >= 5 && records.len() <= 10);
            let torn = records.iter().filter(|(_, record)| !matches!(record, Recovered::Whole(_))).count();
            let last_is_torn = matches!(records.last(), Some((_, Recovered::AcceptedWithoutBatch(_))));
            assert_eq!(torn, usize::from(last_is_torn), "only the last record is ever torn");
            kept.push((records.len(), last_is_torn));
        }
        assert!(kept.contains(&(5, false)) && kept.contains(&(10, false)) && kept.iter().any(|(_, torn)| *torn));
    }

    #[test]
    fn a_cut_waits_for_what_was_appended_before_it_and_spares_the_segment() {
        let mut disk = disk_with(10, 5);
        disk.log.cut(RecordNumber::new(9));
        assert_eq!(disk.log.first(), RecordNumber::new(0));
        assert!(disk.log.begin_sync());
        disk.log.end_sync();
        assert_eq!(disk.log.first(), RecordNumber::new(8), "a segment holds 4 records");
    }

    #[test]
    fn a_segment_that_was_begun_early_is_all_that_a_cut_leaves() {
        let mut disk = disk_with(6, 6);
        disk.log.begin_segment();
        disk.log.append(RecordNumber::new(6), &Fabricated::new().accepted(0, 9), ReplicaId::new(0), 4).expect("next");
        disk.log.cut(RecordNumber::new(6));
        assert_eq!(disk.log.first(), RecordNumber::new(0));
        assert!(disk.log.begin_sync());
        disk.log.end_sync();
        assert_eq!(disk.log.first(), RecordNumber::new(6));
    }

    #[test]
    fn a_statement_is_durable_from_the_sync_to_the_cut() {
        let said = in_record(&Fabricated::new().accepted(0, 2), ReplicaId::new(0), 4);
        let mut disk = disk_with(10, 1);
        assert!(!disk.log.is_durable(&said[0]));
        disk.log.begin_sync();
        disk.log.end_sync();
        assert!(disk.log.is_durable(&said[0]));
        disk.log.cut(RecordNumber::new(4));
        assert!(!disk.log.is_durable(&said[0]));
    }

    #[test]
    fn a_crash_loses_what_was_synced_while_the_disk_lied_and_no_more() {
        let configuration = configuration();
        let mut disk = disk_with(10, 5);
        let said = |slot| in_record(&Fabricated::new().accepted(0, slot), ReplicaId::new(0), 4)[0];
        disk.lie_about_syncs();
        disk.log.begin_sync();
        disk.log.end_sync();
        assert!(disk.log.is_durable(&said(10)), "it says so");
        disk.crash(&mut Random::new(1, Stream::Disk), &configuration);
        assert_eq!(disk.log.recover(&configuration).len(), 5);
        assert!(disk.log.is_durable(&said(5)) && !disk.log.is_durable(&said(6)));
        disk.mend();
        let record = Fabricated::new().accepted(0, 6);
        disk.log.append(RecordNumber::new(5), &record, ReplicaId::new(0), 4).expect("the next number");
        disk.log.begin_sync();
        disk.log.end_sync();
        disk.crash(&mut Random::new(1, Stream::Disk), &configuration);
        assert_eq!(disk.log.recover(&configuration).len(), 6);
    }

    #[test]
    fn a_number_that_is_not_the_next_is_refused() {
        let mut disk = disk_with(1, 1);
        let gap = disk.log.append(RecordNumber::new(3), &Fabricated::new().accepted(0, 9), ReplicaId::new(0), 4);
        assert_eq!(gap, Err(Gap { given: RecordNumber::new(3), expected: RecordNumber::new(1) }));
    }

    #[test]
    fn a_rotten_body_is_found_at_the_next_start() {
        let mut disk = disk_with(3, 3);
        assert!(disk.log.rot_body(RecordNumber::new(1)));
        let records = disk.log.recover(&configuration());
        assert!(matches!(records[1].1, Recovered::AcceptedWithoutBatch(_)));
    }
}
