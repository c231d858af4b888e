//! What may happen next to a replica: what was said reaches it, the faulty replica says something to it, its time runs
//! out, or it starts again.
//!
//! The faulty replica signs anything at any time, but only what makes a replica do something at once is worth a state: what
//! merely waits there may as well come later. So votes come together, all that there are for one thing, with the faulty
//! replica's own if the others do not suffice, and so do the view changes that a new view takes.

use std::sync::Arc;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::certificate::PreparedCertificate;
use quorate_protocol::message::{Proposal, SharedViewChange};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::statement::{Commit, Prepare};
use quorate_protocol::verify::Payload;

use super::letter::Letter;
use super::local::{Local, Stimulus};
use super::setting::QUORUM;
use super::{Bounds, Model, State};

/// What everyone knows in a state, gathered once for all replicas.
pub(super) struct Scene<'a> {
    model: &'a Model,
    state: &'a State,
    /// Votes of correct replicas, by what they say.
    prepares: Vec<(Prepare, Vec<Arc<Letter>>)>,
    commits: Vec<(Commit, Vec<Arc<Letter>>)>,
    /// View changes of correct replicas.
    view_changes: Vec<Arc<Letter>>,
    /// Batches that somebody has.
    batches: Vec<Batch>,
}

/// What may happen to each replica, that makes it do something.
pub(super) fn menu(model: &Model, state: &State) -> Vec<(usize, Stimulus)> {
    let scene = Scene::new(model, state);
    (0..state.locals.len()).flat_map(|index| scene.stimuli(index).into_iter().map(move |what| (index, what))).collect()
}

/// Adds a letter to those that say the same.
fn gather<S: PartialEq>(heaps: &mut Vec<(S, Vec<Arc<Letter>>)>, statement: S, letter: &Arc<Letter>) {
    match heaps.iter_mut().find(|(known, _)| *known == statement) {
        Some((_, letters)) => letters.push(Arc::clone(letter)),
        None => heaps.push((statement, vec![Arc::clone(letter)])),
    }
}

impl<'a> Scene<'a> {
    pub(super) fn new(model: &'a Model, state: &'a State) -> Self {
        let mut batches = model.setting.batches.clone();
        batches.push(Batch::empty());
        let (prepares, commits, view_changes) = (Vec::new(), Vec::new(), Vec::new());
        let mut scene = Self { model, state, prepares, commits, view_changes, batches };
        for letter in state.locals.iter().flat_map(|local| &local.letters) {
            scene.add_said(letter);
        }
        scene
    }

    fn add_said(&mut self, letter: &Arc<Letter>) {
        let slots = self.model.bounds.slots;
        match &*letter.payload {
            Payload::PrePrepare(vote, _) | Payload::Prepare(vote) if vote.statement.sequence.value() <= slots => {
                gather(&mut self.prepares, vote.statement, letter);
            }
            Payload::Commit(vote) => gather(&mut self.commits, vote.statement, letter),
            Payload::ViewChange(_) => self.view_changes.push(Arc::clone(letter)),
            _ => {}
        }
    }

    fn bounds(&self) -> Bounds {
        self.model.bounds
    }

    fn slots(&self) -> impl Iterator<Item = Sequence> + use<> {
        (1..=self.bounds().slots).map(Sequence::new)
    }

    fn is_primary(&self, replica: ReplicaId, view: View) -> bool {
        self.model.setting.configuration.primary(view) == replica
    }

    /// What makes the replica do something.
    fn stimuli(&self, index: usize) -> Vec<Stimulus> {
        let local = &*self.state.locals[index];
        let mut found = Vec::new();
        self.add_letters(local, index, &mut found);
        self.add_votes(local, &mut found);
        self.add_proposals(local, &mut found);
        self.add_view_changes(local, &mut found);
        self.add_new_views(local, &mut found);
        if local.wanted().value() < self.bounds().views {
            self.add(local, Stimulus::TimeOut(self.others_who_ask_for(local.wanted(), local)), &mut found);
        }
        if self.state.restarts < self.bounds().restarts {
            self.add(local, Stimulus::Restart, &mut found);
        }
        found
    }

    /// Adds a stimulus, if it makes the replica do something, and says whether it does.
    fn add(&self, local: &Local, stimulus: Stimulus, found: &mut Vec<Stimulus>) -> bool {
        let is_known = |known: &Stimulus| known.print() == stimulus.print();
        if self.model.steps.step(&self.model.setting, local, &stimulus).is_none() {
            return false;
        }
        if !found.iter().any(is_known) {
            found.push(stimulus);
        }
        true
    }

    fn add_letter(&self, local: &Local, letter: Option<Arc<Letter>>, found: &mut Vec<Stimulus>) {
        if let Some(letter) = letter {
            self.add(local, Stimulus::Letters(vec![letter]), found);
        }
    }

    /// What other correct replicas propose, alone or in a new view, and batches that anyone hands out.
    fn add_letters(&self, local: &Local, index: usize, found: &mut Vec<Stimulus>) {
        let others = self.state.locals.iter().enumerate().filter(|(other, _)| *other != index);
        for letter in others.flat_map(|(_, other)| &other.letters) {
            let is_proposal = match &*letter.payload {
                Payload::PrePrepare(vote, _) => vote.statement.sequence.value() <= self.bounds().slots,
                Payload::NewView(_) => true,
                _ => false,
            };
            if is_proposal {
                let letters = letter.rests_on.iter().chain([letter]).cloned().collect();
                self.add(local, Stimulus::Letters(letters), found);
            }
        }
        for (sequence, batch) in self.slots().flat_map(|slot| self.batches.iter().map(move |batch| (slot, batch))) {
            self.add_letter(local, self.model.setting.batch(sequence, batch), found);
        }
    }

    /// All votes for one thing; with the faulty replica's, if the others do not suffice.
    fn add_votes(&self, local: &Local, found: &mut Vec<Stimulus>) {
        let setting = &self.model.setting;
        for (Prepare { view, sequence, digest, .. }, letters) in &self.prepares {
            self.add_heap(local, letters, || setting.prepare(*view, *sequence, *digest), found);
        }
        for (Commit { view, sequence, digest, .. }, letters) in &self.commits {
            self.add_heap(local, letters, || setting.commit(*view, *sequence, *digest), found);
        }
    }

    fn add_heap(
        &self,
        local: &Local,
        letters: &[Arc<Letter>],
        of_faulty: impl FnOnce() -> Option<Arc<Letter>>,
        found: &mut Vec<Stimulus>,
    ) {
        let mut letters = others_of(letters, local);
        if self.add(local, Stimulus::Letters(letters.clone()), found) {
            return;
        }
        letters.extend(of_faulty());
        self.add(local, Stimulus::Letters(letters), found);
    }

    /// The first commits of correct replicas alone that decide something for the replica.
    pub(super) fn decisive(&self, local: &Local) -> Option<Arc<Local>> {
        self.commits.iter().find_map(|(_, letters)| {
            let what = Stimulus::Letters(others_of(letters, local));
            self.model.steps.step(&self.model.setting, local, &what)
        })
    }

    /// As the primary of the replica's view, the faulty one proposes anything.
    fn add_proposals(&self, local: &Local, found: &mut Vec<Stimulus>) {
        let setting = &self.model.setting;
        let view = local.wanted();
        if !self.is_primary(setting.faulty, view) {
            return;
        }
        for (sequence, batch) in self.slots().flat_map(|slot| setting.batches.iter().map(move |batch| (slot, batch))) {
            self.add_letter(local, setting.pre_prepare(view, sequence, batch), found);
        }
    }

    fn others_who_ask_for(&self, view: View, local: &Local) -> Vec<Arc<Letter>> {
        let of_view = self.view_changes.iter().filter(|letter| letter.view_asked_for() == Some(view));
        of_view.filter(|letter| letter.from != local.replica.id()).cloned().collect()
    }

    /// The primary of a view hears of two who ask for it, of whom the faulty one may be one.
    fn add_view_changes(&self, local: &Local, found: &mut Vec<Stimulus>) {
        for view in (1..=self.bounds().views).map(View::new) {
            if !self.is_primary(local.replica.id(), view) || view < local.wanted() {
                continue;
            }
            let others = self.others_who_ask_for(view, local);
            let own = self.own_view_changes(view);
            let of_faulty = others.iter().flat_map(|other| own.iter().map(move |own| (other, own)));
            let of_others = others.iter().zip(others.iter().skip(1));
            for (one, other) in of_others.chain(of_faulty) {
                self.add(local, Stimulus::Letters(vec![Arc::clone(one), Arc::clone(other)]), found);
            }
            // Whoever takes too few shows it here.
            for single in others.iter().chain(&own) {
                let is_ready = local.wanted() == view;
                self.add_letter(local, Some(Arc::clone(single)).filter(|_| is_ready), found);
            }
        }
    }

    /// All view changes to `view` for which the faulty replica has the votes.
    fn own_view_changes(&self, view: View) -> Vec<Arc<Letter>> {
        let setting = &self.model.setting;
        let mut lists: Vec<Vec<PreparedCertificate>> = vec![Vec::new()];
        for sequence in self.slots() {
            let of_slot =
                self.prepares.iter().filter(|(prepare, _)| prepare.sequence == sequence && prepare.view < view);
            let mut certificates: Vec<_> = of_slot.filter_map(|(_, letters)| setting.certificate(letters)).collect();
            certificates.extend(self.batches.iter().filter_map(|batch| setting.forged(sequence, batch.digest())));
            let longer = lists.iter().flat_map(|list| {
                certificates.iter().map(|certificate| [list.as_slice(), core::slice::from_ref(certificate)].concat())
            });
            let longer: Vec<_> = longer.collect();
            lists.extend(longer);
        }
        lists.into_iter().filter_map(|list| setting.view_change(view, list)).collect()
    }

    /// As the primary of a view, the faulty replica begins it, by what follows from its view changes and by what does not.
    fn add_new_views(&self, local: &Local, found: &mut Vec<Stimulus>) {
        let setting = &self.model.setting;
        for view in (1..=self.bounds().views).map(View::new) {
            if !self.is_primary(setting.faulty, view) || view < local.wanted() || view <= local.replica.view() {
                continue;
            }
            let of_view = self.view_changes.iter().filter(|letter| letter.view_asked_for() == Some(view));
            let others: Vec<&Arc<Letter>> = of_view.collect();
            for own in self.own_view_changes(view) {
                for rests_on in quorums(&others, &own, QUORUM) {
                    self.add_new_view(local, view, &rests_on, found);
                }
            }
        }
    }

    fn add_new_view(&self, local: &Local, view: View, rests_on: &[Arc<Letter>], found: &mut Vec<Stimulus>) {
        for proposals in self.proposals(rests_on) {
            let new_view = self.model.setting.new_view(view, rests_on, &proposals);
            let letters = |letter| rests_on.iter().cloned().chain([letter]).collect();
            if let Some(letters) = new_view.map(letters) {
                self.add(local, Stimulus::Letters(letters), found);
            }
        }
    }

    /// What follows from view changes, and for each slot of it every other batch; and nothing at all.
    fn proposals(&self, rests_on: &[Arc<Letter>]) -> Vec<Vec<Proposal>> {
        let view_changes = rests_on.iter().filter_map(|letter| match &*letter.payload {
            Payload::ViewChange(view_change) => Some(view_change),
            _ => None,
        });
        let right = conclusion(&view_changes.collect::<Vec<_>>());
        let mut all = vec![right.clone(), Vec::new()];
        for place in 0..right.len() {
            for digest in self.batches.iter().map(Batch::digest) {
                let mut wrong = right.clone();
                wrong[place].digest = digest;
                all.push(wrong);
            }
        }
        all
    }
}

/// Those letters that are not the replica's own.
fn others_of(letters: &[Arc<Letter>], local: &Local) -> Vec<Arc<Letter>> {
    letters.iter().filter(|letter| letter.from != local.replica.id()).cloned().collect()
}

/// Every quorum of view changes, in the order of the replicas, that can be made of the others' and one of its own.
fn quorums(others: &[&Arc<Letter>], own: &Arc<Letter>, quorum: usize) -> Vec<Vec<Arc<Letter>>> {
    let all: Vec<&Arc<Letter>> = others.iter().copied().chain([own]).collect();
    let subsets = (0..1_u32 << all.len()).filter(|subset| subset.count_ones() as usize == quorum);
    let chosen = |subset: u32| (0..all.len()).filter(move |index| subset & 1 << index != 0);
    subsets.map(|subset| chosen(subset).map(|index| Arc::clone(all[index])).collect()).collect()
}

/// What a new view proposes, written here from PROTOCOL §7.3: nothing of this asks the core.
fn conclusion(view_changes: &[&SharedViewChange]) -> Vec<Proposal> {
    let certificates: Vec<Prepare> = view_changes
        .iter()
        .flat_map(|view_change| view_change.content.prepared.iter().map(|certificate| certificate.statement))
        .collect();
    let max = certificates.iter().map(|statement| statement.sequence.value()).max().unwrap_or(0);
    let digest_of = |sequence: Sequence| -> Digest {
        let of_slot = certificates.iter().filter(|statement| statement.sequence == sequence);
        let highest = of_slot.max_by_key(|statement| statement.view);
        highest.map_or_else(|| Batch::empty().digest(), |statement| statement.digest)
    };
    (1..=max).map(Sequence::new).map(|sequence| Proposal { sequence, digest: digest_of(sequence) }).collect()
}
