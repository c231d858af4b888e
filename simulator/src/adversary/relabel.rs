//! Passes others' votes off as votes of another view, slot or purpose, with the very signatures that they made. (commonware,
//! consensus/src/simplex/mocks/reconfigurer.rs; concord-bft, on messages without their epoch; PROTOCOL §3, nothing signed for
//! one purpose counts for another)
//!
//! It breaks a system that signs less than what is said: votes of an old view are then a certificate of the newest, and a
//! batch that later views gave up comes back. Correct replicas sign every field, under a domain for each kind of
//! statement.

use quorate_protocol::batch::Batch;
use quorate_protocol::certificate::{Certificate, VoteSignature};
use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Decided, Message, ViewChange};
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::statement::{Commit, Prepare, Statement, Vote};

use super::{Body, Strategy};

/// Shows decisions of views to come, and prepared certificates of the view before the one that it asks for.
#[derive(Debug)]
pub(super) struct Relabel;

/// The signatures of `votes` for what `is_meant`, and its own, under `label`, if they are a quorum.
fn collect<S: Statement + Copy>(
    body: &Body,
    label: S,
    votes: impl Iterator<Item = (ReplicaId, quorate_crypto::Signature)>,
) -> Option<Certificate<S>> {
    let mut signatures: Vec<VoteSignature> =
        votes.map(|(voter, signature)| VoteSignature { voter, signature }).collect();
    signatures.push(VoteSignature { voter: body.id(), signature: body.sign(label).signature });
    signatures.sort_by_key(|vote| vote.voter);
    signatures.dedup_by_key(|vote| vote.voter);
    let is_enough = signatures.len() >= body.configuration().quorum();
    Some(Certificate { statement: label, votes: List::new(signatures).filter(|_| is_enough)? })
}

/// Others' votes for the batch of `proposal` in any view, as a decision in a later one.
fn decision(body: &Body, commit: &Vote<Commit>, batch: &Batch) -> Option<Message> {
    let meant = commit.statement;
    let label = Commit { view: View::new(meant.view.value().checked_add(1)?), ..meant };
    let is_meant = |vote: &&Vote<Commit>| vote.statement == meant;
    let votes = body.seen.commits.iter().filter(is_meant).map(|vote| (vote.voter, vote.signature));
    let certificate = collect(body, label, votes)?;
    Some(Message::Decided(Decided { certificate, batch: batch.body().clone().into() }))
}

/// Others' votes to accept a batch, as the certificate that would let them commit it, and so decide it.
fn purpose(body: &Body, commit: &Vote<Commit>, batch: &Batch) -> Option<Message> {
    let label = commit.statement;
    let is_meant = |vote: &&Vote<Prepare>| vote.statement.commit() == label;
    let votes = body.seen.prepares.iter().filter(is_meant).map(|vote| (vote.voter, vote.signature));
    let certificate = collect(body, label, votes)?;
    Some(Message::Decided(Decided { certificate, batch: batch.body().clone().into() }))
}

/// Every known certificate of the slots that may be open, each as of the view before the one that `content` asks for.
fn risen(body: &Body, content: &ViewChange) -> Option<ViewChange> {
    let view = View::new(content.view.value().checked_sub(1)?);
    let low = content.stable_sequence();
    let high = low.saturating_add(body.configuration().parameters().window);
    let mut prepared = content.prepared.to_vec();
    for known in &body.seen.certificates {
        let Prepare { sequence, view: of, .. } = known.statement;
        if of < view && sequence > low && sequence <= high {
            let mut raised = known.clone();
            raised.statement.view = view;
            prepared.retain(|certificate| certificate.statement.sequence != sequence);
            prepared.push(raised);
        }
    }
    prepared.sort_unstable_by_key(|certificate| certificate.statement.sequence);
    Some(ViewChange { prepared: List::new(prepared)?, ..content.clone() })
}

impl Strategy for Relabel {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        match &message {
            Message::ViewChange(signed) => {
                let content: ViewChange = decode(signed.body.bytes()).ok()?;
                if let Some(signed) = risen(body, &content).and_then(|risen| body.sign_view_change(&risen)) {
                    body.send(to, Message::ViewChange(signed));
                }
            }
            Message::Commit(vote) => {
                let proposals = &body.seen.proposals;
                let proposed = proposals.iter().find(|(_, batch)| batch.digest() == vote.statement.digest);
                let Some((_, batch)) = proposed else { return Some(message) };
                let false_ones = [decision(body, vote, batch), purpose(body, vote, batch)];
                for decided in false_ones.into_iter().flatten() {
                    body.send(to, decided);
                }
            }
            _ => {}
        }
        Some(message)
    }
}
