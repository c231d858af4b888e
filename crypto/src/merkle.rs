//! An incremental binary Merkle tree of fixed depth, the root of the replicated state (PROTOCOL §5): a checkpoint costs
//! what changed since the last one, and a path proves one leaf.
//!
//! A node is the digest of its two children under [`Domain::Node`]; a leaf is a digest that the caller made under a
//! domain of its own, so no node can pass for a leaf. An empty leaf is [`Digest::ZERO`].

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use crate::digest::{Digest, hash};
use crate::domain::Domain;

/// The greatest depth: about a million leaves, and 64 MiB.
pub const DEPTH_MAX: u8 = 20;

/// The height of a page: 64 leaves, 4 KiB.
const PAGE_HEIGHT: u8 = 6;

/// A tree of 2^depth leaves, in pages: subtrees at its foot, which are shared between clones, and between empty ones, until
/// one changes. It holds 64 bytes a leaf where there is something, 8 a page, and 4 for each changed leaf.
#[derive(Clone, Debug)]
pub struct Tree {
    depth: u8,
    /// What is above the pages, the roots of the pages last. Laid out as they are.
    crown: Vec<Digest>,
    /// The root at 1, the children of `i` at `2i` and `2i + 1`, so the leaves last; 0 is not used. Each exactly twice as
    /// many as a page has leaves.
    pages: Vec<Arc<Vec<Digest>>>,
    /// The leaves that changed since the last root, each once. At most 2^depth.
    dirty: Vec<u32>,
    /// Whether a leaf is in `dirty`: a bit for each.
    is_dirty: Vec<u64>,
}

impl Tree {
    /// A tree of empty leaves.
    ///
    /// # Panics
    /// If `depth` is greater than [`DEPTH_MAX`]: it is a constant of the format, not a value from outside.
    pub fn new(depth: u8) -> Self {
        assert!(depth <= DEPTH_MAX, "a Merkle tree of depth {depth} is deeper than {DEPTH_MAX}");
        let height = depth.min(PAGE_HEIGHT);
        let page = Arc::new(empty(height, Digest::ZERO));
        let crown = empty(depth - height, page[1]);
        let pages = vec![page; 1 << (depth - height)];
        Self { depth, crown, pages, dirty: Vec::new(), is_dirty: vec![0; 1_usize << depth.saturating_sub(6)] }
    }

    /// The length of every path.
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// How many leaves there are, empty ones included: 2^depth.
    pub const fn leaf_count(&self) -> u32 {
        1 << self.depth
    }

    /// Replaces a leaf. Cheap; the next [`Tree::root`] pays.
    ///
    /// # Panics
    /// If `index` is not below [`Tree::leaf_count`].
    pub fn set(&mut self, index: u32, leaf: Digest) {
        let (page, position) = self.place(index);
        if self.pages[page][position] == leaf {
            return;
        }
        Arc::make_mut(&mut self.pages[page])[position] = leaf;
        let (word, bit) = dirty_bit(index);
        let before = self.is_dirty[word];
        if before & bit == 0 {
            self.is_dirty[word] = before | bit;
            self.dirty.push(index);
        }
    }

    /// The leaf at `index`, as it was last set.
    ///
    /// # Panics
    /// If `index` is not below [`Tree::leaf_count`].
    pub fn leaf(&self, index: u32) -> Digest {
        let (page, position) = self.place(index);
        self.pages[page][position]
    }

    /// The root over all leaves. Hashes each node above a changed leaf once, level by level.
    pub fn root(&mut self) -> Digest {
        let mut dirty = mem::take(&mut self.dirty);
        for index in &dirty {
            let (word, bit) = dirty_bit(*index);
            self.is_dirty[word] &= !bit;
        }
        dirty.sort_unstable();
        let mut changed = Vec::new();
        let places: Vec<(usize, usize)> = dirty.iter().map(|index| self.place(*index)).collect();
        for leaves in places.chunk_by(|left, right| left.0 == right.0) {
            let page = leaves[0].0;
            let positions = leaves.iter().map(|place| place.1).collect();
            let nodes = Arc::make_mut(&mut self.pages[page]);
            rehash(nodes, positions);
            let position = self.crown.len() / 2 + page;
            self.crown[position] = nodes[1];
            changed.push(position);
        }
        rehash(&mut self.crown, changed);
        self.crown[1]
    }

    /// The siblings from the leaf at `index` up to the root, for [`root_of`]: `depth` digests.
    ///
    /// # Panics
    /// If `index` is not below [`Tree::leaf_count`], or a leaf changed and [`Tree::root`] was not called since.
    pub fn path(&self, index: u32) -> Vec<Digest> {
        assert!(self.dirty.is_empty(), "a path is asked of a Merkle tree whose root is out of date");
        let (page, position) = self.place(index);
        siblings(&self.pages[page], position).chain(siblings(&self.crown, self.crown.len() / 2 + page)).collect()
    }

    /// All nodes of one level, from left to right: the root alone at level 0, the leaves at [`Tree::depth`].
    ///
    /// # Panics
    /// If there is no such level, or a leaf changed and [`Tree::root`] was not called since.
    pub fn row(&self, level: u8) -> Vec<Digest> {
        assert!(level <= self.depth, "level {level} is below a Merkle tree of depth {}", self.depth);
        assert!(self.dirty.is_empty(), "a level is asked of a Merkle tree whose root is out of date");
        let above = self.depth - self.depth.min(PAGE_HEIGHT);
        let nodes = |nodes: &[Digest], level: u8| nodes[1 << level..2 << level].to_vec();
        match level.checked_sub(above) {
            None | Some(0) => nodes(&self.crown, level),
            Some(below) => self.pages.iter().flat_map(|page| nodes(page, below)).collect(),
        }
    }

    /// The page of a leaf, and its position in there.
    fn place(&self, index: u32) -> (usize, usize) {
        assert!(index < self.leaf_count(), "leaf {index} is outside a Merkle tree of depth {}", self.depth);
        let leaves = 1_usize << self.depth.min(PAGE_HEIGHT);
        let index = index as usize;
        (index / leaves, leaves + index % leaves)
    }
}

/// Where the bit of a leaf is.
const fn dirty_bit(index: u32) -> (usize, u64) {
    ((index / 64) as usize, 1 << (index % 64))
}

/// The nodes of a tree of this height whose leaves are all `leaf`.
fn empty(height: u8, leaf: Digest) -> Vec<Digest> {
    let mut nodes = vec![leaf; 2 << height];
    let mut node = leaf;
    for level in (0..height).rev() {
        node = hash_node(&node, &node);
        nodes[1 << level..2 << level].fill(node);
    }
    nodes
}

/// Hashes what is above `changed`, leaves of one level in ascending order.
fn rehash(nodes: &mut [Digest], mut changed: Vec<usize>) {
    // Parents of sorted positions are sorted, so equal ones are neighbours on every level.
    while changed.first().is_some_and(|position| *position > 1) {
        for position in &mut changed {
            *position /= 2;
        }
        changed.dedup();
        for &position in &changed {
            nodes[position] = hash_node(&nodes[2 * position], &nodes[2 * position + 1]);
        }
    }
}

/// The siblings on the way up from `position`, the root left out.
fn siblings(nodes: &[Digest], position: usize) -> impl Iterator<Item = Digest> {
    let ancestors = core::iter::successors(Some(position), |position| Some(position / 2));
    ancestors.take_while(|position| *position > 1).map(|position| nodes[position ^ 1])
}

/// The node above a whole row: what [`Tree::row`] of the level above it gives, if the row is that of a tree. `None` if their
/// number is no power of two.
pub fn above(row: &[Digest]) -> Option<Digest> {
    if !row.len().is_power_of_two() {
        return None;
    }
    let mut row = row.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| hash_node(&pair[0], &pair[1])).collect();
    }
    row.pop()
}

/// The root of the tree that has `leaf` at `index` and the siblings of `path`, the lowest first.
///
/// Takes any values from outside. The caller compares the result with a root that he trusts, and the length of `path`
/// with the depth of that tree. An `index` that a tree of this depth does not have gives a digest that is no tree's root.
pub fn root_of(index: u32, leaf: Digest, path: &[Digest]) -> Digest {
    let mut node = leaf;
    let mut position = index;
    for sibling in path {
        node = if position.is_multiple_of(2) { hash_node(&node, sibling) } else { hash_node(sibling, &node) };
        position /= 2;
    }
    if position == 0 { node } else { hash(Domain::Node, &[b"outside"]) }
}

fn hash_node(left: &Digest, right: &Digest) -> Digest {
    hash(Domain::Node, &[left.as_bytes(), right.as_bytes()])
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{DEPTH_MAX, Digest, Tree, hash_node, root_of};
    use crate::digest::hash;
    use crate::domain::Domain;

    fn leaf_of(content: u64) -> Digest {
        if content == 0 { Digest::ZERO } else { hash(Domain::Bucket, &[&content.to_le_bytes()]) }
    }

    /// Every level anew, without anything that the tree remembers.
    fn naive_root(leaves: &[Digest]) -> Digest {
        if let [leaf] = leaves {
            return *leaf;
        }
        let (left, right) = leaves.split_at(leaves.len() / 2);
        hash_node(&naive_root(left), &naive_root(right))
    }

    /// Rounds of updates: after each round the root is asked for. Content 0 empties a leaf.
    fn rounds() -> impl Strategy<Value = (u8, Vec<Vec<(u32, u64)>>)> {
        (0..=7_u8).prop_flat_map(|depth| {
            let update = (0..1_u32 << depth, 0..6_u64);
            vec(vec(update, 0..20), 1..5).prop_map(move |rounds| (depth, rounds))
        })
    }

    proptest! {
        #[test]
        fn each_row_leads_to_the_one_above_it((depth, rounds) in rounds()) {
            let mut tree = Tree::new(depth);
            for (index, content) in rounds.into_iter().flatten() {
                tree.set(index, leaf_of(content));
            }
            let root = tree.root();
            prop_assert_eq!(tree.row(0), [root]);
            prop_assert_eq!(tree.row(depth), (0..tree.leaf_count()).map(|index| tree.leaf(index)).collect::<Vec<_>>());
            for level in 0..=depth {
                for height in 0..=depth - level {
                    let below = tree.row(level + height);
                    let above: Option<Vec<Digest>> = below.chunks(1 << height).map(super::above).collect();
                    prop_assert_eq!(above, Some(tree.row(level)));
                }
            }
            prop_assert_eq!(super::above(&[root; 3]), None);
            prop_assert_eq!(super::above(&[]), None);
        }

        #[test]
        fn the_root_is_that_of_a_tree_built_anew((depth, rounds) in rounds()) {
            let mut tree = Tree::new(depth);
            let mut leaves = std::vec![Digest::ZERO; 1 << depth];
            prop_assert_eq!(tree.root(), naive_root(&leaves));
            for round in rounds {
                for (index, content) in round {
                    tree.set(index, leaf_of(content));
                    leaves[index as usize] = leaf_of(content);
                }
                prop_assert_eq!(tree.root(), naive_root(&leaves));
            }
            for (index, leaf) in (0..).zip(&leaves) {
                prop_assert_eq!(tree.leaf(index), *leaf);
                prop_assert_eq!(root_of(index, *leaf, &tree.path(index)), tree.root());
            }
        }

        #[test]
        fn a_changed_leaf_index_or_path_leads_to_another_root(
            (depth, rounds) in rounds(), index in any::<u32>(), other in any::<u32>(), bit in any::<usize>(),
        ) {
            let mut tree = Tree::new(depth);
            for (position, content) in rounds.into_iter().flatten() {
                tree.set(position, leaf_of(content));
            }
            let index = index % tree.leaf_count();
            tree.set(index, leaf_of(9));
            let (root, path) = (tree.root(), tree.path(index));
            prop_assert_eq!(root_of(index, leaf_of(9), &path), root);
            prop_assert!(root_of(index, leaf_of(10), &path) != root);
            if other != index {
                prop_assert!(root_of(other, leaf_of(9), &path) != root);
            }
            for height in 0..path.len() {
                let mut changed = path.clone();
                let mut bytes = *changed[height].as_bytes();
                bytes[bit / 8 % 32] ^= 1 << (bit % 8);
                changed[height] = Digest::from_bytes(bytes);
                prop_assert!(root_of(index, leaf_of(9), &changed) != root);
                prop_assert!(root_of(index, leaf_of(9), &path[..height]) != root);
            }
        }
    }

    #[test]
    fn an_index_that_leads_the_same_way_but_lies_outside_is_not_the_same_leaf() {
        let mut tree = Tree::new(3);
        tree.set(5, leaf_of(1));
        let root = tree.root();
        assert_eq!(root_of(5, leaf_of(1), &tree.path(5)), root);
        for outside in [5 + 8, 5 + 16, 5 + (1 << 31)] {
            assert_ne!(root_of(outside, leaf_of(1), &tree.path(5)), root);
        }
    }

    #[test]
    fn a_path_of_any_length_from_outside_is_taken() {
        let path = std::vec![Digest::ZERO; 100];
        assert_ne!(root_of(u32::MAX, Digest::ZERO, &path), root_of(0, Digest::ZERO, &path));
        assert_eq!(root_of(0, leaf_of(1), &[]), leaf_of(1));
    }

    #[test]
    fn a_tree_of_depth_zero_is_its_leaf() {
        let mut tree = Tree::new(0);
        assert_eq!(tree.root(), Digest::ZERO);
        tree.set(0, leaf_of(4));
        assert_eq!(tree.root(), leaf_of(4));
        assert_eq!(tree.path(0), []);
    }

    #[test]
    fn the_deepest_tree_works_at_its_edges() {
        let mut tree = Tree::new(DEPTH_MAX);
        let last = tree.leaf_count() - 1;
        for index in [0, last / 2, last] {
            tree.set(index, leaf_of(u64::from(index) + 1));
        }
        let root = tree.root();
        for index in [0, 1, last / 2, last] {
            assert_eq!(root_of(index, tree.leaf(index), &tree.path(index)), root);
        }
    }

    #[test]
    fn the_list_of_changed_leaves_never_holds_one_twice() {
        let mut tree = Tree::new(2);
        for content in 1..1000 {
            for index in 0..4 {
                tree.set(index, leaf_of(content));
            }
            assert_eq!(tree.dirty.len(), 4);
        }
        let root = tree.root();
        assert!(tree.dirty.is_empty());
        tree.set(1, leaf_of(999));
        assert!(tree.dirty.is_empty(), "an equal leaf is no change");
        tree.set(1, leaf_of(1000));
        assert_eq!(tree.dirty.len(), 1);
        assert_ne!(tree.root(), root);
    }

    #[test]
    #[should_panic(expected = "out of date")]
    fn a_path_is_not_given_while_the_root_is_out_of_date() {
        let mut tree = Tree::new(2);
        tree.set(1, leaf_of(1));
        tree.path(0);
    }

    #[test]
    #[should_panic(expected = "outside a Merkle tree of depth 2")]
    fn a_leaf_outside_is_not_set() {
        Tree::new(2).set(4, leaf_of(1));
    }

    #[test]
    #[should_panic(expected = "deeper than 20")]
    fn a_tree_that_is_too_deep_is_not_built() {
        Tree::new(21);
    }
}
