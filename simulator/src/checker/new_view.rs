//! New views: each proposes what follows from the view changes that it rests on, and so whatever may have been decided.
//! (PROTOCOL §7.3)
//!
//! The rule stands here a second time, written from the text: the checker asks no production code. That what a quorum
//! committed is proposed again is checked on its own, whatever the rule says.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Message, NewView, Proposal, ViewChange};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::record::{NewViewRecord, Record};
use quorate_protocol::statement::{Commit, Vote};

use super::{Checker, Invariant, Moment, Observation, Quorums};
use crate::statement::{new_view, view_change};

/// Knows who committed what: only votes that were sent count, others may be lost in a crash.
#[derive(Debug)]
pub struct NewViews {
    quorums: Quorums,
    commits: BTreeMap<(Epoch, Sequence, View, Digest), BTreeSet<ReplicaId>>,
    /// What a quorum committed, by epoch: each begins with nothing.
    decided: BTreeMap<(Epoch, Sequence), (View, Digest)>,
    /// Whoever may have committed anything.
    faulty: BTreeSet<ReplicaId>,
}

impl NewViews {
    /// A checker for a cluster of this size.
    pub const fn new(quorums: Quorums) -> Self {
        Self { quorums, commits: BTreeMap::new(), decided: BTreeMap::new(), faulty: BTreeSet::new() }
    }

    fn note_commit(&mut self, vote: &Vote<Commit>) {
        let Commit { epoch, view, sequence, digest } = vote.statement;
        let voters = self.commits.entry((epoch, sequence, view, digest)).or_default();
        voters.insert(vote.voter);
        if voters.union(&self.faulty).count() >= self.quorums.quorum {
            self.decided.entry((epoch, sequence)).or_insert((view, digest));
        }
    }

    fn check(&self, record: &NewViewRecord) -> Result<(), String> {
        let content = new_view(&record.new_view).ok_or("a new view that cannot be read")?;
        let view_changes: Vec<ViewChange> = record.view_changes.iter().filter_map(view_change).collect();
        let view = content.view;
        if content.view_changes.len() != self.quorums.quorum || view_changes.len() != self.quorums.quorum {
            return Err(format!("view {view} that rests on {} view changes", view_changes.len()));
        }
        let (low, expected) = conclusion(&view_changes, self.quorums.quorum);
        if expected[..] != content.proposals[..] {
            let slots = |proposals: &[Proposal]| proposals.iter().map(|p| p.sequence.value()).collect::<Vec<_>>();
            let (expected, given) = (slots(&expected), slots(&content.proposals));
            return Err(format!("view {view} that proposes for {given:?} what does not follow: expected {expected:?}"));
        }
        self.check_decided(low, &content)
    }

    /// Whatever a quorum committed in an earlier view above `low` is proposed again.
    fn check_decided(&self, low: Sequence, content: &NewView) -> Result<(), String> {
        let (from, to) = ((content.epoch, low.saturating_add(1)), (content.epoch, Sequence::new(u64::MAX)));
        let below = |(_, (view, _)): &(_, &(View, Digest))| *view < content.view;
        for ((_, sequence), (view, digest)) in self.decided.range(from..=to).filter(below) {
            let proposed = content.proposals.iter().find(|proposal| proposal.sequence == *sequence);
            if proposed.is_none_or(|proposal| proposal.digest != *digest) {
                return Err(format!("view {} that drops slot {sequence}, decided in view {view}", content.view));
            }
        }
        Ok(())
    }
}

/// The highest stable slot of the view changes, and what follows from them above it. What has no quorum of votes is no
/// certificate, and hides none.
fn conclusion(view_changes: &[ViewChange], quorum: usize) -> (Sequence, Vec<Proposal>) {
    let low = view_changes.iter().map(ViewChange::stable_sequence).max().unwrap_or_default();
    let mut highest: BTreeMap<Sequence, (View, Digest)> = BTreeMap::new();
    let certificates = view_changes.iter().flat_map(|view_change| view_change.prepared.iter());
    for certificate in certificates.filter(|certificate| certificate.votes.len() >= quorum) {
        let prepare = certificate.statement;
        let kept = highest.entry(prepare.sequence).or_insert((prepare.view, prepare.digest));
        if prepare.view > kept.0 {
            *kept = (prepare.view, prepare.digest);
        }
    }
    let last = highest.last_key_value().map_or(low, |(sequence, _)| *sequence);
    let slots = (low.value() + 1..=last.value()).map(Sequence::new);
    let proposals = slots.map(|sequence| {
        let digest = highest.get(&sequence).map_or_else(|| Batch::empty().digest(), |(_, digest)| *digest);
        Proposal { sequence, digest }
    });
    (low, proposals.collect())
}

impl Checker for NewViews {
    fn invariant(&self) -> Invariant {
        Invariant::NewView
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Exempted(replica) = observation {
            self.faulty.insert(*replica);
        }
        let Observation::Did { replica, output, .. } = observation else {
            return Ok(());
        };
        match output {
            Output::Broadcast(Message::Commit(vote)) | Output::Send { message: Message::Commit(vote), .. } => {
                self.note_commit(vote);
            }
            Output::Append { record: Record::NewView(_, _, record), .. } => {
                return self.check(record).map_err(|message| format!("replica {replica} enters {message}"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::violation_of;
    use crate::disk::log::FIRST;
    use crate::fabricate::Fabricated;

    fn checker() -> NewViews {
        NewViews::new(Quorums::of(4))
    }

    /// Replica 1 enters view 1, on the view changes of 0, 1 and 2, which list certificates for the slots `prepared`; it
    /// proposes batch i for slot i.
    fn enter(prepared: [&[u64]; 3], proposed: &[u64]) -> (u8, Output) {
        let record = Fabricated::new().new_view_record(1, prepared, proposed);
        (1, Output::Append { number: FIRST, record })
    }

    #[test]
    fn a_new_view_that_follows_from_its_view_changes_is_right() {
        assert_eq!(violation_of(&mut checker(), &[enter([&[1], &[], &[2]], &[1, 2])]), None);
        assert_eq!(violation_of(&mut checker(), &[enter([&[], &[], &[]], &[])]), None);
    }

    #[test]
    fn a_new_view_that_drops_or_invents_a_slot_is_found() {
        assert!(violation_of(&mut checker(), &[enter([&[1], &[], &[2]], &[1])]).is_some());
        assert!(violation_of(&mut checker(), &[enter([&[1], &[], &[]], &[1, 2])]).is_some());
    }

    #[test]
    fn a_new_view_that_drops_what_a_quorum_committed_is_found_whatever_its_view_changes_say() {
        let fabricated = Fabricated::new();
        let commit = |replica| (replica, Output::Broadcast(fabricated.commit(replica, 1, 1)));
        let mut history = vec![commit(0), commit(1)];
        history.push(enter([&[], &[], &[]], &[]));
        assert_eq!(violation_of(&mut checker(), &history), None);
        history.insert(0, commit(2));
        assert!(violation_of(&mut checker(), &history).is_some());
    }
}
