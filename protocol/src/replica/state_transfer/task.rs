//! What one source is asked for: each task is done by one, so that it is known who lied. (PROTOCOL §9)

use alloc::vec;
use alloc::vec::Vec;

use quorate_crypto::Digest;
use quorate_crypto::merkle::above;

use super::fetching::ENTRY_BYTES;
use crate::codec::List;
use crate::message::{Entry, Want};
use crate::output::StagedBucket;
use crate::state::{WANTED_BUCKETS_MAX, bucket_of, crown_level, leaf_of};

/// A task, and how far it is.
#[derive(Debug, Clone, Hash)]
pub(super) enum Task {
    /// What the root is made of.
    Head(HeadTask),
    /// The buckets of a group that differ.
    Group(GroupTask),
}

/// The crown, then the protocol's own entries: they are checked together.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct HeadTask {
    groups: Option<Vec<Digest>>,
    /// Those that are here. Bound: the limit of what is not checked.
    entries: Vec<Entry>,
}

/// All of that.
#[derive(Debug)]
pub(super) struct WholeHead {
    pub(super) groups: Vec<Digest>,
    pub(super) entries: Vec<Entry>,
}

/// A group of buckets.
#[derive(Debug, Clone, Hash)]
pub(super) struct GroupTask {
    number: u16,
    /// Its node in the crown.
    node: Digest,
    /// The places of the buckets that are missing, with their leaves, in ascending order; `None` until the leaves are here.
    missing: Option<Vec<(u16, Digest)>>,
    /// The first entries of the first of them. Bound: the limit of what is not checked.
    held: Vec<Entry>,
}

/// What a part is worth.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is not what it says.
    Lie,
    /// It is.
    Right {
        /// What is left of the task.
        next: Option<Task>,
        /// Buckets that are whole.
        buckets: Vec<StagedBucket>,
    },
}

impl Task {
    /// What to ask for next.
    pub(super) fn want(&self) -> Want {
        let last = |entries: &[Entry]| entries.last().map(|entry| entry.key.clone());
        match self {
            Self::Head(HeadTask { groups: None, .. }) => Want::Crown,
            Self::Head(HeadTask { groups: Some(_), entries }) => Want::Protocol { after: last(entries) },
            Self::Group(GroupTask { number, missing: None, .. }) => Want::Leaves { group: *number },
            Self::Group(GroupTask { number, missing: Some(missing), held, .. }) => {
                let buckets = missing.iter().map(|(place, _)| *place).take(WANTED_BUCKETS_MAX);
                let buckets = List::new(buckets.collect()).expect("no more than may be asked for");
                Want::Buckets { group: *number, buckets, after: last(held) }
            }
        }
    }

    /// The group that it is for, if it is for one.
    pub(super) const fn group(&self) -> Option<u16> {
        match self {
            Self::Head(_) => None,
            Self::Group(task) => Some(task.number),
        }
    }

    /// The task for another source: without what its first one showed and nobody could check.
    pub(super) fn again(self) -> Self {
        match self {
            Self::Head(_) => Self::Head(HeadTask::default()),
            Self::Group(task) => Self::Group(GroupTask { held: Vec::new(), ..task }),
        }
    }
}

impl HeadTask {
    pub(super) fn take_crown(self, groups: Vec<Digest>, depth: u8) -> Verdict {
        if self.groups.is_some() || groups.len() != 1 << crown_level(depth) {
            return Verdict::Lie;
        }
        Verdict::Right { next: Some(Task::Head(Self { groups: Some(groups), ..self })), buckets: Vec::new() }
    }

    /// The next of the protocol's own entries: all are here, or there is more to ask for, or they are none.
    pub(super) fn take_entries(
        mut self,
        more: Vec<Entry>,
        is_last: bool,
        bytes_max: u64,
    ) -> Result<WholeHead, Verdict> {
        // One that brings nothing leads nowhere: the source would keep this replica busy for ever.
        if self.groups.is_none() || (more.is_empty() && !is_last) {
            return Err(Verdict::Lie);
        }
        self.entries.extend(more);
        let are_ordered = self.entries.is_sorted_by(|left, right| left.key[..] < right.key[..]);
        if !are_ordered || bytes_of(&self.entries) > bytes_max {
            return Err(Verdict::Lie);
        }
        match self.groups.take_if(|_| is_last) {
            Some(groups) => Ok(WholeHead { groups, entries: self.entries }),
            None => Err(Verdict::Right { next: Some(Task::Head(self)), buckets: Vec::new() }),
        }
    }
}

impl GroupTask {
    /// The group with this place in the crown, and its node there.
    pub(super) const fn new(number: u16, node: Digest) -> Self {
        Self { number, node, missing: None, held: Vec::new() }
    }

    /// Its place in the crown.
    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    /// The group's leaves, compared with those that are here.
    pub(super) fn take_leaves(self, leaves: Vec<Digest>, have: &[Digest]) -> Verdict {
        if self.missing.is_some() || leaves.len() != have.len() || above(&leaves) != Some(self.node) {
            return Verdict::Lie;
        }
        let differing = (0_u16..).zip(leaves.iter().zip(have)).filter(|(_, (leaf, have))| leaf != have);
        let differing = differing.map(|(place, (leaf, _))| (place, *leaf));
        let (empty, missing): (Vec<_>, Vec<_>) = differing.partition(|(_, leaf)| *leaf == Digest::ZERO);
        let first = u32::from(self.number) * u32::try_from(have.len()).unwrap_or(u32::MAX);
        let emptied = |(place, leaf): (u16, Digest)| StagedBucket {
            number: first.saturating_add(u32::from(place)),
            leaf,
            entries: Vec::new(),
        };
        let buckets = empty.into_iter().map(emptied).collect();
        Verdict::Right { next: Self { missing: Some(missing), ..self }.left(), buckets }
    }

    /// The next entries, with which the first `whole` of the missing buckets are said to be whole.
    pub(super) fn take_entries(mut self, entries: Vec<Entry>, whole: usize, depth: u8, bytes_max: u64) -> Verdict {
        let Some(mut missing) = self.missing.take() else { return Verdict::Lie };
        // Here too.
        if whole > missing.len() || (whole == 0 && entries.is_empty()) {
            return Verdict::Lie;
        }
        let height = depth - crown_level(depth);
        let mut found: Vec<Vec<Entry>> = vec![Vec::new(); (whole + 1).min(missing.len())];
        found[0] = core::mem::take(&mut self.held);
        let mut at = 0;
        for entry in entries {
            let bucket = bucket_of(&entry.key, depth);
            let is_of = |at: usize| bucket == u32::from(self.number) << height | u32::from(missing[at].0);
            let Some(place) = (at..found.len()).find(|at| is_of(*at)) else { return Verdict::Lie };
            at = place;
            found[at].push(entry);
        }
        if found.len() > whole {
            self.held = found.pop().unwrap_or_default();
        }
        if bytes_of(&self.held) > bytes_max {
            return Verdict::Lie;
        }
        let mut buckets = Vec::with_capacity(whole);
        for ((place, leaf), entries) in missing.drain(..whole).zip(found) {
            if leaf_of(&entries) != leaf {
                return Verdict::Lie;
            }
            buckets.push(StagedBucket { number: u32::from(self.number) << height | u32::from(place), leaf, entries });
        }
        self.missing = Some(missing);
        Verdict::Right { next: self.left(), buckets }
    }

    fn left(self) -> Option<Task> {
        let is_done = self.missing.as_ref().is_some_and(Vec::is_empty);
        (!is_done).then_some(Task::Group(self))
    }
}

/// What entries take in memory.
pub(super) fn bytes_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64 + ENTRY_BYTES).sum()
}
