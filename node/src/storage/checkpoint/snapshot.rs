//! The state at one checkpoint, readable while later ones are stored: for starting, and for peers that fetch it.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fjall::Readable as _;

use super::state::{State, bucket_range, end, own_key, prefix, state_key};
use super::{Entry, Error, Latest, Map};

/// The state at one checkpoint.
pub struct Snapshot {
    at: fjall::Snapshot,
    latest: Option<Latest>,
    state: Arc<State>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Snapshot").field("latest", &self.latest).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn take(state: &Arc<State>) -> Result<Self, Error> {
        let at = state.database.snapshot();
        Ok(Self { latest: state.latest(&at)?, at, state: Arc::clone(state) })
    }

    /// Which checkpoint this is the state of; `None` if none was stored yet.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// Whether a received state has taken the place of the one that this shows.
    pub fn is_replaced(&self) -> bool {
        self.state.obsolete.load(Ordering::Acquire)
    }

    /// The value of a key.
    pub fn get(&self, map: Map, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.state.checked(self.at.get(&self.state.keyspace, state_key(map, key)))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The entries of a map, all of them or those after a key: the application's in the order of
    /// [`place_of`](quorate_protocol::state::place_of), the protocol's by ascending key.
    pub fn entries(&self, map: Map, after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry, Error>> {
        let start = after.map_or(Bound::Excluded(prefix(map).into()), |after| Bound::Excluded(state_key(map, after)));
        self.range(map, start, Bytes::from_static(end(map)))
    }

    /// The application's entries of a bucket in a tree of this depth, all of them or those after a key.
    pub fn bucket(&self, bucket: u32, depth: u8, after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry, Error>> {
        let (begin, end) = bucket_range(bucket, depth);
        // Whoever asks may name a key of another bucket.
        let after = after.map(|after| state_key(Map::Application, after)).filter(|after| *after >= begin);
        self.range(Map::Application, after.map_or(Bound::Included(begin), Bound::Excluded), end)
    }

    fn range(&self, map: Map, start: Bound<Bytes>, end: Bytes) -> impl Iterator<Item = Result<Entry, Error>> {
        // An empty range that the store would refuse.
        let is_empty = matches!(&start, Bound::Included(start) | Bound::Excluded(start) if *start >= end);
        let range = (!is_empty).then(|| self.at.range::<Bytes, _>(&self.state.keyspace, (start, Bound::Excluded(end))));
        let found = range.into_iter().flatten();
        found.map(move |guard| self.state.checked(guard.into_inner()).map(|entry| to_entry(map, entry)))
    }
}

fn to_entry(map: Map, (key, value): fjall::KvPair) -> Entry {
    (own_key(map, &key), Bytes::copy_from_slice(&value))
}
