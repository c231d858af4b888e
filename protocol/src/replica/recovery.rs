//! Starting: from nothing, or from exactly what was durable. (PROTOCOL §9, recovery after a crash)

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use quorate_crypto::Digest;

use super::participation::{Participation, Standing};
use super::protocol_state::{ProtocolState, initial_root};
use super::reads::Reads;
use super::room::Shortage;
use super::{CatchingUp, Checkpoints, Executing, Mode, Peer, Proposer, Replica, Suspecting, ViewChanges};
use crate::batch::Batch;
use crate::certificate::{CommittedCertificate, StableCertificate};
use crate::codec::{CodecError, decode};
use crate::configuration::Configuration;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{
    CheckedNewView, CheckedViewChange, Entry, SharedViewChange, SignedNewView, SignedViewChange, new_view_digest,
    view_change_digest,
};
use crate::number::{Epoch, Incarnation, RecordNumber, ReplicaId, Sequence, View};
use crate::outbox::Outbox;
use crate::output::{Loss, NotVoting, Notice, Output};
use crate::queue::Queue;
use crate::record::{NewViewRecord, Record, Recovered};
use crate::sessions::{Bounds, Sessions};
use crate::slot::Logged;
use crate::statement::{Prepare, Signer, Vote};
use crate::time::{Now, WallTime};
use crate::timers::Timers;

/// What a replica starts from.
#[derive(Debug)]
pub struct Start {
    /// Its number.
    pub id: ReplicaId,
    /// The configuration that it follows.
    pub configuration: Arc<Configuration>,
    /// What signs for it.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// The last durable checkpoint; none in a new cluster, unless its genesis names a state.
    pub checkpoint: Option<DurableCheckpoint>,
    /// The records of the log, in order.
    pub records: Vec<(RecordNumber, Recovered)>,
    /// The number that the next record gets: one above the last.
    pub first_record: RecordNumber,
    /// Whether the log is known to have lost records that may be votes: then `records` are none.
    pub is_damaged: bool,
    /// A random number, never used before: it names what this start asks of the others, and a new incarnation.
    pub token: u64,
}

/// A state as it was made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableCheckpoint {
    /// Its slot.
    pub sequence: Sequence,
    /// The root of the application's state, computed from its entries.
    pub application_root: Digest,
    /// The protocol's own entries, in ascending order of their keys.
    pub protocol: Vec<Entry>,
}

/// Why a replica can't start from what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The replica is no member of the configuration.
    #[error("replica {0} is no member of the configuration")]
    NotAMember(ReplicaId),
    /// The protocol's entries of the checkpoint are not a state.
    #[error("the checkpoint at slot {0} does not hold a state of the protocol")]
    Checkpoint(Sequence),
    /// The checkpoint is that of slot 0, and not the state with which the cluster begins.
    #[error("the state at slot 0 is not the one that the genesis names")]
    InitialState,
    /// A record holds bytes that are none of this version.
    #[error("record {number} of the log: {source}")]
    Record {
        /// Its number.
        number: RecordNumber,
        /// What is wrong with it.
        source: CodecError,
    },
}

impl Replica {
    /// A replica that takes up where the durable state and records end. Outputs may wait at once.
    ///
    /// # Errors
    /// [`StartError`]: the state or the records are not a replica's of this configuration.
    pub fn start(start: Start, now: Now) -> Result<Self, StartError> {
        Self::recovered(start, now, Self::begin_to_take_part)
    }

    /// A hot standby beside the member of that number: it learns what the members decide, executes it, takes checkpoints, and
    /// says nothing that counts, in any epoch. A replica started on what it leaves behind has lost votes, and goes about that
    /// like any other. (PROTOCOL §9, §11)
    ///
    /// # Errors
    /// Those of [`Self::start`].
    pub fn start_standby(start: Start, now: Now) -> Result<Self, StartError> {
        Self::recovered(start, now, Self::stand_by)
    }

    fn recovered(start: Start, now: Now, join: impl FnOnce(&mut Self, Option<Loss>)) -> Result<Self, StartError> {
        let Start { id, configuration, signer, checkpoint, records, first_record, is_damaged, token } = start;
        if configuration.member(id).is_none() {
            return Err(StartError::NotAMember(id));
        }
        let mut replica = Self::empty(id, configuration, signer, first_record, now);
        replica.participation.token = token;
        match checkpoint {
            Some(checkpoint) => replica.recover_checkpoint(checkpoint)?,
            // What the cluster began with is lost here: nothing executes before it is fetched. (PROTOCOL §11)
            None => replica.execution.is_diverged = replica.configuration.initial_state().is_some(),
        }
        let loss = replica.recover_participation(&records, is_damaged);
        // The watermarks first: which votes are to be taken up depends on them, and a cut writes them after older votes.
        for (_, recovered) in &records {
            if let Recovered::Whole(Record::Stable(certificate) | Record::Epoch(_, certificate)) = recovered {
                replica.recover_stable(certificate);
            }
        }
        let loss = loss.or_else(|| replica.has_votes_above(&records).then_some(Loss::Damaged));
        for (number, recovered) in records {
            replica.recover(number, recovered).map_err(|source| StartError::Record { number, source })?;
        }
        replica.resume();
        join(&mut replica, loss);
        replica.try_execute();
        replica.send_status();
        replica.refresh_timers();
        Ok(replica)
    }

    /// In which epoch it takes part, in which life of its log; and whether votes of that life are lost.
    fn recover_participation(&mut self, records: &[(RecordNumber, Recovered)], is_damaged: bool) -> Option<Loss> {
        let mut incarnation = None;
        for (_, recovered) in records {
            match recovered {
                Recovered::Whole(Record::Incarnation(found)) => incarnation = Some(*found),
                Recovered::Whole(Record::Epoch(membership, _)) => self.participation.membership = membership.clone(),
                Recovered::Whole(_)
                | Recovered::AcceptedWithoutBatch(_)
                | Recovered::LearnedWithoutBatch(_)
                | Recovered::ViewChangeLost(..)
                | Recovered::NewViewLost(..)
                | Recovered::BatchLost(..) => {}
            }
        }
        let Some(incarnation) = incarnation.filter(|_| !is_damaged) else {
            // It votes in no epoch before the next, and can as well be in the one that its state is in.
            self.participation.membership = self.execution.membership.clone();
            self.take_up_epoch();
            return Some(if is_damaged { Loss::Damaged } else { Loss::Empty });
        };
        self.participation.incarnation = incarnation;
        self.take_up_epoch();
        (!self.is_named()).then_some(Loss::Earlier)
    }

    fn take_up_epoch(&mut self) {
        let (epoch, began) = (self.participation.membership.epoch(), self.participation.membership.began());
        self.configuration = Arc::new(self.configuration.in_epoch(epoch, began));
    }

    /// Whether a vote lies above the watermarks that the log itself gives. The certificate that let it be cast was written
    /// before it: it is lost, and so may be other votes.
    fn has_votes_above(&self, records: &[(RecordNumber, Recovered)]) -> bool {
        let (epoch, high) = (self.configuration.epoch(), self.log.high());
        let voted = records.iter().filter_map(|(_, recovered)| voted_slot(recovered));
        voted.into_iter().any(|(of, sequence)| of == epoch && sequence > high)
    }

    fn empty(
        id: ReplicaId,
        configuration: Arc<Configuration>,
        signer: Arc<dyn Signer + Send + Sync>,
        first_record: RecordNumber,
        now: Now,
    ) -> Self {
        let members = configuration.size();
        let mut replica = Self {
            id,
            signer,
            view: View::ZERO,
            mode: Mode::Normal,
            log: Log::new(members, configuration.parameters().window),
            sessions: Sessions::new(Bounds::of(configuration.parameters())),
            queue: Queue::default(),
            proposer: Proposer::default(),
            execution: Executing {
                issued: Sequence::ZERO,
                executed: Sequence::ZERO,
                time: WallTime::ZERO,
                membership: Membership::first(members),
                ending_since: None,
                in_execution: VecDeque::new(),
                is_diverged: false,
            },
            checkpoints: Checkpoints {
                own: BTreeMap::new(),
                votes: (0..members).map(|_| Vec::new()).collect(),
                durable: Sequence::ZERO,
                cut: Sequence::ZERO,
                cut_record: RecordNumber::ZERO,
            },
            view_changes: ViewChanges::none(members),
            suspicion: Suspecting {
                pace: super::pace::Pace::new(members),
                turns: super::turns::Turns::default(),
                since: now.monotonic,
                of_primary: None,
                attempts: 0,
                last_proposal: now.monotonic,
                done_since: None,
                done: None,
                new_view_since: None,
                new_view_asked: None,
                latency: Duration::ZERO,
                last_input: now.monotonic,
            },
            peers: (0..members).map(|_| Peer::default()).collect(),
            catching_up: CatchingUp::default(),
            outbox: Outbox::new(first_record),
            timers: Timers::default(),
            first_records: BTreeMap::new(),
            shortage: Shortage::default(),
            participation: Participation::new(
                Incarnation::ZERO,
                Membership::first(members),
                Standing::Asking { answered: 0 },
                0,
            ),
            reads: Reads::new(members),
            refusals: BTreeMap::new(),
            now,
            configuration,
        };
        replica.proposer.next = Sequence::new(1);
        replica
    }

    fn recover_checkpoint(&mut self, checkpoint: DurableCheckpoint) -> Result<(), StartError> {
        let DurableCheckpoint { sequence, application_root, protocol } = checkpoint;
        let state = ProtocolState::restore(&self.configuration, application_root, &protocol)
            .ok_or(StartError::Checkpoint(sequence))?;
        if sequence == Sequence::ZERO && Some(state.root) != initial_root(&self.configuration) {
            return Err(StartError::InitialState);
        }
        self.execution.issued = sequence;
        self.execution.executed = sequence;
        self.execution.time = state.time;
        self.execution.membership = state.membership;
        self.execution.ending_since = self.execution.membership.ends().map(|_| self.now.monotonic);
        self.sessions = state.sessions;
        self.adopt_checkpoint(sequence, state.root);
        Ok(())
    }

    /// Takes up one record. What was said in epochs before this one binds no more.
    fn recover(&mut self, number: RecordNumber, recovered: Recovered) -> Result<(), CodecError> {
        if epoch_of(&recovered).is_some_and(|epoch| epoch != self.configuration.epoch()) {
            return Ok(());
        }
        match recovered {
            Recovered::Whole(Record::Accepted(vote, batch)) => self.recover_accepted(number, vote, batch),
            Recovered::AcceptedWithoutBatch(vote) => self.recover_accepted(number, vote, None),
            Recovered::Whole(Record::Prepared(certificate, commit)) => {
                let sequence = certificate.statement.sequence;
                if self.is_tracked(sequence) {
                    self.note_record(sequence, number);
                    let slot = self.log.entry(sequence);
                    // Who votes otherwise still contradicts itself.
                    for vote in certificate.each_vote() {
                        slot.prepares.insert(vote);
                    }
                    slot.prepared = Some(certificate);
                    slot.own_commit = Some(commit);
                    slot.commits.insert(commit);
                }
            }
            Recovered::Whole(Record::Committed(certificate)) | Recovered::LearnedWithoutBatch(certificate) => {
                self.recover_decided(number, certificate, None);
            }
            Recovered::Whole(Record::Learned(certificate, batch)) => {
                self.recover_decided(number, certificate, Some(batch));
            }
            Recovered::Whole(Record::Batch(_, sequence, batch)) if self.is_tracked(sequence) => {
                self.note_record(sequence, number);
                self.log.entry(sequence).add_batch(batch, Logged::Yes);
            }
            Recovered::Whole(Record::Stable(_) | Record::Epoch(..) | Record::Incarnation(_) | Record::Batch(..))
            | Recovered::BatchLost(..) => {}
            Recovered::Whole(Record::ViewChange(_, view, signed)) => {
                let view_change = Arc::new(self.checked_view_change(signed)?);
                if view > self.wanted_view() {
                    self.mode = Mode::ViewChange { to: view };
                    self.view_changes.latest[self.id.index()] = Some(Arc::clone(&view_change));
                    self.view_changes.own = Some(view_change);
                }
            }
            Recovered::Whole(Record::NewView(_, view, record)) => self.recover_new_view(number, view, record)?,
            Recovered::ViewChangeLost(_, view) | Recovered::NewViewLost(_, view) => {
                self.view_changes.forsaken = self.view_changes.forsaken.max(Some(view));
            }
        }
        Ok(())
    }

    fn recover_stable(&mut self, certificate: &StableCertificate) {
        if certificate.statement.sequence > self.log.low() {
            self.log.advance(certificate.clone(), self.execution.executed);
        }
    }

    fn recover_accepted(&mut self, number: RecordNumber, vote: Vote<Prepare>, batch: Option<Batch>) {
        let sequence = vote.statement.sequence;
        if !self.is_tracked(sequence) {
            return;
        }
        self.note_record(sequence, number);
        let slot = self.log.entry(sequence);
        if let Some(batch) = batch {
            slot.add_batch(batch, Logged::Yes);
        }
        if vote.statement.digest == Batch::empty().digest() {
            slot.add_batch(Batch::empty(), Logged::No);
        }
        if slot.cast_view().is_none_or(|view| view < vote.statement.view) {
            slot.cast = Some(vote);
            slot.prepares.insert(vote);
        }
    }

    fn recover_decided(&mut self, number: RecordNumber, certificate: CommittedCertificate, batch: Option<Batch>) {
        let sequence = certificate.statement.sequence;
        if !self.is_tracked(sequence) {
            return;
        }
        self.note_record(sequence, number);
        let slot = self.log.entry(sequence);
        if let Some(batch) = batch {
            slot.add_batch(batch, Logged::Yes);
        }
        slot.decide(certificate);
    }

    fn recover_new_view(&mut self, number: RecordNumber, view: View, record: NewViewRecord) -> Result<(), CodecError> {
        let new_view = Arc::new(self.checked_new_view(record.new_view)?);
        let view_changes = record.view_changes.into_vec().into_iter();
        let view_changes: Vec<SharedViewChange> =
            view_changes.map(|signed| self.checked_view_change(signed).map(Arc::new)).collect::<Result<_, _>>()?;
        if view > self.view && view >= self.wanted_view() {
            self.view = view;
            self.mode = Mode::Normal;
            self.view_changes.own = None;
            self.view_changes.entered = Some((new_view, view_changes));
            self.view_changes.entered_record = number;
        }
        Ok(())
    }

    /// What this replica wrote itself was checked before it was written; the log's checksums guard it since.
    fn checked_view_change(&self, signed: SignedViewChange) -> Result<CheckedViewChange, CodecError> {
        let digest = view_change_digest(self.configuration.cluster(), &signed.body);
        Ok(CheckedViewChange { content: decode(signed.body.bytes())?, signed, digest })
    }

    fn checked_new_view(&self, signed: SignedNewView) -> Result<CheckedNewView, CodecError> {
        let digest = new_view_digest(self.configuration.cluster(), &signed.body);
        Ok(CheckedNewView { content: decode(signed.body.bytes())?, signed, digest })
    }

    /// Takes up the view with its votes. A view whose message is lost is not taken up: this replica asks for the next, once
    /// it votes again.
    fn resume(&mut self) {
        self.log.prune(self.execution.executed);
        self.compare_with_stable(self.log.low());
        let highest_cast = self.log.slots_after(self.log.low()).filter_map(|(_, slot)| slot.cast_view()).max();
        let above = highest_cast.filter(|view| *view > self.view);
        let lost = self.view_changes.forsaken.max(above).filter(|view| *view >= self.wanted_view());
        self.view_changes.forsaken = lost.filter(|lost| *lost > self.view || self.view_changes.entered.is_none());
        if self.mode == Mode::Normal && self.view_changes.forsaken.is_none() {
            let proposals = self.view_changes.entered.as_ref().map(|(new_view, _)| new_view.content.proposals.clone());
            self.take_up_proposals(&proposals.map_or(Vec::new(), |proposals| proposals.to_vec()));
        }
        let last = self.log.slots_after(self.log.low()).filter(|(_, slot)| slot.cast_view() == Some(self.view)).last();
        let after_last = last.map_or(Sequence::ZERO, |(sequence, _)| sequence).saturating_add(1);
        self.proposer.next = self.proposer.next.max(after_last).max(self.log.low().saturating_add(1));
        if let Some(checkpoint) = self.checkpoints.own.last_key_value().map(|(sequence, _)| *sequence) {
            self.on_checkpoint_durable(checkpoint);
        }
    }

    /// Asks what it has said before it votes, or learns until an epoch names its new incarnation.
    fn begin_to_take_part(&mut self, loss: Option<Loss>) {
        match loss {
            None => {
                let reason = NotVoting::Asking { answers: 0, needed: self.configuration.quorum() - 1 };
                self.outbox.push(Output::Notice(Notice::NotVoting { reason }));
            }
            Some(Loss::Earlier) => self.stay_learner(),
            Some(loss) => self.lose(loss),
        }
    }
}

/// The epoch and slot in which a record is this replica's vote.
fn voted_slot(recovered: &Recovered) -> Option<(Epoch, Sequence)> {
    match recovered {
        Recovered::Whole(Record::Accepted(vote, _)) | Recovered::AcceptedWithoutBatch(vote) => {
            Some((vote.statement.epoch, vote.statement.sequence))
        }
        Recovered::Whole(Record::Prepared(_, vote)) => Some((vote.statement.epoch, vote.statement.sequence)),
        Recovered::Whole(
            Record::Committed(_)
            | Record::Learned(..)
            | Record::Stable(_)
            | Record::ViewChange(..)
            | Record::NewView(..)
            | Record::Epoch(..)
            | Record::Incarnation(_)
            | Record::Batch(..),
        )
        | Recovered::LearnedWithoutBatch(_)
        | Recovered::ViewChangeLost(..)
        | Recovered::NewViewLost(..)
        | Recovered::BatchLost(..) => None,
    }
}

/// The epoch that a record belongs to, if to one.
fn epoch_of(recovered: &Recovered) -> Option<Epoch> {
    match recovered {
        Recovered::Whole(Record::Accepted(vote, _)) | Recovered::AcceptedWithoutBatch(vote) => {
            Some(vote.statement.epoch)
        }
        Recovered::Whole(Record::Prepared(_, vote)) => Some(vote.statement.epoch),
        Recovered::Whole(Record::Committed(certificate) | Record::Learned(certificate, _))
        | Recovered::LearnedWithoutBatch(certificate) => Some(certificate.statement.epoch),
        Recovered::Whole(Record::ViewChange(epoch, ..) | Record::NewView(epoch, ..) | Record::Batch(epoch, ..))
        | Recovered::ViewChangeLost(epoch, _)
        | Recovered::NewViewLost(epoch, _)
        | Recovered::BatchLost(epoch, _) => Some(*epoch),
        Recovered::Whole(Record::Stable(_) | Record::Epoch(..) | Record::Incarnation(_)) => None,
    }
}
