//! Leaves a view with what it once knew: old certificates, of low views and long past slots. (Castro and Liskov, OSDI 1999,
//! section 4.4: the certificate of the highest view counts; concord-bft, pull request 509; PROTOCOL §7.3)
//!
//! It breaks a system that takes the first certificate found, or that of the lowest view, or the lowest checkpoint: a
//! batch that was given up comes back in the place of a decided one. Correct replicas take the highest view of each slot
//! and the highest stable checkpoint of all, whoever brings them.

use std::collections::BTreeMap;

use quorate_protocol::certificate::PreparedCertificate;
use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Message, ViewChange};
use quorate_protocol::number::{ReplicaId, Sequence};

use super::{Body, Strategy};

/// Lists the oldest that its view change may hold.
#[derive(Debug, Default)]
pub(super) struct StaleCertificates {
    /// By slot, the certificate of the lowest view that it ever saw. Bound: [`SLOTS_MAX`].
    oldest: BTreeMap<Sequence, PreparedCertificate>,
}

/// Slots of which it remembers certificates.
const SLOTS_MAX: usize = 512;

impl StaleCertificates {
    fn collect(&mut self, body: &Body) {
        for certificate in &body.seen.certificates {
            let sequence = certificate.statement.sequence;
            let oldest = self.oldest.entry(sequence).or_insert_with(|| certificate.clone());
            if certificate.statement.view < oldest.statement.view {
                oldest.clone_from(certificate);
            }
        }
        while self.oldest.len() > SLOTS_MAX {
            self.oldest.pop_last();
        }
    }
}

impl Strategy for StaleCertificates {
    fn outgoing(&mut self, body: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        let Message::ViewChange(signed) = &message else { return Some(message) };
        let content: ViewChange = decode(signed.body.bytes()).ok()?;
        if content.replica != body.id() {
            return Some(message);
        }
        self.collect(body);
        // Without a stable certificate the window begins at the first slot: it must end where certificates may stand.
        let stable = body.seen.stable.front().filter(|_| body.view().value().is_multiple_of(2)).cloned();
        let low = stable.as_ref().map_or(Sequence::ZERO, |certificate| certificate.statement.sequence);
        let high = low.saturating_add(body.configuration().parameters().window);
        let listed = self.oldest.range(low.saturating_add(1)..=high);
        let prepared = listed.map(|(_, certificate)| certificate.clone());
        let prepared: Vec<_> = prepared.filter(|certificate| certificate.statement.view < content.view).collect();
        let content = ViewChange { stable, prepared: List::new(prepared)?, cast: List::empty(), ..content };
        body.sign_view_change(&content).map(Message::ViewChange)
    }
}
