//! Takes handshakes from outside: through the gate, with a retry where an address has to be proved, within a deadline.

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
}

/// Accepts for as long as the endpoint is open; `settle` takes each arrival and lives as long as it occupies its place at
/// the gate.
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
                    let mut ticket = ticket;
                    let Some(arrival) = greet(incoming, patience, &mut ticket, &refusals).await else { return };
                    settle(arrival).await;
                });
            }
            Some(_finished) = handshakes.join_next() => {}
        }
    }
}

fn admit(gate: &Arc<Gate>, refusals: &Refusals, incoming: quinn::Incoming) -> Option<(quinn::Incoming, Ticket)> {
    let refusal = match gate.admit(incoming.remote_address(), incoming.remote_address_validated()) {
        Admission::Admit(ticket) => return Some((incoming, ticket)),
        Admission::Retry => {
            // Only who has proved its address cannot be asked to; then the gate does not say `Retry`.
            drop(incoming.retry());
            return None;
        }
        Admission::RefuseTotal => ConnectionRefusal::TooManyConnections,
        Admission::RefuseSource => ConnectionRefusal::TooManyFromSource,
    };
    refusals.count(refusal);
    incoming.refuse();
    None
}

/// Finishes a handshake. The verifier of TLS has checked the key against those accepted by then.
async fn greet(
    incoming: quinn::Incoming,
    patience: Duration,
    ticket: &mut Ticket,
    refusals: &Refusals,
) -> Option<Arrival> {
    let finished = tokio::select! {
        biased;
        finished = timeout(patience, incoming) => finished.ok(),
        () = ticket.gives_way() => None,
    };
    let refusal = match finished {
        Some(Ok(connection)) => match of_peer(&connection) {
            Some(key) if ticket.try_settle() => return Some(Arrival { connection, key }),
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
