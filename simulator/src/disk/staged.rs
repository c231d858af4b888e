//! Buckets of a state that is being transferred, which stay over a crash. (PROTOCOL §9)

use std::collections::BTreeMap;

use quorate_protocol::number::Sequence;
use quorate_protocol::output::StagedBucket;

use crate::random::{Chance, Random};

/// How often a bucket that was staged is lost in a crash.
const LOST: Chance = Chance::percent(20);

/// What was staged upon a durable checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Staged {
    /// The checkpoint; zero for a disk without one.
    pub base: Sequence,
    /// Whether what it holds counts for nothing.
    pub is_afresh: bool,
    /// The buckets that were replaced. Bound: as many as the tree has.
    pub buckets: BTreeMap<u32, StagedBucket>,
}

impl Staged {
    /// The machine loses power: nobody waited for a sync.
    pub(super) fn crash(&mut self, random: &mut Random) {
        self.buckets.retain(|_, _| !random.happens(LOST));
    }
}
