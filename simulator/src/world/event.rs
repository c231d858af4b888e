//! What can happen at a time.

use bytes::Bytes;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use crate::fingerprint::Fingerprint;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame arrives at a replica.
    Arrival { from: ReplicaId, to: ReplicaId, frame: Bytes },
    /// A client's frame arrives at a replica.
    Call { from: usize, to: ReplicaId, frame: Bytes },
    /// A replica's frame arrives at a client.
    Answer { from: ReplicaId, to: usize, frame: Bytes },
    /// A replica's deadline; nothing, if an earlier one came to stand in its place.
    Wake { to: ReplicaId, incarnation: u64, at: Time },
    /// A client's deadline, likewise.
    WakeClient { client: usize, at: Time },
    /// A standby's question arrives at a member's door.
    Asked { from: ReplicaId, to: ReplicaId, frame: Bytes },
    /// A member's answer arrives at a standby.
    Told { from: ReplicaId, to: ReplicaId, frame: Bytes },
    /// A standby loses its power, or gets it back.
    Stumble { standby: ReplicaId },
    /// A sync of the log ends.
    Synced { to: ReplicaId, incarnation: u64 },
    /// A checkpoint is written.
    Stored { to: ReplicaId, incarnation: u64 },
    /// The application ends the piece of work that it is at.
    Worked { to: ReplicaId, incarnation: u64 },
}

impl Event {
    /// Adds what happens to what happened.
    pub(super) fn fold_into(&self, fingerprint: &mut Fingerprint) {
        let (kind, who) = match self {
            Self::Arrival { to, .. } => (1, u64::from(to.value())),
            Self::Call { to, .. } => (2, u64::from(to.value())),
            Self::Answer { to, .. } => (3, *to as u64),
            Self::Wake { to, .. } => (4, u64::from(to.value())),
            Self::WakeClient { client, .. } => (5, *client as u64),
            Self::Synced { to, .. } => (6, u64::from(to.value())),
            Self::Stored { to, .. } => (7, u64::from(to.value())),
            Self::Worked { to, .. } => (8, u64::from(to.value())),
            Self::Asked { to, .. } => (9, u64::from(to.value())),
            Self::Told { to, .. } => (10, u64::from(to.value())),
            Self::Stumble { standby } => (11, u64::from(standby.value())),
        };
        fingerprint.fold(kind << 32 | who);
        if let Some(frame) = self.frame() {
            fingerprint.fold_bytes(frame);
        }
    }

    /// Whether it concerns a standby alone, in a world of so many members.
    pub(super) const fn is_of_standby(&self, members: usize) -> bool {
        match self {
            Self::Asked { .. } | Self::Told { .. } | Self::Stumble { .. } => true,
            Self::Wake { to, .. } | Self::Synced { to, .. } | Self::Stored { to, .. } | Self::Worked { to, .. } => {
                to.index() >= members
            }
            Self::Arrival { .. } | Self::Call { .. } | Self::Answer { .. } | Self::WakeClient { .. } => false,
        }
    }

    /// The message between members, or of clients and to them, that arrives, if one does.
    pub(super) const fn frame(&self) -> Option<&Bytes> {
        match self {
            Self::Arrival { frame, .. } | Self::Call { frame, .. } | Self::Answer { frame, .. } => Some(frame),
            _ => None,
        }
    }

    /// The replica that the event happens to, and in which of its lives: any, for what comes from outside.
    pub(super) const fn replica(&self) -> Option<(ReplicaId, Option<u64>)> {
        match self {
            Self::Arrival { to, .. } | Self::Call { to, .. } | Self::Asked { to, .. } | Self::Told { to, .. } => {
                Some((*to, None))
            }
            Self::Wake { to, incarnation, .. }
            | Self::Synced { to, incarnation }
            | Self::Stored { to, incarnation }
            | Self::Worked { to, incarnation } => Some((*to, Some(*incarnation))),
            Self::Answer { .. } | Self::WakeClient { .. } | Self::Stumble { .. } => None,
        }
    }
}
