//! In which order the parts of a whole state are asked for: the protocol's own entries, then group after group.

use quorate_crypto::Digest;
use quorate_crypto::merkle::above;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Content, Entry, PART_ENTRIES_MAX, Want};
use quorate_protocol::state::{DEPTH, WANTED_BUCKETS_MAX, bucket_of, crown_level};

use super::take::Fault;
use crate::storage::checkpoint::Map;

/// Buckets of a group.
const BUCKETS: u16 = 1 << (DEPTH - crown_level(DEPTH));

/// How far a state is asked for.
#[derive(Debug)]
pub(super) enum Wants {
    /// The protocol's own entries, after this key.
    Protocol(Option<Blob>),
    Crown,
    /// The buckets of a group, from one on, after this key.
    Group {
        group: u16,
        first: u16,
        after: Option<Blob>,
        /// Groups after it in which there is something. Bound: as many as the crown has nodes.
        others: Vec<u16>,
    },
    Nothing,
}

impl Default for Wants {
    fn default() -> Self {
        Self::Protocol(None)
    }
}

impl Wants {
    /// What to ask for now; nothing if all is here.
    pub(super) fn next(&self) -> Option<Want> {
        match self {
            Self::Protocol(after) => Some(Want::Protocol { after: after.clone() }),
            Self::Crown => Some(Want::Crown),
            Self::Group { group, first, after, .. } => {
                let buckets = List::new((*first..BUCKETS).take(WANTED_BUCKETS_MAX).collect())?;
                Some(Want::Buckets { group: *group, buckets, after: after.clone() })
            }
            Self::Nothing => None,
        }
    }

    /// Takes what was asked for, of a state whose application has this root; gives the entries in it.
    ///
    /// # Errors
    /// [`Fault`]: it is something else, or leads nowhere.
    pub(super) fn take(
        &mut self,
        content: Content,
        root: &Digest,
    ) -> Result<(Map, List<Entry, PART_ENTRIES_MAX>), Fault> {
        match (&*self, content) {
            (Self::Protocol(_), Content::Protocol { entries, is_last }) => {
                let last = entries.last().map(|entry| entry.key.clone());
                if last.is_none() && !is_last {
                    return Err(Fault::Lies("a part leads nowhere"));
                }
                *self = if is_last { Self::Crown } else { Self::Protocol(last) };
                Ok((Map::Protocol, entries))
            }
            (Self::Crown, Content::Crown(groups)) => {
                if groups.len() != 1 << crown_level(DEPTH) || above(&groups) != Some(*root) {
                    return Err(Fault::Lies("the crown is of another state"));
                }
                let empty = above(&vec![Digest::ZERO; BUCKETS.into()]);
                let filled = (0..).zip(&groups[..]).filter(|(_, node)| Some(**node) != empty);
                let mut others: Vec<u16> = filled.map(|(group, _)| group).collect();
                others.reverse();
                *self = Self::of(others);
                Ok((Map::Application, List::empty()))
            }
            (Self::Group { group, first, .. }, Content::Buckets { entries, whole }) => {
                let next = first.saturating_add(whole);
                let bucket = u32::from(*group) * u32::from(BUCKETS) + u32::from(next);
                if next > BUCKETS || (whole == 0 && entries.is_empty()) {
                    return Err(Fault::Lies("a part leads nowhere"));
                }
                let is_begun = |entry: &&Entry| bucket_of(&entry.key, DEPTH) == bucket;
                let last = entries.last().filter(is_begun).map(|entry| entry.key.clone());
                self.go_on(next, last);
                Ok((Map::Application, entries))
            }
            _ => Err(Fault::Lies("a part is not the one that was asked for")),
        }
    }

    /// The last of these groups.
    fn of(mut others: Vec<u16>) -> Self {
        match others.pop() {
            Some(group) => Self::Group { group, first: 0, after: None, others },
            None => Self::Nothing,
        }
    }

    fn go_on(&mut self, next: u16, last: Option<Blob>) {
        let Self::Group { first, after, others, .. } = self else { return };
        if next == BUCKETS {
            *self = Self::of(std::mem::take(others));
        } else {
            (*first, *after) = (next, last);
        }
    }
}
