//! What all who come from one host share, for as long as any of them is there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// One for each host of which somebody holds it.
#[derive(Debug)]
pub(crate) struct PerSource<T> {
    /// Those that nobody holds any more are dropped with the next new one. Bound: one more than there are holders.
    held: HashMap<IpAddr, Weak<T>>,
}

impl<T> Default for PerSource<T> {
    fn default() -> Self {
        Self { held: HashMap::new() }
    }
}

impl<T> PerSource<T> {
    /// What those of `source` share: what one of them holds, or else a new one.
    pub(crate) fn of(&mut self, source: IpAddr, new: impl FnOnce() -> T) -> Arc<T> {
        if let Some(held) = self.held.get(&source).and_then(Weak::upgrade) {
            return held;
        }
        self.held.retain(|_, held| held.strong_count() > 0);
        let new = Arc::new(new());
        self.held.insert(source, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_host_share_it_for_as_long_as_any_of_them_is_there() {
        let mut shared = PerSource::default();
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let first = shared.of(one, || 1);
        assert_eq!((*shared.of(one, || 2), *shared.of(other, || 3)), (1, 3));
        drop(first);
        assert_eq!(*shared.of(one, || 4), 4);
        assert_eq!(shared.held.len(), 1, "nobody holds the other");
    }
}
