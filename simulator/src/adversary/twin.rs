//! Two replicas under one key, each as correct as can be: a cloned disk, or a second process. (Bano et al., Twins: BFT
//! Systems Made Robust, OPODIS 2021; PROTOCOL §9, one folder is locked by one process)
//!
//! It breaks a system that believes that who follows the rules cannot lie: two honest histories under one key contradict
//! each other. Correct replicas take them for one faulty member: quorums that share f + 1 members share a correct one.
//! (PROTOCOL §1)

use core::time::Duration;

use quorate_protocol::Output;
use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use super::understudy::{Memory, Understudy};
use super::{Body, Strategy};

/// The second twin, and who hears which.
#[derive(Debug, Default)]
pub(super) struct Twin {
    second: Option<Understudy>,
    /// For each replica, which twins it hears and is heard by; drawn anew every so often.
    parts: Vec<Part>,
    drawn: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Second,
    Both,
}

/// How long the world stays parted in one way.
const PARTED: Duration = Duration::from_millis(700);

impl Twin {
    fn part_of(&mut self, body: &mut Body, replica: ReplicaId) -> Part {
        if body.is_due(&mut self.drawn, PARTED) {
            let size = body.configuration().size();
            let draw = |_| match body.dice.below(5) {
                0 | 1 => Part::First,
                2 | 3 => Part::Second,
                _ => Part::Both,
            };
            self.parts = (0..size).map(draw).collect();
        }
        self.parts.get(replica.index()).copied().unwrap_or(Part::Both)
    }

    fn second_hears(&mut self, body: &mut Body, input: Input) {
        if self.second.is_none() {
            self.second = Understudy::start(body, Memory::default());
        }
        let said = self.second.as_mut().map(|second| second.handle(body, input)).unwrap_or_default();
        for output in said {
            let (to, message) = match output {
                Output::Send { to, message } => (vec![to], message),
                Output::Broadcast(message) => (body.others().collect(), message),
                _ => continue,
            };
            for to in to {
                if self.part_of(body, to) != Part::First {
                    body.send(to, message.clone());
                }
            }
        }
    }
}

impl Strategy for Twin {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        let part = match &input {
            Input::Message { from, .. } => self.part_of(body, *from),
            // A client's link leads to one of them, so that they have different things to propose.
            Input::Request(_) | Input::Copy(_) => {
                *body.dice.choose(&[Part::First, Part::Second]).unwrap_or(&Part::Both)
            }
            Input::Wake => Part::Both,
            // What the machine of the first did is none of the second's business.
            _ => Part::First,
        };
        if part != Part::First {
            self.second_hears(body, input.clone());
        }
        (part != Part::Second).then_some(input)
    }

    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let part = self.part_of(body, to);
        (part != Part::Second).then_some(message)
    }

    fn deadline(&self, _: &Body) -> Option<Time> {
        self.second.as_ref().and_then(Understudy::next_deadline)
    }
}
