//! Waiting in turn: each of those for whom something waits has one taken at a time, so that who has much waits for himself, and not
//! others for him.

use std::collections::{BTreeMap, VecDeque};

/// What waits for one: things in their order, or others in turn.
pub(super) trait Line: Default {
    /// What is taken.
    type Item;

    /// Takes what is next.
    fn pop(&mut self) -> Option<Self::Item>;

    /// Whether nothing waits.
    fn is_empty(&self) -> bool;
}

impl<T> Line for VecDeque<T> {
    type Item = T;

    fn pop(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}

/// Lines by whose they are.
#[derive(Debug)]
pub(super) struct Turns<K, L> {
    /// Bound: the owner's.
    lines: BTreeMap<K, L>,
    /// Those in `lines`, each once: the first is next.
    order: VecDeque<K>,
}

impl<K, L> Default for Turns<K, L> {
    fn default() -> Self {
        Self { lines: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Copy, L: Line> Turns<K, L> {
    /// The line of `key`, for more to wait in it.
    pub(super) fn line(&mut self, key: K) -> &mut L {
        self.lines.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            L::default()
        })
    }

    /// Nothing waits for `key` any more.
    pub(super) fn remove(&mut self, key: K) {
        if self.lines.remove(&key).is_some() {
            self.order.retain(|other| *other != key);
        }
    }
}

impl<K: Ord + Copy, J: Ord + Copy, L: Line> Turns<K, Turns<J, L>> {
    /// Nothing waits for `inner` in the line of `key` any more.
    pub(super) fn remove_within(&mut self, key: K, inner: J) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.remove(inner);
        if line.is_empty() {
            self.remove(key);
        }
    }
}

impl<K: Ord + Copy, L: Line> Line for Turns<K, L> {
    type Item = (K, L::Item);

    fn pop(&mut self) -> Option<(K, L::Item)> {
        loop {
            let key = self.order.pop_front()?;
            let line = self.lines.get_mut(&key)?;
            let taken = line.pop();
            if line.is_empty() {
                self.lines.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if let Some(taken) = taken {
                return Some((key, taken));
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.values().all(Line::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that waits, in the order in which it is taken.
    fn all<L: Line>(line: &mut L) -> Vec<L::Item> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    #[test]
    fn who_has_much_waits_for_himself() {
        let mut turns = Turns::<u8, VecDeque<u8>>::default();
        turns.line(1).extend([1, 2, 3, 4]);
        turns.line(2).extend([5]);
        turns.line(3).extend([6, 7]);
        assert_eq!(all(&mut turns), [(1, 1), (2, 5), (3, 6), (1, 2), (3, 7), (1, 3), (1, 4)]);
        assert!(turns.is_empty());
    }

    #[test]
    fn turns_are_taken_within_turns() {
        let mut turns = Turns::<u8, Turns<u8, VecDeque<u8>>>::default();
        for line in [1, 2, 3] {
            turns.line(7).line(line).extend([10 * line, 10 * line + 1]);
        }
        turns.line(8).line(4).extend([40, 41]);
        turns.line(9).line(5).extend([50, 51]);
        turns.remove_within(9, 5);
        turns.remove_within(9, 6);
        let taken: Vec<u8> = all(&mut turns).into_iter().map(|(_, (_, taken))| taken).collect();
        assert_eq!(taken, [10, 40, 20, 41, 30, 11, 21, 31]);
    }

    #[test]
    fn nothing_is_taken_of_a_line_that_was_removed_and_an_empty_one_takes_no_turn() {
        let mut turns = Turns::<u8, VecDeque<u8>>::default();
        turns.line(1).extend([1, 2]);
        turns.line(2);
        turns.line(3).extend([3]);
        turns.remove(1);
        assert!(!turns.is_empty());
        assert_eq!(all(&mut turns), [(3, 3)]);
        turns.line(2);
        assert!(turns.is_empty() && turns.pop().is_none());
    }
}
