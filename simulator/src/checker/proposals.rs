//! Proposals: a vote is for what the primary of its view proposed, by itself or in its new view. (PROTOCOL §4.3, §7.4)
//!
//! Where the primary is faulty nobody knows all that it signed, and any vote may be for some of it. A correct one is held to what
//! it sent: a batch that others chose, or that was proposed in another view, gets no vote.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::message::Message;
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::record::Record;
use quorate_protocol::statement::Prepare;

use super::{Checker, Invariant, Moment, Observation};
use crate::statement::new_view;

/// Knows what correct primaries proposed.
#[derive(Debug, Default)]
pub struct Proposals {
    /// Who proposed something in a view, or began it.
    primaries: BTreeMap<(Epoch, View), ReplicaId>,
    proposed: BTreeSet<(Epoch, View, Sequence, Digest)>,
    /// Whoever may have proposed anything.
    faulty: BTreeSet<ReplicaId>,
}

impl Proposals {
    fn note(&mut self, primary: ReplicaId, message: &Message) {
        match message {
            Message::PrePrepare(proposal) => {
                let Prepare { epoch, view, sequence, digest } = proposal.vote.statement;
                self.primaries.insert((epoch, view), primary);
                self.proposed.insert((epoch, view, sequence, digest));
            }
            Message::NewView(signed) => {
                let Some(content) = new_view(signed) else { return };
                let (epoch, view) = (content.epoch, content.view);
                self.primaries.insert((epoch, view), primary);
                let proposals = content.proposals.iter();
                self.proposed.extend(proposals.map(|proposal| (epoch, view, proposal.sequence, proposal.digest)));
            }
            _ => {}
        }
    }

    fn check(&self, voter: ReplicaId, vote: &Prepare) -> Result<(), String> {
        let Prepare { epoch, view, sequence, digest } = *vote;
        let primary = self.primaries.get(&(epoch, view)).filter(|primary| !self.faulty.contains(primary));
        let Some(primary) = primary.filter(|primary| **primary != voter) else { return Ok(()) };
        if self.proposed.contains(&(epoch, view, sequence, digest)) {
            return Ok(());
        }
        Err(format!(
            "replica {voter} votes for {digest} in slot {sequence} of view {view}, where {primary} never proposed it"
        ))
    }
}

impl Checker for Proposals {
    fn invariant(&self) -> Invariant {
        Invariant::Proposals
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Exempted(replica) => {
                self.faulty.insert(*replica);
            }
            Observation::Said { replica, message, .. } => self.note(*replica, message),
            Observation::Did { replica, output: Output::Append { record: Record::Accepted(vote, _), .. }, .. } => {
                return self.check(*replica, &vote.statement);
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

    fn accepts(fabricated: &Fabricated, replica: u8, slot: u64) -> (u8, Output) {
        (replica, Output::Append { number: FIRST, record: fabricated.accepted(replica, slot) })
    }

    #[test]
    fn a_vote_for_what_the_primary_proposed_is_right_and_one_for_anything_else_is_found() {
        let fabricated = Fabricated::new();
        let proposes = |slot| (0, Output::Broadcast(fabricated.pre_prepare(0, slot)));
        let accepts = |slot| accepts(&fabricated, 2, slot);
        assert_eq!(violation_of(&mut Proposals::default(), &[accepts(1)]), None, "the primary may be faulty");
        assert_eq!(violation_of(&mut Proposals::default(), &[proposes(1), proposes(2), accepts(2), accepts(1)]), None);
        assert!(violation_of(&mut Proposals::default(), &[proposes(1), accepts(2)]).is_some());
    }

    #[test]
    fn a_faulty_primary_may_have_proposed_anything() {
        let fabricated = Fabricated::new();
        let mut checker = Proposals::default();
        assert_eq!(violation_of(&mut checker, &[(0, Output::Broadcast(fabricated.pre_prepare(0, 1)))]), None);
        show(&mut checker, &Observation::Exempted(ReplicaId::new(0))).expect("a note");
        assert_eq!(violation_of(&mut checker, &[accepts(&fabricated, 2, 2)]), None);
    }

    #[test]
    fn what_a_new_view_proposes_is_proposed_in_its_view() {
        let fabricated = Fabricated::new();
        let Record::NewView(_, _, record) = fabricated.new_view_record(0, [&[], &[], &[]], &[1]) else {
            panic!("it is the record of a new view");
        };
        let begins = || (0, Output::Broadcast(Message::NewView(record.new_view.clone())));
        let accepts = |slot| accepts(&fabricated, 2, slot);
        assert_eq!(violation_of(&mut Proposals::default(), &[begins(), accepts(1)]), None);
        assert!(violation_of(&mut Proposals::default(), &[begins(), accepts(2)]).is_some());
    }
}
