//! Another cluster, run with the same keys: whatever is signed there, an adversary may hear. (PROTOCOL §3, the cluster's
//! identity)
//!
//! There the members say anything, each as a correct one of that cluster may: so everything that an adversary wants is signed,
//! for that cluster.

use core::fmt;
use std::sync::Arc;

use quorate_crypto::{Digest, Domain, hash};
use quorate_protocol::certificate::{Certificate, VoteSignature};
use quorate_protocol::codec::List;
use quorate_protocol::configuration::ClusterId;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::statement::{Signer, Statement};

/// The other cluster.
#[derive(Clone, Default)]
pub struct Elsewhere {
    /// By replica.
    signers: Vec<Arc<dyn Signer + Send + Sync>>,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Elsewhere").finish_non_exhaustive()
    }
}

impl Elsewhere {
    /// A cluster of members with these keys, in the order of their numbers.
    pub const fn new(signers: Vec<Arc<dyn Signer + Send + Sync>>) -> Self {
        Self { signers }
    }

    /// What its members say there, all of `voters` together.
    pub fn certificate<S: Statement>(
        &self,
        statement: S,
        voters: impl IntoIterator<Item = ReplicaId>,
    ) -> Certificate<S> {
        let digest: Digest = statement.signed_digest(&cluster());
        let vote = |voter: ReplicaId| {
            let signer = self.signers.get(voter.index())?;
            Some(VoteSignature { voter, signature: signer.sign(&digest) })
        };
        let votes = voters.into_iter().filter_map(vote).collect();
        Certificate { statement, votes: List::new(votes).unwrap_or_else(List::empty) }
    }
}

/// Its identity, which no simulated cluster has.
fn cluster() -> ClusterId {
    ClusterId::new(hash(Domain::Genesis, &[b"another cluster"]))
}
