//! Shows what the same members said in another cluster: decisions, checkpoints and prepared certificates, each with a
//! quorum of true signatures. (commonware, the tests of a bad namespace in consensus/src/simplex/mod.rs; EIP-155 on replays
//! between chains; PROTOCOL §3)
//!
//! It breaks a system that leaves the cluster out of what is signed: two clusters whose operators used the same keys are
//! then one. Correct replicas sign the cluster's identity with every statement.

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Decided, Message};
use quorate_protocol::number::Sequence;
use quorate_protocol::statement::{Checkpoint, Commit};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Shows a decision and a checkpoint of there all the time.
#[derive(Debug, Default)]
pub(super) struct AnotherCluster {
    last: Option<Time>,
}

impl Strategy for AnotherCluster {
    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, body.configuration().parameters().heartbeat()) {
            return;
        }
        let (elsewhere, quorum) = (body.elsewhere(), body.pretended_quorum());
        let sequence = body.executed().saturating_add(1);
        let commit = Commit { epoch: body.epoch(), view: body.view(), sequence, digest: Batch::empty().digest() };
        let certificate = elsewhere.certificate(commit, quorum.iter().copied());
        body.send_all(&Message::Decided(Decided { certificate, batch: Batch::empty().body().clone().into() }));
        let interval = body.configuration().parameters().checkpoint_interval;
        let next = Sequence::new(body.stable().value().saturating_add(interval));
        let checkpoint = Checkpoint { epoch: body.epoch(), sequence: next, root: Digest::from_bytes([4; 32]) };
        body.send_all(&Message::Stable(elsewhere.certificate(checkpoint, quorum)));
    }
}
