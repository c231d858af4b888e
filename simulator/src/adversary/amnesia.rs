//! Starts again and again on an old copy of its disk, or on none: what it signed since is forgotten, and it signs anew.
//! (Tendermint, issues 984 and 3089; Alagappan et al., Protocol-Aware Recovery, FAST 2018; PROTOCOL §9, loss of votes)
//!
//! It breaks a system that lets a replica vote that was restored from a backup: its old votes made one quorum, its new
//! ones make another. Correct replicas take it for one member that contradicts itself, and it counts among the f.
//! (PROTOCOL §2.6)

use core::time::Duration;

use quorate_protocol::Output;
use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use super::understudy::{Memory, Understudy};
use super::{Body, Strategy};

/// Speaks by a replica in memory, whose memory fails.
#[derive(Debug, Default)]
pub(super) struct Amnesia {
    speaker: Option<Understudy>,
    /// What is put back.
    copy: Memory,
    copied: Option<Time>,
    forgot: Option<Time>,
}

/// From one copy to the next.
const COPIED: Duration = Duration::from_millis(900);

/// From one loss to the next: long enough to have voted since.
const FORGETS: Duration = Duration::from_millis(400);

impl Amnesia {
    fn remember_or_forget(&mut self, body: &mut Body) {
        if body.is_due(&mut self.forgot, FORGETS) {
            let memory = if body.dice.below(4) == 0 { Memory::default() } else { self.copy.clone() };
            self.speaker = Understudy::start(body, memory);
        }
        if body.is_due(&mut self.copied, COPIED)
            && let Some(speaker) = &self.speaker
        {
            self.copy = speaker.memory().clone();
        }
    }
}

impl Strategy for Amnesia {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        if !matches!(input, Input::Message { .. } | Input::Request(_) | Input::Copy(_) | Input::Wake) {
            return Some(input);
        }
        self.remember_or_forget(body);
        let said = self.speaker.as_mut().map(|speaker| speaker.handle(body, input.clone())).unwrap_or_default();
        for output in said {
            match output {
                Output::Send { to, message } => body.send(to, message),
                Output::Broadcast(message) => body.send_all(&message),
                other => body.out.push_back(other),
            }
        }
        Some(input)
    }

    /// Who remembers is not heard.
    fn outgoing(&mut self, _: &mut Body, _: ReplicaId, _: Message) -> Option<Message> {
        None
    }

    fn output(&mut self, _: &mut Body, output: Output) -> Option<Output> {
        Some(output).filter(|output| !matches!(output, Output::Reply(_)))
    }

    fn deadline(&self, _: &Body) -> Option<Time> {
        self.speaker.as_ref().and_then(Understudy::next_deadline)
    }
}
