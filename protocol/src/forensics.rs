//! Who is to blame when correct replicas decided differently, from what replicas keep in their logs. (PROTOCOL §15; Sheng et
//! al., BFT Protocol Forensics, CCS 2021)
//!
//! Nothing is believed because of whose log it stands in: what counts is signed, and is checked first. So a log that was
//! tampered with hides a culprit at most, and makes nobody one. Whoever is accused is so by an [`Evidence`] that stands alone.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use quorate_crypto::{Digest, Item, Signature};

use crate::certificate::{Certificate, StableCertificate};
use crate::codec::decode;
use crate::configuration::Configuration;
use crate::evidence::{Evidence, is_forgotten, is_view_change_of};
use crate::message::{SignedViewChange, ViewChange, new_view_digest, view_change_digest};
use crate::number::{Epoch, ReplicaId, Sequence, View};
use crate::record::{NewViewRecord, Record, Recovered};
use crate::statement::{Checkpoint, Commit, Prepare, Statement, Vote};
use crate::verify::Verifier;

/// What each member said of a kind, with its signatures, which are valid. In the order of statements: what one member says
/// about one subject stands side by side. Bound: what the logs hold.
type Said<S> = BTreeMap<ReplicaId, BTreeMap<S, Signature>>;

/// Takes in what logs hold, and draws the conclusion.
#[derive(Debug)]
pub struct Forensics<'a> {
    configuration: &'a Configuration,
    prepares: Said<Prepare>,
    commits: Said<Commit>,
    checkpoints: Said<Checkpoint>,
    /// View changes by who signed them, each once.
    view_changes: BTreeMap<ReplicaId, BTreeMap<Digest, (ViewChange, SignedViewChange)>>,
    /// What quorums vouch for.
    prepared: BTreeSet<Prepare>,
    decided: BTreeSet<Commit>,
    stable: BTreeSet<Checkpoint>,
    /// Views of which a new view is known.
    begun: BTreeSet<(Epoch, View)>,
    /// Proofs that replicas kept themselves.
    kept: Vec<Evidence>,
}

/// Two things of which correct replicas made only one each, though all should have made the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// Two batches are decided for one slot; that of the lower view stands first.
    Decisions(Commit, Commit),
    /// Two states are stable after one slot.
    Checkpoints(Checkpoint, Checkpoint),
}

impl Divergence {
    /// The slot.
    pub const fn sequence(&self) -> Sequence {
        match self {
            Self::Decisions(first, _) => first.sequence,
            Self::Checkpoints(first, _) => first.sequence,
        }
    }
}

/// What would have to be known of a divergence to convict anybody more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The first view in which another batch was prepared than the decided one.
    pub view: View,
    /// The view of the decision.
    pub decided: View,
    /// Whether the new view that began it is known: then it is another one that led there.
    pub is_begun: bool,
    /// Members whose logs hold what is lacking, if they are correct and their logs are not cut.
    pub members: BTreeSet<ReplicaId>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// All divergences, one a slot and kind, in the order of slots.
    pub divergences: Vec<Divergence>,
    /// One proof a kind against each culprit.
    pub proofs: Vec<Evidence>,
    /// What is lacking, if the first divergence is not explained.
    pub lacking: Option<Lacking>,
}

impl Findings {
    /// Whom the proofs are against.
    pub fn culprits(&self) -> BTreeSet<ReplicaId> {
        self.proofs.iter().map(Evidence::accused).collect()
    }
}

impl<'a> Forensics<'a> {
    /// Nothing is known yet of what was said in this cluster, in whatever epoch: members and keys are the same in all.
    pub const fn new(configuration: &'a Configuration) -> Self {
        Self {
            configuration,
            prepares: BTreeMap::new(),
            commits: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            view_changes: BTreeMap::new(),
            prepared: BTreeSet::new(),
            decided: BTreeSet::new(),
            stable: BTreeSet::new(),
            begun: BTreeSet::new(),
            kept: Vec::new(),
        }
    }

    /// Takes in a record of a log; what is not signed as it should be counts for nothing.
    pub fn read(&mut self, record: &Recovered, verifier: &mut dyn Verifier) {
        match record {
            Recovered::Whole(Record::Accepted(vote, _)) | Recovered::AcceptedWithoutBatch(vote) => {
                take_vote(&mut self.prepares, vote, self.configuration, verifier);
            }
            Recovered::Whole(Record::Prepared(certificate, vote)) => {
                self.take_prepared(certificate, verifier);
                take_vote(&mut self.commits, vote, self.configuration, verifier);
            }
            Recovered::Whole(Record::Committed(certificate) | Record::Learned(certificate, _))
            | Recovered::LearnedWithoutBatch(certificate) => {
                if take_certificate(&mut self.commits, certificate, self.configuration, verifier) {
                    self.decided.insert(certificate.statement);
                }
            }
            Recovered::Whole(Record::Stable(certificate) | Record::Epoch(_, certificate)) => {
                self.take_stable(certificate, verifier);
            }
            Recovered::Whole(Record::ViewChange(_, _, signed)) => self.take_view_change(signed, verifier),
            Recovered::Whole(Record::NewView(epoch, view, record)) => {
                self.take_new_view(*epoch, *view, record, verifier);
            }
            Recovered::Whole(Record::Incarnation(_) | Record::Batch(..))
            | Recovered::ViewChangeLost(..)
            | Recovered::NewViewLost(..)
            | Recovered::BatchLost(..) => {}
        }
    }

    /// Takes in a proof that a replica kept, if it is one.
    pub fn read_evidence(&mut self, evidence: Evidence, verifier: &mut dyn Verifier) {
        let configuration = self.configuration.in_epoch(evidence.epoch(), Sequence::ZERO);
        if evidence.is_proof(&configuration, verifier) {
            self.kept.push(evidence);
        }
    }

    fn take_prepared(&mut self, certificate: &Certificate<Prepare>, verifier: &mut dyn Verifier) {
        if take_certificate(&mut self.prepares, certificate, self.configuration, verifier) {
            self.prepared.insert(certificate.statement);
        }
    }

    fn take_stable(&mut self, certificate: &StableCertificate, verifier: &mut dyn Verifier) {
        if take_certificate(&mut self.checkpoints, certificate, self.configuration, verifier) {
            self.stable.insert(certificate.statement);
        }
    }

    /// What it says is a quorum's is checked one by one: a liar's view change may hold true certificates beside false ones.
    fn take_view_change(&mut self, signed: &SignedViewChange, verifier: &mut dyn Verifier) {
        let Ok(content) = decode::<ViewChange>(signed.body.bytes()) else { return };
        if !is_view_change_of(content.replica, signed, self.configuration, verifier) {
            return;
        }
        if let Some(certificate) = &content.stable {
            self.take_stable(certificate, verifier);
        }
        for certificate in content.prepared.iter() {
            self.take_prepared(certificate, verifier);
        }
        let digest = view_change_digest(self.configuration.cluster(), &signed.body);
        self.view_changes.entry(content.replica).or_default().insert(digest, (content, signed.clone()));
    }

    fn take_new_view(&mut self, epoch: Epoch, view: View, record: &NewViewRecord, verifier: &mut dyn Verifier) {
        let NewViewRecord { new_view, view_changes } = record;
        let primary = self.configuration.member(self.configuration.primary_in(epoch, view));
        let digest = new_view_digest(self.configuration.cluster(), &new_view.body);
        let item = primary.map(|primary| Item { key: primary.key, digest, signature: new_view.signature });
        if new_view.claimed() == Some((epoch, view)) && item.is_some_and(|item| verifier.verify(&[item]).is_ok()) {
            self.begun.insert((epoch, view));
        }
        for view_change in view_changes.iter() {
            self.take_view_change(view_change, verifier);
        }
    }

    /// What follows from all of it.
    pub fn conclude(&self) -> Findings {
        let divergences = self.divergences();
        let proofs = self.proofs();
        let culprits: BTreeSet<ReplicaId> = proofs.iter().map(Evidence::accused).collect();
        let is_explained = culprits.len() >= self.configuration.weak_quorum();
        let lacking = divergences.first().filter(|_| !is_explained).and_then(|first| self.lacking(first));
        Findings { divergences, proofs, lacking }
    }

    /// Slots that are decided, in whatever epoch and with whatever batch.
    pub fn decided(&self) -> BTreeSet<Sequence> {
        self.decided.iter().map(|decided| decided.sequence).collect()
    }

    /// The last slot after which a state is known to be stable.
    pub fn stable(&self) -> Sequence {
        self.stable.iter().map(|stable| stable.sequence).max().unwrap_or_default()
    }

    /// A slot that is decided anew in a later epoch, since it was void, diverges from nothing.
    fn divergences(&self) -> Vec<Divergence> {
        let mut first: BTreeMap<(Sequence, Epoch), Commit> = BTreeMap::new();
        let mut found: BTreeMap<(Sequence, Epoch), Divergence> = BTreeMap::new();
        // Lower views come first.
        for decided in &self.decided {
            let slot = (decided.sequence, decided.epoch);
            let before = first.entry(slot).or_insert(*decided);
            if before.digest != decided.digest {
                found.entry(slot).or_insert(Divergence::Decisions(*before, *decided));
            }
        }
        let states = self.stable.iter().zip(self.stable.iter().skip(1));
        let states = states.filter(|(left, right)| left.subject() == right.subject());
        let states = states.map(|(left, right)| Divergence::Checkpoints(*left, *right));
        let mut all: Vec<Divergence> = found.into_values().chain(states).collect();
        all.sort_by_key(Divergence::sequence);
        all
    }

    /// Every contradiction that one member signed, one a kind.
    fn proofs(&self) -> Vec<Evidence> {
        let all = conflicts(&self.commits, Evidence::ConflictingCommits)
            .chain(self.forgotten())
            .chain(conflicts(&self.prepares, Evidence::ConflictingPrepares))
            .chain(conflicts(&self.checkpoints, Evidence::ConflictingCheckpoints))
            .chain(self.kept.iter().cloned());
        let mut proofs: Vec<Evidence> = Vec::new();
        for evidence in all {
            let is_kind = |known: &Evidence| {
                known.accused() == evidence.accused()
                    && core::mem::discriminant(known) == core::mem::discriminant(&evidence)
            };
            if !proofs.iter().any(is_kind) {
                proofs.push(evidence);
            }
        }
        proofs
    }

    /// Commits that a later view change of the same member knows nothing of.
    fn forgotten(&self) -> impl Iterator<Item = Evidence> + '_ {
        self.view_changes.iter().flat_map(|(replica, view_changes)| {
            view_changes.values().filter_map(|(content, signed)| {
                let vote = said_by(&self.commits, *replica).find(|vote| is_forgotten(vote, content))?;
                Some(Evidence::ForgottenCommit { vote, view_change: signed.clone() })
            })
        })
    }

    /// Between a decision and another one in a later view stands the first view in which another batch was prepared. The new
    /// view that led there rests on a quorum of view changes, of which those that also committed the decision forgot it. With
    /// both batches prepared in one view, its two certificates share the culprits.
    fn lacking(&self, divergence: &Divergence) -> Option<Lacking> {
        let Divergence::Decisions(decided, other) = divergence else { return None };
        let is_other = |prepared: &&Prepare| {
            (prepared.epoch, prepared.sequence) == (decided.epoch, decided.sequence)
                && prepared.digest != decided.digest
                && prepared.view >= decided.view
        };
        let prepared = self.prepared.iter().filter(is_other).map(|prepared| prepared.view).min();
        let view = prepared.unwrap_or(other.view).min(other.view);
        let of_slot = (decided.epoch, view, decided.sequence);
        let members = who_said(&self.prepares, &of_slot).chain(who_said(&self.commits, &of_slot)).collect();
        let is_begun = self.begun.contains(&(decided.epoch, view));
        Some(Lacking { view, decided: decided.view, is_begun, members })
    }
}

/// What one member said, in order.
fn said_by<S: Copy + Ord>(said: &Said<S>, member: ReplicaId) -> impl DoubleEndedIterator<Item = Vote<S>> + Clone {
    let vote = move |(statement, signature): (&S, &Signature)| Vote {
        statement: *statement,
        voter: member,
        signature: *signature,
    };
    said.get(&member).into_iter().flatten().map(vote)
}

/// Who said something about a subject.
fn who_said<S: Statement + Copy + Ord>(said: &Said<S>, subject: &S::Subject) -> impl Iterator<Item = ReplicaId> {
    let has_said = move |statements: &BTreeMap<S, Signature>| statements.keys().any(|said| said.subject() == *subject);
    said.iter().filter(move |(_, statements)| has_said(statements)).map(|(member, _)| *member)
}

/// The first that each member said twice about one subject.
fn conflicts<S: Statement + Copy + Ord>(
    said: &Said<S>,
    evidence: fn(Vote<S>, Vote<S>) -> Evidence,
) -> impl Iterator<Item = Evidence> {
    said.keys().filter_map(move |member| {
        let votes = said_by(said, *member);
        let mut pairs = votes.clone().zip(votes.skip(1));
        let (first, second) = pairs.find(|(first, second)| first.statement.subject() == second.statement.subject())?;
        Some(evidence(first, second))
    })
}

fn keep<S: Ord>(said: &mut Said<S>, vote: Vote<S>) {
    said.entry(vote.voter).or_default().insert(vote.statement, vote.signature);
}

fn take_vote<S: Statement + Copy + Ord>(
    said: &mut Said<S>,
    vote: &Vote<S>,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) {
    if are_valid(said, core::slice::from_ref(vote), configuration, verifier) {
        keep(said, *vote);
    }
}

/// Whether a quorum signed it; then its votes are kept.
fn take_certificate<S: Statement + Copy + Ord>(
    said: &mut Said<S>,
    certificate: &Certificate<S>,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> bool {
    let votes: Vec<Vote<S>> = certificate.each_vote().collect();
    let is_one = certificate.has_quorum_form(configuration.quorum(), configuration.size())
        && are_valid(said, &votes, configuration, verifier);
    if is_one {
        for vote in votes {
            keep(said, vote);
        }
    }
    is_one
}

/// Whether the signatures are valid. Those that are known already are not checked again: logs hold most of them thrice.
fn are_valid<S: Statement + Copy + Ord>(
    said: &Said<S>,
    votes: &[Vote<S>],
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> bool {
    let known = |vote: &Vote<S>| said.get(&vote.voter).and_then(|statements| statements.get(&vote.statement));
    let item = |vote: &Vote<S>| {
        let key = configuration.member(vote.voter)?.key;
        Some(Item { key, digest: vote.statement.signed_digest(configuration.cluster()), signature: vote.signature })
    };
    let new = votes.iter().filter(|vote| known(vote) != Some(&vote.signature));
    let items: Option<Vec<Item>> = new.map(item).collect();
    items.is_some_and(|items| items.is_empty() || verifier.verify(&items).is_ok())
}
