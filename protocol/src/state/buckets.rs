//! The entries of a state by the digests of their keys, in pages that clones share until one changes.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::proof::Fingerprint;

/// Buckets a page.
const PAGE: usize = 64;

/// 2^depth buckets. A page in which nothing is costs 8 bytes.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    /// Each exactly [`PAGE`] buckets; one of fewer, if there are fewer. The owner bounds what is in them.
    pages: Vec<Arc<Vec<Vec<Fingerprint>>>>,
}

impl Buckets {
    pub(super) fn new(depth: u8) -> Self {
        let count = 1_usize << depth;
        let page = Arc::new(vec![Vec::new(); count.min(PAGE)]);
        Self { pages: vec![page; count.div_ceil(PAGE)] }
    }

    pub(super) fn get(&self, index: u32) -> &Vec<Fingerprint> {
        let index = index as usize;
        &self.pages[index / PAGE][index % PAGE]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Vec<Fingerprint> {
        let index = index as usize;
        &mut Arc::make_mut(&mut self.pages[index / PAGE])[index % PAGE]
    }

    /// The indexes of the buckets that hold something, in ascending order.
    pub(super) fn filled(&self) -> Vec<u32> {
        let buckets = self.pages.iter().flat_map(|page| page.iter());
        (0..).zip(buckets).filter(|(_, bucket)| !bucket.is_empty()).map(|(index, _)| index).collect()
    }
}
