//! Says nothing at all. (Schneider, Implementing Fault-Tolerant Services Using the State Machine Approach, ACM Computing Surveys
//! 1990: crashes, the least of what can happen; PROTOCOL §6, crash)
//!
//! It breaks a system that waits for everybody: nothing is decided any more. Correct replicas take it for crashed: they
//! need no more than q members, and replace a primary that is not heard of.

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
