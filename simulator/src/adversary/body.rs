//! What an adversary has besides its puppet: keys, what it saw, its own voice, and accomplices.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_crypto::{Digest, PublicKey};
use quorate_protocol::application::Replicated;
use quorate_protocol::batch::{Batch, ParsedRequest};
use quorate_protocol::certificate::{Certificate, PreparedCertificate, StableCertificate, VoteSignature};
use quorate_protocol::codec::{List, encode};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::input::Input;
use quorate_protocol::message::{
    Message, NewView, PrePrepare, SharedNewView, SharedViewChange, SignedNewView, SignedViewChange, ViewChange,
    new_view_digest, view_change_digest,
};
use quorate_protocol::number::{Epoch, RecordNumber, ReplicaId, Sequence, View};
use quorate_protocol::record::Record;
use quorate_protocol::replica::{Mode, Replica, Start};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare, Signer, Statement, Vote};
use quorate_protocol::time::Time;
use quorate_protocol::verify::Payload;
use quorate_protocol::{Now, Output};

use super::{Dice, Elsewhere};

/// A signer that adversaries share.
pub type SharedSigner = Arc<dyn Signer + Send + Sync>;

/// Requests, proposals and votes that are remembered, of each.
const REMEMBERED_MAX: usize = 256;

/// Lies that accomplices remember together.
const TOLD_MAX: usize = 4_096;

/// Makes an application in its initial state, for a second puppet.
pub type MakeApplication = fn() -> Replicated;

/// What all adversaries of a cluster know together: each other's keys, what they made each replica believe, and
/// whom they are set against.
#[derive(Clone, Default)]
pub struct Plot(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    signers: BTreeMap<ReplicaId, SharedSigner>,
    /// The batch that a replica was told of for a slot in a view. Bound: [`TOLD_MAX`].
    told: BTreeMap<(View, Sequence, ReplicaId), Digest>,
    /// The client that is served by none of them: the first that any of them heard of.
    victim: Option<PublicKey>,
    /// Where the same members say other things.
    elsewhere: Elsewhere,
}

impl fmt::Debug for Plot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Plot").finish_non_exhaustive()
    }
}

impl Plot {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plot of nobody yet, who hear what is said elsewhere.
    pub fn hearing(elsewhere: Elsewhere) -> Self {
        let plot = Self::default();
        plot.shared().elsewhere = elsewhere;
        plot
    }

    /// Takes in somebody whose key it has: what is said in that name is valid from now on.
    pub fn admit(&self, id: ReplicaId, signer: SharedSigner) {
        self.shared().signers.insert(id, signer);
    }

    /// Who is in it.
    pub fn members(&self) -> Vec<ReplicaId> {
        self.shared().signers.keys().copied().collect()
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
    /// New views of others.
    pub new_views: VecDeque<SharedNewView>,
    /// Prepared certificates, the puppet's own and those out of view changes.
    pub certificates: VecDeque<PreparedCertificate>,
    /// Stable certificates of the puppet, the current one last.
    pub stable: VecDeque<StableCertificate>,
}

/// An adversary's means.
pub struct Body {
    id: ReplicaId,
    configuration: Arc<Configuration>,
    signer: SharedSigner,
    plot: Plot,
    make_application: MakeApplication,
    started: Time,
    now: Now,
    view: View,
    is_in_view: bool,
    executed: Sequence,
    /// What it saw.
    pub seen: Seen,
    /// Its chance.
    pub dice: Dice,
    /// What is said or done later, by the moment and the order in which that was decided.
    later: BTreeMap<(Time, u64), Output>,
    later_made: u64,
    pub(super) out: VecDeque<Output>,
    /// How often scripts reacted to something.
    pub(super) reactions: u64,
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
    pub(super) fn new(start: &Start, now: Now, plot: Plot, seed: u64, make_application: MakeApplication) -> Self {
        plot.admit(start.id, Arc::clone(&start.signer));
        Self {
            id: start.id,
            configuration: Arc::clone(&start.configuration),
            signer: Arc::clone(&start.signer),
            plot,
            make_application,
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
            reactions: 0,
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

    /// The time as timers see it.
    pub const fn time(&self) -> Time {
        self.now.monotonic
    }

    /// When it was started, or given other attacks.
    pub const fn started(&self) -> Time {
        self.started
    }

    /// What counts from the start counts from `now` on.
    pub(super) const fn begin_anew(&mut self, now: Now) {
        self.now = now;
        self.started = now.monotonic;
    }

    /// How long ago that was.
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
        self.do_later(delay, Output::Send { to, message });
    }

    /// Nine tenths of what nobody complains about.
    pub fn just_tolerated(&self) -> Duration {
        self.configuration().parameters().ordering_deadline() / 10 * 9
    }

    /// Asks its host for something, so much later.
    pub fn do_later(&mut self, delay: Duration, output: Output) {
        self.later_made += 1;
        self.later.insert((self.now.monotonic.after(delay), self.later_made), output);
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
        self.sign_as(self.id, statement)
    }

    /// A statement in the name of `voter`: its vote if it is an accomplice, and otherwise a forgery, under its own key.
    pub fn sign_as<S: Statement>(&self, voter: ReplicaId, statement: S) -> Vote<S> {
        Vote::sign(statement, voter, self.configuration.cluster(), self.signer_of(voter).as_ref())
    }

    fn signer_of(&self, replica: ReplicaId) -> SharedSigner {
        self.plot.shared().signers.get(&replica).unwrap_or(&self.signer).clone()
    }

    /// A certificate with votes in the names of `voters`, of which those of accomplices are valid.
    pub fn forge<S: Statement + Copy>(
        &self,
        statement: S,
        voters: impl IntoIterator<Item = ReplicaId>,
    ) -> Certificate<S> {
        let vote = |voter| VoteSignature { voter, signature: self.sign_as(voter, statement).signature };
        let votes = voters.into_iter().take(ReplicaId::COUNT_MAX).map(vote).collect();
        Certificate { statement, votes: List::new(votes).unwrap_or_else(List::empty) }
    }

    /// A quorum of members, accomplices first, in ascending order.
    pub fn pretended_quorum(&self) -> Vec<ReplicaId> {
        let accomplices = self.accomplices();
        let others = self.configuration.replicas().filter(|id| !accomplices.contains(id));
        let all = accomplices.iter().copied().chain(others);
        let mut quorum: Vec<ReplicaId> = all.take(self.configuration.quorum()).collect();
        quorum.sort_unstable();
        quorum
    }

    /// Another cluster of the same members.
    pub fn elsewhere(&self) -> Elsewhere {
        self.plot.shared().elsewhere.clone()
    }

    /// A view change in the name of whom it names, whatever it says; a forgery unless that is an accomplice.
    pub fn sign_view_change(&self, content: &ViewChange) -> Option<SignedViewChange> {
        let body = encode(content).ok()?;
        let signer = self.signer_of(content.replica);
        let signature = signer.sign(&view_change_digest(self.configuration.cluster(), &body));
        Some(SignedViewChange { body: body.into(), signature })
    }

    /// A new view in the name of its primary, whatever it says; a forgery unless that is an accomplice.
    pub fn sign_new_view(&self, content: &NewView) -> Option<SignedNewView> {
        let body = encode(content).ok()?;
        let signer = self.signer_of(self.configuration.primary(content.view));
        let signature = signer.sign(&new_view_digest(self.configuration.cluster(), &body));
        Some(SignedNewView { body: body.into(), signature })
    }

    /// A proposal of its own, of which all accomplices know from now on that `to` was told.
    pub fn propose(&self, to: ReplicaId, view: View, sequence: Sequence, batch: &Batch) -> Message {
        self.tell(to, view, sequence, batch.digest());
        let vote = self.prepare(view, sequence, batch.digest());
        Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() })
    }

    /// Remembers, for all accomplices, which batch `to` was told of for a slot.
    pub fn tell(&self, to: ReplicaId, view: View, sequence: Sequence, digest: Digest) {
        let mut shared = self.plot.shared();
        if shared.told.len() >= TOLD_MAX {
            shared.told.pop_first();
        }
        shared.told.insert((view, sequence, to), digest);
    }

    /// A vote as `to` is to hear it: for the batch that it was told of, whatever the puppet votes for.
    pub fn as_told(&self, to: ReplicaId, message: Message) -> Message {
        let told = |view, sequence| self.plot.shared().told.get(&(view, sequence, to)).copied();
        match message {
            Message::Prepare(vote) => match told(vote.statement.view, vote.statement.sequence) {
                Some(digest) => Message::Prepare(self.sign(Prepare { digest, ..vote.statement })),
                None => message,
            },
            Message::Commit(vote) => match told(vote.statement.view, vote.statement.sequence) {
                Some(digest) => Message::Commit(self.sign(Commit { digest, ..vote.statement })),
                None => message,
            },
            other => other,
        }
    }

    /// Whether all accomplices are set against this client.
    pub fn is_victim(&self, client: PublicKey) -> bool {
        *self.plot.shared().victim.get_or_insert(client) == client
    }

    /// The low watermark of the puppet.
    pub fn stable(&self) -> Sequence {
        self.seen.stable.back().map_or(Sequence::ZERO, |certificate| certificate.statement.sequence)
    }

    /// The batch of a proposal as it goes over the wire.
    pub fn batch_of(&self, proposal: &PrePrepare) -> Option<Batch> {
        Batch::parse(proposal.batch.bytes().clone(), &self.configuration).ok()
    }

    /// Whether `every` has passed since it last was: what is done of its own accord must not grow with what others say.
    pub fn is_due(&self, last: &mut Option<Time>, every: Duration) -> bool {
        let is_due = last.is_none_or(|last| self.now.monotonic.since(last) >= every);
        if is_due {
            *last = Some(self.now.monotonic);
        }
        is_due
    }

    /// What a second puppet under the same key starts from: nothing, and an application of its own.
    /// How deep the tree of the application's state is.
    pub(super) fn state_depth(&self) -> u8 {
        (self.make_application)().index().depth()
    }

    pub(super) fn fresh_start(&self) -> (Start, MakeApplication) {
        let start = Start {
            id: self.id,
            configuration: Arc::clone(&self.configuration),
            signer: Arc::clone(&self.signer),
            checkpoint: None,
            records: Vec::new(),
            first_record: RecordNumber::new(1),
            is_damaged: false,
            token: 1,
        };
        (start, self.make_application)
    }

    /// Something reaches the adversary.
    pub(super) fn observe(&mut self, now: Now, puppet: &Replica, input: &Input) {
        self.now = now;
        self.learn(puppet);
        match input {
            Input::Request(request) | Input::Copy(request) => remember(&mut self.seen.requests, (**request).clone()),
            Input::Message { message, .. } => self.remember_message(message),
            _ => {}
        }
    }

    fn remember_message(&mut self, message: &Payload) {
        match message {
            Payload::Request(request) => remember(&mut self.seen.requests, request.clone()),
            Payload::PrePrepare(vote, batch) => remember(&mut self.seen.proposals, (*vote, batch.clone())),
            Payload::Prepare(vote) | Payload::Conflict(vote) => remember(&mut self.seen.prepares, *vote),
            Payload::Commit(vote) => remember(&mut self.seen.commits, *vote),
            Payload::ViewChange(view_change) => {
                for certificate in view_change.content.prepared.iter() {
                    remember(&mut self.seen.certificates, certificate.clone());
                }
                remember(&mut self.seen.view_changes, Arc::clone(view_change));
            }
            Payload::NewView(new_view) => remember(&mut self.seen.new_views, Arc::clone(new_view)),
            Payload::Checkpoint(_)
            | Payload::Stable(_)
            | Payload::Status(_)
            | Payload::Fetch(_)
            | Payload::Batch(..)
            | Payload::Decided(..)
            | Payload::Part(_)
            | Payload::Statements(_) => {}
        }
    }

    /// The puppet wants something done.
    pub(super) fn observe_output(&mut self, output: &Output) {
        if let Output::Append { record: Record::Prepared(certificate, _), .. } = output {
            remember(&mut self.seen.certificates, certificate.clone());
        }
    }

    /// Takes over how far the puppet came.
    pub(super) fn learn(&mut self, puppet: &Replica) {
        self.configuration = Arc::clone(puppet.configuration());
        (self.view, self.is_in_view) = match puppet.mode() {
            Mode::Normal => (puppet.view(), true),
            Mode::ViewChange { to } => (to, false),
        };
        self.executed = puppet.executed();
        if self.seen.stable.back() != puppet.stable_certificate()
            && let Some(certificate) = puppet.stable_certificate()
        {
            remember(&mut self.seen.stable, certificate.clone());
        }
    }

    /// When something that was to be said or done later is due.
    pub(super) fn next_release(&self) -> Option<Time> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// Says and does what is due.
    pub(super) fn release(&mut self) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > self.now.monotonic {
                return;
            }
            self.out.push_back(entry.remove());
        }
    }
}
