//! Parts of the state at a checkpoint, as they are asked for and handed out. (PROTOCOL §9)

use quorate_crypto::Digest;

use super::{ENTRY_KEY_BYTES_MAX, PART_ENTRIES_MAX};
use crate::codec::{Blob, BorrowDecode, Encode, Frame, List};
use crate::number::Sequence;
use crate::state::{GROUP_BUCKETS_MAX, GROUPS_MAX, WANTED_BUCKETS_MAX};

/// One entry of a transferred state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Entry {
    /// Its key, of at most [`ENTRY_KEY_BYTES_MAX`] bytes.
    pub key: Blob,
    /// Its value.
    pub value: Blob,
}

/// A part of a state that is asked for. Each can be checked by what was asked for before: the certificate vouches for the
/// crown together with the protocol's own entries, the crown for the leaves, a leaf for its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Want {
    /// The crown of the application's tree: see [`crown_level`](crate::state::crown_level).
    Crown,
    /// The protocol's own entries, in ascending order of their keys.
    Protocol {
        /// Those after this key; the first ones, if there is none. At most [`ENTRY_KEY_BYTES_MAX`] bytes.
        after: Option<Blob>,
    },
    /// The leaves of a group.
    Leaves {
        /// Its place in the crown.
        group: u16,
    },
    /// The entries of buckets of a group, one bucket after the other, each in the order of
    /// [`place_of`](crate::state::place_of).
    Buckets {
        /// The group's place in the crown.
        group: u16,
        /// The buckets' places among its leaves, ascending.
        buckets: List<u16, WANTED_BUCKETS_MAX>,
        /// Of the first bucket those after this key. At most [`ENTRY_KEY_BYTES_MAX`] bytes.
        after: Option<Blob>,
    },
}

/// A part of the state at a stable checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Part {
    /// The checkpoint's slot.
    pub sequence: Sequence,
    /// What was asked for.
    pub want: Want,
    /// What it is.
    pub content: Content,
}

/// What a part holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Content {
    /// To [`Want::Crown`]: its nodes from left to right, one a group.
    Crown(List<Digest, GROUPS_MAX>),
    /// To [`Want::Protocol`].
    Protocol {
        /// As many as fit.
        entries: List<Entry, PART_ENTRIES_MAX>,
        /// Whether there are no more.
        is_last: bool,
    },
    /// To [`Want::Leaves`].
    Leaves(List<Digest, GROUP_BUCKETS_MAX>),
    /// To [`Want::Buckets`].
    Buckets {
        /// As many as fit.
        entries: List<Entry, PART_ENTRIES_MAX>,
        /// How many of the buckets are whole with these. What is left of the entries is of the one after them.
        whole: u16,
    },
}

impl Want {
    /// Whether its key is no longer than any may be.
    pub fn is_within_bounds(&self) -> bool {
        match self {
            Self::Protocol { after } | Self::Buckets { after, .. } => {
                after.as_ref().is_none_or(|after| after.len() <= ENTRY_KEY_BYTES_MAX)
            }
            Self::Crown | Self::Leaves { .. } => true,
        }
    }
}

impl Part {
    /// Whether its keys are no longer than any may be.
    pub fn is_within_bounds(&self) -> bool {
        let entries = match &self.content {
            Content::Protocol { entries, .. } | Content::Buckets { entries, .. } => &entries[..],
            Content::Crown(_) | Content::Leaves(_) => &[],
        };
        self.want.is_within_bounds() && entries.iter().all(|entry| entry.key.len() <= ENTRY_KEY_BYTES_MAX)
    }
}
