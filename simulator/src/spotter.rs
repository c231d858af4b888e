//! Notices which marks a run reaches, by looking at what correct replicas are sent, ask for, and do.

use core::time::Duration;
use std::collections::BTreeMap;

use quorate_crypto::PublicKey;
use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{Fetch, Message, NewView, Outcome, Reply, ViewChange, Want};
use quorate_protocol::number::{Epoch, RecordNumber, ReplicaId, RequestNumber, Sequence, View};
use quorate_protocol::output::{Loss, NotVoting, Notice, Suspicion};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::time::Time;
use quorate_protocol::verify::Invalid;

use crate::disk::Disk;
use crate::marks::{Mark, Marks};
use crate::statement::{new_view, primary, view_change};

/// Slots of which a replica's latest messages are remembered.
const RECENT: usize = 256;

/// What a run came to so far, and what is needed to see more.
#[derive(Debug)]
pub(crate) struct Spotter {
    marks: Marks,
    members: usize,
    faults: usize,
    window: u64,
    cap: Duration,
    replicas: Vec<Seen>,
    /// Which correct replicas prepared and executed a slot, bit by bit: of slots that are not stable everywhere.
    slots: BTreeMap<Sequence, Reached>,
    /// The highest view that a correct replica entered.
    entered: View,
    /// What correct replicas asked for views with: of views that none has entered.
    view_changes: BTreeMap<(View, ReplicaId), ViewChange>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    prepared: u32,
    executed: u32,
}

/// What a replica was last seen at.
#[derive(Debug, Clone)]
struct Seen {
    /// The view that it asks for, and since when; `None` while it is in one.
    asked: Option<(View, Time)>,
    /// The slot of the state that it is fetching.
    transfer: Option<Sequence>,
    /// Whether it took over a state since it entered a view.
    was_transferred: bool,
    stable: Sequence,
    /// The view and slot with which it filled its window, as the primary.
    filled: Option<(View, Sequence)>,
    /// By the slot: in which view it saw a proposal, and in which it committed.
    recent: Vec<(Sequence, Option<View>, Option<View>)>,
    /// The latest reply to each client.
    replies: BTreeMap<PublicKey, RequestNumber>,
    /// Whether it lost votes, and has not voted since.
    has_lost: bool,
    /// The highest slot that it holds prepared.
    prepared: Sequence,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            asked: None,
            transfer: None,
            was_transferred: false,
            stable: Sequence::ZERO,
            filled: None,
            recent: vec![(Sequence::ZERO, None, None); RECENT],
            replies: BTreeMap::new(),
            has_lost: false,
            prepared: Sequence::ZERO,
        }
    }
}

impl Seen {
    fn recent(&mut self, sequence: Sequence) -> &mut (Sequence, Option<View>, Option<View>) {
        let place = usize::try_from(sequence.value()).unwrap_or(0) % RECENT;
        let recent = &mut self.recent[place];
        if recent.0 != sequence {
            *recent = (sequence, None, None);
        }
        recent
    }
}

impl Spotter {
    pub(crate) fn new(configuration: &Configuration) -> Self {
        let parameters = configuration.parameters();
        let members = configuration.size();
        Self {
            marks: Marks::default(),
            members,
            faults: (members - 1) / 3,
            window: parameters.window,
            cap: Duration::from_millis(u64::from(parameters.deadline_cap_ms)),
            replicas: vec![Seen::default(); members],
            slots: BTreeMap::new(),
            entered: View::ZERO,
            view_changes: BTreeMap::new(),
        }
    }

    pub(crate) const fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(crate) fn reach(&mut self, mark: Mark) {
        self.marks.reach(mark);
    }

    /// How often a replica refused what, as it told at its end.
    pub(crate) fn refused(&mut self, refusals: impl Iterator<Item = (Refusal, u64)>) {
        refusals.for_each(|(refusal, times)| self.marks.add(Mark::Refused(refusal), times));
    }

    /// A message of a correct replica is handed to another.
    pub(crate) fn arrived(&mut self, to: ReplicaId, message: &Message) {
        match message {
            Message::PrePrepare(proposal) => {
                let statement = proposal.vote.statement;
                self.replicas[to.index()].recent(statement.sequence).1 = Some(statement.view);
            }
            Message::Prepare(vote) => {
                let (view, sequence) = (vote.statement.view, vote.statement.sequence);
                if self.replicas[to.index()].recent(sequence).1.is_none_or(|proposed| proposed < view) {
                    self.reach(Mark::VoteBeforeProposal);
                }
            }
            Message::Commit(vote) => {
                let (view, sequence) = (vote.statement.view, vote.statement.sequence);
                if self.replicas[to.index()].recent(sequence).2.is_none_or(|committed| committed < view) {
                    self.reach(Mark::CommitBeforePrepared);
                }
            }
            _ => {}
        }
    }

    /// A message came to a replica and counts for nothing.
    pub(crate) fn invalid(&mut self, invalid: &Invalid) {
        match invalid {
            Invalid::Codec(_) => self.reach(Mark::InvalidCodec),
            Invalid::Batch(_) => self.reach(Mark::InvalidBatch),
            Invalid::Signature => self.reach(Mark::InvalidSignature),
            Invalid::Sender(_) => self.reach(Mark::InvalidSender),
            Invalid::Certificate => self.reach(Mark::InvalidCertificate),
            Invalid::Digest => self.reach(Mark::InvalidDigest),
            Invalid::Form(_) => self.reach(Mark::InvalidForm),
            _ => {}
        }
    }

    /// A replica asks something of its host.
    pub(crate) fn did(&mut self, replica: ReplicaId, now: Time, output: &Output) {
        match output {
            Output::Append { record: Record::Learned(..), .. } => self.reach(Mark::Learned),
            Output::Append { record: Record::Prepared(certificate, _), .. } => {
                let prepared = &mut self.replicas[replica.index()].prepared;
                *prepared = certificate.statement.sequence.max(*prepared);
            }
            Output::Send { message, .. } => self.sent(replica, message, true),
            Output::Broadcast(message) => self.sent(replica, message, false),
            Output::Execute(execution) => {
                self.slots.entry(execution.sequence).or_default().executed |= bit(replica);
            }
            Output::Reply(reply) => self.replied(replica, reply),
            Output::Busy { .. } => self.reach(Mark::ClientBusy),
            Output::Evidence(evidence) => self.reach(match **evidence {
                Evidence::ConflictingPrepares(..) => Mark::EvidenceOfPrepares,
                Evidence::ConflictingCommits(..) => Mark::EvidenceOfCommits,
                Evidence::ConflictingCheckpoints(..) => Mark::EvidenceOfCheckpoints,
                Evidence::InvalidBatch { .. } => Mark::EvidenceOfBatch,
                // Found by who compares logs, and by no replica.
                Evidence::ForgottenCommit { .. } => return,
            }),
            Output::Notice(notice) => self.noticed(replica, now, *notice),
            _ => {}
        }
    }

    fn sent(&mut self, replica: ReplicaId, message: &Message, is_to_one: bool) {
        match message {
            Message::PrePrepare(proposal) => {
                let statement = proposal.vote.statement;
                self.proposed(replica, statement.view, statement.sequence);
            }
            Message::Commit(vote) if vote.voter == replica => {
                let (view, sequence) = (vote.statement.view, vote.statement.sequence);
                self.replicas[replica.index()].recent(sequence).2 = Some(view);
                self.slots.entry(sequence).or_default().prepared |= bit(replica);
                if is_to_one {
                    self.reach(Mark::VoteSentAgain);
                }
            }
            Message::ViewChange(signed) => {
                let Some(content) = view_change(signed).filter(|content| content.replica == replica) else { return };
                let is_alone = |slot| content.prepared.iter().all(|certificate| certificate.statement.sequence != slot);
                if content.cast.iter().any(|cast| is_alone(cast.sequence)) {
                    self.reach(Mark::CastAlone);
                }
                self.view_changes.insert((content.view, replica), content);
            }
            Message::NewView(_) if is_to_one => self.reach(Mark::NewViewSentAgain),
            Message::NewView(signed) => {
                if let Some(content) = new_view(signed) {
                    self.began(&content);
                }
            }
            Message::Batch(_) => self.reach(Mark::BatchHandedOut),
            Message::Conflict(_) => self.reach(Mark::ConflictShown),
            Message::Decided(_) => self.reach(Mark::DecidedHandedOut),
            Message::Fetch(fetch) => match fetch {
                Fetch::Batch { .. } => {
                    let asked = self.replicas[replica.index()].asked;
                    let is_primary = |(view, _)| primary(Epoch::ZERO, view, self.members as u64) == replica;
                    if asked.is_some_and(is_primary) {
                        self.reach(Mark::NewViewFetched);
                    }
                    self.reach(Mark::FetchedBatch);
                }
                Fetch::Decided { .. } => self.reach(Mark::FetchedDecided),
                Fetch::ViewChange { .. } => self.reach(Mark::FetchedViewChange),
                Fetch::NewView { .. } => self.reach(Mark::FetchedNewView),
                Fetch::Part { want: Want::Buckets { .. }, .. } => self.reach(Mark::FetchedPart),
                Fetch::Part { .. } | Fetch::Statements { .. } => {}
            },
            _ => {}
        }
    }

    fn proposed(&mut self, replica: ReplicaId, view: View, sequence: Sequence) {
        let seen = &mut self.replicas[replica.index()];
        if seen.recent(sequence).1 == Some(view) {
            return;
        }
        seen.recent(sequence).1 = Some(view);
        let moved = seen.filled.is_some_and(|(full_view, full)| full_view == view && sequence > full);
        if sequence.distance_from(seen.stable) == self.window {
            seen.filled = Some((view, sequence));
            self.reach(Mark::WindowFull);
        }
        if moved {
            self.reach(Mark::WindowMoved);
        }
    }

    /// A primary begins its view.
    fn began(&mut self, content: &NewView) {
        if content.proposals.is_empty() {
            self.reach(Mark::NewViewOfNothing);
        }
        let empty = Batch::empty().digest();
        if content.proposals.iter().any(|proposal| proposal.digest == empty) {
            self.reach(Mark::NewViewOfEmptyBatch);
        }
        let mut views: BTreeMap<Sequence, Vec<View>> = BTreeMap::new();
        for named in &*content.view_changes {
            let Some(asked) = self.view_changes.get(&(content.view, named.replica)) else { continue };
            for certificate in &*asked.prepared {
                views.entry(certificate.statement.sequence).or_default().push(certificate.statement.view);
            }
        }
        let proposed = |slot: &Sequence| content.proposals.iter().any(|proposal| proposal.sequence == *slot);
        views.retain(|slot, _| proposed(slot));
        if views.values().any(|views| views.iter().any(|view| *view != views[0])) {
            self.reach(Mark::NewViewOfTwoViews);
        }
        if views.values().flatten().any(|view| view.value() + 3 <= content.view.value()) {
            self.reach(Mark::NewViewAfterThree);
        }
    }

    fn replied(&mut self, replica: ReplicaId, reply: &Reply) {
        let before = self.replicas[replica.index()].replies.insert(reply.client, reply.number);
        match reply.outcome {
            Outcome::Executed { .. } if before == Some(reply.number) => self.reach(Mark::ClientAnsweredAgain),
            Outcome::Opened { .. } => self.reach(Mark::ClientOpened),
            Outcome::Evicted => self.reach(Mark::ClientEvicted),
            Outcome::Forgotten => self.reach(Mark::ClientForgotten),
            Outcome::Executed { .. } | Outcome::Superseded { .. } => {}
        }
    }

    fn noticed(&mut self, replica: ReplicaId, now: Time, notice: Notice) {
        let seen = &mut self.replicas[replica.index()];
        let is_between = seen.asked.is_some();
        match notice {
            Notice::PrimarySuspected { reason, .. } => match reason {
                Suspicion::Proof => self.reach(Mark::SuspectedByProof),
                Suspicion::Deadline => self.reach(Mark::SuspectedByDeadline),
                Suspicion::Silence => self.reach(Mark::SuspectedBySilence),
                Suspicion::Slowness => self.reach(Mark::SuspectedBySlowness),
                Suspicion::Crash => self.reach(Mark::SuspectedByCrash),
                _ => {}
            },
            Notice::TurnPassedOver { .. } => self.reach(Mark::TurnPassedOver),
            Notice::ViewWanted { view, reason } => {
                let before = seen.asked.replace((view, now));
                match reason {
                    Suspicion::Stranded => self.reach(Mark::LeftStranded),
                    Suspicion::Joined => self.reach(Mark::LeftJoining),
                    Suspicion::Restart => self.reach(Mark::LeftAfterStart),
                    Suspicion::NewViewLate => {
                        self.reach(Mark::LeftLateNewView);
                        if before.is_some_and(|(_, since)| now.since(since) >= self.cap) {
                            self.reach(Mark::BackOffAtCap);
                        }
                    }
                    _ => {}
                }
            }
            Notice::ViewEntered { view } => {
                seen.asked = None;
                let was_transferred = core::mem::take(&mut seen.was_transferred);
                if view == View::ZERO {
                    return;
                }
                self.reach(Mark::ViewEntered);
                if was_transferred {
                    self.reach(Mark::NewViewByTransfer);
                }
                self.entered(view);
            }
            Notice::Stable { sequence } => {
                seen.stable = sequence;
                if is_between {
                    self.reach(Mark::StableInViewChange);
                }
                let lowest = self.replicas.iter().map(|seen| seen.stable).min().unwrap_or(Sequence::ZERO);
                self.slots = self.slots.split_off(&lowest);
            }
            Notice::NotVoting { reason: NotVoting::Lost(loss) } => {
                seen.has_lost = true;
                match loss {
                    Loss::Empty => self.reach(Mark::VotesLostEmpty),
                    Loss::Earlier => self.reach(Mark::VotesLostEarlier),
                    // A correct replica's disk forgets nothing, and nobody has its key.
                    Loss::Damaged | Loss::Replaced | Loss::Shown { .. } => {}
                }
            }
            Notice::Voting { .. } => {
                let had_lost = core::mem::take(&mut seen.has_lost);
                self.marks.add(Mark::VotesAgain, u64::from(had_lost));
            }
            Notice::EpochEntered { epoch, began } => {
                seen.asked = None;
                let has_void = core::mem::take(&mut seen.prepared) > began;
                let was_transferred = core::mem::take(&mut seen.was_transferred);
                self.reach(Mark::EpochEntered);
                self.marks.add(Mark::EpochHigh, u64::from(epoch > Epoch::new(1)));
                self.marks.add(Mark::SlotVoid, u64::from(has_void));
                self.marks.add(Mark::EpochByTransfer, u64::from(was_transferred));
            }
            Notice::Diverged { .. } => self.reach(Mark::Diverged),
            Notice::LogDamaged => self.reach(Mark::LogWrittenAnew),
            Notice::TransferBegan { sequence, .. } => {
                let before = seen.transfer.replace(sequence);
                self.marks.add(Mark::TransferAgain, u64::from(before.is_some_and(|before| before < sequence)));
            }
            Notice::TransferSourceReplaced { lied: true, .. } => self.reach(Mark::TransferLie),
            Notice::TransferSourceReplaced { lied: false, .. } => self.reach(Mark::TransferSilence),
            Notice::TransferEnded { sequence } => {
                seen.transfer = None;
                seen.was_transferred = true;
                seen.stable = seen.stable.max(sequence);
                self.reach(Mark::TransferEnded);
                if is_between {
                    self.reach(Mark::TransferInViewChange);
                }
            }
            _ => {}
        }
    }

    /// A correct replica is the first that enters a view.
    fn entered(&mut self, view: View) {
        if view <= self.entered {
            return;
        }
        self.entered = view;
        self.view_changes = self.view_changes.split_off(&(view, ReplicaId::new(0)));
        if view.value() >= 8 {
            self.reach(Mark::ViewHigh);
        }
        let is_one = u32::is_power_of_two;
        if self.slots.values().any(|reached| is_one(reached.prepared) && reached.executed == 0) {
            self.reach(Mark::PreparedAtOne);
        }
        if self.slots.values().any(|reached| is_one(reached.executed)) {
            self.reach(Mark::CommittedAtOne);
        }
    }

    /// A replica is stopped by a trap, before it does this.
    pub(crate) fn trapped(&mut self, output: &Output) {
        match output {
            Output::Send { message, .. } | Output::Broadcast(message) => {
                let is_vote = matches!(
                    message,
                    Message::PrePrepare(_)
                        | Message::Prepare(_)
                        | Message::Commit(_)
                        | Message::ViewChange(_)
                        | Message::NewView(_)
                );
                if is_vote {
                    self.reach(Mark::CrashBeforeSend);
                }
            }
            Output::Cut { .. } => self.reach(Mark::CrashBeforeCut),
            Output::StageInstall => self.reach(Mark::CrashBeforeInstall),
            _ => {}
        }
    }

    /// A replica loses its power; `down` of them are down now.
    pub(crate) fn crashed(&mut self, replica: ReplicaId, disk: &Disk, down: usize) {
        let seen = core::mem::take(&mut self.replicas[replica.index()]);
        if seen.asked.is_some() {
            self.reach(Mark::CrashInViewChange);
        }
        if seen.transfer.is_some() {
            self.reach(Mark::TransferCut);
        }
        if disk.log.has_unsynced() {
            self.reach(Mark::CrashBeforeSync);
        }
        if disk.checkpoints.is_writing() {
            self.reach(Mark::CrashInCheckpoint);
        }
        if down > self.faults {
            self.reach(Mark::CrashOfMoreThanF);
        }
        if down == self.members {
            self.reach(Mark::CrashOfAll);
        }
    }

    /// A replica starts on what its disk holds.
    pub(crate) fn started(&mut self, replica: ReplicaId, executed: Sequence, records: &[(RecordNumber, Recovered)]) {
        self.replicas[replica.index()].stable = executed;
        if executed > Sequence::ZERO {
            self.reach(Mark::StartFromCheckpoint);
        }
        let (mut asked, mut entered) = (View::ZERO, View::ZERO);
        for (_, recovered) in records {
            match recovered {
                Recovered::AcceptedWithoutBatch(_) | Recovered::LearnedWithoutBatch(_) | Recovered::BatchLost(..) => {
                    self.reach(Mark::StartBatchLost);
                }
                Recovered::ViewChangeLost(_, view) => {
                    asked = asked.max(*view);
                    self.reach(Mark::StartViewChangeLost);
                }
                Recovered::NewViewLost(_, view) => {
                    entered = entered.max(*view);
                    self.reach(Mark::StartNewViewLost);
                }
                Recovered::Whole(Record::ViewChange(_, view, _)) => asked = asked.max(*view),
                Recovered::Whole(Record::NewView(_, view, _)) => entered = entered.max(*view),
                Recovered::Whole(Record::Accepted(vote, _)) if vote.statement.sequence > executed => {
                    self.reach(Mark::StartWithVotes);
                }
                Recovered::Whole(_) => {}
            }
        }
        if asked > entered {
            self.reach(Mark::StartBetweenViews);
        } else if entered > View::ZERO {
            self.reach(Mark::StartInLaterView);
        }
    }
}

fn bit(replica: ReplicaId) -> u32 {
    1_u32.checked_shl(u32::from(replica.value())).unwrap_or(0)
}
