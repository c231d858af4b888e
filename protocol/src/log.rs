//! The slots between the watermarks, and a bounded memory of what was decided just below. (PROTOCOL §5)

use alloc::collections::{BTreeMap, VecDeque};

use quorate_crypto::Digest;

use crate::batch::Batch;
use crate::certificate::{CommittedCertificate, StableCertificate};
use crate::number::Sequence;
use crate::slot::Slot;

/// Bytes of decided batches that are kept below the low watermark for peers that lag a little.
const HISTORY_BYTES_MAX: usize = 64 << 20;

/// What a replica knows of each slot, and the certificate that makes everything below stable.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Log {
    members: usize,
    window: u64,
    stable: Option<StableCertificate>,
    /// Bound: the window above the low watermark, and as many not yet executed below it.
    slots: BTreeMap<Sequence, Slot>,
    /// Decided slots at and below the low watermark, in order without a gap. Bound: the window, [`HISTORY_BYTES_MAX`].
    history: VecDeque<(CommittedCertificate, Batch)>,
    history_bytes: usize,
}

impl Log {
    pub(crate) fn new(members: usize, window: u64) -> Self {
        Self { members, window, stable: None, slots: BTreeMap::new(), history: VecDeque::new(), history_bytes: 0 }
    }

    /// The low watermark: everything at or below it is stable.
    pub(crate) fn low(&self) -> Sequence {
        self.stable.as_ref().map_or(Sequence::ZERO, |certificate| certificate.statement.sequence)
    }

    /// The high watermark: nothing above it is voted on.
    pub(crate) fn high(&self) -> Sequence {
        self.low().saturating_add(self.window)
    }

    /// Whether a slot lies between the watermarks: `low < s <= low + window`. (PROTOCOL §4.2)
    pub(crate) fn is_within_watermarks(&self, sequence: Sequence) -> bool {
        sequence > self.low() && sequence <= self.high()
    }

    /// The certificate of the low watermark; none at slot zero.
    pub(crate) fn stable(&self) -> Option<&StableCertificate> {
        self.stable.as_ref()
    }

    pub(crate) fn slot(&self, sequence: Sequence) -> Option<&Slot> {
        self.slots.get(&sequence)
    }

    pub(crate) fn slot_mut(&mut self, sequence: Sequence) -> Option<&mut Slot> {
        self.slots.get_mut(&sequence)
    }

    /// The slot at `sequence`, which the caller checked against the watermarks or against what was executed.
    pub(crate) fn entry(&mut self, sequence: Sequence) -> &mut Slot {
        let members = self.members;
        self.slots.entry(sequence).or_insert_with(|| Slot::new(members))
    }

    /// How many slots are known.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The slots known above `after`, in order.
    pub(crate) fn slots_after(&self, after: Sequence) -> impl Iterator<Item = (Sequence, &Slot)> {
        let from = after.saturating_add(1);
        self.slots.range(from..).map(|(sequence, slot)| (*sequence, slot))
    }

    /// Takes a certificate of a higher slot than the low watermark's. Slots at or below it that were executed leave,
    /// and so do those which lie a whole window below: only a state transfer brings a replica past them.
    pub(crate) fn advance(&mut self, certificate: StableCertificate, executed: Sequence) {
        assert!(certificate.statement.sequence > self.low(), "the low watermark only rises");
        self.stable = Some(certificate);
        let low = self.low();
        if executed.saturating_add(self.window) < low {
            self.slots.retain(|sequence, _| *sequence > low);
        }
        self.prune(executed);
    }

    /// Another epoch began: what is known of slots that were not decided and executed before it is void.
    pub(crate) fn begin_epoch(&mut self, certificate: StableCertificate, executed: Sequence) {
        if certificate.statement.sequence > self.low() {
            self.stable = Some(certificate);
        }
        self.prune(executed);
        self.slots.clear();
        self.skip_to(executed);
    }

    /// Drops slots that are both stable and executed, remembering what was decided.
    pub(crate) fn prune(&mut self, executed: Sequence) {
        let bound = self.low().min(executed);
        while let Some(entry) = self.slots.first_entry() {
            if *entry.key() > bound {
                break;
            }
            let (sequence, slot) = entry.remove_entry();
            self.remember(sequence, slot);
        }
    }

    /// The first decided slot that [`Log::decided`] still gives; everything from there on that was executed is there.
    pub(crate) fn decided_from(&self, executed: Sequence) -> Sequence {
        let history = self.history.front().map(|(certificate, _)| certificate.statement.sequence);
        history.unwrap_or_else(|| self.low().min(executed).saturating_add(1))
    }

    /// The decided batch of a slot and its proof, if they are still here.
    pub(crate) fn decided(&self, sequence: Sequence) -> Option<(&CommittedCertificate, &Batch)> {
        if let Some(slot) = self.slots.get(&sequence) {
            return slot.committed.as_ref().zip(slot.decided_batch());
        }
        let first = self.history.front()?.0.statement.sequence;
        let index = usize::try_from(sequence.value().checked_sub(first.value())?).ok()?;
        self.history.get(index).map(|(certificate, batch)| (certificate, batch))
    }

    /// A batch known for a slot, by its digest.
    pub(crate) fn batch(&self, sequence: Sequence, digest: &Digest) -> Option<&Batch> {
        match self.slots.get(&sequence) {
            Some(slot) => slot.batch(digest),
            None => self.decided(sequence).map(|(_, batch)| batch).filter(|batch| batch.digest() == *digest),
        }
    }

    /// A state transfer leads past slots that were never decided here. Those above the low watermark stay: what this
    /// replica voted on them binds it.
    pub(crate) fn skip_to(&mut self, executed: Sequence) {
        self.prune(executed);
        let last = self.history.back().map(|(certificate, _)| certificate.statement.sequence);
        if last != Some(self.low().min(executed)) {
            self.history.clear();
            self.history_bytes = 0;
        }
    }

    fn remember(&mut self, sequence: Sequence, slot: Slot) {
        let decided = slot.committed.clone().zip(slot.decided_batch().cloned());
        let expected = self.history.back().and_then(|(certificate, _)| certificate.statement.sequence.next());
        if decided.is_none() || expected.is_some_and(|expected| expected != sequence) {
            self.history.clear();
            self.history_bytes = 0;
        }
        if let Some((certificate, batch)) = decided {
            self.history_bytes += batch.body().len();
            self.history.push_back((certificate, batch));
        }
        while self.history_bytes > HISTORY_BYTES_MAX || self.history.len() as u64 > self.window {
            let Some((_, batch)) = self.history.pop_front() else { break };
            self.history_bytes -= batch.body().len();
        }
    }

    /// What must hold between inputs.
    pub(crate) fn assert_invariants(&self) {
        assert!(self.slots.len() as u64 <= 2 * self.window + 1, "slots are kept for two windows at most");
        assert!(self.slots.last_key_value().is_none_or(|(last, _)| *last <= self.high()));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use quorate_crypto::{PublicKey, Signature};

    use super::*;
    use crate::batch::{ParsedRequest, Request, SignedRequest};
    use crate::codec::List;
    use crate::number::{Epoch, RequestNumber, Session, View};
    use crate::slot::Logged;
    use crate::statement::{Checkpoint, Commit};
    use crate::time::WallTime;

    const WINDOW: u64 = 8;

    fn batch(bytes: usize) -> Batch {
        let client = PublicKey::from_bytes([5; 32]).expect("neither weak nor beyond the prime");
        let request =
            Request { client, session: Session::NONE, number: RequestNumber::new(1), operations: List::empty() };
        let signed = SignedRequest { body: vec![0; bytes].into(), signature: Signature::from_bytes([0; 64]) };
        Batch::new(WallTime::ZERO, vec![ParsedRequest::new(request, signed)])
    }

    fn stable(sequence: u64) -> StableCertificate {
        let statement =
            Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(sequence), root: Digest::from_bytes([1; 32]) };
        StableCertificate { statement, votes: List::empty() }
    }

    fn decide(log: &mut Log, sequence: u64, batch: &Batch) {
        let sequence = Sequence::new(sequence);
        let statement = Commit { epoch: Epoch::ZERO, view: View::ZERO, sequence, digest: batch.digest() };
        let slot = log.entry(sequence);
        slot.add_batch(batch.clone(), Logged::Yes);
        slot.decide(CommittedCertificate { statement, votes: List::empty() });
    }

    fn handed_out(log: &Log) -> Vec<u64> {
        (0..100).filter(|sequence| log.decided(Sequence::new(*sequence)).is_some()).collect()
    }

    #[test]
    fn the_watermarks_are_exclusive_below_and_inclusive_above() {
        let mut log = Log::new(4, WINDOW);
        let within = |log: &Log| -> Vec<u64> {
            (0..30).filter(|sequence| log.is_within_watermarks(Sequence::new(*sequence))).collect()
        };
        assert_eq!(within(&log), (1..=8).collect::<Vec<_>>());
        log.advance(stable(4), Sequence::ZERO);
        assert_eq!(within(&log), (5..=12).collect::<Vec<_>>());
        assert!(!log.is_within_watermarks(Sequence::new(u64::MAX)));
    }

    #[test]
    fn decided_slots_are_remembered_below_the_low_watermark_for_a_window() {
        let mut log = Log::new(4, WINDOW);
        let small = batch(1);
        for sequence in 1..=20 {
            decide(&mut log, sequence, &small);
            if sequence.is_multiple_of(4) {
                log.advance(stable(sequence), Sequence::new(sequence));
                log.assert_invariants();
            }
        }
        assert_eq!(handed_out(&log), (13..=20).collect::<Vec<_>>());
        assert_eq!(log.decided_from(Sequence::new(20)), Sequence::new(13));
        assert!(log.slot(Sequence::new(20)).is_none());
        assert!(log.batch(Sequence::new(13), &small.digest()).is_some());
        assert!(log.batch(Sequence::new(13), &Batch::empty().digest()).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_in_bytes() {
        let mut log = Log::new(4, 1000);
        let large = batch(4 << 20);
        for sequence in 1..=20 {
            decide(&mut log, sequence, &large);
        }
        log.advance(stable(20), Sequence::new(20));
        let count = HISTORY_BYTES_MAX / large.body().len();
        assert_eq!(log.history.len(), count);
        assert_eq!(log.history_bytes, count * large.body().len());
        assert_eq!(log.decided_from(Sequence::new(20)), Sequence::new(21 - count as u64));
    }

    #[test]
    fn a_gap_in_what_was_decided_is_never_handed_out_as_if_it_were_none() {
        let mut log = Log::new(4, WINDOW);
        let small = batch(1);
        for sequence in [1, 2, 4] {
            decide(&mut log, sequence, &small);
        }
        log.entry(Sequence::new(3));
        log.advance(stable(4), Sequence::new(4));
        assert_eq!(handed_out(&log), [4]);
        assert_eq!(log.decided_from(Sequence::new(4)), Sequence::new(4));
    }

    #[test]
    fn slots_that_have_yet_to_execute_stay_within_a_window_and_no_longer() {
        let mut log = Log::new(4, WINDOW);
        let small = batch(1);
        decide(&mut log, 2, &small);
        log.advance(stable(8), Sequence::ZERO);
        assert_eq!(handed_out(&log), [2], "exactly a window below");
        decide(&mut log, 14, &small);
        log.advance(stable(12), Sequence::ZERO);
        assert_eq!(handed_out(&log), [14]);
        log.assert_invariants();
    }

    #[test]
    fn a_state_transfer_leaves_what_lies_above_it() {
        let mut log = Log::new(4, WINDOW);
        let small = batch(1);
        for sequence in 1..=6 {
            decide(&mut log, sequence, &small);
        }
        log.advance(stable(4), Sequence::new(2));
        log.skip_to(Sequence::new(4));
        assert_eq!(handed_out(&log), [1, 2, 3, 4, 5, 6]);
        assert_eq!(log.decided_from(Sequence::new(4)), Sequence::new(1));
    }

    #[test]
    fn what_a_state_transfer_led_past_is_not_promised_to_anyone() {
        let mut log = Log::new(4, WINDOW);
        decide(&mut log, 3, &batch(1));
        log.advance(stable(4), Sequence::ZERO);
        log.skip_to(Sequence::new(4));
        assert_eq!(log.decided_from(Sequence::new(4)), Sequence::new(5), "slot 4 was never decided here");
    }

    #[test]
    #[should_panic(expected = "only rises")]
    fn the_low_watermark_never_falls() {
        let mut log = Log::new(4, WINDOW);
        log.advance(stable(4), Sequence::ZERO);
        log.advance(stable(4), Sequence::ZERO);
    }
}
