//! What standbys get: how far this replica is, the certificate that they lack, and decided slots. (PROTOCOL §11)
//!
//! A standby comes in by the clients' door, as who it is need not be known: what it gets anybody can check, and whoever may
//! read the state may have it. What all of them get together is bounded in bytes a second, so that they cost clients
//! little.

use std::time::Instant;

use quorate_protocol::codec::Blob;
use quorate_protocol::message::{Fetch, Message, ReplicaMessage, from_frame, to_frame};

use super::Host;
use crate::transport::ConnectionId;

/// What all standbys get, in bytes a second.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// What they may get at once after a pause, in bytes.
const BURST_BYTES: u64 = 8 << 20;

/// Batches in the answer to one question, in bytes; a larger one comes alone.
const ANSWER_BYTES: usize = 1 << 20;

/// What a message counts for besides the batch in it, in bytes: more than a certificate of the largest cluster.
const MESSAGE_BYTES: u64 = 4 << 10;

/// What may still be given away.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes: u64,
    renewed: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: BURST_BYTES, renewed: now }
    }

    /// Takes `bytes` if there is anything left: what is taken beyond comes off what follows.
    fn spend(&mut self, bytes: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.renewed);
        let grown = u128::from(BYTES_PER_SECOND) * passed.as_micros() / 1_000_000;
        if grown > 0 {
            self.bytes = self.bytes.saturating_add(u64::try_from(grown).unwrap_or(u64::MAX)).min(BURST_BYTES);
            self.renewed = now;
        }
        let is_enough = self.bytes >= bytes;
        self.bytes = self.bytes.saturating_sub(bytes);
        is_enough
    }
}

impl Host {
    /// A standby says how far it is, or asks for what it lacks; nothing else of a peer's is listened to. Whether the frame is
    /// one of these.
    pub(super) fn on_standby(&mut self, connection: ConnectionId, frame: &Blob) -> bool {
        let answers = match from_frame::<Message>(&frame.clone().into_bytes()) {
            Ok(Message::Status(said)) => self.machine.replica().tell_standby(&said),
            Ok(Message::Fetch(Fetch::Decided { after })) => {
                self.machine.replica().decided_for_standby(after, ANSWER_BYTES)
            }
            Ok(_) | Err(_) => return false,
        };
        for message in answers {
            // Before it is encoded: who asks beyond that costs next to nothing.
            if !self.standbys.spend(cost(&message), Instant::now()) {
                self.counters.busy += 1;
                return true;
            }
            if let Ok(frame) = to_frame(&message) {
                self.clients.try_answer(connection, &ReplicaMessage::Standby(Blob::from(frame)));
            }
        }
        true
    }
}

/// What a message counts for, in bytes.
fn cost(message: &Message) -> u64 {
    let batch = if let Message::Decided(decided) = message { decided.batch.len() } else { 0 };
    batch as u64 + MESSAGE_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn standbys_get_a_burst_and_then_so_much_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let spent =
            |allowance: &mut Allowance, now| (0..1_000).filter(|_| allowance.spend(1 << 20, now)).count() as u64;
        assert_eq!(spent(&mut allowance, start), BURST_BYTES >> 20);
        assert_eq!(spent(&mut allowance, start), 0);
        assert_eq!(spent(&mut allowance, start + Duration::from_millis(125)), BYTES_PER_SECOND >> 23);
        assert_eq!(
            spent(&mut allowance, start + Duration::from_mins(1)),
            BURST_BYTES >> 20,
            "a pause saves up no more"
        );
    }
}
