//! Connections that were refused, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection from outside was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ConnectionRefusal {
    /// What was shown is no Ed25519 key, or a weak one.
    InvalidKey,
    /// The key is not one that is accepted; dialling: not the expected member's.
    UnknownKey,
    /// The handshake failed otherwise; every refused key leads to one of these as well.
    HandshakeFailed,
    /// The handshake was not finished in time, or before others needed its place.
    HandshakeDeadline,
    /// A member that must wait for being dialled dialled.
    WrongDirection,
    /// Too many connections in total.
    TooManyConnections,
    /// Too many connections from one source.
    TooManyFromSource,
    /// Too many handshakes were begun in a short time, from one source or from all.
    TooManyBegun,
    /// A hello was missing, wrong, or of another version, cluster or lane.
    Hello,
    /// A connection that was silent, or one of too many of its source, gave way to another.
    GaveWay,
    /// It had not proved its address yet: whoever means it does then, and begins again.
    AddressUnproved,
    /// Something came from there that nobody sends by mistake, and it is kept out for a while.
    Offender,
}

impl ConnectionRefusal {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::InvalidKey,
        Self::UnknownKey,
        Self::HandshakeFailed,
        Self::HandshakeDeadline,
        Self::WrongDirection,
        Self::TooManyConnections,
        Self::TooManyFromSource,
        Self::TooManyBegun,
        Self::Hello,
        Self::GaveWay,
        Self::AddressUnproved,
        Self::Offender,
    ];

    /// The name under which metrics show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_key",
            Self::UnknownKey => "unknown_key",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeDeadline => "handshake_deadline",
            Self::WrongDirection => "wrong_direction",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyFromSource => "too_many_from_source",
            Self::TooManyBegun => "too_many_begun",
            Self::Hello => "hello",
            Self::GaveWay => "gave_way",
            Self::AddressUnproved => "address_unproved",
            Self::Offender => "offender",
        }
    }
}

/// A counter for each reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [AtomicU64; ConnectionRefusal::ALL.len()],
}

impl Refusals {
    fn counter(&self, reason: ConnectionRefusal) -> &AtomicU64 {
        let place = ConnectionRefusal::ALL.iter().position(|listed| *listed == reason);
        &self.counts[place.expect("every reason stands in the list of all")]
    }

    pub(crate) fn count(&self, reason: ConnectionRefusal) {
        self.counter(reason).fetch_add(1, Ordering::Relaxed);
        tracing::debug!(reason = reason.name(), "connection refused");
    }

    pub(crate) fn of(&self, reason: ConnectionRefusal) -> u64 {
        self.counter(reason).load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let refusals = Refusals::default();
        for (place, reason) in ConnectionRefusal::ALL.into_iter().enumerate() {
            (0..=place).for_each(|_time| refusals.count(reason));
        }
        for (place, reason) in ConnectionRefusal::ALL.into_iter().enumerate() {
            assert_eq!(refusals.of(reason), place as u64 + 1);
        }
        let names: std::collections::BTreeSet<_> =
            ConnectionRefusal::ALL.into_iter().map(ConnectionRefusal::name).collect();
        assert_eq!(names.len(), ConnectionRefusal::ALL.len());
    }
}
