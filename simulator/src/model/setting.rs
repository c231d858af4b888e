//! What stays the same in all states: who takes part, what the clients want, and what the faulty replica can sign.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::batch::{Batch, ParsedRequest, Request};
use quorate_protocol::certificate::{Certificate, PreparedCertificate, VoteSignature};
use quorate_protocol::codec::{List, encode};
use quorate_protocol::configuration::{Configuration, Parameters};
use quorate_protocol::message::{
    FetchedBatch, Message, NamedViewChange, NewView, PrePrepare, Proposal, SignedNewView, SignedViewChange, ViewChange,
    new_view_digest, view_change_digest,
};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence, Session, View};
use quorate_protocol::record::Record;
use quorate_protocol::statement::{Commit, Prepare, Signer, Statement, Vote};
use quorate_protocol::time::WallTime;
use quorate_protocol::verify::{Payload, Verified, verify, verify_requests};

use super::Bounds;
use super::letter::{Letter, print_of};
use super::local::{Checked, nothing, suspicion};
use crate::cluster::configuration;
use crate::signature::{Holder, Notary, Scheme, SharedSigner};

/// Replicas, one of them faulty.
const MEMBERS: usize = 4;

/// Who agree, of four.
pub(super) const QUORUM: usize = 3;

/// Requests of as many clients, each a batch of its own if the faulty replica proposes it.
const REQUESTS: u64 = 2;

/// What all states have in common.
pub(super) struct Setting {
    pub(super) configuration: Arc<Configuration>,
    pub(super) signers: Vec<SharedSigner>,
    pub(super) faulty: ReplicaId,
    requests: Vec<Verified<ParsedRequest>>,
    /// How many of them the correct replicas hear of: one a slot.
    known: usize,
    /// The batches that the faulty replica proposes.
    pub(super) batches: Vec<Batch>,
    /// A message that changes nothing.
    pub(super) nothing: Checked,
    /// How many times replicas may start again, all together.
    pub(super) restarts: u64,
    /// Checks what was signed.
    notary: Mutex<Notary>,
    /// What the faulty replica signed before, by what it says.
    signed: Mutex<HashMap<u64, Option<Arc<Letter>>>>,
}

impl core::fmt::Debug for Setting {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Setting").field("faulty", &self.faulty).finish_non_exhaustive()
    }
}

/// A request makes a batch; deadlines do not grow; the first checkpoint is far away.
fn parameters() -> Parameters {
    Parameters {
        heartbeat_ms: 1_000,
        batch_operations_max: 1,
        crash_suspicion_ms: 2_000,
        ordering_deadline_ms: 2_000,
        deadline_cap_ms: 2_000,
        ..Parameters::default()
    }
}

impl Setting {
    pub(super) fn new(faulty: ReplicaId, bounds: Bounds) -> Self {
        let mut notary = Notary::new(Scheme::Ideal);
        let configuration = configuration(MEMBERS, &mut notary, parameters()).expect("the parameters above");
        let configuration = Arc::new(configuration);
        let signers = configuration.replicas().map(|id| notary.key(Holder::Replica(id.value().into())).1).collect();
        let signed = (0..REQUESTS).map(|client| {
            let (key, signer) = notary.key(Holder::Client(client));
            let (session, number) = (Session::NONE, RequestNumber::new(1));
            let opening = Request { client: key, session, number, operations: List::empty() };
            opening.sign(configuration.cluster(), signer.as_ref()).expect("a short request")
        });
        let signed = signed.collect();
        let requests = verify_requests(signed, &configuration, &mut notary).into_iter();
        let requests: Vec<_> = requests.map(|request| request.expect("the client signed it")).collect();
        let stamp = WallTime::from_nanoseconds(1_800_000_000_000_000_000);
        let batches = requests.iter().map(|request| Batch::new(stamp, vec![(**request).clone()])).collect();
        let nothing = check(nothing(), faulty, &configuration, &mut notary);
        let restarts = bounds.restarts;
        let known = usize::try_from(bounds.slots).unwrap_or(1);
        let notary = Mutex::new(notary);
        Self {
            configuration,
            signers,
            faulty,
            requests,
            known,
            batches,
            nothing,
            restarts,
            notary,
            signed: Mutex::default(),
        }
    }

    fn notary(&self) -> MutexGuard<'_, Notary> {
        self.notary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests that clients sent to the correct replicas; the others only the faulty one knows.
    pub(super) fn known_requests(&self) -> &[Verified<ParsedRequest>] {
        &self.requests[..self.known.min(self.requests.len())]
    }

    /// What `from` says; none if it is not valid.
    pub(super) fn letter(&self, from: ReplicaId, message: Message, rests_on: Vec<Arc<Letter>>) -> Option<Arc<Letter>> {
        Letter::new(from, message, rests_on, &self.configuration, &mut self.notary()).map(Arc::new)
    }

    /// The view changes that a new view names, which its sender wrote down with it.
    pub(super) fn named_by(&self, did: &[Arc<Output>], new_view: &SignedNewView) -> Vec<Arc<Letter>> {
        let written = did.iter().find_map(|output| match &**output {
            Output::Append { record: Record::NewView(_, _, written), .. } if written.new_view == *new_view => {
                Some(&written.view_changes)
            }
            _ => None,
        });
        let signed = written.into_iter().flat_map(|view_changes| view_changes.iter().cloned());
        signed.filter_map(|signed| self.letter(self.faulty, Message::ViewChange(signed), Vec::new())).collect()
    }

    /// The faulty replica's suspicion of the primary of `view`.
    pub(super) fn status(&self, view: View, entered: bool) -> Checked {
        check(suspicion(self, view, entered), self.faulty, &self.configuration, &mut self.notary())
    }

    /// A batch that somebody hands out.
    pub(super) fn batch(&self, sequence: Sequence, batch: &Batch) -> Option<Arc<Letter>> {
        self.once(&(0_u8, sequence, batch.digest()), || {
            Some(Message::Batch(FetchedBatch { sequence, batch: batch.body().clone().into() }))
        })
    }

    pub(super) fn pre_prepare(&self, view: View, sequence: Sequence, batch: &Batch) -> Option<Arc<Letter>> {
        self.once(&(1_u8, view, sequence, batch.digest()), || {
            let vote = self.sign(self.statement(view, sequence, batch.digest()));
            Some(Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() }))
        })
    }

    pub(super) fn prepare(&self, view: View, sequence: Sequence, digest: Digest) -> Option<Arc<Letter>> {
        let statement = self.statement(view, sequence, digest);
        self.once(&(2_u8, statement), || Some(Message::Prepare(self.sign(statement))))
    }

    pub(super) fn commit(&self, view: View, sequence: Sequence, digest: Digest) -> Option<Arc<Letter>> {
        let statement: Commit = self.statement(view, sequence, digest).commit();
        self.once(&(3_u8, statement), || Some(Message::Commit(self.sign(statement))))
    }

    /// The certificate of others' votes and the faulty replica's own; none if they are too few.
    pub(super) fn certificate(&self, letters: &[Arc<Letter>]) -> Option<PreparedCertificate> {
        let votes = || letters.iter().filter_map(|letter| letter.prepare());
        let statement = votes().next()?.statement;
        let own = self.sign(statement);
        Certificate::collect(statement, votes().chain([&own]), QUORUM)
    }

    /// A certificate of view 0 under which the faulty replica's signature stands in everyone's name.
    pub(super) fn forged(&self, sequence: Sequence, digest: Digest) -> Option<PreparedCertificate> {
        let statement = self.statement(View::ZERO, sequence, digest);
        let signature = self.sign(statement).signature;
        let votes = self.configuration.replicas().take(QUORUM).map(|voter| VoteSignature { voter, signature });
        Some(Certificate { statement, votes: List::new(votes.collect())? })
    }

    /// A view change with these certificates.
    pub(super) fn view_change(&self, view: View, prepared: Vec<PreparedCertificate>) -> Option<Arc<Letter>> {
        self.once(&(4_u8, view, prepared.clone()), || {
            let content = ViewChange {
                epoch: self.configuration.epoch(),
                view,
                replica: self.faulty,
                stable: None,
                prepared: List::new(prepared)?,
                cast: List::empty(),
            };
            let body = encode(&content).ok()?;
            let signature = self.signer().sign(&view_change_digest(self.configuration.cluster(), &body));
            Some(Message::ViewChange(SignedViewChange { body: body.into(), signature }))
        })
    }

    /// A view change that lists nothing.
    pub(super) fn empty_view_change(&self, view: View) -> Option<Arc<Letter>> {
        self.view_change(view, Vec::new())
    }

    /// A new view that rests on these view changes and proposes this.
    pub(super) fn new_view(&self, view: View, rests_on: &[Arc<Letter>], proposals: &[Proposal]) -> Option<Arc<Letter>> {
        let key = print_of(&(5_u8, view, rests_on.iter().map(|letter| letter.print()).collect::<Vec<_>>(), proposals));
        self.remembered(key, || {
            let named = rests_on.iter().filter_map(|letter| match &*letter.payload {
                Payload::ViewChange(checked) => {
                    Some(NamedViewChange { replica: checked.content.replica, digest: checked.digest })
                }
                _ => None,
            });
            let mut named: Vec<NamedViewChange> = named.collect();
            named.sort_unstable_by_key(|named| named.replica);
            let content = NewView {
                epoch: self.configuration.epoch(),
                view,
                view_changes: List::new(named)?,
                proposals: List::new(proposals.to_vec())?,
            };
            let body = encode(&content).ok()?;
            let signature = self.signer().sign(&new_view_digest(self.configuration.cluster(), &body));
            let message = Message::NewView(SignedNewView { body: body.into(), signature });
            self.letter(self.faulty, message, rests_on.to_vec())
        })
    }

    fn statement(&self, view: View, sequence: Sequence, digest: Digest) -> Prepare {
        Prepare { epoch: self.configuration.epoch(), view, sequence, digest }
    }

    fn signer(&self) -> &dyn Signer {
        self.signers[self.faulty.index()].as_ref()
    }

    fn sign<S: Statement>(&self, statement: S) -> Vote<S> {
        Vote::sign(statement, self.faulty, self.configuration.cluster(), self.signer())
    }

    fn once(&self, key: &impl core::hash::Hash, make: impl FnOnce() -> Option<Message>) -> Option<Arc<Letter>> {
        self.remembered(print_of(key), || self.letter(self.faulty, make()?, Vec::new()))
    }

    fn remembered(&self, key: u64, make: impl FnOnce() -> Option<Arc<Letter>>) -> Option<Arc<Letter>> {
        let known = self.signed.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let letter = make();
            self.signed.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(letter).clone()
        })
    }
}

fn check(message: Message, from: ReplicaId, configuration: &Configuration, notary: &mut Notary) -> Checked {
    verify(message, from, configuration, notary).expect("a message without signatures")
}
