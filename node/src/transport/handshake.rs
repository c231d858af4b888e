//! Takes handshakes from outside: once the address is proved, through the gate, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint};
use quorate_crypto::PublicKey;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::transport::admission::{Admission, Gate, Ticket};
use crate::transport::identity::of_peer;
use crate::transport::refusals::{ConnectionRefusal, Refusals};

/// Somebody whose key was proved and accepted. No stream of theirs was read yet.
pub(crate) struct Arrival {
    pub(crate) connection: Connection,
    pub(crate) key: PublicKey,
    /// The connection's place at the gate, until this is dropped.
    pub(crate) ticket: Ticket,
}

/// Accepts for as long as the endpoint is open; `settle` takes each arrival.
pub(crate) async fn accept_all<F, S>(
    endpoint: Endpoint,
    gate: Arc<Gate>,
    patience: Duration,
    refusals: Arc<Refusals>,
    settle: F,
) where
    F: Fn(Arrival) -> S + Clone + Send + Sync + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    // At most as many tasks as the gate gives tickets.
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let Some((incoming, ticket)) = admit(&gate, &refusals, incoming) else { continue };
                let (refusals, settle) = (Arc::clone(&refusals), settle.clone());
                handshakes.spawn(async move {
                    let Some(arrival) = greet(incoming, patience, ticket, &refusals).await else { return };
                    settle(arrival).await;
                });
            }
            Some(_finished) = handshakes.join_next() => {}
        }
    }
}

fn admit(gate: &Arc<Gate>, refusals: &Refusals, incoming: quinn::Incoming) -> Option<(quinn::Incoming, Ticket)> {
    // An address that is not proved may be forged. What follows takes a signature and a place, and QUIC would answer with a little
    // more than three times what came.
    if !incoming.remote_address_validated() {
        refusals.count(ConnectionRefusal::AddressUnproved);
        drop(incoming.retry());
        return None;
    }
    let refusal = match gate.admit(incoming.remote_address()) {
        Admission::Admit(ticket) => return Some((incoming, ticket)),
        Admission::RefuseTotal => ConnectionRefusal::TooManyConnections,
        Admission::RefuseSource => ConnectionRefusal::TooManyFromSource,
        Admission::RefuseRate => ConnectionRefusal::TooManyBegun,
        Admission::RefuseOffender => ConnectionRefusal::Offender,
    };
    refusals.count(refusal);
    incoming.refuse();
    None
}

/// Finishes a handshake. The verifier of TLS has checked the key against those accepted by then.
async fn greet(
    incoming: quinn::Incoming,
    patience: Duration,
    mut ticket: Ticket,
    refusals: &Refusals,
) -> Option<Arrival> {
    let finished = tokio::select! {
        biased;
        finished = timeout(patience, incoming) => finished.ok(),
        () = ticket.gives_way() => None,
    };
    let refusal = match finished {
        Some(Ok(connection)) => match of_peer(&connection) {
            Some(key) if ticket.try_settle() => return Some(Arrival { connection, key, ticket }),
            Some(_key) => ConnectionRefusal::HandshakeDeadline,
            None => ConnectionRefusal::InvalidKey,
        },
        Some(Err(error)) => {
            tracing::debug!(%error, "handshake failed");
            ConnectionRefusal::HandshakeFailed
        }
        None => ConnectionRefusal::HandshakeDeadline,
    };
    refusals.count(refusal);
    None
}
