//! What a replica tells a standby, which executes along and is no member: how far it is, the certificate that the standby
//! lacks, and decided slots with theirs. All of it can be checked with the genesis alone. (PROTOCOL §9, §11)

use alloc::vec::Vec;

use super::Replica;
use super::retransmission::DECIDED_MAX;
use crate::message::{Decided, Message, Status};
use crate::number::Sequence;

impl Replica {
    /// The answer to what a standby says of itself: this replica's own status, and the stable certificate if that is ahead
    /// of the standby's.
    pub fn tell_standby(&self, said: &Status) -> Vec<Message> {
        let certificate = self.log.stable().filter(|own| own.statement.sequence > said.stable);
        let certificate = certificate.map(|certificate| Message::Stable(certificate.clone()));
        certificate.into_iter().chain([Message::Status(self.status())]).collect()
    }

    /// Decided slots after a slot, with their certificates: as many as a peer gets for one question, and no more of them
    /// than hold `bytes_max` bytes of batches, but for the first.
    pub fn decided_for_standby(&self, after: Sequence, bytes_max: usize) -> Vec<Message> {
        let slots = (1..=DECIDED_MAX).map(|offset| self.log.decided(after.saturating_add(offset)));
        let mut bytes = 0_usize;
        let fits = |(_, batch): &(_, &crate::batch::Batch)| {
            bytes = bytes.saturating_add(batch.body().len());
            bytes == batch.body().len() || bytes <= bytes_max
        };
        let slots = slots.map_while(|slot| slot).take_while(fits);
        let decided = slots.map(|(certificate, batch)| Decided {
            certificate: certificate.clone(),
            batch: batch.body().clone().into(),
        });
        decided.map(Message::Decided).collect()
    }
}
