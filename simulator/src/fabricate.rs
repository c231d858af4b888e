//! Statements, records and executions made by hand, for tests of the checkers.

use quorate_crypto::{Digest, Signature};
use quorate_protocol::application::{Executable, Execution};
use quorate_protocol::batch::{Batch, ParsedRequest, Request};
use quorate_protocol::certificate::{Certificate, StableCertificate, VoteSignature};
use quorate_protocol::codec::{Blob, List, encode};
use quorate_protocol::configuration::{ClusterId, Configuration, Parameters};
use quorate_protocol::message::{
    Cast, Message, NamedViewChange, NewView, PrePrepare, Proposal, SignedNewView, SignedViewChange, ViewChange,
    view_change_digest,
};
use quorate_protocol::number::{Epoch, ReplicaId, RequestNumber, Sequence, Session, View};
use quorate_protocol::record::{NewViewRecord, Record};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare, Vote};
use quorate_protocol::time::WallTime;

use crate::signature::{Holder, Notary, Scheme, SharedSigner};

/// Everything in view 0 of epoch 0; batch i holds request i of one client.
pub(crate) struct Fabricated {
    client: quorate_crypto::PublicKey,
    signer: SharedSigner,
}

const SIGNATURE: Signature = Signature::from_bytes([0; 64]);

fn cluster() -> ClusterId {
    ClusterId::new(Digest::from_bytes([1; 32]))
}

pub(crate) fn configuration() -> Configuration {
    crate::cluster::configuration(4, &mut Notary::new(Scheme::Ideal), Parameters::default()).expect("the defaults")
}

fn certificate<S>(statement: S, votes: u8) -> Certificate<S> {
    let votes = (0..votes).map(|voter| VoteSignature { voter: ReplicaId::new(voter), signature: SIGNATURE }).collect();
    Certificate { statement, votes: List::new(votes).expect("a few votes") }
}

impl Fabricated {
    pub(crate) fn new() -> Self {
        let (client, signer) = Notary::new(Scheme::Ideal).key(Holder::Client(0));
        Self { client, signer }
    }

    pub(crate) fn request(&self, number: u64) -> ParsedRequest {
        let request = Request {
            client: self.client,
            session: Session { sequence: Sequence::new(1), index: 0 },
            number: RequestNumber::new(number),
            operations: List::new(vec![Blob::from(&number.to_le_bytes()[..])]).expect("one operation"),
        };
        let signed = request.sign(&cluster(), self.signer.as_ref()).expect("a short request");
        ParsedRequest::new(request, signed)
    }

    fn batch(&self, number: u64) -> Batch {
        Batch::new(WallTime::from_nanoseconds(number), vec![self.request(number)])
    }

    fn prepare_statement(&self, slot: u64, batch: u64) -> Prepare {
        let digest = self.batch(batch).digest();
        Prepare { epoch: Epoch::ZERO, view: View::ZERO, sequence: Sequence::new(slot), digest }
    }

    fn commit_statement(&self, slot: u64, batch: u64) -> Commit {
        self.prepare_statement(slot, batch).commit()
    }

    pub(crate) fn prepare(&self, voter: u8, slot: u64, batch: u64) -> Message {
        let statement = self.prepare_statement(slot, batch);
        Message::Prepare(Vote { statement, voter: ReplicaId::new(voter), signature: SIGNATURE })
    }

    /// The proposal of batch `slot` for slot `slot`.
    pub(crate) fn pre_prepare(&self, primary: u8, slot: u64) -> Message {
        let statement = self.prepare_statement(slot, slot);
        let vote = Vote { statement, voter: ReplicaId::new(primary), signature: SIGNATURE };
        Message::PrePrepare(PrePrepare { vote, batch: self.batch(slot).body().clone().into() })
    }

    pub(crate) fn commit(&self, voter: u8, slot: u64, batch: u64) -> Message {
        let statement = self.commit_statement(slot, batch);
        Message::Commit(Vote { statement, voter: ReplicaId::new(voter), signature: SIGNATURE })
    }

    /// The record that `voter` accepts batch `slot` for slot `slot`.
    pub(crate) fn accepted(&self, voter: u8, slot: u64) -> Record {
        let statement = self.prepare_statement(slot, slot);
        let vote = Vote { statement, voter: ReplicaId::new(voter), signature: SIGNATURE };
        Record::Accepted(vote, Some(self.batch(slot)))
    }

    pub(crate) fn prepared(&self, voter: u8, slot: u64, batch: u64) -> Record {
        let statement = self.commit_statement(slot, batch);
        let vote = Vote { statement, voter: ReplicaId::new(voter), signature: SIGNATURE };
        Record::Prepared(certificate(self.prepare_statement(slot, batch), 3), vote)
    }

    pub(crate) fn committed(&self, slot: u64, batch: u64) -> Record {
        Record::Committed(certificate(self.commit_statement(slot, batch), 3))
    }

    pub(crate) fn checkpoint(voter: u8, slot: u64, root: u8) -> Message {
        let statement = checkpoint_statement(slot, root);
        Message::Checkpoint(Vote { statement, voter: ReplicaId::new(voter), signature: SIGNATURE })
    }

    pub(crate) fn stable(slot: u64, root: u8, votes: u8) -> StableCertificate {
        certificate(checkpoint_statement(slot, root), votes)
    }

    fn signed_view_change(&self, replica: u8, view: u64, prepared: &[u64]) -> SignedViewChange {
        let certificates = prepared.iter().map(|slot| certificate(self.prepare_statement(*slot, *slot), 3)).collect();
        let cast = |slot: &u64| {
            let Prepare { sequence, view, digest, .. } = self.prepare_statement(*slot, *slot);
            Cast { sequence, view, digest }
        };
        let content = ViewChange {
            epoch: Epoch::ZERO,
            view: View::new(view),
            replica: ReplicaId::new(replica),
            stable: None,
            prepared: List::new(certificates).expect("a few slots"),
            cast: List::new(prepared.iter().map(cast).collect()).expect("a few slots"),
        };
        SignedViewChange { body: encode(&content).expect("a short message").into(), signature: SIGNATURE }
    }

    /// The record of the new view `view` on the view changes of 0, 1 and 2, which list certificates for the slots
    /// `prepared`; it proposes batch i for each slot i of `proposed`.
    pub(crate) fn new_view_record(&self, view: u64, prepared: [&[u64]; 3], proposed: &[u64]) -> Record {
        let view_changes: Vec<SignedViewChange> =
            (0..3).zip(prepared).map(|(replica, prepared)| self.signed_view_change(replica, view, prepared)).collect();
        let named = (0..3).zip(&view_changes).map(|(replica, signed)| NamedViewChange {
            replica: ReplicaId::new(replica),
            digest: view_change_digest(&cluster(), &signed.body),
        });
        let proposal = |slot: &u64| {
            let Prepare { sequence, digest, .. } = self.prepare_statement(*slot, *slot);
            Proposal { sequence, digest }
        };
        let content = NewView {
            epoch: Epoch::ZERO,
            view: View::new(view),
            view_changes: List::new(named.collect()).expect("three"),
            proposals: List::new(proposed.iter().map(proposal).collect()).expect("a few slots"),
        };
        let body = encode(&content).expect("a short message").into();
        let new_view = SignedNewView { body, signature: SIGNATURE };
        let view_changes = List::new(view_changes).expect("three");
        Record::NewView(Epoch::ZERO, View::new(view), NewViewRecord { new_view, view_changes })
    }

    pub(crate) fn view_change(&self, replica: u8, view: u64, prepared: &[u64]) -> Message {
        Message::ViewChange(self.signed_view_change(replica, view, prepared))
    }

    pub(crate) fn view_change_record(&self, replica: u8, view: u64, prepared: &[u64]) -> Record {
        Record::ViewChange(Epoch::ZERO, View::new(view), self.signed_view_change(replica, view, prepared))
    }

    /// Request `number` runs alone in slot `slot`.
    pub(crate) fn execution(&self, slot: u64, number: u64) -> Execution {
        let Request { client, session, number, operations } = self.request(number).request;
        let request = Executable { client, session, number, index: 0, operations };
        Execution { sequence: Sequence::new(slot), time: WallTime::ZERO, requests: vec![request] }
    }
}

fn checkpoint_statement(slot: u64, root: u8) -> Checkpoint {
    Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(slot), root: Digest::from_bytes([root; 32]) }
}
