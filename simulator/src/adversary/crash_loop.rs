//! Falls silent and comes back, over and over, and in the middle of what it says. (`TigerBeetle`, VOPR: crash and restart;
//! PROTOCOL §9)
//!
//! It breaks a system that counts on a replica that was heard a moment ago, or never forgives one: proposals reach a part
//! of the backups, votes for half a batch of slots are missing. Correct replicas need no more than q members at any time,
//! and replace a primary that is not heard of. (PROTOCOL §6, crash)

use core::time::Duration;

use quorate_protocol::Output;
use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Deaf and mute while it is down; its timers and its machine go on.
#[derive(Debug, Default)]
pub(super) struct CrashLoop {
    is_down: bool,
    changes: Option<Time>,
    /// It goes down after so many messages: between two that belong together.
    messages_left: u64,
}

/// How long it is down or up at most, in milliseconds.
const PHASE_MS: [u64; 2] = [900, 600];

/// How many messages it sends at most before it goes down.
const MESSAGES_MAX: u64 = 400;

impl CrashLoop {
    fn is_down(&mut self, body: &mut Body) -> bool {
        let is_over = self.changes.is_none_or(|at| body.time() >= at);
        if is_over || (!self.is_down && self.messages_left == 0) {
            self.is_down = !self.is_down;
            let most = PHASE_MS[usize::from(!self.is_down)];
            let phase = Duration::from_millis(1 + body.dice.below(most));
            self.changes = Some(body.time().after(phase));
            self.messages_left = 1 + body.dice.below(MESSAGES_MAX);
        }
        self.is_down
    }
}

impl Strategy for CrashLoop {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        let comes_from_outside = matches!(input, Input::Message { .. } | Input::Request(_) | Input::Copy(_));
        let is_down = self.is_down(body);
        (!comes_from_outside || !is_down).then_some(input)
    }

    fn outgoing(&mut self, body: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        let is_down = self.is_down(body);
        self.messages_left = self.messages_left.saturating_sub(1);
        (!is_down).then_some(message)
    }

    fn output(&mut self, body: &mut Body, output: Output) -> Option<Output> {
        let goes_outside = matches!(output, Output::Reply(_) | Output::Busy { .. } | Output::SendPart { .. });
        let is_down = self.is_down(body);
        (!goes_outside || !is_down).then_some(output)
    }
}
