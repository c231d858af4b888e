//! What an adversary has besides its puppet: keys, what it saw, its own voice, and accomplices.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_crypto::Digest;
use quorate_protocol::batch::{Batch, ParsedRequest};
use quorate_protocol::certificate::{PreparedCertificate, StableCertificate};
use quorate_protocol::codec::encode;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::input::Input;
use quorate_protocol::message::{
    Message, NewView, SharedViewChange, SignedNewView, SignedViewChange, ViewChange, new_view_digest,
    view_change_digest,
};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::replica::{Mode, Replica, Start};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare, Signer, Statement, Vote};
use quorate_protocol::time::Time;
use quorate_protocol::verify::Payload;
use quorate_protocol::{Now, Output};

use super::Dice;

/// A signer that adversaries share.
type SharedSigner = Arc<dyn Signer + Send + Sync>;

/// Requests, proposals and votes that are remembered, of each.
const REMEMBERED_MAX: usize = 256;

/// What all adversaries of a cluster know together: each other's keys.
#[derive(Clone, Default)]
pub struct Plot(Arc<Mutex<BTreeMap<ReplicaId, SharedSigner>>>);

impl fmt::Debug for Plot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Plot").finish_non_exhaustive()
    }
}

impl Plot {
    fn join(&self, id: ReplicaId, signer: SharedSigner) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, signer);
    }

    fn signer(&self, id: ReplicaId) -> Option<SharedSigner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Who is in it.
    pub fn members(&self) -> Vec<ReplicaId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// What an adversary saw, the latest of each kind. Each list is bounded by 256 things.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests of clients.
    pub requests: VecDeque<ParsedRequest>,
    /// Proposals.
    pub proposals: VecDeque<(Vote<Prepare>, Batch)>,
    /// Votes of others.
    pub prepares: VecDeque<Vote<Prepare>>,
    /// Votes of others.
    pub commits: VecDeque<Vote<Commit>>,
    /// View changes of others.
    pub view_changes: VecDeque<SharedViewChange>,
    /// Prepared certificates, out of view changes.
    pub certificates: VecDeque<PreparedCertificate>,
    /// The stable certificate of the puppet.
    pub stable: Option<StableCertificate>,
}

/// An adversary's means.
pub struct Body {
    id: ReplicaId,
    configuration: Arc<Configuration>,
    signer: SharedSigner,
    plot: Plot,
    started: Time,
    now: Now,
    view: View,
    is_in_view: bool,
    executed: Sequence,
    /// What it saw.
    pub seen: Seen,
    /// Its chance.
    pub dice: Dice,
    /// What is said later, by the moment and the order in which that was decided.
    later: BTreeMap<(Time, u64), (ReplicaId, Message)>,
    later_made: u64,
    pub(super) out: VecDeque<Output>,
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Body").field("id", &self.id).field("view", &self.view).finish_non_exhaustive()
    }
}

fn remember<T>(list: &mut VecDeque<T>, thing: T) {
    if list.len() == REMEMBERED_MAX {
        list.pop_front();
    }
    list.push_back(thing);
}

impl Body {
    pub(super) fn new(start: &Start, now: Now, plot: Plot, seed: u64) -> Self {
        plot.join(start.id, Arc::clone(&start.signer));
        Self {
            id: start.id,
            configuration: Arc::clone(&start.configuration),
            signer: Arc::clone(&start.signer),
            plot,
            started: now.monotonic,
            now,
            view: View::ZERO,
            is_in_view: true,
            executed: Sequence::ZERO,
            seen: Seen::default(),
            dice: Dice::new(seed ^ u64::from(start.id.value()) << 56),
            later: BTreeMap::new(),
            later_made: 0,
            out: VecDeque::new(),
        }
    }

    /// Which replica it pretends to be.
    pub const fn id(&self) -> ReplicaId {
        self.id
    }

    /// The configuration of the cluster.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// All other replicas.
    pub fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let own = self.id;
        self.configuration.replicas().filter(move |id| *id != own)
    }

    /// The adversaries of this cluster, itself among them.
    pub fn accomplices(&self) -> Vec<ReplicaId> {
        self.plot.members()
    }

    /// The time.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.now.monotonic.since(self.started)
    }

    /// The view that the puppet is in or asks for.
    pub const fn view(&self) -> View {
        self.view
    }

    /// Whether the puppet is in that view.
    pub const fn is_in_view(&self) -> bool {
        self.is_in_view
    }

    /// Whether the puppet is the primary of the view that it is in.
    pub fn is_primary(&self) -> bool {
        self.is_in_view && self.configuration.primary(self.view) == self.id
    }

    /// The last slot that the puppet executed.
    pub const fn executed(&self) -> Sequence {
        self.executed
    }

    /// Says something to a peer.
    pub fn send(&mut self, to: ReplicaId, message: Message) {
        if to != self.id && to.index() < self.configuration.size() {
            self.out.push_back(Output::Send { to, message });
        }
    }

    /// Says something to all others.
    pub fn send_all(&mut self, message: &Message) {
        for to in self.others() {
            self.send(to, message.clone());
        }
    }

    /// Says something to a peer, so much later.
    pub fn send_later(&mut self, delay: Duration, to: ReplicaId, message: Message) {
        self.later_made += 1;
        self.later.insert((self.now.monotonic.after(delay), self.later_made), (to, message));
    }

    /// A vote of its own.
    pub fn prepare(&self, view: View, sequence: Sequence, digest: Digest) -> Vote<Prepare> {
        self.sign(Prepare { epoch: self.epoch(), view, sequence, digest })
    }

    /// A vote of its own.
    pub fn commit(&self, view: View, sequence: Sequence, digest: Digest) -> Vote<Commit> {
        self.sign(Commit { epoch: self.epoch(), view, sequence, digest })
    }

    /// A vote of its own.
    pub fn checkpoint(&self, sequence: Sequence, root: Digest) -> Vote<Checkpoint> {
        self.sign(Checkpoint { epoch: self.epoch(), sequence, root })
    }

    /// The epoch that everything is said in.
    pub fn epoch(&self) -> Epoch {
        self.configuration.epoch()
    }

    /// A statement, signed by itself.
    pub fn sign<S: Statement>(&self, statement: S) -> Vote<S> {
        Vote::sign(statement, self.id, self.configuration.cluster(), self.signer.as_ref())
    }

    /// A statement, signed by an accomplice; none if `accomplice` is none.
    pub fn sign_as<S: Statement>(&self, accomplice: ReplicaId, statement: S) -> Option<Vote<S>> {
        let signer = self.plot.signer(accomplice)?;
        Some(Vote::sign(statement, accomplice, self.configuration.cluster(), signer.as_ref()))
    }

    /// A view change of its own, whatever it says.
    pub fn sign_view_change(&self, content: &ViewChange) -> Option<SignedViewChange> {
        let body = encode(content).ok()?;
        let signature = self.signer.sign(&view_change_digest(self.configuration.cluster(), &body));
        Some(SignedViewChange { body: body.into(), signature })
    }

    /// A new view of its own, whatever it says.
    pub fn sign_new_view(&self, content: &NewView) -> Option<SignedNewView> {
        let body = encode(content).ok()?;
        let signature = self.signer.sign(&new_view_digest(self.configuration.cluster(), &body));
        Some(SignedNewView { body: body.into(), signature })
    }

    /// Something reaches the adversary.
    pub(super) fn observe(&mut self, now: Now, puppet: &Replica, input: &Input) {
        self.now = now;
        self.learn(puppet);
        match input {
            Input::Request(request) => remember(&mut self.seen.requests, (**request).clone()),
            Input::Message { message, .. } => self.remember_message(message),
            _ => {}
        }
    }

    fn remember_message(&mut self, message: &Payload) {
        match message {
            Payload::Request(request) => remember(&mut self.seen.requests, request.clone()),
            Payload::PrePrepare(vote, batch) => remember(&mut self.seen.proposals, (*vote, batch.clone())),
            Payload::Prepare(vote) => remember(&mut self.seen.prepares, *vote),
            Payload::Commit(vote) => remember(&mut self.seen.commits, *vote),
            Payload::ViewChange(view_change) => {
                for certificate in view_change.content.prepared.iter() {
                    remember(&mut self.seen.certificates, certificate.clone());
                }
                remember(&mut self.seen.view_changes, Arc::clone(view_change));
            }
            Payload::Checkpoint(_)
            | Payload::Stable(_)
            | Payload::NewView(_)
            | Payload::Status(_)
            | Payload::Fetch(_)
            | Payload::Batch(..)
            | Payload::Decided(..)
            | Payload::Part(_) => {}
        }
    }

    /// Takes over how far the puppet came.
    pub(super) fn learn(&mut self, puppet: &Replica) {
        (self.view, self.is_in_view) = match puppet.mode() {
            Mode::Normal => (puppet.view(), true),
            Mode::ViewChange { to } => (to, false),
        };
        self.executed = puppet.executed();
        if self.seen.stable.as_ref() != puppet.stable_certificate() {
            self.seen.stable = puppet.stable_certificate().cloned();
        }
    }

    /// When something that was to be said later is due.
    pub(super) fn next_release(&self) -> Option<Time> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// Says what is due.
    pub(super) fn release(&mut self) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > self.now.monotonic {
                return;
            }
            let (to, message) = entry.remove();
            self.send(to, message);
        }
    }
}
