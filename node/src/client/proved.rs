//! Reads that one replica answers: it shows the value with its path to a root, and a quorum's signatures on the root. So
//! the answer is correct though the replica may lie, and as old as that checkpoint. (PROTOCOL §8, proved reads)

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_protocol::codec::{Blob, CodecError, decode};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::ReplicaMessage;
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::replica::state_root;
use quorate_protocol::state::{InvalidProof, Proof};
use tokio::time::{Instant, timeout_at};

use super::Connection;
use super::error::ClientError;
use super::pending::Question;
use crate::certificates::is_stable;

/// How long one replica may take before the next one is asked.
const PATIENCE_WITH_ONE: Duration = Duration::from_millis(500);

/// What a key held at a stable checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The value, if there was one.
    pub value: Option<Blob>,
    /// The checkpoint's slot.
    pub sequence: Sequence,
    /// The replica that showed it.
    pub by: ReplicaId,
}

/// Why what a replica showed proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// No checkpoint is stable there yet.
    #[error("no checkpoint is stable yet")]
    NothingStable,
    /// The checkpoint is older than asked.
    #[error("its stable checkpoint is that of slot {found}")]
    TooOld {
        /// The checkpoint's slot.
        found: Sequence,
    },
    /// The certificate is not one of this configuration, or its signatures are not valid.
    #[error("its certificate is not valid")]
    Certificate,
    /// The root that is certified is made of something else.
    #[error("its certificate is that of another state")]
    OtherState,
    /// The proof is none.
    #[error("its proof is malformed")]
    Malformed(#[source] CodecError),
    /// The proof does not lead to the root, or shows another value.
    #[error("its proof is wrong")]
    Proof(#[source] InvalidProof),
}

impl Connection {
    /// What `key` held at a stable checkpoint at or after `oldest`: asks one replica after another, from a random one on, until one
    /// proves it, and those that did not answer again.
    ///
    /// # Errors
    /// [`ClientError::NoProof`], with what each replica answered, if none did within `patience`;
    /// [`ClientError::Unreachable`] if none is reached.
    pub async fn get_proved(&self, key: &[u8], oldest: Sequence, patience: Duration) -> Result<Proved, ClientError> {
        let deadline = Instant::now() + patience;
        let query = Blob::from(key);
        let reached = self.handle.reached.clone();
        if timeout_at(deadline, reached.clone().wait_for(|reached| *reached > 0)).await.is_err() {
            return Err(self.handle.too_late(patience).await);
        }
        let mut replicas: VecDeque<ReplicaId> = self.linked().collect();
        // Without randomness the first is asked first.
        let first = getrandom::u32().unwrap_or_default() as usize % replicas.len().max(1);
        replicas.rotate_left(first);
        let mut failures = BTreeMap::new();
        while let Some(replica) = replicas.pop_front() {
            let left = deadline.saturating_duration_since(Instant::now());
            let question = Question::Proof { query: query.clone() };
            let Some(message) = self.handle.ask(replica, question, PATIENCE_WITH_ONE.min(left)).await? else {
                failures.insert(replica, "no answer".to_owned());
                if left > PATIENCE_WITH_ONE {
                    replicas.push_back(replica);
                }
                continue;
            };
            match check(self.configuration(), key, oldest, message) {
                Ok((value, sequence)) => return Ok(Proved { value, sequence, by: replica }),
                Err(error) => failures.insert(replica, error.to_string()),
            };
        }
        Err(ClientError::NoProof { failures: failures.into_iter().collect() })
    }
}

/// What the message proves that `key` held, and when.
fn check(
    configuration: &Configuration,
    key: &[u8],
    oldest: Sequence,
    message: ReplicaMessage,
) -> Result<(Option<Blob>, Sequence), ProofError> {
    let ReplicaMessage::Proved { certificate: Some(certificate), state, proof, .. } = message else {
        return Err(ProofError::NothingStable);
    };
    let sequence = certificate.statement.sequence;
    if sequence < oldest {
        return Err(ProofError::TooOld { found: sequence });
    }
    if !is_stable(configuration, &certificate) {
        return Err(ProofError::Certificate);
    }
    if state_root(&state) != certificate.statement.root {
        return Err(ProofError::OtherState);
    }
    let proof: Proof = decode(proof.bytes()).map_err(ProofError::Malformed)?;
    let value = proof.verify(&state.application, key).map_err(ProofError::Proof)?;
    Ok((value.cloned(), sequence))
}

#[cfg(test)]
mod tests {
    use quorate_crypto::{Digest, SigningKey};
    use quorate_protocol::certificate::StableCertificate;
    use quorate_protocol::codec::{List, encode};
    use quorate_protocol::configuration::{ClusterId, Member, Parameters};
    use quorate_protocol::message::StateRoot;
    use quorate_protocol::number::{Epoch, RequestNumber};
    use quorate_protocol::state::StateMap;
    use quorate_protocol::statement::{Checkpoint, Vote};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32])
    }

    fn configuration() -> Configuration {
        let member = |seed| Member {
            key: key(seed).public_key(),
            peer_address: "peer:1".to_owned(),
            client_address: "client:1".to_owned(),
        };
        let members = List::new((0..4).map(member).collect()).unwrap();
        let cluster = ClusterId::new(Digest::from_bytes([1; 32]));
        Configuration::new(cluster, members, Parameters::default()).unwrap()
    }

    /// The answer of a replica whose checkpoint at `sequence` the replicas `voters` signed.
    fn proved(sequence: u64, voters: &[u8]) -> ReplicaMessage {
        let mut map = StateMap::new(4);
        map.insert(b"greeting", b"hello");
        let state = StateRoot { application: map.checkpoint().root, protocol: Digest::from_bytes([5; 32]) };
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(sequence), root: state_root(&state) };
        let cluster = *configuration().cluster();
        let votes: Vec<_> =
            voters.iter().map(|voter| Vote::sign(statement, ReplicaId::new(*voter), &cluster, &key(*voter))).collect();
        let certificate = StableCertificate::collect(statement, votes.iter(), voters.len());
        let proof = encode(&map.prove(b"greeting").unwrap()).unwrap().into();
        ReplicaMessage::Proved { number: RequestNumber::new(1), certificate, state, proof }
    }

    fn checked(message: ReplicaMessage) -> Result<Option<Vec<u8>>, ProofError> {
        let value = check(&configuration(), b"greeting", Sequence::new(128), message)?.0;
        Ok(value.map(|value| value.to_vec()))
    }

    #[test]
    fn a_value_under_a_certified_root_is_believed() {
        assert_eq!(checked(proved(256, &[0, 1, 3])), Ok(Some(b"hello".to_vec())));
    }

    #[test]
    fn an_older_checkpoint_than_asked_or_none_is_refused() {
        let younger = check(&configuration(), b"greeting", Sequence::new(257), proved(256, &[0, 1, 3]));
        assert_eq!(younger, Err(ProofError::TooOld { found: Sequence::new(256) }));
        let ReplicaMessage::Proved { number, state, proof, .. } = proved(256, &[0, 1, 3]) else { panic!("a proof") };
        let nothing = ReplicaMessage::Proved { number, certificate: None, state, proof };
        assert_eq!(checked(nothing), Err(ProofError::NothingStable));
    }

    #[test]
    fn too_few_votes_or_one_that_is_forged_prove_nothing() {
        assert_eq!(checked(proved(256, &[0, 1])), Err(ProofError::Certificate));
        assert_eq!(checked(proved(257, &[0, 1, 2])), Err(ProofError::Certificate), "no checkpoint is taken there");
        let (mut forged, other) = (proved(256, &[0, 1, 3]), proved(384, &[0, 1, 3]));
        let (
            ReplicaMessage::Proved { certificate: Some(certificate), .. },
            ReplicaMessage::Proved { certificate: Some(other), .. },
        ) = (&mut forged, other)
        else {
            panic!("proofs");
        };
        certificate.votes = other.votes;
        assert_eq!(checked(forged), Err(ProofError::Certificate));
    }

    #[test]
    fn another_state_or_another_key_than_the_certified_one_proves_nothing() {
        let mut message = proved(256, &[0, 1, 3]);
        let ReplicaMessage::Proved { state, .. } = &mut message else { panic!("a proof") };
        state.protocol = Digest::from_bytes([6; 32]);
        assert_eq!(checked(message), Err(ProofError::OtherState));
        let other_key = check(&configuration(), b"other", Sequence::ZERO, proved(256, &[0, 1, 3]));
        assert!(matches!(other_key, Err(ProofError::Proof(_))));
        let mut message = proved(256, &[0, 1, 3]);
        let ReplicaMessage::Proved { proof, .. } = &mut message else { panic!("a proof") };
        *proof = Blob::EMPTY;
        assert!(matches!(checked(message), Err(ProofError::Malformed(_))));
    }
}
