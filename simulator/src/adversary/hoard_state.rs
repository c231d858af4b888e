//! Says, first of all, that it holds whatever checkpoint somebody fetches, and hands out true parts of it: the first at once,
//! each other as late as nobody gives up waiting, and some never. (Aublin, Ben Mokhtar and Quéma, RBFT, ICDCS 2013: as slow as
//! is just tolerated; PROTOCOL §9, state transfer)
//!
//! It breaks a system that stays with a source for as long as it answers, or with a checkpoint for as long as somebody
//! says that it has it: the others have moved on, and the transfer never ends. Correct replicas give a source so much
//! time for a task, the next one more, turn to a later checkpoint when one takes too long, and to another as soon as
//! nobody answers for this one.

use core::time::Duration;
use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::input::Input;
use quorate_protocol::message::{Fetch, Message, Status, Want};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::verify::Payload;

use super::{Body, Strategy};

/// Of so many parts that it is asked for, one is never handed out.
const KEPT_BACK: u64 = 16;

/// Remembers what each of the others fetches.
#[derive(Debug, Default)]
pub(super) struct HoardState {
    fetched: BTreeMap<ReplicaId, Sequence>,
    /// What the puppet said last of what it has.
    said: Option<Status>,
    asked: u64,
}

/// Nine tenths of three heartbeats, after which another is asked.
fn delay(body: &Body) -> Duration {
    body.configuration().parameters().heartbeat() * 27 / 10
}

impl HoardState {
    /// As if it had what `to` fetches.
    fn pretending(&self, to: ReplicaId, mut status: Status) -> Message {
        if let Some(sequence) = self.fetched.get(&to) {
            status.stable = *sequence;
            status.executed = status.executed.max(*sequence);
        }
        Message::Status(status)
    }
}

impl Strategy for HoardState {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        if let Input::Message { from, message } = &input {
            match &**message {
                Payload::Fetch(Fetch::Part { sequence, .. }) => {
                    self.fetched.insert(*from, *sequence);
                }
                // Who is asked is who was heard of. Two that hoard would answer each other for ever.
                Payload::Status(theirs) if theirs.executed < body.stable() && !body.accomplices().contains(from) => {
                    if let Some(status) = self.said.clone() {
                        body.send(*from, self.pretending(*from, status));
                    }
                }
                _ => {}
            }
        }
        Some(input)
    }

    fn outgoing(&mut self, _: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        match message {
            Message::Status(status) => {
                self.said = Some(status.clone());
                Some(self.pretending(to, status))
            }
            // Who gets the slots needs no state.
            Message::Decided(_) => None,
            other => Some(other),
        }
    }

    fn output(&mut self, body: &mut Body, output: Output) -> Option<Output> {
        let Output::SendPart { want, .. } = &output else { return Some(output) };
        // Its host keeps a state for as long as somebody reads it.
        if matches!(want, Want::Crown) {
            return Some(output);
        }
        self.asked = self.asked.wrapping_add(1);
        if !self.asked.is_multiple_of(KEPT_BACK) {
            body.do_later(delay(body), output);
        }
        None
    }
}
