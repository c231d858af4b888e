//! What replicas sign, under which domain, and the votes that carry the signatures. (PROTOCOL §3)

use quorate_crypto::{Digest, Domain, Signature, hash};

use crate::codec::{Decode, Encode, encode};
use crate::configuration::ClusterId;
use crate::number::{Epoch, ReplicaId, Sequence, View};

/// Something that a replica signs. What is signed is a SHA-256 digest over the domain's tag, the cluster and the
/// statement's fixed-width encoding, so that no signature counts for another purpose or cluster.
pub trait Statement: Encode + Sized {
    /// The purpose that a signature over this statement serves.
    const DOMAIN: Domain;
    /// See [`Statement::subject`].
    type Subject: PartialEq;

    /// What it is about: a correct replica makes one statement of a kind about one subject. (PROTOCOL §2.6)
    fn subject(&self) -> Self::Subject;

    /// What is signed.
    fn signed_digest(&self, cluster: &ClusterId) -> Digest {
        let encoded = encode(self).expect("a statement is a few fixed-width numbers");
        hash(Self::DOMAIN, &[cluster.digest().as_bytes(), &encoded])
    }
}

/// "I accept this batch for this slot in this view."
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Prepare {
    /// The epoch of the view.
    pub epoch: Epoch,
    /// The view in which the batch is accepted.
    pub view: View,
    /// The slot.
    pub sequence: Sequence,
    /// The digest of the batch.
    pub digest: Digest,
}

/// "I hold a prepared certificate for this batch in this slot and view."
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Commit {
    /// The epoch of the view.
    pub epoch: Epoch,
    /// The view of the prepared certificate.
    pub view: View,
    /// The slot.
    pub sequence: Sequence,
    /// The digest of the batch.
    pub digest: Digest,
}

/// "My state after executing this slot has this root."
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Checkpoint {
    /// The epoch in which the slot executed.
    pub epoch: Epoch,
    /// The slot.
    pub sequence: Sequence,
    /// The root of the state after it.
    pub root: Digest,
}

impl Statement for Prepare {
    const DOMAIN: Domain = Domain::Prepare;
    type Subject = (Epoch, View, Sequence);

    fn subject(&self) -> Self::Subject {
        (self.epoch, self.view, self.sequence)
    }
}

impl Statement for Commit {
    const DOMAIN: Domain = Domain::Commit;
    type Subject = (Epoch, View, Sequence);

    fn subject(&self) -> Self::Subject {
        (self.epoch, self.view, self.sequence)
    }
}

impl Statement for Checkpoint {
    const DOMAIN: Domain = Domain::Checkpoint;
    type Subject = (Epoch, Sequence);

    fn subject(&self) -> Self::Subject {
        (self.epoch, self.sequence)
    }
}

impl Prepare {
    /// The commit that a prepared certificate for this statement allows.
    pub const fn commit(&self) -> Commit {
        Commit { epoch: self.epoch, view: self.view, sequence: self.sequence, digest: self.digest }
    }
}

/// One replica's signature over a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Vote<S> {
    /// What is said.
    pub statement: S,
    /// Who says it.
    pub voter: ReplicaId,
    /// The voter's signature over the statement's digest.
    pub signature: Signature,
}

/// What signs for a replica: Ed25519 in the node, an unforgeable stand-in where simulated time is precious.
pub trait Signer: core::fmt::Debug {
    /// The signature over `digest`. The same digest always gets the same signature.
    fn sign(&self, digest: &Digest) -> Signature;
}

impl Signer for quorate_crypto::SigningKey {
    fn sign(&self, digest: &Digest) -> Signature {
        Self::sign(self, digest)
    }
}

impl<S: Statement> Vote<S> {
    /// The vote of `voter` for `statement`.
    pub fn sign(statement: S, voter: ReplicaId, cluster: &ClusterId, signer: &dyn Signer) -> Self {
        let signature = signer.sign(&statement.signed_digest(cluster));
        Self { statement, voter, signature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(byte: u8) -> ClusterId {
        ClusterId::new(Digest::from_bytes([byte; 32]))
    }

    fn prepare() -> Prepare {
        let digest = Digest::from_bytes([7; 32]);
        Prepare { epoch: Epoch::ZERO, view: View::new(1), sequence: Sequence::new(2), digest }
    }

    #[test]
    fn a_prepare_and_a_commit_of_the_same_fields_are_signed_differently() {
        assert_ne!(prepare().signed_digest(&cluster(1)), prepare().commit().signed_digest(&cluster(1)));
    }

    #[test]
    fn every_field_and_the_cluster_are_part_of_what_is_signed() {
        let base = prepare();
        let variants = [
            Prepare { epoch: Epoch::new(1), ..base },
            Prepare { view: View::new(2), ..base },
            Prepare { sequence: Sequence::new(3), ..base },
            Prepare { digest: Digest::from_bytes([8; 32]), ..base },
        ];
        for variant in variants {
            assert_ne!(variant.signed_digest(&cluster(1)), base.signed_digest(&cluster(1)));
        }
        assert_ne!(base.signed_digest(&cluster(1)), base.signed_digest(&cluster(2)));
    }
}
