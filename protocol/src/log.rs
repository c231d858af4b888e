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
#[derive(Debug, Clone)]
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
        self.history.clear();
        self.history_bytes = 0;
        self.prune(executed);
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
