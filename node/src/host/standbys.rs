//! What standbys get: how far this replica is, the certificate that they lack, and decided slots. (PROTOCOL §11)
//!
//! A standby comes in by the clients' door, as who it is need not be known: what it gets anybody can check, and whoever may
//! read the state may have it. What all of them get together is bounded in bytes a second, so that they cost clients
//! little. Where they ask for more, each host that they come from has its turn, and each connection of one.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use quorate_protocol::codec::Blob;
use quorate_protocol::message::{Fetch, Message, ReplicaMessage, Status, from_frame, to_frame};
use quorate_protocol::number::Sequence;

use super::Host;
use super::turns::{Line as _, Turns};
use crate::transport::ConnectionId;

/// What all standbys get, in bytes a second.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// What they may get at once after a pause, in bytes.
const BURST_BYTES: u64 = 8 << 20;

/// Batches in the answer to one question, in bytes; a larger one comes alone.
const ANSWER_BYTES: usize = 1 << 20;

/// What a question counts for besides the batches in its answer, and each message of it, in bytes: more than a certificate of the
/// largest cluster.
const MESSAGE_BYTES: u64 = 4 << 10;

/// Questions of one connection that wait. What is asked beyond that takes the place of the last one: who asks again knows more.
const QUESTIONS_PER_CONNECTION_MAX: usize = 4;

/// What a standby asks.
#[derive(Debug)]
pub(super) enum Question {
    /// What it lacks, by what it says of itself.
    Status(Box<Status>),
    /// What was decided after a slot.
    Decided(Sequence),
}

/// Who asked what, and what may still be given away.
#[derive(Debug)]
pub(super) struct Standbys {
    /// Bound: [`QUESTIONS_PER_CONNECTION_MAX`] of each connection.
    questions: Turns<IpAddr, Turns<ConnectionId, VecDeque<Question>>>,
    allowance: Allowance,
}

#[derive(Debug)]
struct Allowance {
    /// Less than nothing after an answer that was larger than what was left.
    bytes: i64,
    renewed: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { bytes: BURST_BYTES.cast_signed(), renewed: now }
    }

    /// Whether anything is left.
    fn is_left(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.renewed);
        let grown = u128::from(BYTES_PER_SECOND) * passed.as_micros() / 1_000_000;
        if grown > 0 {
            let grown = i64::try_from(grown).unwrap_or(i64::MAX);
            self.bytes = self.bytes.saturating_add(grown).min(BURST_BYTES.cast_signed());
            self.renewed = now;
        }
        self.bytes > 0
    }

    /// So many bytes were given away: what is beyond what was left comes off what follows.
    fn spend(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub_unsigned(bytes);
    }
}

impl Standbys {
    pub(super) fn new(now: Instant) -> Self {
        Self { questions: Turns::default(), allowance: Allowance::new(now) }
    }

    /// Has a question wait for its turn.
    fn put(&mut self, source: IpAddr, connection: ConnectionId, question: Question) {
        let waiting = self.questions.line(source).line(connection);
        if waiting.len() >= QUESTIONS_PER_CONNECTION_MAX {
            waiting.pop_back();
        }
        waiting.push_back(question);
    }

    /// The question whose turn it is, if anything may be given away.
    pub(super) fn next(&mut self, now: Instant) -> Option<(ConnectionId, Question)> {
        if self.questions.is_empty() || !self.allowance.is_left(now) {
            return None;
        }
        self.allowance.spend(MESSAGE_BYTES);
        self.questions.pop().map(|(_source, asked)| asked)
    }

    #[cfg(test)]
    pub(super) fn put_for_test(&mut self, source: IpAddr, connection: ConnectionId) {
        self.put(source, connection, Question::Decided(Sequence::ZERO));
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, source: IpAddr, connection: ConnectionId) {
        self.questions.remove_within(source, connection);
    }
}

impl Host {
    /// A standby says how far it is, or asks for what it lacks; nothing else of a peer's is listened to. Whether the frame is
    /// one of these.
    pub(super) fn on_standby(&mut self, connection: ConnectionId, frame: &Blob) -> bool {
        let question = match from_frame::<Message>(&frame.clone().into_bytes()) {
            Ok(Message::Status(said)) => Question::Status(said.into()),
            Ok(Message::Fetch(Fetch::Decided { after })) => Question::Decided(after),
            Ok(_) | Err(_) => return false,
        };
        if let Some(source) = self.clients.source(connection) {
            self.clients.standbys.put(source, connection, question);
            self.answer_standbys();
        }
        true
    }

    /// Answers what standbys asked, as far as it may be given away by now.
    pub(super) fn answer_standbys(&mut self) {
        while let Some((connection, question)) = self.clients.standbys.next(Instant::now()) {
            let replica = self.machine.replica();
            let answers = match question {
                Question::Status(said) => replica.tell_standby(&said),
                Question::Decided(after) => replica.decided_for_standby(after, ANSWER_BYTES),
            };
            for message in answers {
                self.clients.standbys.allowance.spend(cost(&message));
                if let Ok(frame) = to_frame(&message) {
                    self.clients.try_answer(connection, &ReplicaMessage::Standby(Blob::from(frame)));
                }
            }
        }
    }
}

/// What a message counts for besides what its question did, in bytes.
fn cost(message: &Message) -> u64 {
    if let Message::Decided(decided) = message { decided.batch.len() as u64 + MESSAGE_BYTES } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Who gets how many answers of 1 MiB.
    fn answered(standbys: &mut Standbys, now: Instant) -> Vec<u64> {
        let next = || {
            let (connection, _question) = standbys.next(now)?;
            standbys.allowance.spend(1 << 20);
            Some(connection.0)
        };
        std::iter::from_fn(next).collect()
    }

    fn ask(standbys: &mut Standbys, host: u8, connection: u64) {
        standbys.put([10, 0, 0, host].into(), ConnectionId(connection), Question::Decided(Sequence::ZERO));
    }

    #[test]
    fn standbys_get_a_burst_and_then_so_much_a_second() {
        let start = Instant::now();
        let mut standbys = Standbys::new(start);
        let mut given = |now| {
            (0..100).for_each(|connection| ask(&mut standbys, 1, connection));
            answered(&mut standbys, now).len() as u64
        };
        // One more than there is for: the last is larger than what was left.
        assert_eq!(given(start), BURST_BYTES >> 20);
        assert_eq!(given(start), 0);
        let grown = given(start + Duration::from_millis(250));
        assert!(((BYTES_PER_SECOND >> 22) - 1..=BYTES_PER_SECOND >> 22).contains(&grown), "{grown}");
        assert_eq!(given(start + Duration::from_mins(1)), BURST_BYTES >> 20, "a pause saves up no more");
    }

    #[test]
    fn who_asks_for_much_does_not_keep_others_from_what_they_ask_for() {
        let start = Instant::now();
        let mut standbys = Standbys::new(start);
        for _round in 0..1_000 {
            ask(&mut standbys, 1, 1);
            (10..30).for_each(|connection| ask(&mut standbys, 2, connection));
        }
        ask(&mut standbys, 3, 3);
        let first = answered(&mut standbys, start);
        assert_eq!(first, [1, 10, 3, 1, 11, 1, 12, 1]);
        standbys.closed([10, 0, 0, 1].into(), ConnectionId(1));
        let left = answered(&mut standbys, start + Duration::from_mins(1));
        assert!(!left.is_empty() && left.iter().all(|connection| *connection >= 10), "{left:?}");
        let waiting = std::iter::from_fn(|| standbys.questions.pop()).count() + left.len() + 3;
        assert_eq!(waiting, 20 * QUESTIONS_PER_CONNECTION_MAX);
    }
}
