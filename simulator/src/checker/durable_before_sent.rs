//! Durable before sent: what a replica signs is on its disk when it leaves. (PROTOCOL §3, column "durable first")

use quorate_protocol::message::Message;
use quorate_protocol::number::Sequence;

use super::{Checker, Invariant, Moment, Observation};
use crate::disk::Disk;
use crate::statement::{Said, Subject};

/// Looks into the disk of whoever sends a statement of its own.
#[derive(Debug, Default)]
pub struct DurableBeforeSent;

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
    use quorate_protocol::Output;
    use quorate_protocol::number::ReplicaId;

    use super::*;
    use crate::checker::show;
    use crate::disk::DiskOptions;
    use crate::fabricate::Fabricated;

    #[test]
    fn a_vote_that_leaves_before_its_record_is_synced_is_found() {
        let fabricated = Fabricated::new();
        let replica = ReplicaId::new(1);
        let output = Output::Broadcast(fabricated.prepare(1, 1, 1));
        let mut checker = DurableBeforeSent;
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
        show(&mut DurableBeforeSent, &did).expect_err("no state at all");
    }
}
