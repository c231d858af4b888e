//! A replica in an adversary's hands takes its log for whole, whatever it has said: nobody need tell it.

use std::sync::Arc;

use quorate_crypto::Item;
use quorate_protocol::codec::List;
use quorate_protocol::message::{Message, Statements};
use quorate_protocol::number::{Incarnation, RecordNumber, Sequence};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::{Replica, Start, StartError};
use quorate_protocol::verify::{Verifier, verify};
use quorate_protocol::{Input, Machine as _, Now};

/// There is nothing to check.
struct Nothing;

impl Verifier for Nothing {
    fn verify(&mut self, _: &[Item]) -> Result<(), usize> {
        Ok(())
    }
}

/// Starts a replica that votes at once, and never knows that it lost votes.
pub(crate) fn start_voting(mut start: Start, now: Now) -> Result<Replica, StartError> {
    let token = start.token;
    if !start.records.iter().any(|(_, record)| matches!(record, Recovered::Whole(Record::Incarnation(_)))) {
        let first = Recovered::Whole(Record::Incarnation(Incarnation::ZERO));
        start.records.insert(0, (RecordNumber::ZERO, first));
    }
    let mut replica = Replica::start(start, now)?;
    let configuration = Arc::clone(replica.configuration());
    let others = configuration.replicas().filter(|id| *id != replica.id()).take(configuration.quorum() - 1);
    for from in others.collect::<Vec<_>>() {
        let nothing = Statements {
            token,
            epoch: configuration.epoch(),
            prepares: List::empty(),
            commits: List::empty(),
            checkpoints: List::empty(),
            view_change: None,
            new_view: None,
            reached: Sequence::ZERO,
        };
        if let Ok(message) = verify(Message::Statements(nothing), from, &configuration, &mut Nothing) {
            replica.handle(now, Input::Message { from, message });
        }
    }
    Ok(replica)
}
