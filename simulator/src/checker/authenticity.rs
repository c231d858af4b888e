//! Authenticity: what a replica keeps in another's name, that one said, and a certificate has the votes of a quorum of
//! members. (PROTOCOL §3)
//!
//! The checker sees no signature: it compares what is recorded with all that correct replicas ever sent. So it finds who
//! takes a forgery, a vote of another view, cluster or purpose, or of nobody, whatever becomes of it later.

use std::collections::BTreeSet;

use quorate_protocol::Output;
use quorate_protocol::certificate::Certificate;
use quorate_protocol::message::SignedViewChange;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::record::{NewViewRecord, Record};

use super::{Checker, Invariant, Moment, Observation, Quorums};
use crate::statement::{HasSubject, Said, in_certificate, in_new_view, of_view_change, said, view_change};

/// Knows everything that correct replicas ever sent, and every vote and view change that they recorded: after a crash it
/// counts, though nobody else may have heard it.
#[derive(Debug)]
pub struct Authenticity {
    quorums: Quorums,
    said: BTreeSet<Said>,
    /// Whoever may have said anything.
    faulty: BTreeSet<ReplicaId>,
}

impl Authenticity {
    /// A checker for a cluster of this size.
    pub const fn new(quorums: Quorums) -> Self {
        Self { quorums, said: BTreeSet::new(), faulty: BTreeSet::new() }
    }

    fn check_record(&self, keeper: ReplicaId, record: &Record) -> Result<(), String> {
        match record {
            Record::Prepared(certificate, _) => self.check_certificate(certificate),
            Record::Committed(certificate) | Record::Learned(certificate, _) => self.check_certificate(certificate),
            Record::Stable(certificate) | Record::Epoch(_, certificate) => self.check_certificate(certificate),
            Record::NewView(_, _, record) => self.check_new_view(keeper, record),
            // Its own.
            Record::Accepted(..) | Record::ViewChange(..) | Record::Incarnation(_) | Record::Batch(..) => Ok(()),
        }
    }

    fn check_certificate<S: HasSubject>(&self, certificate: &Certificate<S>) -> Result<(), String> {
        let all = in_certificate(certificate);
        let voters: BTreeSet<ReplicaId> = all.iter().map(|said| said.replica).collect();
        if let Some(stranger) = voters.iter().find(|voter| voter.index() >= self.quorums.members) {
            return Err(format!("a certificate with a vote of {stranger}, who is no member"));
        }
        if voters.len() < self.quorums.quorum {
            return Err(format!("a certificate with votes of {voters:?} only"));
        }
        all.iter().try_for_each(|said| self.check_said(said))
    }

    fn check_view_change(&self, signed: &SignedViewChange) -> Result<(), String> {
        let content = view_change(signed).ok_or("a view change that cannot be read")?;
        content.stable.iter().try_for_each(|certificate| self.check_certificate(certificate))?;
        content.prepared.iter().try_for_each(|certificate| self.check_certificate(certificate))?;
        self.check_said(&of_view_change(signed, &content))
    }

    fn check_new_view(&self, keeper: ReplicaId, record: &NewViewRecord) -> Result<(), String> {
        record.view_changes.iter().try_for_each(|signed| self.check_view_change(signed))?;
        let said =
            in_new_view(&record.new_view, self.quorums.members as u64).ok_or("a new view that cannot be read")?;
        // Its primary has not sent it yet.
        if said.replica == keeper { Ok(()) } else { self.check_said(&said) }
    }

    fn check_said(&self, said: &Said) -> Result<(), String> {
        if self.faulty.contains(&said.replica) || self.said.contains(said) {
            return Ok(());
        }
        let Said { replica, subject, digest } = said;
        Err(format!("{digest} about {subject:?} in the name of {replica}, which never said that"))
    }
}

/// What a record is written for: its replica's own vote or view change.
fn own(record: &Record) -> Option<Said> {
    match record {
        Record::Accepted(vote, _) => Some(said(vote.voter, &vote.statement)),
        Record::Prepared(_, vote) => Some(said(vote.voter, &vote.statement)),
        Record::ViewChange(_, _, signed) => Some(of_view_change(signed, &view_change(signed)?)),
        Record::Committed(_)
        | Record::Learned(..)
        | Record::Stable(_)
        | Record::NewView(..)
        | Record::Epoch(..)
        | Record::Incarnation(_)
        | Record::Batch(..) => None,
    }
}

impl Checker for Authenticity {
    fn invariant(&self) -> Invariant {
        Invariant::Authenticity
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Exempted(replica) => {
                self.faulty.insert(*replica);
            }
            Observation::Said { said, .. } => self.said.extend(*said),
            Observation::Did { replica, output: Output::Append { record, .. }, .. } => {
                self.said.extend(own(record));
                return self
                    .check_record(*replica, record)
                    .map_err(|message| format!("replica {replica} keeps {message}"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{show, violation_of};
    use crate::disk::log::FIRST;
    use crate::fabricate::Fabricated;

    fn checker() -> Authenticity {
        Authenticity::new(Quorums::of(4))
    }

    fn append(replica: u8, record: Record) -> (u8, Output) {
        (replica, Output::Append { number: FIRST, record })
    }

    #[test]
    fn a_certificate_of_votes_that_were_cast_is_right_and_one_with_a_vote_that_was_not_is_found() {
        let fabricated = Fabricated::new();
        let commit = |replica| (replica, Output::Broadcast(fabricated.commit(replica, 1, 1)));
        let keeps = |batch| append(0, fabricated.committed(1, batch));
        assert_eq!(violation_of(&mut checker(), &[commit(0), commit(1), commit(2), keeps(1)]), None);
        assert!(violation_of(&mut checker(), &[commit(0), commit(1), keeps(1)]).is_some());
        assert!(violation_of(&mut checker(), &[commit(0), commit(1), commit(2), keeps(2)]).is_some());
    }

    #[test]
    fn what_is_said_in_the_name_of_a_faulty_replica_is_left_to_the_others() {
        let fabricated = Fabricated::new();
        let mut checker = checker();
        show(&mut checker, &Observation::Exempted(ReplicaId::new(2))).expect("a note");
        let commit = |replica| (replica, Output::Broadcast(fabricated.commit(replica, 1, 1)));
        assert_eq!(violation_of(&mut checker, &[commit(0), commit(1), append(0, fabricated.committed(1, 1))]), None);
    }

    #[test]
    fn a_certificate_with_too_few_votes_or_of_a_stranger_is_found() {
        let every_member = || (0..4).map(|replica| (replica, Output::Broadcast(Fabricated::checkpoint(replica, 8, 1))));
        let keeps = |votes| append(0, Record::Stable(Fabricated::stable(8, 1, votes)));
        let history = |votes| every_member().chain([keeps(votes)]).collect::<Vec<_>>();
        assert_eq!(violation_of(&mut checker(), &history(3)), None);
        assert!(violation_of(&mut checker(), &history(2)).is_some());
        assert!(violation_of(&mut checker(), &history(5)).is_some());
    }

    #[test]
    fn a_new_view_on_view_changes_that_nobody_sent_or_that_its_primary_never_began_is_found() {
        let fabricated = Fabricated::new();
        let asks = |replica| (replica, Output::Broadcast(fabricated.view_change(replica, 1, &[])));
        let enters = |replica| append(replica, fabricated.new_view_record(1, [&[], &[], &[]], &[]));
        assert_eq!(violation_of(&mut checker(), &[asks(0), asks(1), asks(2), enters(1)]), None, "it is the primary");
        assert!(violation_of(&mut checker(), &[asks(0), asks(1), enters(1)]).is_some());
        assert!(violation_of(&mut checker(), &[asks(0), asks(1), asks(2), enters(2)]).is_some());
    }
}
