//! The protocol's numbers, each a type of its own, so that no two kinds can be confused.
//!
//! None converts from a bare integer implicitly, and arithmetic that could leave the range is checked.

use core::fmt;

use crate::codec::{Decode, Encode};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        pub struct $name(u64);

        impl $name {
            /// The first of its kind.
            pub const ZERO: Self = Self(0);

            /// The number `value`.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The bare value, for display, storage and arithmetic at the edges.
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The next number, or `None` at the end of the range.
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The number `count` further on, or the last one of the range.
            #[must_use]
            pub const fn saturating_add(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// The number `count` before, or zero.
            #[must_use]
            pub const fn saturating_sub(self, count: u64) -> Self {
                Self(self.0.saturating_sub(count))
            }

            /// How many steps `self` lies after `earlier`; zero if it does not.
            pub const fn distance_from(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

number! {
    /// A numbered term within an epoch that has one primary. (PROTOCOL §1)
    View
}
number! {
    /// A slot in the total order, counted on over epochs. Zero is stable by the genesis. (PROTOCOL §1)
    Sequence
}
number! {
    /// A numbered configuration. (PROTOCOL §1)
    Epoch
}
number! {
    /// A client's own number of a request within its session. (PROTOCOL §4.1)
    RequestNumber
}
number! {
    /// Which life of a member's log its votes come from: a log that lost votes is another one from then on. (PROTOCOL §9)
    Incarnation
}

number! {
    /// The place of a record in one replica's write-ahead log.
    RecordNumber
}

impl Sequence {
    /// Whether this slot is one at which a checkpoint is taken. (PROTOCOL §5)
    pub const fn is_checkpoint(self, interval: u64) -> bool {
        self.0 != 0 && self.0.is_multiple_of(interval)
    }
}

/// The index of a member in the configuration, below [`ReplicaId::COUNT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ReplicaId(pub u8);

impl ReplicaId {
    /// Most members of a configuration: a set of members fits the bits of a `u32`, and f is 10.
    pub const COUNT_MAX: usize = 31;

    /// The member with this index.
    pub const fn new(index: u8) -> Self {
        Self(index)
    }

    /// The member's index in the configuration.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The member's index as the byte that stands on the wire.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// All members of a configuration of `count`.
    pub fn all(count: usize) -> impl DoubleEndedIterator<Item = Self> + Clone {
        let count = u8::try_from(count.min(Self::COUNT_MAX)).unwrap_or(u8::MAX);
        (0..count).map(Self)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// The slot and place in it where a session's opening executed: its name. (PROTOCOL §4.1)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Session {
    /// The slot of the opening; zero only in [`Session::NONE`] and [`Session::REJOIN`].
    pub sequence: Sequence,
    /// The index of the opening in its batch.
    pub index: u32,
}

impl Session {
    /// What a request names that opens a session.
    pub const NONE: Self = Self { sequence: Sequence::ZERO, index: 0 };

    /// What a member names that lost votes and wants to vote again. (PROTOCOL §9)
    pub const REJOIN: Self = Self { sequence: Sequence::ZERO, index: 1 };
}

impl fmt::Display for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.sequence, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_has_no_next() {
        assert_eq!(View::new(u64::MAX).next(), None);
        assert_eq!(View::new(7).next(), Some(View::new(8)));
    }

    #[test]
    fn slot_zero_is_no_checkpoint_of_its_own() {
        assert!(!Sequence::ZERO.is_checkpoint(128));
        assert!(Sequence::new(256).is_checkpoint(128));
        assert!(!Sequence::new(257).is_checkpoint(128));
    }
}
