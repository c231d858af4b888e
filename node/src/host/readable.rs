//! The state at a checkpoint as it is handed to others: from the root down, in parts that can be checked. (PROTOCOL §9)

use quorate_crypto::merkle::Tree;
use quorate_protocol::codec::List;
use quorate_protocol::message::{Content, Entry, PART_ENTRIES_MAX, Part, Want};
use quorate_protocol::number::Sequence;
use quorate_protocol::state::crown_level;

use crate::storage::checkpoint::{self, Map, Snapshot};

/// Bytes of entries in one part, about.
const PART_BYTES: usize = 256 << 10;

/// A state that stays readable.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) sequence: Sequence,
    pub(super) snapshot: Snapshot,
    /// That of the application's entries.
    pub(super) tree: Tree,
}

/// How much still fits into a part.
struct Room {
    entries: usize,
    bytes: usize,
    is_used: bool,
}

impl Readable {
    /// A part of it. None, if there is no such part.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn part(&self, want: &Want) -> Result<Option<Part>, checkpoint::Error> {
        // The store asserts that no key is longer than it takes, also where one only says where to begin.
        if !want.is_within_bounds() {
            return Ok(None);
        }
        let content = match want {
            Want::Crown => List::new(self.tree.row(crown_level(self.tree.depth()))).map(Content::Crown),
            Want::Protocol { after } => {
                let mut room = Room::new();
                let rest = self.snapshot.entries(Map::Protocol, after.as_deref());
                let (entries, is_last) = room.take(rest)?;
                List::new(entries).map(|entries| Content::Protocol { entries, is_last })
            }
            Want::Leaves { group } => {
                let leaves = self.buckets_of(*group).map(|buckets| buckets.map(|bucket| self.tree.leaf(bucket)));
                leaves.and_then(|leaves| List::new(leaves.collect())).map(Content::Leaves)
            }
            Want::Buckets { group, buckets, after } => self.entries_of(*group, buckets, after.as_deref())?,
        };
        Ok(content.map(|content| Part { sequence: self.sequence, want: want.clone(), content }))
    }

    /// The buckets of a group; none, if there is no such group.
    fn buckets_of(&self, group: u16) -> Option<std::ops::Range<u32>> {
        let height = self.tree.depth() - crown_level(self.tree.depth());
        let first = u32::from(group) << height;
        (first < self.tree.leaf_count()).then(|| first..first + (1 << height))
    }

    fn entries_of(
        &self,
        group: u16,
        wanted: &[u16],
        after: Option<&[u8]>,
    ) -> Result<Option<Content>, checkpoint::Error> {
        let Some(buckets) = self.buckets_of(group) else { return Ok(None) };
        let (mut room, mut taken, mut whole) = (Room::new(), Vec::new(), 0);
        for (index, place) in wanted.iter().enumerate() {
            let bucket = buckets.start + u32::from(*place);
            if !buckets.contains(&bucket) {
                return Ok(None);
            }
            let after = after.filter(|_| index == 0);
            let (entries, is_last) = room.take(self.snapshot.bucket(bucket, self.tree.depth(), after))?;
            taken.extend(entries);
            if !is_last {
                break;
            }
            whole += 1;
        }
        Ok(List::new(taken).map(|entries| Content::Buckets { entries, whole }))
    }
}

impl Room {
    const fn new() -> Self {
        Self { entries: PART_ENTRIES_MAX, bytes: PART_BYTES, is_used: false }
    }

    /// Takes what fits, and says whether that is all.
    fn take(
        &mut self,
        entries: impl Iterator<Item = Result<checkpoint::Entry, checkpoint::Error>>,
    ) -> Result<(Vec<Entry>, bool), checkpoint::Error> {
        let mut taken = Vec::new();
        for entry in entries {
            let (key, value) = entry?;
            let bytes = key.len() + value.len();
            if self.entries == 0 || (bytes > self.bytes && self.is_used) {
                return Ok((taken, false));
            }
            self.entries -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_used = true;
            taken.push(Entry { key: key.into(), value: value.into() });
        }
        Ok((taken, true))
    }
}
