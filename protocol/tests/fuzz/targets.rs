//! What reads bytes from outside, fed with any: none of it may panic, and what is read is written again the same.
//!
//! Each target is a function of bytes. The corpus is what a coverage-guided fuzzer found to lead to different places.

mod pieces;

use std::fmt::Debug;

use bytes::Bytes;
use quorate_crypto::Item as Signed;
use quorate_protocol::Input;
use quorate_protocol::codec::{BorrowDecode, Encode, Frame, decode, encode};
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{ClientMessage, Message, ReplicaMessage, from_frame, to_frame};
use quorate_protocol::number::Session;
use quorate_protocol::output::Output;
use quorate_protocol::record::Recovered;
use quorate_protocol::recording;
use quorate_protocol::verify::{Verifier, verify, verify_requests};

use super::samples::Entropy;
use super::support::state::{no_leaves, ready};
use super::support::subject::{Subject, idle_status};
use super::support::{Group, StandInVerifier, client, replica};

pub(crate) use pieces::fetch;

/// A target: its name, and what is done with bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

pub(crate) const TARGETS: [Target; 8] = [
    ("peer-message", peer_message),
    ("client-message", client_message),
    ("replica-message", replica_message),
    ("record", record),
    ("evidence", evidence),
    ("recording", recording),
    ("handle", handle),
    ("pieces", pieces::pieces),
];

/// Whoever signs for others than these members signs what it likes.
const CORRECT: [u8; 3] = [1, 2, 3];

/// The one that does not.
const ATTACKER: u8 = 0;

/// Steps of one run of a replica.
const STEPS_MAX: usize = 256;

/// Believes the attacker and clients whatever they sign, and correct members only what they signed.
struct Lenient(Group);

impl Verifier for Lenient {
    fn verify(&mut self, items: &[Signed]) -> Result<(), usize> {
        let is_of_correct = |item: &Signed| CORRECT.iter().any(|id| self.0.signer(*id).0 == item.key);
        match items
            .iter()
            .position(|item| is_of_correct(item) && StandInVerifier.verify(core::slice::from_ref(item)).is_err())
        {
            Some(first) => Err(first),
            None => Ok(()),
        }
    }
}

/// Reads a frame, which is what writing it gives, if it is anything.
fn read<T: Encode + Debug + for<'a> BorrowDecode<'a, Frame>>(bytes: &[u8]) -> Option<T> {
    let frame = Bytes::copy_from_slice(bytes);
    let message: T = from_frame(&frame).ok()?;
    let again = to_frame(&message).expect("what was read can be written");
    assert!(again == frame, "{message:?} has two encodings");
    Some(message)
}

pub(crate) fn peer_message(bytes: &[u8]) {
    let Some((from, bytes)) = bytes.split_first() else { return };
    let Some(message) = read::<Message>(bytes) else { return };
    let group = Group::of_four();
    verify(message, replica(from % 4), &group.0, &mut Lenient(group.clone())).ok();
}

pub(crate) fn client_message(bytes: &[u8]) {
    let group = Group::of_four();
    if let Some(ClientMessage::Request(request) | ClientMessage::Copy(request)) = read(bytes) {
        verify_requests(vec![request], &group.0, &mut Lenient(group.clone()));
    }
}

pub(crate) fn replica_message(bytes: &[u8]) {
    read::<ReplicaMessage>(bytes);
}

/// A record of the log: the length of its head, that, and its body if anything is left.
pub(crate) fn record(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let (head, body) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
    let (head, body) = (Bytes::copy_from_slice(head), Bytes::copy_from_slice(body));
    let body = (!body.is_empty()).then_some(&body);
    Recovered::decode(&head, body, &Group::of_four().0).ok();
}

pub(crate) fn evidence(bytes: &[u8]) {
    let group = Group::of_four();
    if let Ok(evidence) = decode::<Evidence>(&Bytes::copy_from_slice(bytes)) {
        assert!(encode(&evidence).expect("what was read can be written") == bytes, "{evidence:?} has two encodings");
        evidence.is_proof(&group.0, &mut Lenient(group.clone()));
    }
}

pub(crate) fn recording(bytes: &[u8]) {
    if let Ok(item) = decode::<recording::Item>(&Bytes::copy_from_slice(bytes)) {
        assert!(encode(&item).expect("what was read can be written") == bytes, "{item:?} has two encodings");
    }
}

/// A correct backup of four whose primary does anything, and so do clients. The two others are correct: they vote as it does.
pub(crate) fn handle(bytes: &[u8]) {
    play(bytes);
}

/// What such a backup came to: its view, and the slots that it executed and that are stable.
pub(crate) fn play(mut bytes: &[u8]) -> [u64; 3] {
    let mut run = Run::begin();
    for _ in 0..STEPS_MAX {
        let Some((step, rest)) = bytes.split_first() else { break };
        let Some((argument, rest)) = rest.split_first() else { break };
        bytes = run.step(*step, *argument, rest);
    }
    let status = run.subject.status.clone();
    let (executed, stable) = status.map_or((0, 0), |status| (status.executed.value(), status.stable.value()));
    [run.subject.replica.view().value(), executed, stable]
}

struct Run {
    group: Group,
    subject: Subject,
    /// What the subject said, to be said by the others too.
    said: Vec<Message>,
    /// Slots, views and batches in which it voted.
    prepared: Vec<(u64, u64, u8)>,
}

impl Run {
    fn begin() -> Self {
        let group = Group::of_four();
        Self { subject: Subject::new(&group, 1), group, said: Vec::new(), prepared: Vec::new() }
    }

    /// Takes a step, and gives the bytes that are left.
    fn step<'a>(&mut self, step: u8, argument: u8, rest: &'a [u8]) -> &'a [u8] {
        let (low, high) = (argument % 16, argument / 16);
        let (of_view, sequence, index) = (u64::from(high % 4), u64::from(low), high % 4);
        match step % 16 {
            // The attacker says what the bytes say, or what can be drawn from them.
            0 => {
                let (own, rest) = rest.split_at(rest.len().min(argument.into()));
                if let Some(message) = read::<Message>(own) {
                    self.hear(ATTACKER, message);
                }
                return rest;
            }
            1 => {
                let (own, rest) = rest.split_at(rest.len().min(argument.into()));
                self.hear(ATTACKER, Entropy::new(own).message());
                return rest;
            }
            2 | 3 => {
                self.prepared.push((of_view, sequence, index));
                self.hear(ATTACKER, self.group.pre_prepare(ATTACKER, of_view, sequence, &self.group.batch(index)));
            }
            4 => self.hear(ATTACKER, self.group.prepare(ATTACKER, of_view, sequence, self.group.batch(index).digest())),
            5 => self.hear(ATTACKER, self.group.commit(ATTACKER, of_view, sequence, self.group.batch(index).digest())),
            6 => {
                // With certificates of what the correct ones may have voted for; the verifier knows what they did not.
                let prepared = self.prepared.iter().rev().take(usize::from(high)).map(|(of_view, sequence, index)| {
                    let digest = self.group.batch(*index).digest();
                    self.group.prepared(*of_view, *sequence, digest, &[ATTACKER])
                });
                let signed = self.group.view_change(ATTACKER, u64::from(low), None, prepared.collect());
                self.hear(ATTACKER, Message::ViewChange(signed));
            }
            7 => {
                let to = 4 * u64::from(low % 4);
                let view_change = self.group.empty_view_change(ATTACKER, to);
                self.hear(
                    ATTACKER,
                    Message::NewView(self.group.new_view(ATTACKER, to, &[(ATTACKER, &view_change)], &[])),
                );
            }
            8 => {
                let mut status = idle_status(of_view);
                (status.stable, status.executed) = (super::support::slot(sequence), super::support::slot(sequence + 3));
                status.suspects = high & 8 != 0;
                self.hear(ATTACKER, Message::Status(status));
            }
            // Clients.
            9 => self.request(low, u64::from(high), false),
            10 => self.request(low, u64::from(high), true),
            // The subject's host, and time.
            11 => {
                let outputs = self.subject.pass(u64::from(argument) * 20);
                self.carry_out(outputs);
            }
            12 => {
                let outputs = self.subject.sync();
                self.carry_out(outputs);
            }
            13 => {
                let outputs = self.subject.settle();
                self.carry_out(outputs);
            }
            14 => {
                let damaged = if argument.is_multiple_of(2) { Input::StateDamaged } else { Input::LogDamaged };
                let outputs = self.subject.step(damaged);
                self.carry_out(outputs);
            }
            // The other two say what the subject says.
            _ => self.echo(),
        }
        rest
    }

    fn request(&mut self, of: u8, number: u64, is_copy: bool) {
        let signed = match number {
            0 => self.group.opening(client(of), 1),
            number => self.group.request(
                client(of),
                Session { sequence: super::support::slot(1), index: 0 },
                number,
                "set a 1",
            ),
        };
        let verified = self.group.verified(signed);
        let outputs = self.subject.step(if is_copy { Input::Copy(verified) } else { Input::Request(verified) });
        self.carry_out(outputs);
    }

    fn hear(&mut self, from: u8, message: Message) {
        let mut verifier = Lenient(self.group.clone());
        if let Ok(message) = verify(message, replica(from), self.subject.replica.configuration(), &mut verifier) {
            let outputs = self.subject.step(Input::Message { from: replica(from), message });
            self.carry_out(outputs);
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Broadcast(message @ (Message::Prepare(_) | Message::Commit(_) | Message::Checkpoint(_))) => {
                    self.said.push(message);
                }
                Output::StageBegin { .. } => {
                    let outputs = self.subject.step(ready(no_leaves()));
                    self.carry_out(outputs);
                }
                Output::StageEnd { sequence, .. } => {
                    let outputs = self.subject.step(Input::StateStaged { sequence, application_root: None });
                    self.carry_out(outputs);
                }
                _ => {}
            }
        }
    }

    fn echo(&mut self) {
        for message in core::mem::take(&mut self.said) {
            for id in [2, 3] {
                let own = match &message {
                    Message::Prepare(vote) => Message::Prepare(self.group.vote(id, vote.statement)),
                    Message::Commit(vote) => Message::Commit(self.group.vote(id, vote.statement)),
                    Message::Checkpoint(vote) => Message::Checkpoint(self.group.vote(id, vote.statement)),
                    _ => continue,
                };
                self.hear(id, own);
            }
        }
    }
}
