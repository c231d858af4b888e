//! The state at one checkpoint, readable while later ones are stored: for starting, and for peers that fetch it.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use fjall::Readable as _;

use super::state::{State, end, prefix, state_key};
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

    /// The value of a key.
    pub fn get(&self, map: Map, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.state.checked(self.at.get(&self.state.keyspace, state_key(map, key)))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The entries of a map by ascending key: all of them, or those after a key.
    pub fn entries(&self, map: Map, after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry, Error>> {
        let start = after.map_or(Bound::Excluded(prefix(map).into()), |after| Bound::Excluded(state_key(map, after)));
        let end = Bound::Excluded(Bytes::from_static(end(map)));
        let found = self.at.range::<Bytes, _>(&self.state.keyspace, (start, end));
        found.map(|guard| self.state.checked(guard.into_inner()).map(to_entry))
    }

    /// The next entries of a map after a key, as many as fit into `bytes_max` bytes of keys and values, and at least one
    /// unless there is none.
    pub fn read_part(&self, map: Map, after: Option<&[u8]>, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let mut part = Vec::new();
        let mut bytes = 0_usize;
        for entry in self.entries(map, after) {
            let (key, value) = entry?;
            bytes = bytes.saturating_add(key.len() + value.len());
            if bytes > bytes_max && !part.is_empty() {
                break;
            }
            part.push((key, value));
        }
        Ok(part)
    }
}

/// The letter of the map taken off.
fn to_entry((key, value): fjall::KvPair) -> Entry {
    (Bytes::copy_from_slice(key.get(1..).unwrap_or_default()), Bytes::copy_from_slice(&value))
}
