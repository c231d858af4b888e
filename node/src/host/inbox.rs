//! What came from peers and waits for the host, each peer's by itself: one that floods waits for itself, not others for it.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_protocol::number::ReplicaId;

use super::turns::Turns;
use crate::transport::{Lane, Permit};

/// A frame of a peer.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) lane: Lane,
    pub(super) bytes: Bytes,
    /// Its share of the peer's budget.
    pub(super) permit: Permit,
}

/// The frames that wait. Bound: of each member what the transport lets it have outstanding.
pub(super) type Inbox = Turns<ReplicaId, VecDeque<Frame>>;
