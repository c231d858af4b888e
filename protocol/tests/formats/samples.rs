//! One value of every variant for the golden files, and values drawn from random bytes for the properties.

use bytes::Bytes;
use quorate_crypto::{Digest, PublicKey, Signature};
use quorate_protocol::Input;
use quorate_protocol::application::Reading;
use quorate_protocol::batch::{SignedRequest, batch_digest};
use quorate_protocol::certificate::{Certificate, VoteSignature};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::input::{StageReady, TransferLimits};
use quorate_protocol::membership::Membership;
use quorate_protocol::message::{
    ClientMessage, Content, Decided, Entry, Fetch, FetchedBatch, Message, Outcome, Part, Piece, PrePrepare, Progress,
    ReadAnswer, ReplicaMessage, Reply, SignedNewView, SignedViewChange, StableState, StateRoot, Statements, Status,
    Want, to_frame,
};
use quorate_protocol::number::{Epoch, Incarnation, RecordNumber, ReplicaId, RequestNumber, Sequence, Session, View};
use quorate_protocol::record::{EncodedRecord, NewViewRecord, Record};
use quorate_protocol::recording::{Clocks, End, Event, Item, Role};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare, Vote};
use quorate_protocol::verify::verify_requests;

use crate::support::{Group, StandInVerifier, client, commit, digest, prepare, replica, slot, view};

fn session() -> Session {
    Session { sequence: slot(17), index: 3 }
}

fn status() -> Status {
    Status {
        epoch: Epoch::ZERO,
        view: view(2),
        entered: true,
        suspects: false,
        stable: slot(4),
        executed: slot(6),
        decided_from: slot(1),
        view_changes: 0b1011,
        checkpoint_votes: 0b0101,
        slots: List::new(vec![
            Progress::Nothing,
            Progress::PrePrepared,
            Progress::Prepared,
            Progress::CommittedWithoutBatch,
            Progress::Committed,
        ])
        .expect("five"),
    }
}

/// Each part of a state that may be asked for, and what it holds.
fn parts() -> Vec<(&'static str, Part)> {
    let entry = |key: &str, value: &str| Entry { key: key.as_bytes().into(), value: value.as_bytes().into() };
    let entries = || List::new(vec![entry("a", "1"), entry("b", "")]).expect("two");
    let digests = |bytes: &[u8]| bytes.iter().map(|byte| digest(*byte)).collect::<Vec<_>>();
    let buckets = List::new(vec![1, 7, 255]).expect("three");
    let after = || Some(Blob::from(&b"from"[..]));
    let part = |want, content| Part { sequence: slot(4), want, content };
    vec![
        ("part-crown", part(Want::Crown, Content::Crown(List::new(digests(&[1, 2])).expect("two")))),
        (
            "part-protocol",
            part(Want::Protocol { after: after() }, Content::Protocol { entries: entries(), is_last: true }),
        ),
        ("part-leaves", part(Want::Leaves { group: 9 }, Content::Leaves(List::new(digests(&[0, 3])).expect("two")))),
        (
            "part-buckets",
            part(Want::Buckets { group: 9, buckets, after: None }, Content::Buckets { entries: entries(), whole: 2 }),
        ),
    ]
}

fn read_answer() -> ReadAnswer {
    let reading = Reading { result: Blob::from(&b"1"[..]), since: slot(5) };
    ReadAnswer { epoch: Epoch::ZERO, reading }
}

fn statements(group: &Group) -> Statements {
    let root = Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root: digest(4) };
    Statements {
        token: 77,
        epoch: Epoch::ZERO,
        prepares: List::new(vec![group.vote(2, prepare(2, 5, digest(5)))]).expect("one"),
        commits: List::new(vec![group.vote(2, commit(2, 5, digest(5)))]).expect("one"),
        checkpoints: List::new(vec![group.vote(2, root)]).expect("one"),
        view_change: Some(view_change(group)),
        new_view: None,
        reached: slot(6),
    }
}

/// One item of every kind, and one of every event. (docs/formats.md §11)
pub(crate) fn items() -> Vec<(&'static str, Item)> {
    let (sequence, root) = (slot(4), digest(4));
    let now = Clocks { monotonic: 1, wall: 2 };
    let outputs = || List::new(vec![7, 8]).expect("two");
    let entry = Entry { key: Blob::from(&b"t"[..]), value: Blob::from(&b"now"[..]) };
    let results = List::new(vec![Blob::from(&b"done"[..])]).expect("one");
    let EncodedRecord { head, body } = Record::Incarnation(Incarnation::ZERO).encode();
    let event = |name, event| (name, Item::Input { outputs: outputs(), now, event });
    let from = replica(2);
    let message = Message::Fetch(Fetch::Decided { after: slot(3) });
    let request = Group::of_four().request(client(1), session(), 2, "set a 1");
    let (_, evidence) = evidence().swap_remove(0);
    let number = RecordNumber::new(9);
    vec![
        ("entries", Item::Entries(List::new(vec![entry]).expect("one"))),
        ("results", Item::Results(List::new(vec![results]).expect("one"))),
        ("record", Item::Record { number, head: head.into(), body: Some(body.into()) }),
        (
            "start",
            Item::Start {
                id: from,
                checkpoint: Some((sequence, root)),
                first_record: number,
                is_damaged: false,
                token: 77,
                now,
                role: Role::Standby,
            },
        ),
        event("input-message", Event::Message { from, epoch: Epoch::ZERO, message }),
        event("input-request", Event::Request { epoch: Epoch::ZERO, request: request.clone() }),
        event("input-misbehaviour", Event::Misbehaviour(evidence)),
        event("input-wake", Event::Wake),
        event("input-durable", Event::Durable(number)),
        event("input-executed", Event::Executed { sequence }),
        event("input-checkpoint-taken", Event::CheckpointTaken { sequence, application_root: root }),
        event("input-checkpoint-durable", Event::CheckpointDurable { sequence }),
        event("input-state-staged", Event::StateStaged { sequence, application_root: None }),
        event("input-state-installed", Event::StateInstalled { sequence }),
        event("input-log-full", Event::LogFull),
        event("input-log-has-room", Event::LogHasRoom),
        event("input-stage-ready", Event::StageReady(TransferLimits { unchecked_bytes_max: 9, bytes_per_second: 20 })),
        event("input-state-damaged", Event::StateDamaged),
        event("input-log-damaged", Event::LogDamaged),
        event("input-copy", Event::Copy { epoch: Epoch::ZERO, request }),
        ("leaves", Item::Leaves(List::new(vec![digest(1), digest(2)]).expect("two"))),
        ("end", Item::End { outputs: outputs(), reason: End::Stopped }),
    ]
}

/// Inputs besides messages, with lists that are recorded in several parts.
pub(crate) fn inputs(configuration: &Configuration) -> Vec<Input> {
    let sequence = slot(4);
    let signed = Group::of_four().request(client(1), session(), 2, "set a 1");
    let request = verify_requests(vec![signed], configuration, &mut StandInVerifier).remove(0);
    let result = |number: u32| List::new(vec![Blob::from(&number.to_be_bytes()[..]), Blob::EMPTY]).expect("two");
    let (_, evidence) = evidence().swap_remove(0);
    let limits = TransferLimits { unchecked_bytes_max: 1 << 30, bytes_per_second: 20 << 20 };
    let leaves = (0..8192_u32).map(|number| digest(number.to_le_bytes()[0])).collect();
    vec![
        Input::Request(request.clone().expect("a client's own")),
        Input::Misbehaviour(evidence.into()),
        Input::Wake,
        Input::Durable(RecordNumber::new(9)),
        Input::Executed { sequence, results: (0..5000).map(result).collect() },
        Input::CheckpointTaken { sequence, application_root: digest(4) },
        Input::CheckpointDurable { sequence },
        Input::StageReady(StageReady { leaves, limits }),
        Input::StateStaged { sequence, application_root: Some(digest(4)) },
        Input::StateInstalled { sequence },
        Input::LogFull,
        Input::LogHasRoom,
        Input::StateDamaged,
        Input::LogDamaged,
        Input::Copy(request.expect("a client's own")),
    ]
}

fn view_change(group: &Group) -> SignedViewChange {
    let prepared = vec![group.prepared(1, 5, digest(5), &[0, 1, 2])];
    group.view_change(2, 3, Some(group.stable(4, digest(4), &[0, 1, 2])), prepared)
}

fn new_view(group: &Group) -> (SignedNewView, Vec<SignedViewChange>) {
    let view_changes: Vec<_> = [0, 1, 2].map(|id| group.empty_view_change(id, 3)).into();
    let named: Vec<_> = (0..).zip(&view_changes).collect();
    (group.new_view(3, 3, &named, &[(5, digest(5)), (6, digest(6))]), view_changes)
}

/// Messages between replicas, each variant at least once.
pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    let group = Group::of_four();
    let batch = group.batch_at(5, vec![group.opening(client(0), 1), group.request(client(1), session(), 2, "set a 1")]);
    let body: Blob = batch.body().clone().into();
    let decided = Decided { certificate: group.committed(1, 5, batch.digest(), &[0, 1, 2]), batch: body.clone() };
    let parts = parts().into_iter().map(|(name, part)| (name, Message::Part(part)));
    let others = vec![
        ("request", Message::Request(group.request(client(1), session(), 2, "set a 1"))),
        ("pre-prepare", group.pre_prepare(1, 1, 5, &batch)),
        ("prepare", group.prepare(2, 1, 5, batch.digest())),
        ("commit", group.commit(2, 1, 5, batch.digest())),
        ("checkpoint", group.checkpoint(3, 4, digest(4))),
        ("stable", Message::Stable(group.stable(4, digest(4), &[0, 2, 3]))),
        ("view-change", Message::ViewChange(view_change(&group))),
        ("new-view", Message::NewView(new_view(&group).0)),
        ("status", Message::Status(status())),
        ("fetch-batch", Message::Fetch(Fetch::Batch { sequence: slot(5), digest: batch.digest() })),
        ("fetch-decided", Message::Fetch(Fetch::Decided { after: slot(4) })),
        ("fetch-view-change", Message::Fetch(Fetch::ViewChange { digest: digest(7) })),
        ("fetch-new-view", Message::Fetch(Fetch::NewView { view: view(3) })),
        ("fetch-part", Message::Fetch(Fetch::Part { sequence: slot(4), want: self::parts().swap_remove(3).1.want })),
        ("batch", Message::Batch(FetchedBatch { sequence: slot(5), batch: body })),
        ("decided", Message::Decided(decided)),
        ("statements", Message::Statements(statements(&group))),
        ("conflict", Message::Conflict(group.vote(0, prepare(3, 5, digest(5))))),
        ("fetch-statements", Message::Fetch(Fetch::Statements { token: 77 })),
    ];
    others.into_iter().chain(parts).collect()
}

/// Messages of clients, each variant.
pub(crate) fn evidence() -> Vec<(&'static str, Evidence)> {
    let group = Group::of_four();
    let votes = [1, 2].map(|byte| group.vote(3, prepare(2, 5, digest(byte))));
    let commits = [1, 2].map(|byte| group.vote(3, commit(2, 5, digest(byte))));
    let root = |byte| Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root: digest(byte) };
    let checkpoints = [1, 2].map(|byte| group.vote(3, root(byte)));
    let body = Bytes::from_static(b"no batch");
    let vote = group.vote(2, prepare(2, 5, batch_digest(&body)));
    vec![
        ("conflicting-prepares", Evidence::ConflictingPrepares(votes[0], votes[1])),
        ("conflicting-commits", Evidence::ConflictingCommits(commits[0], commits[1])),
        ("conflicting-checkpoints", Evidence::ConflictingCheckpoints(checkpoints[0], checkpoints[1])),
        ("invalid-batch", Evidence::InvalidBatch { vote, batch: body.into() }),
        (
            "forgotten-commit",
            Evidence::ForgottenCommit { vote: commits[0], view_change: group.empty_view_change(3, 3) },
        ),
    ]
}

pub(crate) fn client_messages() -> Vec<(&'static str, ClientMessage)> {
    let group = Group::of_four();
    vec![
        ("attach", ClientMessage::Attach { client: client(1), signature: Signature::from_bytes([7; 64]) }),
        ("request", ClientMessage::Request(group.request(client(1), session(), 2, "set a 1"))),
        ("copy", ClientMessage::Copy(group.request(client(1), session(), 2, "set a 1"))),
        ("status", ClientMessage::Status),
        ("prove", ClientMessage::Prove { number: RequestNumber::new(9), query: Blob::from(&b"a"[..]) }),
        (
            "read",
            ClientMessage::Read {
                client: client(1),
                number: RequestNumber::new(9),
                operation: Blob::from(&b"get a"[..]),
            },
        ),
        ("checkpoint", ClientMessage::Checkpoint { number: RequestNumber::new(9) }),
        (
            "part",
            ClientMessage::Part {
                number: RequestNumber::new(9),
                sequence: slot(4),
                want: Want::Leaves { group: 9 },
                offset: 512,
            },
        ),
        ("standby", ClientMessage::Standby(frame(&Message::Fetch(Fetch::Decided { after: slot(4) })))),
    ]
}

/// The bytes of a frame.
fn frame(message: &Message) -> Blob {
    Blob::from(to_frame(message).expect("a small one"))
}

fn stable_state(group: &Group) -> StableState {
    let root = StateRoot { application: digest(1), protocol: digest(2) };
    StableState { certificate: group.stable(4, digest(4), &[0, 2, 3]), root }
}

/// Messages to clients, each variant.
pub(crate) fn replica_messages() -> Vec<(&'static str, ReplicaMessage)> {
    let group = Group::of_four();
    let reply = |outcome| {
        let number = RequestNumber::new(2);
        let (epoch, session) = (Epoch::ZERO, session());
        ReplicaMessage::Reply(Reply { epoch, view: view(1), client: client(1), session, number, outcome })
    };
    let results = List::new(vec![Blob::from(&b"done"[..]), Blob::EMPTY]).expect("two");
    let state = StateRoot { application: digest(1), protocol: digest(2) };
    let (number, proof) = (RequestNumber::new(9), Blob::from(&b"proof"[..]));
    let certificate = Some(group.stable(4, digest(4), &[0, 2, 3]));
    vec![
        ("reply-executed", reply(Outcome::Executed { sequence: slot(18), index: 1, results })),
        ("reply-opened", reply(Outcome::Opened { session: session() })),
        ("reply-evicted", reply(Outcome::Evicted)),
        ("reply-forgotten", reply(Outcome::Forgotten)),
        ("reply-superseded", reply(Outcome::Superseded { opening: RequestNumber::new(9) })),
        ("busy", ReplicaMessage::Busy { client: client(1), number: RequestNumber::new(2), retry_after_ms: 100 }),
        (
            "refused",
            ReplicaMessage::Refused {
                client: client(1),
                number: RequestNumber::new(2),
                reason: Blob::from(&b"too long"[..]),
            },
        ),
        ("status", ReplicaMessage::Status(Blob::from(&b"{}"[..]))),
        ("checkpoint", ReplicaMessage::Checkpoint { number, checkpoint: Some(stable_state(&group)) }),
        ("checkpoint-none", ReplicaMessage::Checkpoint { number, checkpoint: None }),
        ("part", ReplicaMessage::Part { number, piece: Some(Piece { length: 517, bytes: proof.clone() }) }),
        ("part-gone", ReplicaMessage::Part { number, piece: None }),
        ("standby", ReplicaMessage::Standby(frame(&Message::Stable(stable_state(&group).certificate)))),
        ("proved", ReplicaMessage::Proved { number, certificate, state, proof: proof.clone() }),
        ("proved-without-certificate", ReplicaMessage::Proved { number, certificate: None, state, proof }),
        ("read", ReplicaMessage::Read { client: client(1), number, answer: Some(read_answer()) }),
        ("read-refused", ReplicaMessage::Read { client: client(1), number, answer: None }),
    ]
}

/// Records of the write-ahead log, each variant.
pub(crate) fn records() -> Vec<(&'static str, Record)> {
    let group = Group::of_four();
    let batch = group.batch(0);
    let vote = group.vote(1, prepare(1, 5, batch.digest()));
    let prepared = group.prepared(1, 5, batch.digest(), &[0, 1, 2]);
    let committed = group.committed(1, 5, batch.digest(), &[0, 1, 2]);
    let (new_view, view_changes) = new_view(&group);
    let view_changes = List::new(view_changes).expect("three");
    vec![
        ("accepted", Record::Accepted(vote, Some(batch.clone()))),
        ("accepted-logged-before", Record::Accepted(vote, None)),
        ("prepared", Record::Prepared(prepared, group.vote(1, commit(1, 5, batch.digest())))),
        ("committed", Record::Committed(committed.clone())),
        ("learned", Record::Learned(committed, batch)),
        ("stable", Record::Stable(group.stable(4, digest(4), &[0, 1, 2]))),
        ("view-change", Record::ViewChange(Epoch::ZERO, view(3), view_change(&group))),
        ("new-view", Record::NewView(Epoch::ZERO, view(3), NewViewRecord { new_view, view_changes })),
        ("epoch", Record::Epoch(Membership::first(4), group.stable(4, digest(4), &[0, 1, 2]))),
        ("incarnation", Record::Incarnation(Incarnation::new(77))),
        ("batch", Record::Batch(Epoch::ZERO, slot(5), group.batch(0))),
    ]
}

/// Values drawn from random bytes, zeros once these are used up.
pub(crate) struct Entropy<'a>(std::slice::Iter<'a, u8>);

impl<'a> Entropy<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::MAX,
            1 => u64::from(self.byte()) << 40,
            _ => u64::from(self.byte()),
        }
    }

    fn digest(&mut self) -> Digest {
        Digest::from_bytes([self.byte(); 32])
    }

    fn signature(&mut self) -> Signature {
        Signature::from_bytes([self.byte(); 64])
    }

    fn key(&mut self) -> PublicKey {
        client(self.below(3))
    }

    fn blob(&mut self) -> Blob {
        let length = self.below(20);
        (0..length).map(|_| self.byte()).collect::<Vec<u8>>().into()
    }

    fn list<T, const MAX: usize>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> List<T, MAX> {
        let count = self.below(4);
        List::new((0..count).map(|_| element(self)).collect()).expect("at most three")
    }

    fn sequence(&mut self) -> Sequence {
        Sequence::new(self.number())
    }

    fn session(&mut self) -> Session {
        Session { sequence: self.sequence(), index: self.byte().into() }
    }

    fn prepare(&mut self) -> Prepare {
        let (epoch, view) = (Epoch::new(self.number()), View::new(self.number()));
        Prepare { epoch, view, sequence: self.sequence(), digest: self.digest() }
    }

    fn commit(&mut self) -> Commit {
        self.prepare().commit()
    }

    fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint { epoch: Epoch::new(self.number()), sequence: self.sequence(), root: self.digest() }
    }

    fn vote<S>(&mut self, statement: S) -> Vote<S> {
        Vote { statement, voter: replica(self.byte()), signature: self.signature() }
    }

    fn certificate<S>(&mut self, statement: S) -> Certificate<S> {
        let votes = self
            .list(|entropy| VoteSignature { voter: ReplicaId::new(entropy.byte()), signature: entropy.signature() });
        Certificate { statement, votes }
    }

    fn request(&mut self) -> SignedRequest {
        SignedRequest { body: self.blob(), signature: self.signature() }
    }

    fn entry(&mut self) -> Entry {
        Entry { key: self.blob(), value: self.blob() }
    }

    fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 1).then(|| value(self))
    }

    fn status(&mut self) -> Status {
        let progress = [
            Progress::Nothing,
            Progress::PrePrepared,
            Progress::Prepared,
            Progress::CommittedWithoutBatch,
            Progress::Committed,
        ];
        Status {
            epoch: Epoch::new(self.number()),
            view: View::new(self.number()),
            entered: self.below(2) == 1,
            suspects: self.below(2) == 1,
            stable: self.sequence(),
            executed: self.sequence(),
            decided_from: self.sequence(),
            view_changes: self.byte().into(),
            checkpoint_votes: self.byte().into(),
            slots: self.list(|entropy| progress[usize::from(entropy.below(5))]),
        }
    }

    fn fetch(&mut self) -> Fetch {
        match self.below(6) {
            0 => Fetch::Batch { sequence: self.sequence(), digest: self.digest() },
            1 => Fetch::Decided { after: self.sequence() },
            2 => Fetch::ViewChange { digest: self.digest() },
            3 => Fetch::NewView { view: View::new(self.number()) },
            4 => Fetch::Statements { token: self.number() },
            _ => Fetch::Part { sequence: self.sequence(), want: self.want() },
        }
    }

    fn want(&mut self) -> Want {
        match self.byte() % 4 {
            0 => Want::Crown,
            1 => Want::Protocol { after: self.option(Self::blob) },
            2 => Want::Leaves { group: self.byte().into() },
            _ => Want::Buckets {
                group: self.byte().into(),
                buckets: self.list(|random| random.byte().into()),
                after: self.option(Self::blob),
            },
        }
    }

    fn content(&mut self) -> Content {
        match self.byte() % 4 {
            0 => Content::Crown(self.list(Self::digest)),
            1 => Content::Protocol { entries: self.list(Self::entry), is_last: self.byte().is_multiple_of(2) },
            2 => Content::Leaves(self.list(Self::digest)),
            _ => Content::Buckets { entries: self.list(Self::entry), whole: self.byte().into() },
        }
    }

    fn part(&mut self) -> Part {
        Part { sequence: self.sequence(), want: self.want(), content: self.content() }
    }

    pub(crate) fn message(&mut self) -> Message {
        match self.below(15) {
            13 => {
                let statement = self.prepare();
                Message::Conflict(self.vote(statement))
            }
            0 => Message::Request(self.request()),
            1 => {
                let statement = self.prepare();
                Message::PrePrepare(PrePrepare { vote: self.vote(statement), batch: self.blob() })
            }
            2 => {
                let statement = self.prepare();
                Message::Prepare(self.vote(statement))
            }
            3 => {
                let statement = self.commit();
                Message::Commit(self.vote(statement))
            }
            4 => {
                let statement = self.checkpoint();
                Message::Checkpoint(self.vote(statement))
            }
            5 => {
                let statement = self.checkpoint();
                Message::Stable(self.certificate(statement))
            }
            6 => Message::ViewChange(SignedViewChange { body: self.blob(), signature: self.signature() }),
            7 => Message::NewView(SignedNewView { body: self.blob(), signature: self.signature() }),
            8 => Message::Status(self.status()),
            9 => Message::Fetch(self.fetch()),
            10 => Message::Batch(FetchedBatch { sequence: self.sequence(), batch: self.blob() }),
            11 => {
                let statement = self.commit();
                Message::Decided(Decided { certificate: self.certificate(statement), batch: self.blob() })
            }
            12 => Message::Statements(Statements {
                token: self.number(),
                epoch: Epoch::new(self.number()),
                prepares: self.list(|entropy| {
                    let statement = entropy.prepare();
                    entropy.vote(statement)
                }),
                commits: self.list(|entropy| {
                    let statement = entropy.commit();
                    entropy.vote(statement)
                }),
                checkpoints: self.list(|entropy| {
                    let statement = entropy.checkpoint();
                    entropy.vote(statement)
                }),
                view_change: self
                    .option(|entropy| SignedViewChange { body: entropy.blob(), signature: entropy.signature() }),
                new_view: self.option(|entropy| SignedNewView { body: entropy.blob(), signature: entropy.signature() }),
                reached: self.sequence(),
            }),
            _ => Message::Part(self.part()),
        }
    }

    pub(crate) fn client_message(&mut self) -> ClientMessage {
        match self.below(9) {
            7 => ClientMessage::Copy(self.request()),
            6 => ClientMessage::Standby(self.blob()),
            0 => ClientMessage::Attach { client: self.key(), signature: self.signature() },
            1 => ClientMessage::Request(self.request()),
            2 => ClientMessage::Status,
            3 => ClientMessage::Read {
                client: self.key(),
                number: RequestNumber::new(self.number()),
                operation: self.blob(),
            },
            4 => ClientMessage::Checkpoint { number: RequestNumber::new(self.number()) },
            5 => ClientMessage::Part {
                number: RequestNumber::new(self.number()),
                sequence: self.sequence(),
                want: self.want(),
                offset: self.byte().into(),
            },
            _ => ClientMessage::Prove { number: RequestNumber::new(self.number()), query: self.blob() },
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(5) {
            0 => Outcome::Executed {
                sequence: self.sequence(),
                index: self.byte().into(),
                results: self.list(Self::blob),
            },
            1 => Outcome::Opened { session: self.session() },
            2 => Outcome::Evicted,
            3 => Outcome::Superseded { opening: RequestNumber::new(self.number()) },
            _ => Outcome::Forgotten,
        }
    }

    pub(crate) fn replica_message(&mut self) -> ReplicaMessage {
        match self.below(9) {
            7 => ReplicaMessage::Standby(self.blob()),
            0 => ReplicaMessage::Reply(Reply {
                epoch: Epoch::new(self.number()),
                view: View::new(self.number()),
                client: self.key(),
                session: self.session(),
                number: RequestNumber::new(self.number()),
                outcome: self.outcome(),
            }),
            1 => ReplicaMessage::Busy {
                client: self.key(),
                number: RequestNumber::new(self.number()),
                retry_after_ms: self.byte().into(),
            },
            2 => ReplicaMessage::Refused {
                client: self.key(),
                number: RequestNumber::new(self.number()),
                reason: self.blob(),
            },
            3 => ReplicaMessage::Status(Blob::from(Bytes::from_static(b"{}"))),
            4 => ReplicaMessage::Read {
                client: self.key(),
                number: RequestNumber::new(self.number()),
                answer: self.option(|entropy| ReadAnswer {
                    epoch: Epoch::new(entropy.number()),
                    reading: Reading { result: entropy.blob(), since: entropy.sequence() },
                }),
            },
            5 => ReplicaMessage::Checkpoint {
                number: RequestNumber::new(self.number()),
                checkpoint: self.option(|entropy| {
                    let statement = entropy.checkpoint();
                    let certificate = entropy.certificate(statement);
                    let root = StateRoot { application: entropy.digest(), protocol: entropy.digest() };
                    StableState { certificate, root }
                }),
            },
            6 => ReplicaMessage::Part {
                number: RequestNumber::new(self.number()),
                piece: self.option(|entropy| Piece { length: entropy.byte().into(), bytes: entropy.blob() }),
            },
            _ => ReplicaMessage::Proved {
                number: RequestNumber::new(self.number()),
                certificate: self.option(|entropy| {
                    let statement = entropy.checkpoint();
                    entropy.certificate(statement)
                }),
                state: StateRoot { application: self.digest(), protocol: self.digest() },
                proof: self.blob(),
            },
        }
    }
}
