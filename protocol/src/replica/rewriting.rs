//! Writing the log anew where it was found damaged while this replica runs: what a start would need is here, in memory.
//! (PROTOCOL §9; Alagappan et al., Protocol-Aware Recovery for Consensus-Based Storage, FAST 2018: rot in a log is mended by
//! who knows what the records mean)
//!
//! All of it is written again, behind what there is, and everything before is cut once that is durable. Until then a crash
//! finds the damage, and this replica goes about it as after any other.

use alloc::vec::Vec;

use super::Replica;
use crate::message::{Message, PrePrepare};
use crate::number::{RecordNumber, Sequence};
use crate::output::{Notice, Output};
use crate::record::Record;

impl Replica {
    /// Writes again what a start would need, and cuts what was written before. A log without room, or one that has yet to
    /// make durable what the last cut wrote again, is left as it is: whoever found the damage finds it again. So is one on
    /// whose way a vote is that a start would not need any more: it leaves once its record is durable, and must be there.
    pub(super) fn on_log_damaged(&mut self) {
        let is_settled = self.outbox.is_durable(self.checkpoints.cut_record);
        if self.is_log_full() || !is_settled || !self.outbox.waiting().all(|message| self.is_written_again(message)) {
            return;
        }
        self.outbox.push(Output::Notice(Notice::LogDamaged));
        self.outbox.push(Output::BeginSegment);
        let (before, mut last) = self.append_essentials();
        self.first_records.clear();
        for sequence in self.recorded_slots() {
            for record in self.records_of(sequence) {
                last = self.outbox.append(record);
                self.note_record(sequence, last);
            }
        }
        self.checkpoints.cut_record = last;
        self.outbox.push(Output::Cut { before });
    }

    /// Writes what a start needs before anything of a slot: the number of the first record, and of the last.
    pub(super) fn append_essentials(&mut self) -> (RecordNumber, RecordNumber) {
        let first = self.outbox.append(Record::Incarnation(self.participation.incarnation));
        let membership = self.participation.membership.clone();
        let epoch = self.log.stable().cloned().map(|stable| self.outbox.append(Record::Epoch(membership, stable)));
        (first, self.append_view().or(epoch).unwrap_or(first))
    }

    /// Whether what waits to be durable is among what is written again, if it is a vote on a slot. Of views there is nothing
    /// to ask: who is past one asks for no earlier one.
    fn is_written_again(&self, message: &Message) -> bool {
        let slot = |sequence| self.log.slot(sequence);
        if let Message::PrePrepare(PrePrepare { vote, .. }) | Message::Prepare(vote) = message {
            return slot(vote.statement.sequence).is_some_and(|slot| slot.cast == Some(*vote));
        }
        let Message::Commit(vote) = message else { return true };
        slot(vote.statement.sequence).is_some_and(|slot| slot.own_commit == Some(*vote))
    }

    /// The slots of which a start needs something: those that no cut was beyond.
    fn recorded_slots(&self) -> Vec<Sequence> {
        let above = self.checkpoints.cut.max(self.log.low().saturating_sub(self.parameters().window));
        let last = self.log.slots_after(above).last().map_or_else(|| self.log.low(), |(sequence, _)| sequence);
        (above.value()..last.value()).map(|below| Sequence::new(below + 1)).collect()
    }

    /// What there is to write of a slot.
    fn records_of(&self, sequence: Sequence) -> Vec<Record> {
        let Some(slot) = self.log.slot(sequence) else {
            let decided = self.log.decided(sequence);
            let learned = decided.map(|(certificate, batch)| Record::Learned(certificate.clone(), batch.clone()));
            return learned.into_iter().collect();
        };
        let cast = slot.cast.map(|vote| (vote.statement.digest, vote));
        let decided = slot.committed.as_ref().map(|certificate| (certificate.statement.digest, certificate.clone()));
        let is_carried = |digest| cast.is_some_and(|(cast, _)| cast == digest) || slot.decided() == Some(digest);
        let epoch = self.configuration.epoch();
        let others = slot.logged_batches().filter(|batch| !is_carried(batch.digest()));
        let mut records: Vec<Record> = others.map(|batch| Record::Batch(epoch, sequence, batch.clone())).collect();
        let logged = |digest| slot.logged_batches().find(|batch| batch.digest() == digest).cloned();
        records.extend(cast.map(|(digest, vote)| Record::Accepted(vote, logged(digest))));
        let prepared = slot.prepared.clone().zip(slot.own_commit);
        records.extend(prepared.map(|(certificate, commit)| Record::Prepared(certificate, commit)));
        let is_cast = |digest| cast.is_some_and(|(cast, _)| cast == digest);
        records.extend(decided.map(|(digest, certificate)| match logged(digest).filter(|_| !is_cast(digest)) {
            Some(batch) => Record::Learned(certificate, batch),
            None => Record::Committed(certificate),
        }));
        records
    }
}
