//! View changes: what a replica leaves it leaves for good, what it may have helped to decide it lists (PROTOCOL §7.1), and
//! it votes in no view above 0 but with the new view by which it entered (PROTOCOL §9).

use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::message::{Cast, SignedViewChange, ViewChange};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::statement::{Prepare, Vote};

use super::{Checker, Invariant, Moment, Observation};
use crate::statement::view_change;

/// A view of an epoch.
type Term = (Epoch, View);

/// What one replica handed to its disk.
#[derive(Debug, Default)]
struct Votes {
    /// The highest view that it asked for, epochs first.
    asked: Term,
    /// Its last view change, byte for byte.
    last: Option<SignedViewChange>,
    /// The highest view whose new view it has on record, epochs first.
    entered: Term,
    /// By slot: the prepared certificate of the highest view.
    prepared: BTreeMap<Sequence, Prepare>,
    /// By slot: the vote of the highest view.
    accepted: BTreeMap<Sequence, Prepare>,
}

/// Compares the view changes of each replica with its log.
#[derive(Debug)]
pub struct ViewChanges {
    window: u64,
    replicas: BTreeMap<ReplicaId, Votes>,
}

impl Votes {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Accepted(vote, _) => keep_highest(&mut self.accepted, vote.statement),
            Record::Prepared(certificate, _) => keep_highest(&mut self.prepared, certificate.statement),
            Record::ViewChange(epoch, view, signed) => {
                self.asked = self.asked.max((*epoch, *view));
                self.last = Some(signed.clone());
            }
            Record::NewView(epoch, view, _) => self.entered = self.entered.max((*epoch, *view)),
            // What was said in the epoch before binds no more.
            Record::Epoch(membership, _) => self.begin(membership.epoch()),
            Record::Committed(_)
            | Record::Learned(..)
            | Record::Stable(_)
            | Record::Incarnation(_)
            | Record::Batch(..) => {}
        }
    }

    fn note_recovered(&mut self, recovered: &Recovered) {
        match recovered {
            Recovered::Whole(record) => self.note(record),
            Recovered::AcceptedWithoutBatch(vote) => keep_highest(&mut self.accepted, vote.statement),
            Recovered::ViewChangeLost(epoch, view) => self.asked = self.asked.max((*epoch, *view)),
            Recovered::LearnedWithoutBatch(_) | Recovered::NewViewLost(..) | Recovered::BatchLost(..) => {}
        }
    }

    /// Every epoch begins in view 0, with nothing said in it.
    fn begin(&mut self, epoch: Epoch) {
        self.entered = self.entered.max((epoch, View::ZERO));
        self.asked = self.asked.max((epoch, View::ZERO));
        self.prepared.retain(|_, prepare| prepare.epoch >= epoch);
        self.accepted.retain(|_, prepare| prepare.epoch >= epoch);
    }

    /// Whether a vote is cast in a view that was left before, or never entered.
    fn refuse_vote(&self, record: &Record) -> Result<(), String> {
        // Written again as the log is, it is no vote.
        let is_again = match record {
            Record::Accepted(vote, _) => self.accepted.get(&vote.statement.sequence) == Some(&vote.statement),
            Record::Prepared(certificate, _) => {
                self.prepared.get(&certificate.statement.sequence) == Some(&certificate.statement)
            }
            _ => false,
        };
        if is_again {
            return Ok(());
        }
        let (kind, term, sequence) = match record {
            Record::Accepted(Vote { statement, .. }, _) => {
                ("accepts", (statement.epoch, statement.view), statement.sequence)
            }
            Record::Prepared(_, Vote { statement, .. }) => {
                ("commits", (statement.epoch, statement.view), statement.sequence)
            }
            _ => return Ok(()),
        };
        let (epoch, view) = term;
        if term != self.entered {
            return Err(format!(
                "{kind} slot {sequence} in view {view} of epoch {epoch}, and has the new view of {:?} on record",
                self.entered
            ));
        }
        if term >= self.asked {
            return Ok(());
        }
        Err(format!("{kind} slot {sequence} in view {view} of epoch {epoch} after it asked for view {:?}", self.asked))
    }

    fn refuse_view_change(&self, content: &ViewChange, window: u64) -> Result<(), String> {
        let low = content.stable_sequence();
        let is_listed = |sequence: &Sequence| *sequence > low && *sequence <= low.saturating_add(window);
        for (sequence, prepare) in self.prepared.iter().filter(|(sequence, _)| is_listed(sequence)) {
            let listed = content.prepared.iter().find(|certificate| certificate.statement.sequence == *sequence);
            if listed.is_none_or(|listed| listed.statement.view < prepare.view) {
                return Err(format!(
                    "asks for view {} and hides that {sequence} was prepared in {}",
                    content.view, prepare.view
                ));
            }
        }
        for (sequence, prepare) in self.accepted.iter().filter(|(sequence, _)| is_listed(sequence)) {
            let listed: Option<&Cast> = content.cast.iter().find(|cast| cast.sequence == *sequence);
            if listed.is_none_or(|listed| (listed.view, listed.digest) != (prepare.view, prepare.digest)) {
                return Err(format!(
                    "asks for view {} and hides its vote on {sequence} in {}",
                    content.view, prepare.view
                ));
            }
        }
        Ok(())
    }
}

fn keep_highest(votes: &mut BTreeMap<Sequence, Prepare>, prepare: Prepare) {
    let kept = votes.entry(prepare.sequence).or_insert(prepare);
    if (prepare.epoch, prepare.view) > (kept.epoch, kept.view) {
        *kept = prepare;
    }
}

impl ViewChanges {
    /// A checker for a cluster whose replicas keep so many slots.
    pub const fn new(window: u64) -> Self {
        Self { window, replicas: BTreeMap::new() }
    }

    fn append(&mut self, replica: ReplicaId, record: &Record) -> Result<(), String> {
        let votes = self.replicas.entry(replica).or_default();
        votes.refuse_vote(record)?;
        if let Record::ViewChange(_, _, signed) = record {
            // Written again as the log is cut, it holds nothing that came after it.
            let is_again = votes.last.as_ref() == Some(signed);
            if !is_again {
                let content = content(signed)?;
                votes.refuse_view_change(&content, self.window)?;
            }
        }
        votes.note(record);
        Ok(())
    }
}

fn content(signed: &SignedViewChange) -> Result<ViewChange, String> {
    view_change(signed).ok_or_else(|| String::from("records a view change that cannot be read"))
}

impl Checker for ViewChanges {
    fn invariant(&self) -> Invariant {
        Invariant::ViewChange
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Started { replica, records, .. } => {
                let mut votes = Votes::default();
                for (_, recovered) in *records {
                    votes.note_recovered(recovered);
                }
                self.replicas.insert(*replica, votes);
                Ok(())
            }
            Observation::Did { replica, output: Output::Append { record, .. }, .. } => {
                self.append(*replica, record).map_err(|message| format!("replica {replica} {message}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::violation_of;
    use crate::disk::log::FIRST;
    use crate::fabricate::Fabricated;

    fn append(record: Record) -> (u8, Output) {
        (1, Output::Append { number: FIRST, record })
    }

    #[test]
    fn a_view_change_that_hides_a_prepared_certificate_is_found() {
        let fabricated = Fabricated::new();
        let prepared = || append(fabricated.prepared(1, 1, 1));
        let asks = |slots: &[u64]| append(fabricated.view_change_record(1, 1, slots));
        assert_eq!(violation_of(&mut ViewChanges::new(16), &[prepared(), asks(&[1])]), None);
        assert!(violation_of(&mut ViewChanges::new(16), &[prepared(), asks(&[])]).is_some());
    }

    #[test]
    fn a_view_change_that_is_written_again_may_be_older_than_a_certificate() {
        let fabricated = Fabricated::new();
        let asks = |view| append(fabricated.view_change_record(1, view, &[]));
        let enters = || append(fabricated.new_view_record(1, [&[], &[], &[]], &[]));
        let prepares = || {
            let Record::Prepared(mut certificate, mut vote) = fabricated.prepared(1, 1, 1) else { unreachable!() };
            certificate.statement.view = View::new(1);
            vote.statement.view = View::new(1);
            append(Record::Prepared(certificate, vote))
        };
        assert_eq!(violation_of(&mut ViewChanges::new(16), &[asks(1), enters(), prepares(), asks(1)]), None);
        assert!(violation_of(&mut ViewChanges::new(16), &[asks(1), enters(), prepares(), asks(2)]).is_some());
    }

    #[test]
    fn a_view_change_that_hides_a_vote_is_found() {
        let fabricated = Fabricated::new();
        let history = [append(fabricated.accepted(1, 1)), append(fabricated.view_change_record(1, 1, &[]))];
        assert!(violation_of(&mut ViewChanges::new(16), &history).is_some());
    }

    #[test]
    fn a_vote_in_a_view_whose_new_view_is_not_on_record_is_found() {
        let fabricated = Fabricated::new();
        let enters = || append(fabricated.new_view_record(1, [&[], &[], &[]], &[]));
        let votes = || append(fabricated.accepted(1, 1));
        assert_eq!(violation_of(&mut ViewChanges::new(16), &[votes(), enters()]), None);
        assert!(violation_of(&mut ViewChanges::new(16), &[enters(), votes()]).is_some(), "the vote is of view 0");
    }

    #[test]
    fn a_vote_in_a_view_that_was_left_is_found() {
        let fabricated = Fabricated::new();
        let history = [append(fabricated.view_change_record(1, 1, &[])), append(fabricated.accepted(1, 1))];
        assert!(violation_of(&mut ViewChanges::new(16), &history).is_some());
    }
}
