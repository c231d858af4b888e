//! What may happen next to a replica: what was said reaches it, the faulty replica says something to it, its time runs
//! out, or it starts again.
//!
//! The faulty replica signs anything at any time, but only what makes a replica do something at once is worth a state: a
//! vote that merely waits may as well come later. So it votes only where its vote completes a quorum, and lists in its view
//! changes only certificates for which it has the votes of others.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::certificate::PreparedCertificate;
use quorate_protocol::message::{Proposal, SharedViewChange};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::statement::{Prepare, Vote};
use quorate_protocol::verify::Payload;

use super::letter::Letter;
use super::local::{Local, Outcome, Stimulus};
use super::{Bounds, Model, State};

/// What everyone knows in a state, gathered once for all replicas.
struct Scene<'a> {
    model: &'a Model,
    state: &'a State,
    /// Votes of correct replicas, by statement.
    votes: Vec<(Prepare, Vec<Vote<Prepare>>)>,
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

impl<'a> Scene<'a> {
    fn new(model: &'a Model, state: &'a State) -> Self {
        let mut votes: Vec<(Prepare, Vec<Vote<Prepare>>)> = Vec::new();
        let mut view_changes = Vec::new();
        let mut batches = model.setting.batches.clone();
        batches.push(Batch::empty());
        for letter in state.locals.iter().flat_map(|local| &local.letters) {
            if let Some(vote) = letter.prepare() {
                match votes.iter_mut().find(|(statement, _)| *statement == vote.statement) {
                    Some((_, votes)) => votes.push(*vote),
                    None => votes.push((vote.statement, vec![*vote])),
                }
            }
            if letter.view_asked_for().is_some() {
                view_changes.push(Arc::clone(letter));
            }
            if let Payload::PrePrepare(_, batch) = &*letter.payload
                && batches.iter().all(|known| known.digest() != batch.digest())
            {
                batches.push(batch.clone());
            }
        }
        Self { model, state, votes, view_changes, batches }
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
        let local = &self.state.locals[index];
        let mut found = Vec::new();
        self.add_letters(local, index, &mut found);
        self.add_votes(local, &mut found);
        self.add_proposals(local, &mut found);
        self.add_view_changes(local, &mut found);
        self.add_new_views(local, &mut found);
        if local.wanted().value() < self.bounds().views {
            self.add(local, Stimulus::TimeOut(self.who_ask_for(local.wanted(), index)), &mut found);
        }
        if self.state.restarts < self.bounds().restarts {
            self.add(local, Stimulus::Restart, &mut found);
        }
        found
    }

    /// The view changes to `view` of correct replicas but one.
    fn who_ask_for(&self, view: View, but: usize) -> Vec<Arc<Letter>> {
        let others = self.state.locals.iter().enumerate().filter(|(other, _)| *other != but);
        let letters = others.flat_map(|(_, other)| &other.letters);
        letters.filter(|letter| letter.view_asked_for() == Some(view)).cloned().collect()
    }

    fn add(&self, local: &Local, stimulus: Stimulus, found: &mut Vec<Stimulus>) {
        let is_known = |known: &Stimulus| known.print() == stimulus.print();
        if matches!(self.model.steps.step(&self.model.setting, local, &stimulus), Outcome::Told(_))
            && !found.iter().any(is_known)
        {
            found.push(stimulus);
        }
    }

    fn add_letter(&self, local: &Local, letter: Option<Arc<Letter>>, found: &mut Vec<Stimulus>) {
        if let Some(letter) = letter {
            self.add(local, Stimulus::Letters(vec![letter]), found);
        }
    }

    /// What other correct replicas said. Of votes that say the same, one is enough: whose they are makes no difference.
    fn add_letters(&self, local: &Local, index: usize, found: &mut Vec<Stimulus>) {
        let others = self.state.locals.iter().enumerate().filter(|(other, _)| *other != index);
        for letter in others.flat_map(|(_, other)| &other.letters) {
            if !self.is_in_bounds(letter, local.replica.id()) || found.iter().any(|known| says_the_same(known, letter)) {
                continue;
            }
            let mut letters = letter.rests_on.clone();
            letters.push(Arc::clone(letter));
            self.add(local, Stimulus::Letters(letters), found);
        }
        for (sequence, batch) in self.slots().flat_map(|slot| self.batches.iter().map(move |batch| (slot, batch))) {
            self.add_letter(local, self.model.setting.batch(sequence, batch), found);
        }
    }

    fn is_in_bounds(&self, letter: &Letter, to: ReplicaId) -> bool {
        if letter.view_asked_for().is_some_and(|view| !self.is_primary(to, view)) {
            return false;
        }
        let sequence = letter.prepare().map(|vote| vote.statement.sequence);
        sequence.is_none_or(|sequence| sequence.value() <= self.bounds().slots)
    }

    /// The faulty replica's votes, where a correct one voted at all.
    fn add_votes(&self, local: &Local, found: &mut Vec<Stimulus>) {
        let setting = &self.model.setting;
        let slots: BTreeSet<(View, Sequence)> =
            self.votes.iter().map(|(statement, _)| (statement.view, statement.sequence)).collect();
        for (view, sequence) in slots.into_iter().filter(|(_, sequence)| sequence.value() <= self.bounds().slots) {
            for digest in self.batches.iter().map(Batch::digest) {
                for letter in [setting.prepare(view, sequence, digest), setting.commit(view, sequence, digest)] {
                    let is_needless = |letter: &Arc<Letter>| found.iter().any(|known| says_the_same(known, letter));
                    self.add_letter(local, letter.filter(|letter| !is_needless(letter)), found);
                }
            }
        }
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

    /// The faulty replica asks for a view. What it lists matters only to that view's primary.
    fn add_view_changes(&self, local: &Local, found: &mut Vec<Stimulus>) {
        for view in (1..=self.bounds().views).map(View::new) {
            if self.is_primary(local.replica.id(), view) && view >= local.wanted() && view > local.replica.view() {
                for letter in self.own_view_changes(view) {
                    self.add_letter(local, Some(letter), found);
                }
            }
        }
    }

    /// All view changes to `view` for which the faulty replica has the votes.
    fn own_view_changes(&self, view: View) -> Vec<Arc<Letter>> {
        let setting = &self.model.setting;
        let mut lists: Vec<Vec<PreparedCertificate>> = vec![Vec::new()];
        for sequence in self.slots() {
            let of_slot = self.votes.iter().filter(|(prepare, _)| prepare.sequence == sequence && prepare.view < view);
            let certificates: Vec<_> = of_slot.filter_map(|(_, votes)| setting.certificate(votes)).collect();
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
                for rests_on in quorums(&others, &own, setting.configuration.quorum()) {
                    for proposals in self.proposals(&rests_on) {
                        let Some(letter) = setting.new_view(view, &rests_on, &proposals) else { continue };
                        let mut letters = rests_on.clone();
                        letters.push(letter);
                        self.add(local, Stimulus::Letters(letters), found);
                    }
                }
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

/// Whether a known stimulus is a vote for the same as `letter` is, whoever cast it.
fn says_the_same(known: &Stimulus, letter: &Letter) -> bool {
    let Stimulus::Letters(letters) = known else { return false };
    let [single] = letters.as_slice() else { return false };
    match (&*single.payload, &*letter.payload) {
        (Payload::Prepare(known), Payload::Prepare(vote)) => known.statement == vote.statement,
        (Payload::Commit(known), Payload::Commit(vote)) => known.statement == vote.statement,
        _ => false,
    }
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
