//! Entering a view: what follows from a quorum of view changes, and who checks it. (PROTOCOL §7.3 to §7.5)

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use quorate_crypto::Digest;

use super::{Incomplete, Mode, Replica};
use crate::batch::Batch;
use crate::certificate::StableCertificate;
use crate::codec::{List, encode};
use crate::message::{
    CheckedNewView, Fetch, Message, NamedViewChange, NewView, Proposal, SharedNewView, SharedViewChange, SignedNewView,
    SignedViewChange, new_view_digest, view_change_digest,
};
use crate::number::{ReplicaId, Sequence, View};
use crate::output::{Notice, Output};
use crate::record::{NewViewRecord, Record};
use crate::refusal::Refusal;
use crate::statement::Prepare;

/// What follows from the view changes that a new view rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conclusion {
    /// The highest stable checkpoint among them; none if only slot zero is stable.
    pub(crate) stable: Option<StableCertificate>,
    /// What is proposed for each slot above it, in order, without a gap.
    pub(crate) proposals: Vec<Proposal>,
}

/// Draws the conclusion from `view_changes`: for each slot above the highest stable checkpoint the batch of the prepared
/// certificate with the highest view, and the empty batch where there is none, up to the highest slot with one.
/// (PROTOCOL §7.3)
pub(crate) fn conclude(view_changes: &[SharedViewChange], empty: Digest) -> Conclusion {
    let stable = view_changes.iter().max_by_key(|view_change| view_change.content.stable_sequence());
    let stable = stable.and_then(|view_change| view_change.content.stable.clone());
    let min = stable.as_ref().map_or(Sequence::ZERO, |certificate| certificate.statement.sequence);
    let mut found: BTreeMap<Sequence, Prepare> = BTreeMap::new();
    for certificate in view_changes.iter().flat_map(|view_change| view_change.content.prepared.iter()) {
        let statement = certificate.statement;
        let highest = found.entry(statement.sequence).or_insert(statement);
        if statement.view > highest.view {
            *highest = statement;
        }
    }
    let max = found.last_key_value().map_or(min, |(sequence, _)| *sequence);
    let slots = (min.value().saturating_add(1)..=max.value()).map(Sequence::new);
    let proposals = slots
        .map(|sequence| Proposal { sequence, digest: found.get(&sequence).map_or(empty, |found| found.digest) })
        .collect();
    Conclusion { stable, proposals }
}

impl Replica {
    /// As the primary of the view that it asks for, with a quorum of view changes for exactly that view, begins it.
    pub(super) fn try_new_view(&mut self) {
        let Mode::ViewChange { to } = self.mode else { return };
        if self.configuration.primary(to) != self.id || !self.own_view_change_is_counted(to) || !self.may_vote() {
            return;
        }
        let of_view = self.view_changes.latest.iter().flatten().filter(|latest| latest.content.view == to);
        let view_changes: Vec<SharedViewChange> = of_view.take(self.configuration.quorum()).cloned().collect();
        if view_changes.len() < self.configuration.quorum() {
            return;
        }
        let conclusion = conclude(&view_changes, Batch::empty().digest());
        let new_view = Arc::new(self.build_new_view(to, &view_changes, &conclusion));
        self.enter(new_view, view_changes, conclusion);
    }

    fn build_new_view(&self, view: View, rests_on: &[SharedViewChange], conclusion: &Conclusion) -> CheckedNewView {
        let name = |view_change: &SharedViewChange| NamedViewChange {
            replica: view_change.content.replica,
            digest: view_change.digest,
        };
        let content = NewView {
            epoch: self.configuration.epoch(),
            view,
            view_changes: List::new(rests_on.iter().map(name).collect()).expect("a quorum of members"),
            proposals: List::new(conclusion.proposals.clone()).expect("slots are within a window above one of V"),
        };
        let body = encode(&content).expect("a window of digests is below the bound of an encoding");
        let digest = new_view_digest(self.configuration.cluster(), &body);
        let signature = self.signer.sign(&digest);
        CheckedNewView { content, signed: SignedNewView { body: body.into(), signature }, digest }
    }

    pub(super) fn on_new_view(&mut self, from: ReplicaId, new_view: SharedNewView) {
        let view = new_view.content.view;
        if let Some(refusal) = self.refuse_claimed_new_view(from, view) {
            return self.refuse(refusal);
        }
        let view_changes = new_view.content.view_changes.iter().map(|named| self.known_view_change(named)).collect();
        self.view_changes.incomplete[from.index()] = Some(Incomplete { new_view, view_changes, asked: None });
        self.try_complete(from.index());
        self.fetch_view_changes();
    }

    /// Why a new view of that view counts for nothing if `from` sends it, whatever else it says.
    pub(super) fn refuse_claimed_new_view(&self, from: ReplicaId, view: View) -> Option<Refusal> {
        if view < self.wanted_view() || view <= self.view || Some(view) <= self.view_changes.forsaken {
            return Some(Refusal::OldView);
        }
        let held = self.view_changes.incomplete.get(from.index()).and_then(Option::as_ref);
        let is_held = held.is_some_and(|held| held.new_view.content.view >= view);
        (self.configuration.primary(view) == self.id || is_held).then_some(Refusal::Duplicate)
    }

    /// Whether a new view that is held names this view change and lacks it: it may be older than the latest of its sender.
    pub(super) fn is_view_change_awaited(&self, signed: &SignedViewChange) -> bool {
        let missing = || {
            self.view_changes.incomplete.iter().flatten().flat_map(|incomplete| {
                let named = incomplete.new_view.content.view_changes.iter().zip(&incomplete.view_changes);
                named.filter(|(_, held)| held.is_none()).map(|(named, _)| named.digest)
            })
        };
        // A digest of a long body is not for nothing.
        missing().next().is_some() && {
            let digest = view_change_digest(self.configuration.cluster(), &signed.body);
            missing().any(|named| named == digest)
        }
    }

    fn known_view_change(&self, named: &NamedViewChange) -> Option<SharedViewChange> {
        let latest = self.view_changes.latest.get(named.replica.index())?.as_ref()?;
        (latest.digest == named.digest).then(|| Arc::clone(latest))
    }

    /// Gives a view change to the new views that name it.
    pub(super) fn complete_new_views(&mut self, view_change: &SharedViewChange) {
        for index in 0..self.view_changes.incomplete.len() {
            let Some(incomplete) = &mut self.view_changes.incomplete[index] else { continue };
            let named = incomplete.new_view.content.view_changes.iter().zip(&mut incomplete.view_changes);
            let mut is_named = false;
            for (named, place) in named {
                if named.digest == view_change.digest && place.is_none() {
                    *place = Some(Arc::clone(view_change));
                    is_named = true;
                }
            }
            if is_named {
                self.try_complete(index);
            }
        }
    }

    /// Does so for all that wait.
    pub(super) fn try_complete_all(&mut self) {
        for index in 0..self.view_changes.incomplete.len() {
            self.try_complete(index);
        }
    }

    /// Checks a new view whose view changes are all here, and enters it if they lead to its proposals. (PROTOCOL §7.4)
    fn try_complete(&mut self, index: usize) {
        let Some(incomplete) = &self.view_changes.incomplete[index] else { return };
        if self.is_log_full() {
            return;
        }
        let view_changes: Option<Vec<SharedViewChange>> = incomplete.view_changes.iter().cloned().collect();
        let Some(view_changes) = view_changes else { return };
        let new_view = Arc::clone(&incomplete.new_view);
        self.view_changes.incomplete[index] = None;
        if new_view.content.view < self.wanted_view() || new_view.content.view <= self.view {
            return self.refuse(Refusal::OldView);
        }
        let named = new_view.content.view_changes.iter().zip(&view_changes);
        let is_of_view = |(named, view_change): (&NamedViewChange, &SharedViewChange)| {
            view_change.content.view == new_view.content.view && view_change.content.replica == named.replica
        };
        let are_of_view = named.into_iter().all(is_of_view);
        let conclusion = conclude(&view_changes, Batch::empty().digest());
        if !are_of_view || conclusion.proposals[..] != new_view.content.proposals[..] {
            return self.refuse(Refusal::NewViewWrong);
        }
        self.enter(new_view, view_changes, conclusion);
    }

    /// Asks for view changes that a new view names and that are not here: first of who sent it, then of others in turn.
    pub(super) fn fetch_view_changes(&mut self) {
        let now = self.now.monotonic;
        let retry = self.parameters().heartbeat();
        let others = self.others();
        let mut wanted = Vec::new();
        let by_sender = self.configuration.replicas().zip(&mut self.view_changes.incomplete);
        for (sender, incomplete) in by_sender {
            let Some(incomplete) = incomplete else { continue };
            let times = match incomplete.asked {
                Some((asked, _)) if now.since(asked) < retry => continue,
                Some((_, times)) => times,
                None => 0,
            };
            incomplete.asked = Some((now, times.saturating_add(1)));
            let to = others.turn(sender, times);
            let named = incomplete.new_view.content.view_changes.iter().zip(&incomplete.view_changes);
            let missing = named.filter(|(_, held)| held.is_none()).map(|(named, _)| named.digest);
            wanted.extend(missing.map(|digest| (to, digest)));
        }
        for (to, digest) in wanted {
            self.send(to, Message::Fetch(Fetch::ViewChange { digest }));
        }
    }

    /// Enters a view whose new view was checked. View and new view, with the view changes whole, are durable before
    /// anything is said in the view, since records become durable in order.
    fn enter(&mut self, new_view: SharedNewView, view_changes: Vec<SharedViewChange>, conclusion: Conclusion) {
        let view = new_view.content.view;
        assert!(view > self.view && view >= self.wanted_view(), "views only rise");
        let signed = view_changes.iter().map(|view_change| view_change.signed.clone()).collect();
        let signed = List::new(signed).expect("a quorum is at most the number of members");
        let record = NewViewRecord { new_view: new_view.signed.clone(), view_changes: signed };
        let record = Record::NewView(self.configuration.epoch(), view, record);
        if self.configuration.primary(view) == self.id {
            self.view_changes.entered_record =
                self.outbox.send_after(record, Message::NewView(new_view.signed.clone()));
        } else {
            self.view_changes.entered_record = self.outbox.append(record);
        }
        let (before, epoch) = (self.primary(), self.configuration.epoch());
        self.view = view;
        self.mode = Mode::Normal;
        self.view_changes.own = None;
        self.view_changes.forsaken = None;
        self.view_changes.entered = Some((new_view, view_changes));
        self.view_changes.incomplete.iter_mut().for_each(|incomplete| {
            *incomplete = incomplete.take().filter(|incomplete| incomplete.new_view.content.view > view);
        });
        self.note_view_entered(before);
        self.outbox.push(Output::Notice(Notice::ViewEntered { view }));
        if let Some(stable) = conclusion.stable {
            self.take_stable(stable);
            if self.configuration.epoch() != epoch {
                // It ends the epoch: what was proposed above it is void. (PROTOCOL §11)
                return;
            }
        }
        self.take_up_proposals(&conclusion.proposals);
        self.pass_on_queue();
        self.replay_early();
        // Votes of this view may all have come before it was entered.
        let slots: Vec<Sequence> = self.log.slots_after(self.log.low()).map(|(sequence, _)| sequence).collect();
        for sequence in slots {
            self.try_prepare(sequence);
            self.note_unshown(sequence);
        }
    }

    /// Each proposal of the new view stands as accepted, without the clock check. All vote, the primary too, on slots
    /// above their low watermark, executed or not. Who lacks a batch fetches it and votes after that. (PROTOCOL §7.4)
    pub(super) fn take_up_proposals(&mut self, proposals: &[Proposal]) {
        let low = self.log.low();
        self.forget_awaited();
        self.proposer.new_view_max = proposals.last().map_or(low, |last| last.sequence).max(low);
        self.proposer.next = self.proposer.new_view_max.saturating_add(1);
        self.proposer.in_flight.clear();
        self.queue.forget_proposals();
        for proposal in proposals {
            if !self.log.is_within_watermarks(proposal.sequence) {
                continue;
            }
            let view = self.view;
            let slot = self.log.entry(proposal.sequence);
            if slot.cast_view() == Some(view) {
                continue;
            }
            slot.awaited = Some(proposal.digest);
            if proposal.digest == Batch::empty().digest() {
                slot.add_batch(Batch::empty(), crate::slot::Logged::No);
            }
            self.vote_for_awaited(proposal.sequence);
        }
        self.fetch_batches();
    }

    /// Votes for what the new view proposes for a slot, or enough others vote for, once its batch is here.
    pub(super) fn vote_for_awaited(&mut self, sequence: Sequence) {
        let Some(slot) = self.log.slot(sequence) else { return };
        let Some(digest) = slot.awaited else { return };
        let Some(batch) = slot.batch(&digest).cloned() else { return };
        if self.mode != Mode::Normal || !self.log.is_within_watermarks(sequence) || !self.may_vote() {
            return;
        }
        // What the new view itself proposes was chosen, and delayed, by nobody.
        if sequence > self.proposer.new_view_max {
            if !self.is_stamp_near(&batch) {
                return self.refuse(Refusal::Clock);
            }
            self.note_pace_of_proposal(sequence, &batch);
        }
        for request in batch.requests() {
            self.queue.mark_proposed(&request.request.id());
        }
        let epoch = self.configuration.epoch();
        self.accept(Prepare { epoch, view: self.view, sequence, digest }, batch);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use quorate_crypto::Signature;

    use super::*;
    use crate::certificate::PreparedCertificate;
    use crate::codec::Blob;
    use crate::message::{CheckedViewChange, SignedViewChange, ViewChange};
    use crate::number::Epoch;
    use crate::statement::Checkpoint;

    const EMPTY: Digest = Digest::from_bytes([0; 32]);

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    /// A view change with a stable checkpoint at slot `stable`, if not zero, and prepared certificates of (view, slot,
    /// digest).
    fn view_change(stable: u64, prepared: &[(u64, u64, u8)]) -> SharedViewChange {
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(stable), root: digest(99) };
        let prepared = prepared.iter().map(|(view, sequence, byte)| PreparedCertificate {
            statement: Prepare {
                epoch: Epoch::ZERO,
                view: View::new(*view),
                sequence: Sequence::new(*sequence),
                digest: digest(*byte),
            },
            votes: List::empty(),
        });
        let content = ViewChange {
            epoch: Epoch::ZERO,
            view: View::new(9),
            replica: ReplicaId::new(0),
            stable: (stable > 0).then(|| StableCertificate { statement, votes: List::empty() }),
            prepared: List::new(prepared.collect()).expect("few"),
            cast: List::empty(),
        };
        let signed = SignedViewChange { body: Blob::EMPTY, signature: Signature::from_bytes([0; 64]) };
        Arc::new(CheckedViewChange { content, signed, digest: digest(0) })
    }

    /// The highest stable slot, and the proposals.
    fn concluded(view_changes: &[SharedViewChange]) -> (u64, Vec<(u64, Digest)>) {
        let Conclusion { stable, proposals } = conclude(view_changes, EMPTY);
        let min = stable.map_or(0, |certificate| certificate.statement.sequence.value());
        (min, proposals.iter().map(|proposal| (proposal.sequence.value(), proposal.digest)).collect())
    }

    #[test]
    fn nothing_follows_from_nothing() {
        assert_eq!(concluded(&[view_change(0, &[]), view_change(0, &[]), view_change(0, &[])]), (0, vec![]));
    }

    #[test]
    fn the_certificate_of_the_highest_view_decides_whoever_brings_it() {
        let (low, high) = (view_change(0, &[(3, 1, 3)]), view_change(0, &[(7, 1, 7)]));
        let other = view_change(0, &[(5, 1, 5)]);
        for order in [[&low, &high, &other], [&high, &low, &other], [&other, &low, &high], [&low, &other, &high]] {
            assert_eq!(concluded(&order.map(Arc::clone)), (0, vec![(1, digest(7))]));
        }
    }

    #[test]
    fn one_certificate_is_enough_though_no_other_view_change_has_it() {
        let all = [view_change(0, &[]), view_change(0, &[]), view_change(0, &[(0, 1, 4)])];
        assert_eq!(concluded(&all), (0, vec![(1, digest(4))]));
    }

    #[test]
    fn gaps_are_filled_with_the_empty_batch_up_to_the_highest_certificate() {
        let all = [view_change(0, &[(0, 2, 2)]), view_change(0, &[(1, 5, 5)]), view_change(0, &[])];
        let expected = vec![(1, EMPTY), (2, digest(2)), (3, EMPTY), (4, EMPTY), (5, digest(5))];
        assert_eq!(concluded(&all), (0, expected));
    }

    #[test]
    fn proposals_begin_above_the_highest_stable_checkpoint() {
        let all =
            [view_change(4, &[(0, 6, 6)]), view_change(8, &[(0, 9, 9)]), view_change(0, &[(3, 3, 3), (3, 9, 10)])];
        assert_eq!(concluded(&all), (8, vec![(9, digest(10))]));
    }

    #[test]
    fn certificates_at_or_below_the_highest_stable_checkpoint_lead_to_nothing() {
        let all = [view_change(8, &[]), view_change(4, &[(0, 8, 8)]), view_change(0, &[(0, 3, 3)])];
        assert_eq!(concluded(&all), (8, vec![]));
    }
}
