//! Certificates with fewer votes than a quorum: those of all accomplices, as they are, or filled up with votes of who is no
//! member, under its own key. (concord-bft, pull request 50: an invalid certificate hid a valid one; RFC 5280, section 6, on
//! names that lead to no key; PROTOCOL §3)
//!
//! It breaks a system that counts votes before it knows the voters, passes over what it cannot check, or compares
//! certificates before it checks them: a batch that nobody accepted is decided, or one that was decided is dropped.
//! Correct replicas refuse a message with one bad part whole.

use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Decided, Message, ViewChange};
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::statement::{Commit, Prepare};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Shows such decisions all the time, and such prepared certificates when it asks for a view.
#[derive(Debug, Default)]
pub(super) struct PadCertificates {
    last: Option<Time>,
}

/// So many voters as a quorum has: all accomplices, and numbers above those of the members.
fn strangers(body: &Body) -> Vec<ReplicaId> {
    let size = u8::try_from(body.configuration().size()).unwrap_or(u8::MAX);
    let accomplices = body.accomplices().into_iter();
    accomplices.chain((size..u8::MAX).map(ReplicaId::new)).take(body.configuration().quorum()).collect()
}

/// For the last slot that a certificate is known of, in the view before the one that is asked for: the empty batch.
fn with_certificate_of(body: &Body, content: &ViewChange, voters: &[ReplicaId]) -> Option<ViewChange> {
    let view = View::new(content.view.value().checked_sub(1)?);
    let low = content.stable_sequence();
    let known = body.seen.certificates.iter().map(|certificate| certificate.statement.sequence);
    let sequence = known.filter(|sequence| *sequence > low).max()?;
    let statement = Prepare { epoch: body.epoch(), view, sequence, digest: Batch::empty().digest() };
    let mut prepared = content.prepared.to_vec();
    prepared.retain(|certificate| certificate.statement.sequence != sequence);
    prepared.push(body.forge(statement, voters.iter().copied()));
    prepared.sort_unstable_by_key(|certificate| certificate.statement.sequence);
    Some(ViewChange { prepared: List::new(prepared)?, ..content.clone() })
}

impl Strategy for PadCertificates {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::ViewChange(signed) = &message else { return Some(message) };
        let content: ViewChange = decode(signed.body.bytes()).ok()?;
        for voters in [body.accomplices(), strangers(body)] {
            let forged = with_certificate_of(body, &content, &voters);
            if let Some(signed) = forged.and_then(|forged| body.sign_view_change(&forged)) {
                body.send(to, Message::ViewChange(signed));
            }
        }
        Some(message)
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, body.configuration().parameters().heartbeat()) {
            return;
        }
        let sequence = body.executed().saturating_add(1);
        let commit = Commit { epoch: body.epoch(), view: body.view(), sequence, digest: Batch::empty().digest() };
        for voters in [body.accomplices(), strangers(body)] {
            let certificate = body.forge(commit, voters);
            body.send_all(&Message::Decided(Decided { certificate, batch: Batch::empty().body().clone().into() }));
        }
    }
}
