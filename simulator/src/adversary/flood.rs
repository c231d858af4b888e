//! Asks for everything, all the time, and says a lot that nobody needs. (Clement et al., Aardvark, NSDI 2009, section 4: separate
//! resources for each peer; PROTOCOL §4, each sender has a quota, and §9, a rate bound per peer)
//!
//! It breaks a system that answers whatever is asked, or keeps whatever comes: one liar takes the links, the memory or
//! the time of all. Correct replicas answer within a budget a peer, keep one of each kind a member, and drop what nobody
//! asked for.

use core::time::Duration;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Fetch, FetchedBatch, Message, Want};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// A bounded flood: so many messages to each peer in each interval, whatever comes in.
#[derive(Debug, Default)]
pub(super) struct Flood {
    last: Option<Time>,
    count: u64,
}

const INTERVAL: Duration = Duration::from_millis(20);
const MESSAGES: u64 = 24;
/// Parts of the state that it asks for besides: more in a heartbeat than anybody gets.
const PARTS: u64 = 16;

impl Flood {
    fn something(&mut self, body: &mut Body) -> Message {
        self.count = self.count.wrapping_add(1);
        let ahead = Sequence::new(self.count % body.configuration().parameters().window);
        let sequence = body.stable().saturating_add(ahead.value());
        let digest = Digest::from_bytes([self.count.to_le_bytes()[0]; 32]);
        match self.count % 9 {
            0 => Message::Fetch(Fetch::Decided { after: Sequence::ZERO }),
            1 => Message::Fetch(Fetch::Decided { after: body.stable() }),
            2 => Message::Fetch(Fetch::Part { sequence: body.stable(), want: Want::Crown }),
            3 => Message::Fetch(Fetch::NewView { view: View::ZERO }),
            4 => Message::Fetch(Fetch::ViewChange { digest }),
            5 => Message::Fetch(Fetch::Batch { sequence, digest }),
            6 => Message::Batch(FetchedBatch { sequence, batch: Batch::empty().body().clone().into() }),
            7 => Message::Prepare(body.prepare(body.view(), sequence, digest)),
            _ => Message::Commit(body.commit(View::new(self.count), sequence, digest)),
        }
    }
}

impl Strategy for Flood {
    /// Each status once more: they are answered with what they lack.
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        if let Message::Status(status) = &message {
            let mut poor = status.clone();
            poor.executed = body.stable();
            poor.slots = quorate_protocol::codec::List::empty();
            body.send(to, Message::Status(poor.clone()));
            body.send(to, Message::Status(poor));
        }
        Some(message)
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, INTERVAL) {
            return;
        }
        for to in body.others() {
            for _ in 0..MESSAGES {
                let message = self.something(body);
                body.send(to, message);
            }
            for _ in 0..PARTS {
                body.send(
                    to,
                    Message::Fetch(Fetch::Part { sequence: body.stable(), want: Want::Protocol { after: None } }),
                );
            }
        }
    }

    fn deadline(&self, _: &Body) -> Option<Time> {
        self.last.map(|last| last.after(INTERVAL))
    }
}
