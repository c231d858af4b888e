//! What a script's attacker knows: batches that were proposed, certificates that it can put together, view changes.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::certificate::{Certificate, PreparedCertificate};
use quorate_protocol::codec::decode;
use quorate_protocol::message::{Message, SignedViewChange, ViewChange, view_change_digest};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::statement::{Prepare, Vote};
use quorate_protocol::verify::Payload;

use crate::adversary::Body;

/// Proposals that are remembered.
const PROPOSALS_MAX: usize = 256;

/// View changes of its own that are remembered: the latest.
const OWN_MAX: usize = 8;

/// A view change, and its name.
#[derive(Debug, Clone)]
pub(super) struct NamedContent {
    pub(super) content: ViewChange,
    pub(super) digest: Digest,
}

/// What a script remembers besides what every adversary does.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The first batch proposed for a slot in a view, whoever proposed it. Bounded by [`PROPOSALS_MAX`].
    proposals: BTreeMap<(Sequence, View), Batch>,
    /// Its own view changes. Bounded by [`OWN_MAX`].
    own: BTreeMap<View, NamedContent>,
}

impl Known {
    pub(super) fn note_heard(&mut self, payload: &Payload) {
        if let Payload::PrePrepare(vote, batch) = payload {
            self.note_proposal(&vote.statement, batch.clone());
        }
    }

    pub(super) fn note_own(&mut self, body: &Body, message: &Message) {
        match message {
            Message::PrePrepare(proposal) => {
                let parsed = Batch::parse(proposal.batch.bytes().clone(), body.configuration());
                if let Ok(batch) = parsed {
                    self.note_proposal(&proposal.vote.statement, batch);
                }
            }
            Message::ViewChange(signed) => self.note_view_change(body, signed),
            _ => {}
        }
    }

    fn note_proposal(&mut self, statement: &Prepare, batch: Batch) {
        self.proposals.entry((statement.sequence, statement.view)).or_insert(batch);
        while self.proposals.len() > PROPOSALS_MAX {
            self.proposals.pop_first();
        }
    }

    fn note_view_change(&mut self, body: &Body, signed: &SignedViewChange) {
        let Ok(content) = decode::<ViewChange>(signed.body.bytes()) else { return };
        if content.replica != body.id() {
            return;
        }
        let digest = view_change_digest(body.configuration().cluster(), &signed.body);
        self.own.insert(content.view, NamedContent { content, digest });
        while self.own.len() > OWN_MAX {
            self.own.pop_first();
        }
    }

    /// The batch proposed for a slot in a view; else that of the highest view.
    pub(super) fn batch(&self, view: View, slot: Sequence) -> Option<&Batch> {
        let of_slot = || self.proposals.range((slot, View::ZERO)..).take_while(move |((of, _), _)| *of == slot);
        self.proposals.get(&(slot, view)).or_else(|| of_slot().last().map(|(_, batch)| batch))
    }

    /// The batch with this digest.
    pub(super) fn batch_of(&self, digest: &Digest) -> Option<&Batch> {
        self.proposals.values().find(|batch| batch.digest() == *digest)
    }

    /// All that was proposed in views below this one for slots above this one: for each slot the batch of the highest view.
    pub(super) fn cast(&self, view: View, above: Sequence) -> BTreeMap<Sequence, (View, Digest)> {
        let meant = self.proposals.iter().filter(|((slot, of), _)| *slot > above && *of < view);
        meant.map(|((slot, of), batch)| (*slot, (*of, batch.digest()))).collect()
    }

    /// The view changes for this view, one a replica: its own too.
    pub(super) fn view_changes(&self, body: &Body, view: View) -> BTreeMap<ReplicaId, NamedContent> {
        let heard = body.seen.view_changes.iter().filter(|heard| heard.content.view == view);
        let named = heard.map(|heard| {
            let content = heard.content.clone();
            (content.replica, NamedContent { content, digest: heard.digest })
        });
        let own = self.own.get(&view).map(|own| (body.id(), own.clone()));
        named.chain(own).collect()
    }

    /// Prepared certificates of views below this one, for slots above this one: those seen in view changes, and those that
    /// can be put together of votes that were heard and those of all attackers.
    pub(super) fn certificates(body: &Body, view: View, above: Sequence) -> Vec<PreparedCertificate> {
        let votes: Vec<Vote<Prepare>> =
            body.seen.prepares.iter().copied().chain(body.seen.proposals.iter().map(|(vote, _)| *vote)).collect();
        let statements: BTreeSet<Prepare> = votes.iter().map(|vote| vote.statement).collect();
        let collected = statements.into_iter().filter_map(|statement| {
            let ours = body.accomplices().into_iter().map(|id| body.sign_as(id, statement));
            let all: Vec<Vote<Prepare>> = votes.iter().copied().chain(ours).collect();
            Certificate::collect(statement, all.iter(), body.configuration().quorum())
        });
        let all = body.seen.certificates.iter().cloned().chain(collected);
        all.filter(|certificate| certificate.statement.view < view && certificate.statement.sequence > above).collect()
    }
}
