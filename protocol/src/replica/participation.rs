//! Whether this replica votes: at each start it asks the others what it has said before, and where its log has lost any of
//! that it votes no more in this epoch, and has a `Rejoin` ordered that ends it. (PROTOCOL §9, loss of votes)

use alloc::vec::Vec;

use super::Replica;
use crate::batch::ParsedRequest;
use crate::certificate::Certificate;
use crate::codec::List;
use crate::membership::{Membership, Rejoin};
use crate::message::{CHECKPOINT_STATEMENTS_MAX, Fetch, Message, STATEMENTS_MAX, Statements};
use crate::number::{Incarnation, RecordNumber, ReplicaId, Sequence};
use crate::output::{Loss, NotVoting, Notice, Output};
use crate::quorum::{Ballot, Votes};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::statement::{Checkpoint, Commit, Prepare, Vote};
use crate::time::Time;
use crate::verify::Spoken;

/// What a replica's votes rest on.
#[derive(Debug, Clone, Hash)]
pub(super) struct Participation {
    /// The life of the log.
    pub(super) incarnation: Incarnation,
    /// The incarnations that vote in this epoch.
    pub(super) membership: Membership,
    pub(super) standing: Standing,
    /// Names this start's question, and after that each new incarnation: never used before.
    pub(super) token: u64,
    /// The record of the incarnation: until it is durable nothing is said that names it.
    recorded: RecordNumber,
    /// When the `Rejoin` was sent last.
    rejoin_sent: Option<Time>,
}

/// Whether it votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// It asks what it has said.
    Asking {
        /// Bit i: member i has answered.
        answered: u32,
    },
    /// It votes.
    Voter,
    /// It has lost votes.
    Learner(Loss),
    /// It executes beside a member whose votes it does not have, and says nothing that counts.
    Standby,
}

impl Participation {
    pub(super) fn new(incarnation: Incarnation, membership: Membership, standing: Standing, token: u64) -> Self {
        Self { incarnation, membership, standing, token, recorded: RecordNumber::ZERO, rejoin_sent: None }
    }
}

impl Replica {
    /// Whether it may promise anything: it has lost no vote of this epoch, and there is room for the next.
    pub(super) fn may_vote(&self) -> bool {
        self.is_voter() && !self.is_log_full() && self.view_changes.forsaken.is_none()
    }

    /// Whether its votes of this epoch are known to be all here.
    pub fn is_voter(&self) -> bool {
        self.participation.standing == Standing::Voter
    }

    /// Why it does not vote, if it does not.
    pub fn not_voting(&self) -> Option<NotVoting> {
        match self.participation.standing {
            Standing::Voter => None,
            Standing::Learner(loss) => Some(NotVoting::Lost(loss)),
            Standing::Standby => Some(NotVoting::StandsBy),
            Standing::Asking { answered } => {
                let answers = answered.count_ones() as usize;
                Some(NotVoting::Asking { answers, needed: self.configuration.quorum() - 1 })
            }
        }
    }

    /// The incarnation whose votes its log holds.
    pub const fn incarnation(&self) -> Incarnation {
        self.participation.incarnation
    }

    /// Asks who has not answered yet, or has the `Rejoin` ordered. With every status.
    pub(super) fn seek_to_vote(&mut self) {
        match self.participation.standing {
            Standing::Voter => self.ask_for_statements(Self::lacks_reached),
            Standing::Asking { answered } => {
                self.ask_for_statements(|_, id| answered & (1 << id.index()) == 0);
            }
            Standing::Learner(_) => self.send_rejoin(),
            Standing::Standby => {}
        }
    }

    fn ask_for_statements(&mut self, is_open: impl Fn(&Self, ReplicaId) -> bool) {
        let token = self.participation.token;
        let is_open = |id: &ReplicaId| *id != self.id && is_open(self, *id);
        let open: Vec<ReplicaId> = self.configuration.replicas().filter(is_open).collect();
        for to in open {
            self.send(to, Message::Fetch(Fetch::Statements { token }));
        }
    }

    /// Tells a peer what it has said, as far as it is known here.
    pub(super) fn statements_of(&self, peer: ReplicaId, token: u64) -> Statements {
        let slots = || self.log.slots_after(Sequence::ZERO).map(|(_, slot)| slot);
        let prepares = slots().filter_map(|slot| latest(&slot.prepares, slot.prepared.as_ref(), peer));
        let commits = slots().filter_map(|slot| latest(&slot.commits, slot.committed.as_ref(), peer));
        let known = &self.peers[peer.index()];
        let has_left = |sequence: Sequence| self.log.slot(sequence).is_none();
        let prepares = prepares.chain(known.last_prepare.filter(|vote| has_left(vote.statement.sequence)));
        let commits = commits.chain(known.last_commit.filter(|vote| has_left(vote.statement.sequence)));
        let stable = self.log.stable().filter(|certificate| certificate.statement.epoch == self.configuration.epoch());
        let stable = stable.into_iter().flat_map(Certificate::each_vote).filter(|vote| vote.voter == peer);
        let checkpoints: Vec<Vote<Checkpoint>> =
            self.checkpoints.votes[peer.index()].iter().copied().chain(stable).collect();
        let entered = self.view_changes.entered.as_ref();
        let latest_change = self.view_changes.latest[peer.index()].as_ref();
        let entered_with = entered.iter().flat_map(|(_, changes)| changes).find(|named| named.content.replica == peer);
        let view_change =
            latest_change.into_iter().chain(entered_with).max_by_key(|view_change| view_change.content.view);
        let new_view = entered
            .map(|(new_view, _)| new_view)
            .filter(|new_view| self.configuration.primary(new_view.content.view) == peer);
        let take = |votes: Vec<Vote<Prepare>>| List::new(votes).expect("slots are within two windows");
        Statements {
            token,
            epoch: self.configuration.epoch(),
            prepares: take(prepares.take(STATEMENTS_MAX).collect()),
            commits: List::new(commits.take(STATEMENTS_MAX).collect()).expect("as many at most"),
            checkpoints: List::new(checkpoints.into_iter().take(CHECKPOINT_STATEMENTS_MAX).collect())
                .expect("as many at most"),
            view_change: view_change.map(|view_change| view_change.signed.clone()),
            new_view: new_view.map(|new_view| new_view.signed.clone()),
            reached: self.reached(),
        }
    }

    /// Whether a peer's account of what this replica said may still matter.
    pub(super) fn is_account_wanted(&self, from: ReplicaId, token: u64) -> bool {
        let lacks = match self.participation.standing {
            Standing::Asking { answered } => answered & (1 << from.index()) == 0,
            Standing::Voter => self.lacks_reached(from),
            Standing::Learner(_) | Standing::Standby => false,
        };
        token == self.participation.token && lacks
    }

    /// A peer tells what this replica has said. Enough of them, and what the log holds is all of it.
    pub(super) fn on_statements(&mut self, from: ReplicaId, spoken: &Spoken) {
        if !self.is_account_wanted(from, spoken.token) || spoken.by.is_some_and(|by| by != self.id) {
            return self.refuse(Refusal::Unasked);
        }
        self.note_reached(from, spoken.reached);
        let Standing::Asking { answered } = &mut self.participation.standing else { return };
        *answered |= 1 << from.index();
        let answers = answered.count_ones() as usize;
        if self.is_lost(spoken) {
            return self.lose(Loss::Shown { by: from });
        }
        self.bind(spoken);
        if answers >= self.configuration.quorum() - 1 {
            self.begin_to_vote();
        }
    }

    /// Whether it shows a statement that the log should hold and does not: of a later epoch, or in this one of a higher view,
    /// or for another digest, or of a slot above the low watermark that is not known here. What older epochs saw proves
    /// nothing.
    fn is_lost(&self, spoken: &Spoken) -> bool {
        let (own, wanted) = (self.configuration.epoch(), Some(self.wanted_view()).max(self.view_changes.forsaken));
        if spoken.by.is_none() || spoken.epoch < own {
            return false;
        }
        let is_forgotten_prepare = |vote: &Vote<Prepare>| {
            let cast = self.log.slot(vote.statement.sequence).and_then(|slot| slot.cast.as_ref());
            vote.statement.sequence > self.log.low()
                && cast.is_none_or(|cast| is_newer(&vote.statement, &cast.statement))
        };
        let is_forgotten_commit = |vote: &Vote<Commit>| {
            let cast = self.log.slot(vote.statement.sequence).and_then(|slot| slot.own_commit.as_ref());
            vote.statement.sequence > self.log.low()
                && cast.is_none_or(|cast| is_newer(&vote.statement, &cast.statement))
        };
        let is_other_root = |vote: &Vote<Checkpoint>| {
            let root = self.state_root_at(vote.statement.sequence);
            root.is_some_and(|root| root != vote.statement.root)
        };
        let asked = self.view_changes.latest[self.id.index()].as_ref();
        let is_other_change = spoken.view_change.is_some_and(|(view, digest)| {
            Some(view) > wanted || asked.is_some_and(|asked| asked.content.view == view && asked.digest != digest)
        });
        let begun = self.view_changes.entered.as_ref().map(|(new_view, _)| new_view);
        let is_other_view = spoken.new_view.is_some_and(|(view, digest)| {
            Some(view) > wanted || begun.is_some_and(|begun| begun.content.view == view && begun.digest != digest)
        });
        spoken.epoch > own
            || spoken.prepares.iter().any(is_forgotten_prepare)
            || spoken.commits.iter().any(is_forgotten_commit)
            || spoken.checkpoints.iter().any(is_other_root)
            || is_other_change
            || is_other_view
    }

    /// A vote for a checkpoint needs no record, so it may be known to others alone: it binds all the same.
    fn bind(&mut self, spoken: &Spoken) {
        if spoken.epoch != self.configuration.epoch() {
            return;
        }
        for vote in spoken.checkpoints.iter().filter(|vote| vote.statement.sequence > self.log.low()) {
            let held = &mut self.checkpoints.votes[self.id.index()];
            if held.iter().all(|held| held.statement.sequence != vote.statement.sequence) {
                held.push(*vote);
                super::checkpoint::keep_highest(held);
            }
        }
    }

    fn begin_to_vote(&mut self) {
        self.participation.standing = Standing::Voter;
        self.outbox.push(Output::Notice(Notice::Voting { epoch: self.configuration.epoch() }));
        self.catch_up_with_votes();
    }

    /// It has lost votes: it says nothing more in this epoch, and is to be another one in the next.
    pub(super) fn lose(&mut self, loss: Loss) {
        self.participation.standing = Standing::Learner(loss);
        self.renew_incarnation();
        self.outbox.push(Output::Notice(Notice::NotVoting { reason: NotVoting::Lost(loss) }));
        self.hurry_status();
    }

    /// Its log begins a life of its own, which no epoch names.
    fn renew_incarnation(&mut self) {
        self.participation.incarnation = Incarnation::new(self.participation.token.max(1));
        self.participation.token = self.participation.token.wrapping_add(1);
        self.participation.recorded = self.outbox.append(Record::Incarnation(self.participation.incarnation));
    }

    /// It was started to stand by. If its log is ever given to the member's own process, that one has lost votes: all of
    /// them are elsewhere.
    pub(super) fn stand_by(&mut self, loss: Option<Loss>) {
        self.participation.standing = Standing::Standby;
        if loss != Some(Loss::Earlier) {
            self.renew_incarnation();
        }
        self.outbox.push(Output::Notice(Notice::NotVoting { reason: NotVoting::StandsBy }));
    }

    /// It lost votes before it was started, and has said to no epoch yet that it did, or to none that ended.
    pub(super) fn stay_learner(&mut self) {
        self.participation.standing = Standing::Learner(Loss::Earlier);
        let reason = NotVoting::Lost(Loss::Earlier);
        self.outbox.push(Output::Notice(Notice::NotVoting { reason }));
    }

    /// Whether the epoch names this log's incarnation. (PROTOCOL §9)
    pub(super) fn is_named(&self) -> bool {
        self.participation.membership.incarnation(self.id) == Some(self.participation.incarnation)
    }

    /// An epoch was entered: it names who votes.
    pub(super) fn take_standing(&mut self) {
        match (self.is_named(), self.participation.standing) {
            (true, Standing::Learner(_)) => {
                self.participation.standing = Standing::Asking { answered: 0 };
                self.forget_reached();
            }
            (true, Standing::Voter | Standing::Asking { .. })
            | (false, Standing::Learner(_))
            | (_, Standing::Standby) => {}
            (false, Standing::Voter | Standing::Asking { .. }) => self.lose(Loss::Replaced),
        }
        self.participation.rejoin_sent = None;
    }

    /// Has the wish to vote again ordered: said to all, as a client does that lost patience, since all must expect it.
    fn send_rejoin(&mut self) {
        let state = &self.execution.membership;
        let (incarnation, key) = (self.participation.incarnation, self.own_key());
        let rejoin = Rejoin { epoch: state.epoch(), incarnation };
        let is_recent = self
            .participation
            .rejoin_sent
            .is_some_and(|sent| self.now.monotonic.since(sent) < self.parameters().ordering_deadline());
        let interval = self.parameters().rejoin_interval();
        let is_durable = self.outbox.is_durable(self.participation.recorded);
        if is_recent || !is_durable || !state.accepts(self.id, &rejoin, self.now.wall, interval) {
            return;
        }
        let signed = rejoin.request(key).sign(self.configuration.cluster(), &*self.signer);
        let Ok(signed) = signed else { return };
        self.participation.rejoin_sent = Some(self.now.monotonic);
        self.outbox.push(Output::Broadcast(Message::Request(signed)));
    }

    fn own_key(&self) -> quorate_crypto::PublicKey {
        self.configuration.member(self.id).expect("it is a member, or was not started").key
    }

    /// The member whose `Rejoin` a request is, and what it says.
    pub(super) fn rejoin_of(&self, request: &ParsedRequest) -> Option<(ReplicaId, Rejoin)> {
        if request.request.session != crate::number::Session::REJOIN {
            return None;
        }
        let member = self.configuration.member_with_key(&request.request.client)?;
        Some((member, Rejoin::of(&request.request)?))
    }

    /// Whether a `Rejoin` may still be ordered with effect.
    pub(super) fn may_rejoin(&self, member: ReplicaId, rejoin: &Rejoin) -> bool {
        let time = self.execution.time.max(self.now.wall);
        self.execution.membership.accepts(member, rejoin, time, self.parameters().rejoin_interval())
    }
}

/// The vote of `peer` of the highest view, among those held one by one and those in a certificate.
fn latest<S: Ballot>(votes: &Votes<S>, certificate: Option<&Certificate<S>>, peer: ReplicaId) -> Option<Vote<S>> {
    let certified = certificate.into_iter().flat_map(Certificate::each_vote).find(|vote| vote.voter == peer);
    votes.of(peer).copied().into_iter().chain(certified).max_by_key(|vote| vote.statement.term())
}

/// Keeps a member's vote on the highest slot.
pub(super) fn remember<S: Ballot>(last: &mut Option<Vote<S>>, vote: Vote<S>) {
    let is_higher = |last: &Vote<S>| vote.statement.sequence() >= last.statement.sequence();
    if last.as_ref().is_none_or(is_higher) {
        *last = Some(vote);
    }
}

/// Whether the first statement was made after the second, or beside it: both are about one slot.
fn is_newer<S: Ballot>(said: &S, held: &S) -> bool {
    said.term() > held.term() || (said.term() == held.term() && said != held)
}
