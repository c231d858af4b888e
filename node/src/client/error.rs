//! What can go wrong between a client and the replicas, said so that somebody can mend it.

use std::fmt;
use std::io;
use std::time::Duration;

use quorate_protocol::client::ClientError as SessionError;
use quorate_protocol::number::ReplicaId;

use super::CLIENTS_MAX;
use crate::transport::{LinkError, StartError};

/// Why there is no connection at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No address of the configuration leads anywhere.
    #[error("no replica's address can be looked up, such as {address}")]
    Address {
        /// The address.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The socket or TLS could not be set up.
    #[error("cannot open a connection")]
    Start(#[source] StartError),
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The session gave the request up.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No replica is reached.
    #[error("no replica can be reached: {0}")]
    Unreachable(Reachability),
    /// Some replicas are reached, but they did not agree on an answer in time.
    #[error("no answer within {patience:?}; {reachability}")]
    TimedOut {
        /// How long was waited.
        patience: Duration,
        /// Who is reached.
        reachability: Reachability,
    },
    /// A replica answered with something that has no meaning.
    #[error("replica {replica} answered with something that has no meaning")]
    Nonsense {
        /// Which.
        replica: ReplicaId,
    },
    /// No replica proved what a key held.
    #[error("no replica proves it: {}", list(failures))]
    NoProof {
        /// What each replica answered.
        failures: Vec<(ReplicaId, String)>,
    },
    /// A standby answers no reads now.
    #[error("the standby of replica {replica} answers no reads now: `quorate status --standby` shows how it is")]
    NotRead {
        /// In whose place it stands.
        replica: ReplicaId,
    },
    /// Another key has no room.
    #[error("{CLIENTS_MAX} keys have sessions on this connection already")]
    TooManyClients,
    /// The connection was closed.
    #[error("the connection is closed")]
    Closed,
}

impl ClientError {
    /// Whether the operations may have been executed, or may be later: if not, they can be submitted again without harm.
    pub fn may_have_executed(&self) -> bool {
        match self {
            Self::Session(error) => matches!(error, SessionError::OutcomeUnknown | SessionError::ReplyLost),
            Self::Unreachable(_) | Self::TimedOut { .. } | Self::Nonsense { .. } | Self::Closed => true,
            Self::TooManyClients | Self::NoProof { .. } | Self::NotRead { .. } => false,
        }
    }
}

fn list(failures: &[(ReplicaId, String)]) -> String {
    let said: Vec<String> = failures.iter().map(|(replica, said)| format!("replica {replica}: {said}")).collect();
    said.join(", ")
}

/// Which replicas are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachability {
    /// All replicas, by number.
    pub replicas: Vec<ReplicaReach>,
}

/// Whether one replica is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReach {
    /// Which.
    pub replica: ReplicaId,
    /// Where it should listen for clients, as the configuration names it.
    pub address: String,
    /// Whether the link is up.
    pub is_reached: bool,
    /// Why the link went down or did not come up, the last time.
    pub last_error: Option<LinkError>,
}

impl Reachability {
    /// How many replicas are reached.
    pub fn reached(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.is_reached).count()
    }

    /// Why `replica` gave no answer.
    pub fn reason(&self, replica: ReplicaId) -> String {
        let reach = self.replicas.iter().find(|reach| reach.replica == replica);
        match reach.map(|reach| (reach.is_reached, &reach.last_error)) {
            Some((false, Some(error))) => error.to_string(),
            Some((true, _)) => "reached, but it does not answer".to_owned(),
            Some((false, None)) | None => "no answer".to_owned(),
        }
    }
}

impl fmt::Display for Reachability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reached() > 0 {
            write!(formatter, "{} of {} replicas are reached", self.reached(), self.replicas.len())?;
        }
        let mut separator = if self.reached() > 0 { ", not " } else { "" };
        for ReplicaReach { replica, address, last_error, .. } in self.replicas.iter().filter(|reach| !reach.is_reached)
        {
            write!(formatter, "{separator}replica {replica} at {address}")?;
            match last_error {
                Some(error) => write!(formatter, " ({error})")?,
                None => write!(formatter, " (no answer)")?,
            }
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(index: u8, is_reached: bool, last_error: Option<LinkError>) -> ReplicaReach {
        let address = format!("127.0.0.1:{}", 4100 + u16::from(index));
        ReplicaReach { replica: ReplicaId::new(index), address, is_reached, last_error }
    }

    #[test]
    fn whoever_is_not_reached_is_named_with_address_and_reason() {
        let replicas = vec![reach(0, true, None), reach(1, false, Some(LinkError::TimedOut)), reach(2, false, None)];
        let shown = Reachability { replicas }.to_string();
        let expected = "1 of 3 replicas are reached, not replica 1 at 127.0.0.1:4101 (timed out), \
                        replica 2 at 127.0.0.1:4102 (no answer)";
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_what_surely_never_executes_may_be_submitted_again() {
        assert!(!ClientError::from(SessionError::QueueFull).may_have_executed());
        assert!(!ClientError::from(SessionError::Refused).may_have_executed());
        assert!(ClientError::from(SessionError::OutcomeUnknown).may_have_executed());
        assert!(ClientError::from(SessionError::ReplyLost).may_have_executed());
        assert!(ClientError::Unreachable(Reachability { replicas: vec![] }).may_have_executed());
    }
}
