//! Says nothing at all: the others take it for crashed. (PROTOCOL §6, crash)

use quorate_protocol::Output;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Hears everything and says nothing, to peers and clients.
#[derive(Debug)]
pub(super) struct Silent;

impl Strategy for Silent {
    fn outgoing(&mut self, _: &mut Body, _: ReplicaId, _: Message) -> Option<Message> {
        None
    }

    fn output(&mut self, _: &mut Body, output: Output) -> Option<Output> {
        Some(output)
            .filter(|output| !matches!(output, Output::Reply(_) | Output::Busy { .. } | Output::SendPart { .. }))
    }
}
