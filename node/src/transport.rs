//! The node's network: QUIC between replicas, and between clients and replicas (PROTOCOL §4: nothing is buffered before
//! its sender is authenticated, each sender has a quota, and the replica named in a message is the one that the channel
//! authenticated). Frames are opaque bytes here; what they say is the protocol's.
//!
//! Three faces:
//! - [`PeerNetwork`]: a replica and the other replicas, one connection a pair, votes before bulk;
//! - [`ClientServer`]: a replica and its clients, on a port of its own;
//! - [`ReplicaLinks`]: a client and all replicas.
//!
//! Keys are raw Ed25519 keys, pinned; who is not expected is refused in the handshake, before any stream exists. Within
//! the first frame of each stream both sides name version, cluster and lane. Frames of one lane arrive in order, at most
//! once; a link that breaks loses what was under way, and nothing here sends it again: that is the protocol's `Status`.
//!
//! Bulkheads: each link and lane has its own bounded queue for what goes out (a full one drops the new frame) and its own
//! budget for what came in (an exhausted one stops reading, and QUIC makes the sender wait).

mod address;
mod admission;
mod backoff;
#[cfg(feature = "lab")]
pub(crate) mod bare;
mod budget;
mod clients;
mod close;
mod dial;
mod endpoint;
mod flaps;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod identity;
mod lanes;
mod link;
mod peers;
mod per_source;
mod rate;
mod reader;
mod refusals;
mod replicas;
mod status;
#[cfg(test)]
mod tests;
mod tls;

pub use quorate_protocol::number::ReplicaId;

pub use address::{look_up, preferred};
pub use admission::AdmissionLimits;
pub(crate) use admission::host;
pub use backoff::{BACKOFF_CAP, BACKOFF_FLOOR, Backoff};
pub use budget::Permit;
pub use clients::{ClientEvent, ClientLimits, ClientServer, ClientServerOptions, ConnectionId};
pub use close::{CloseReason, HOST_CODE_FIRST, LinkError, Violation};
pub use endpoint::{MTU_DEFAULT, MTU_MAX, MTU_MIN, StartError};
pub use frame::{FRAME_HEADER_BYTES, TRANSPORT_VERSION};
pub use identity::UnusableKey;
pub use lanes::{Dropped, LaneLimits};
pub use link::{ChannelBinding, Deadlines};
pub use peers::{Lane, PeerEvent, PeerLimits, PeerNetwork, PeerOptions};
pub(crate) use per_source::PerSource;
pub use rate::Rate;
pub use refusals::ConnectionRefusal;
pub use replicas::{ReplicaEvent, ReplicaLinkLimits, ReplicaLinks, ReplicaLinksOptions};
pub use status::{LinkPhase, LinkStatus};
pub use tls::{ALPN_CLIENT, ALPN_PEER, AcceptedKeys, TlsError};

/// A replica as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: ReplicaId,
    /// The key that it proves to hold.
    pub key: quorate_crypto::PublicKey,
    /// `host:port`, where it listens: for replicas in a table for [`PeerNetwork`], for clients in one for
    /// [`ReplicaLinks`]. A name is looked up before each dial.
    pub address: String,
}
