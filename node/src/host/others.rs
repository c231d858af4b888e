//! How a replica reaches the others: a member by its links to them, a standby through the door that they keep for clients.

use bytes::Bytes;
use quorate_protocol::codec::Blob;
use quorate_protocol::message::{ClientMessage, Fetch, Message, ReplicaMessage, from_frame, to_frame};
use quorate_protocol::number::ReplicaId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::carry_out;
use crate::transport::{CloseReason, Lane, LinkStatus, PeerEvent, PeerNetwork, ReplicaEvent, ReplicaLinks};

/// The links to the other replicas.
pub(super) enum Others {
    /// Those of a member.
    Members(PeerNetwork),
    /// Those of a standby.
    Doors(Doors),
}

/// A standby's links, which are those of a client.
pub(super) struct Doors {
    links: ReplicaLinks,
    /// Hands on what comes.
    listening: JoinHandle<()>,
}

impl Doors {
    /// What comes by `links` goes on to `events` as if it came from peers.
    pub(super) fn new(
        links: ReplicaLinks,
        mut received: mpsc::Receiver<ReplicaEvent>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Self {
        let listening = tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                if let Some(event) = as_of_peer(event)
                    && events.send(event).await.is_err()
                {
                    return;
                }
            }
        });
        Self { links, listening }
    }
}

/// What a replica says at its clients' door as what a peer says; nothing if it is no answer to a standby.
fn as_of_peer(event: ReplicaEvent) -> Option<PeerEvent> {
    match event {
        ReplicaEvent::Up { replica, .. } => Some(PeerEvent::Up(replica)),
        ReplicaEvent::Down { replica, reason } => Some(PeerEvent::Down(replica, reason)),
        ReplicaEvent::Frame { from, bytes, permit } => match from_frame::<ReplicaMessage>(&bytes) {
            Ok(ReplicaMessage::Standby(frame)) => {
                Some(PeerEvent::Frame { from, lane: Lane::Bulk, bytes: frame.into_bytes(), permit })
            }
            // Not worth more than to be forgotten: it is bounded like all that comes by this link.
            Ok(_) | Err(_) => None,
        },
    }
}

/// Whether members hear it from a standby, too.
fn is_for_standbys(message: &Message) -> bool {
    matches!(message, Message::Status(_) | Message::Fetch(Fetch::Decided { .. }))
}

impl Others {
    /// Sends a message, whose frame this is. What does not go out is counted by the transport.
    pub(super) fn send(&self, to: ReplicaId, message: &Message, frame: Bytes) {
        match self {
            Self::Members(network) => drop(network.send(to, carry_out::lane(message), frame)),
            Self::Doors(Doors { links, .. }) if is_for_standbys(message) => {
                if let Ok(frame) = to_frame(&ClientMessage::Standby(Blob::from(frame))) {
                    links.send(to, frame).ok();
                }
            }
            Self::Doors(_) => {}
        }
    }

    /// Whether a message may come by that lane: by the one door of a standby comes everything.
    pub(super) fn comes_by(&self, message: &Message, lane: Lane) -> bool {
        match self {
            Self::Members(_) => carry_out::lane(message) == lane,
            Self::Doors(_) => true,
        }
    }

    /// Disconnects a peer, which may come back. A standby goes on hearing it, and takes nothing of it meanwhile.
    pub(super) fn close(&self, peer: ReplicaId, reason: CloseReason) {
        match self {
            Self::Members(network) => network.close(peer, reason),
            Self::Doors(_) => {}
        }
    }

    /// All links, in the order of the replicas.
    pub(super) fn links(&self) -> Vec<LinkStatus> {
        match self {
            Self::Members(network) => network.links(),
            Self::Doors(Doors { links, .. }) => links.links(),
        }
    }

    /// Whether this is a standby's.
    pub(super) const fn are_doors(&self) -> bool {
        matches!(self, Self::Doors(_))
    }

    /// Tells the others and ends.
    pub(super) async fn shutdown(self) {
        match self {
            Self::Members(network) => network.shutdown().await,
            Self::Doors(Doors { links, listening }) => {
                links.shutdown().await;
                listening.abort();
            }
        }
    }
}
