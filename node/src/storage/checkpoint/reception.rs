//! A state received from peers, on its way into the store (PROTOCOL §9).

use std::path::PathBuf;

use fjall::PersistMode;

use super::state::{State, latest_change, state_key};
use super::{Entry, Error, Latest, Map, refuse_entry};

/// A received state is written in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// A state on its way in.
#[derive(Debug)]
pub struct Reception {
    state: State,
    /// Bytes put since the last sync to the system.
    bytes: usize,
}

impl Reception {
    pub(super) fn begin(folder: PathBuf) -> Result<Self, Error> {
        Ok(Self { state: State::open(folder)?, bytes: 0 })
    }

    /// Takes some entries of a map, in any order, each key once. Bounds memory by itself.
    pub fn put(&mut self, map: Map, entries: Vec<Entry>) -> Result<(), Error> {
        for (key, value) in &entries {
            refuse_entry(key, value)?;
        }
        let mut batch = self.state.database.batch();
        for (key, value) in entries {
            self.bytes += key.len() + value.len();
            batch.insert(&self.state.keyspace, state_key(map, &key), value);
            if self.bytes >= BATCH_BYTES {
                self.bytes = 0;
                let full = std::mem::replace(&mut batch, self.state.database.batch());
                self.state.checked(self.state.write(full))?;
            }
        }
        self.state.checked(self.state.write(batch))
    }

    /// Everything durable, files closed.
    pub(super) fn finish(self, latest: &Latest) -> Result<(), Error> {
        let state = self.state;
        state.checked(state.commit(vec![latest_change(latest)]))?;
        state.checked(state.database.persist(PersistMode::SyncAll))
    }
}
