//! Certificates with fewer valid votes than they need: those of all accomplices, and forgeries. (Malachite, commit 961fa4e0: a
//! mixed certificate was accepted; concord-bft, pull request 50: an invalid one hid a valid one; PROTOCOL §3)
//!
//! It breaks a system that checks some signatures only, or counts names: a batch that nobody accepted is decided. Correct
//! replicas refuse a message with one bad part whole, and what it says hides nothing that others say.

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Decided, Message, ViewChange};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::statement::{Checkpoint, Prepare};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Forges decisions, checkpoints and prepared certificates.
#[derive(Debug, Default)]
pub(super) struct ForgeCertificates {
    last: Option<Time>,
}

/// The empty batch, prepared in the view before `content` asks for, in the first slot that may be open.
fn forged_prepared(body: &Body, content: &ViewChange) -> Option<ViewChange> {
    let view = content.view;
    let statement = Prepare {
        epoch: body.epoch(),
        view: quorate_protocol::number::View::new(view.value().checked_sub(1)?),
        sequence: content.stable_sequence().saturating_add(1),
        digest: Batch::empty().digest(),
    };
    let mut prepared = content.prepared.to_vec();
    prepared.retain(|certificate| certificate.statement.sequence > statement.sequence);
    prepared.insert(0, body.forge(statement, body.pretended_quorum()));
    Some(ViewChange { prepared: List::new(prepared)?, ..content.clone() })
}

/// A quorum's certificate of which one signature is not what it was.
fn salted(body: &Body, content: &ViewChange) -> Option<ViewChange> {
    let mut prepared = content.prepared.to_vec();
    let certificate = prepared.first_mut()?;
    let mut votes = certificate.votes.to_vec();
    votes.last_mut()?.signature = body.sign(certificate.statement.commit()).signature;
    certificate.votes = List::new(votes)?;
    Some(ViewChange { prepared: List::new(prepared)?, ..content.clone() })
}

impl Strategy for ForgeCertificates {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::ViewChange(signed) = &message else { return Some(message) };
        let content: ViewChange = decode(signed.body.bytes()).ok()?;
        // The forgeries first: what follows must count all the same.
        for forged in [forged_prepared(body, &content), salted(body, &content)].into_iter().flatten() {
            if let Some(signed) = body.sign_view_change(&forged) {
                body.send(to, Message::ViewChange(signed));
            }
        }
        Some(message)
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, body.configuration().parameters().heartbeat()) {
            return;
        }
        let (view, sequence) = (body.view(), body.executed().saturating_add(1));
        let commit = Prepare { epoch: body.epoch(), view, sequence, digest: Batch::empty().digest() }.commit();
        let certificate = body.forge(commit, body.pretended_quorum());
        body.send_all(&Message::Decided(Decided { certificate, batch: Batch::empty().body().clone().into() }));
        let interval = body.configuration().parameters().checkpoint_interval;
        let next = Sequence::new(body.stable().value().saturating_add(interval));
        let checkpoint = Checkpoint { epoch: body.epoch(), sequence: next, root: Digest::from_bytes([3; 32]) };
        let certificate = body.forge(checkpoint, body.pretended_quorum());
        body.send_all(&Message::Stable(certificate));
    }
}
