//! Durable before sent: what a replica signs is on its disk when it leaves, a vote with its batch. (PROTOCOL §3, column "durable
//! first", and §4.3)

use std::collections::BTreeSet;

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::record::Record;

use super::{Checker, Invariant, Moment, Observation};
use crate::disk::Disk;
use crate::statement::{Said, Subject};

/// Looks into the disk of whoever sends a statement of its own, and knows which batches went there.
#[derive(Debug, Default)]
pub struct DurableBeforeSent {
    batches: BTreeSet<(ReplicaId, Digest)>,
}

impl DurableBeforeSent {
    /// A vote's record comes with the batch, or after it.
    fn note_record(&mut self, replica: ReplicaId, record: &Record) -> Result<(), String> {
        match record {
            Record::Accepted(_, Some(batch)) | Record::Learned(_, batch) | Record::Batch(_, _, batch) => {
                self.batches.insert((replica, batch.digest()));
                Ok(())
            }
            Record::Accepted(vote, None) if !self.batches.contains(&(replica, vote.statement.digest)) => {
                let slot = vote.statement.sequence;
                Err(format!("replica {replica} votes in slot {slot} for a batch that its log does not hold"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the disk would give the statement back after a crash at this instant, or does not need to: what is at or
/// below the durable checkpoint is decided without this replica's vote, and a view that was reached is not asked for again.
fn is_safe(disk: &Disk, said: &Said) -> bool {
    let checkpoint: Sequence = disk.checkpoints.durable_sequence();
    match said.subject {
        Subject::Checkpoint(_, sequence) => checkpoint >= sequence,
        Subject::Prepare(_, _, sequence) | Subject::Commit(_, _, sequence) => {
            sequence <= checkpoint || disk.log.is_durable(said)
        }
        Subject::ViewChange(epoch, view) => disk.log.is_past_view(epoch, view),
        Subject::NewView(..) => disk.log.is_durable(said),
    }
}

impl Checker for DurableBeforeSent {
    fn invariant(&self) -> Invariant {
        Invariant::DurableBeforeSent
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Did { replica, output: Output::Append { record, .. }, .. } = observation {
            return self.note_record(*replica, record);
        }
        let Observation::Said { replica, said, message, disk } = observation else {
            return Ok(());
        };
        match said.iter().find(|said| is_own(message, said) && !is_safe(disk, said)) {
            Some(said) => {
                Err(format!("replica {replica} sends {:?}, which a crash would make it forget", said.subject))
            }
            None => Ok(()),
        }
    }
}

/// Whether the statement is what the message says, rather than a vote in a certificate that it brings along: that one was
/// sent before, or nobody could have collected it but the replica itself.
fn is_own(message: &Message, said: &Said) -> bool {
    match message {
        Message::Stable(_) | Message::Decided(_) => false,
        Message::ViewChange(_) => matches!(said.subject, Subject::ViewChange(..)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{show, violation_of};
    use crate::disk::DiskOptions;
    use crate::disk::log::FIRST;
    use crate::fabricate::Fabricated;

    #[test]
    fn a_vote_that_leaves_before_its_record_is_synced_is_found() {
        let fabricated = Fabricated::new();
        let replica = ReplicaId::new(1);
        let output = Output::Broadcast(fabricated.prepare(1, 1, 1));
        let mut checker = DurableBeforeSent::default();
        let mut disk = Disk::new(DiskOptions::default());
        disk.log.append(disk.log.end(), &fabricated.accepted(1, 1), replica, 4).expect("the first record");
        show(&mut checker, &Observation::Did { replica, output: &output, disk: &disk }).expect_err("not durable");
        disk.log.begin_sync();
        disk.log.end_sync();
        show(&mut checker, &Observation::Did { replica, output: &output, disk: &disk }).expect("durable");
    }

    #[test]
    fn a_checkpoint_vote_that_leaves_before_the_state_is_durable_is_found() {
        let output = Output::Broadcast(Fabricated::checkpoint(1, 8, 1));
        let disk = Disk::new(DiskOptions::default());
        let did = Observation::Did { replica: ReplicaId::new(1), output: &output, disk: &disk };
        show(&mut DurableBeforeSent::default(), &did).expect_err("no state at all");
    }

    #[test]
    fn a_vote_for_a_batch_that_is_not_in_the_log_is_found() {
        let fabricated = Fabricated::new();
        let append = |record| (1, Output::Append { number: FIRST, record });
        let Record::Accepted(vote, Some(batch)) = fabricated.accepted(1, 1) else { panic!("it accepts a batch") };
        let alone = || append(Record::Accepted(vote, None));
        let with = || append(Record::Accepted(vote, Some(batch.clone())));
        assert_eq!(violation_of(&mut DurableBeforeSent::default(), &[with(), alone()]), None);
        assert!(violation_of(&mut DurableBeforeSent::default(), &[alone()]).is_some());
    }
}
