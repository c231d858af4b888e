//! What follows from a quorum of view changes, as an adversary works it out: to come close to the truth, or just past it.
//! (PROTOCOL §7.3)

use std::collections::BTreeMap;

use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Proposal, SharedViewChange, ViewChange};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::statement::Prepare;

use super::Body;

/// What a correct primary would propose.
pub(super) fn conclude(view_changes: &[&ViewChange]) -> Vec<Proposal> {
    let low = view_changes.iter().map(|view_change| view_change.stable_sequence()).max().unwrap_or_default();
    let mut highest: BTreeMap<Sequence, Prepare> = BTreeMap::new();
    for certificate in view_changes.iter().flat_map(|view_change| view_change.prepared.iter()) {
        let found = highest.entry(certificate.statement.sequence).or_insert(certificate.statement);
        if certificate.statement.view > found.view {
            *found = certificate.statement;
        }
    }
    let last = highest.last_key_value().map_or(low, |(sequence, _)| *sequence);
    let slots = (1..=last.distance_from(low)).map(|offset| low.saturating_add(offset));
    let digest = |sequence| highest.get(&sequence).map_or_else(|| Batch::empty().digest(), |found| found.digest);
    slots.map(|sequence| Proposal { sequence, digest: digest(sequence) }).collect()
}

/// The latest view changes of others that ask for `view`, by who asks.
pub(super) fn asking_for(body: &Body, view: View) -> BTreeMap<ReplicaId, SharedViewChange> {
    let asking = body.seen.view_changes.iter().filter(|seen| seen.content.view == view);
    asking.map(|seen| (seen.content.replica, SharedViewChange::clone(seen))).collect()
}
