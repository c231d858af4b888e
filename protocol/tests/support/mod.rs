//! Drives replicas by hand: one against members that the test plays, or a whole group on a perfect network.
//!
//! Signatures are stand-ins: a digest under the signer's key. A test forges one only where it says so.

pub(crate) mod state;
pub(crate) mod subject;
pub(crate) mod transfer;

use std::sync::Arc;

use quorate_crypto::{Digest, Domain, Item, PublicKey, Signature, SigningKey, hash};
use quorate_protocol::batch::{Batch, ParsedRequest, Request, SignedRequest};
use quorate_protocol::certificate::{Certificate, CommittedCertificate, PreparedCertificate, StableCertificate};
use quorate_protocol::codec::{Blob, List, encode};
use quorate_protocol::configuration::{ClusterId, Configuration, Member, Parameters};
use quorate_protocol::message::{
    Message, NamedViewChange, NewView, PrePrepare, Proposal, SignedNewView, SignedViewChange, Statements, ViewChange,
    new_view_digest, view_change_digest,
};
use quorate_protocol::number::{Epoch, ReplicaId, RequestNumber, Sequence, Session, View};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare, Signer, Statement, Vote};
use quorate_protocol::time::WallTime;
use quorate_protocol::verify::{Payload, Verified, Verifier, verify, verify_requests};

/// Milliseconds at which every test begins, on both clocks.
pub(crate) const START_MS: u64 = 1_000_000;

/// What names the question of a start.
pub(crate) const TOKEN: u64 = 7;

/// A signer whose signatures are digests under its public key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StandIn(pub(crate) PublicKey);

/// What checks the stand-ins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StandInVerifier;

impl Signer for StandIn {
    fn sign(&self, digest: &Digest) -> Signature {
        let half = hash(Domain::Results, &[self.0.as_bytes(), digest.as_bytes()]);
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(half.as_bytes());
        bytes[32..].copy_from_slice(digest.as_bytes());
        Signature::from_bytes(bytes)
    }
}

impl Verifier for StandInVerifier {
    fn verify(&mut self, items: &[Item]) -> Result<(), usize> {
        match items.iter().position(|item| StandIn(item.key).sign(&item.digest) != item.signature) {
            Some(first) => Err(first),
            None => Ok(()),
        }
    }
}

/// A key of a test: the same whenever asked.
pub(crate) fn key(seed: u8) -> PublicKey {
    SigningKey::from_seed([seed; 32]).public_key()
}

/// The key of a client.
pub(crate) fn client(index: u8) -> PublicKey {
    key(100 + index)
}

/// Small numbers, so that tests reach every bound: a checkpoint every 4 slots, a window of 8, a pipeline of 4.
pub(crate) fn small() -> Parameters {
    Parameters {
        checkpoint_interval: 4,
        window: 8,
        pipeline: 4,
        heartbeat_ms: 100,
        crash_suspicion_ms: 300,
        ordering_deadline_ms: 500,
        deadline_cap_ms: 2000,
        clock_bound_ms: 2000,
        ..Parameters::default()
    }
}

/// The members of a test, and what they say.
#[derive(Debug, Clone)]
pub(crate) struct Group(pub(crate) Arc<Configuration>);

pub(crate) const fn replica(index: u8) -> ReplicaId {
    ReplicaId::new(index)
}

pub(crate) const fn slot(sequence: u64) -> Sequence {
    Sequence::new(sequence)
}

pub(crate) const fn view(number: u64) -> View {
    View::new(number)
}

impl Group {
    /// `size` members under `parameters`.
    pub(crate) fn new(size: u8, parameters: Parameters) -> Self {
        let member = |index| Member {
            key: key(index + 1),
            peer_address: format!("replica-{index}:1"),
            client_address: format!("replica-{index}:2"),
        };
        let members = List::new((0..size).map(member).collect()).expect("few members");
        let cluster = ClusterId::new(Digest::from_bytes([9; 32]));
        Self(Arc::new(Configuration::new(cluster, members, parameters).expect("a valid configuration")))
    }

    /// Four members and [`small`] parameters.
    pub(crate) fn of_four() -> Self {
        Self::new(4, small())
    }

    /// The same members in an epoch that began at the checkpoint `began`.
    pub(crate) fn in_epoch(&self, epoch: u64, began: u64) -> Self {
        Self(Arc::new(self.0.in_epoch(Epoch::new(epoch), slot(began))))
    }

    pub(crate) fn cluster(&self) -> &ClusterId {
        self.0.cluster()
    }

    pub(crate) fn signer(&self, id: u8) -> StandIn {
        StandIn(self.0.member(replica(id)).expect("a member").key)
    }

    /// The vote of member `id`.
    pub(crate) fn vote<S: Statement>(&self, id: u8, statement: S) -> Vote<S> {
        Vote::sign(statement, replica(id), self.cluster(), &self.signer(id))
    }

    /// The certificate of `statement` with the votes of `voters`, however few.
    pub(crate) fn certificate<S: Statement + Copy + PartialEq>(&self, statement: S, voters: &[u8]) -> Certificate<S> {
        let votes: Vec<Vote<S>> = voters.iter().map(|id| self.vote(*id, statement)).collect();
        Certificate::collect(statement, votes.iter(), voters.len()).expect("distinct voters")
    }

    pub(crate) fn prepared(&self, of_view: u64, sequence: u64, digest: Digest, voters: &[u8]) -> PreparedCertificate {
        self.certificate(prepare(of_view, sequence, digest), voters)
    }

    pub(crate) fn committed(&self, of_view: u64, sequence: u64, digest: Digest, voters: &[u8]) -> CommittedCertificate {
        self.certificate(prepare(of_view, sequence, digest).commit(), voters)
    }

    pub(crate) fn stable(&self, sequence: u64, root: Digest, voters: &[u8]) -> StableCertificate {
        self.certificate(Checkpoint { epoch: Epoch::ZERO, sequence: slot(sequence), root }, voters)
    }

    /// The proposal of member `id`, whoever is the primary.
    pub(crate) fn pre_prepare(&self, id: u8, of_view: u64, sequence: u64, batch: &Batch) -> Message {
        let vote = self.vote(id, prepare(of_view, sequence, batch.digest()));
        Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() })
    }

    pub(crate) fn prepare(&self, id: u8, of_view: u64, sequence: u64, digest: Digest) -> Message {
        Message::Prepare(self.vote(id, prepare(of_view, sequence, digest)))
    }

    pub(crate) fn commit(&self, id: u8, of_view: u64, sequence: u64, digest: Digest) -> Message {
        Message::Commit(self.vote(id, commit(of_view, sequence, digest)))
    }

    pub(crate) fn checkpoint(&self, id: u8, sequence: u64, root: Digest) -> Message {
        Message::Checkpoint(self.vote(id, Checkpoint { epoch: Epoch::ZERO, sequence: slot(sequence), root }))
    }

    /// What a peer answers that knows nothing that the asking replica has said.
    pub(crate) fn nothing_said(&self) -> Message {
        Message::Statements(self.no_statements())
    }

    pub(crate) fn no_statements(&self) -> Statements {
        Statements {
            token: TOKEN,
            epoch: self.0.epoch(),
            prepares: List::empty(),
            commits: List::empty(),
            checkpoints: List::empty(),
            view_change: None,
            new_view: None,
            reached: Sequence::ZERO,
        }
    }

    /// What member `id` asks for that has lost votes.
    pub(crate) fn rejoin(&self, id: u8, epoch: u64, incarnation: u64) -> SignedRequest {
        let epoch = Blob::from(epoch.to_le_bytes().to_vec());
        let client = self.0.member(replica(id)).expect("a member").key;
        let request = Request {
            client,
            session: Session::REJOIN,
            number: RequestNumber::new(incarnation),
            operations: List::new(vec![epoch]).expect("one"),
        };
        request.sign(self.cluster(), &StandIn(client)).expect("short")
    }

    /// The view change of member `id` for `to`, with nothing in it.
    pub(crate) fn empty_view_change(&self, id: u8, to: u64) -> SignedViewChange {
        self.view_change(id, to, None, vec![])
    }

    pub(crate) fn view_change(
        &self,
        id: u8,
        to: u64,
        stable: Option<StableCertificate>,
        prepared: Vec<PreparedCertificate>,
    ) -> SignedViewChange {
        let content = ViewChange {
            epoch: Epoch::ZERO,
            view: view(to),
            replica: replica(id),
            stable,
            prepared: List::new(prepared).expect("few"),
            cast: List::empty(),
        };
        let body = encode(&content).expect("short");
        let signature = self.signer(id).sign(&view_change_digest(self.cluster(), &body));
        SignedViewChange { body: body.into(), signature }
    }

    /// The new view that member `id` signs for `of_view`, resting on `view_changes`, in the order given.
    pub(crate) fn new_view(
        &self,
        id: u8,
        of_view: u64,
        view_changes: &[(u8, &SignedViewChange)],
        proposals: &[(u64, Digest)],
    ) -> SignedNewView {
        let named = view_changes.iter().map(|(id, signed)| NamedViewChange {
            replica: replica(*id),
            digest: view_change_digest(self.cluster(), &signed.body),
        });
        let proposals =
            proposals.iter().map(|(sequence, digest)| Proposal { sequence: slot(*sequence), digest: *digest });
        let content = NewView {
            epoch: Epoch::ZERO,
            view: view(of_view),
            view_changes: List::new(named.collect()).expect("few"),
            proposals: List::new(proposals.collect()).expect("few"),
        };
        let body = encode(&content).expect("short");
        let signature = self.signer(id).sign(&new_view_digest(self.cluster(), &body));
        SignedNewView { body: body.into(), signature }
    }

    /// A signed request of `client` with one operation.
    pub(crate) fn request(&self, client: PublicKey, session: Session, number: u64, operation: &str) -> SignedRequest {
        let operations = List::new(vec![Blob::from(operation.as_bytes())]).expect("one");
        let request = Request { client, session, number: RequestNumber::new(number), operations };
        request.sign(self.cluster(), &StandIn(client)).expect("short")
    }

    /// A request of `client` that opens a session.
    pub(crate) fn opening(&self, client: PublicKey, number: u64) -> SignedRequest {
        let operations = List::empty();
        let request = Request { client, session: Session::NONE, number: RequestNumber::new(number), operations };
        request.sign(self.cluster(), &StandIn(client)).expect("short")
    }

    pub(crate) fn parsed(&self, signed: SignedRequest) -> ParsedRequest {
        self.verified(signed).into_content()
    }

    pub(crate) fn verified(&self, signed: SignedRequest) -> Verified<ParsedRequest> {
        let mut results = verify_requests(vec![signed], &self.0, &mut StandInVerifier);
        results.remove(0).expect("a valid request")
    }

    /// A batch of `requests`, stamped so many milliseconds after the start.
    pub(crate) fn batch_at(&self, stamp_ms: i64, requests: Vec<SignedRequest>) -> Batch {
        let stamp = u64::try_from(i64::try_from(START_MS).expect("small") + stamp_ms).expect("positive");
        let requests = requests.into_iter().map(|signed| self.parsed(signed)).collect();
        Batch::new(WallTime::from_nanoseconds(stamp * 1_000_000), requests)
    }

    /// A batch that opens the session of client `index`: a different one for each.
    pub(crate) fn batch(&self, index: u8) -> Batch {
        self.batch_at(0, vec![self.opening(client(index), 1)])
    }

    /// What `from` says, checked.
    pub(crate) fn check(&self, from: u8, message: Message) -> Verified<Payload> {
        verify(message, replica(from), &self.0, &mut StandInVerifier).expect("a valid message")
    }
}

pub(crate) fn prepare(of_view: u64, sequence: u64, digest: Digest) -> Prepare {
    Prepare { epoch: Epoch::ZERO, view: view(of_view), sequence: slot(sequence), digest }
}

pub(crate) fn commit(of_view: u64, sequence: u64, digest: Digest) -> Commit {
    prepare(of_view, sequence, digest).commit()
}

/// Some digest.
pub(crate) const fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}
