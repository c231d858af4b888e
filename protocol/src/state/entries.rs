//! What a map holds: byte keys and values in memory, and which of them were written since they were last asked for.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry as MapEntry;
use alloc::sync::Arc;
use alloc::vec::{self, Vec};
use core::hash::{Hash, Hasher as StdHasher};
use core::ops::Bound;
use core::{fmt, iter};

use bytes::Bytes;

use super::key::Key;
use crate::application::{Change, Changes, NotAState};
use crate::message::Entry;

/// The entries of an application, ordered by key. Taking what changed costs nothing, however much that is: the work is
/// done by whoever goes through it.
///
/// Maps of equal entries are equal, whatever was written since their changes were last taken.
#[derive(Clone)]
pub struct Entries {
    /// All entries. The owner bounds their number and bytes.
    all: BTreeMap<Key, Value>,
    /// The bytes of all keys and values.
    raw_bytes: u64,
    /// The keys written since the changes were last taken, in the order in which they first were, with what they hold now.
    /// One for each key written.
    touched: Vec<Touched>,
    /// Keys in `touched` that are no entries now, with their places there.
    removed: BTreeMap<Key, u32>,
}

/// A value, shared with whoever goes through the changes; and before it the place of its key in `touched`, so that a write
/// searches for it once. That means something only if the key stands there: it may be of an earlier time.
///
/// In one allocation, so that the map holds no more than a pointer and a length: there are millions of them.
#[derive(Debug, Clone)]
struct Value(Arc<[u8]>);

/// Bytes of the place before a value.
const PLACE_BYTES: usize = size_of::<u32>();

/// The place of what was not written since the changes were last taken: no interval writes so many keys.
const NOWHERE: u32 = u32::MAX;

impl Value {
    fn new(place: u32, value: &[u8]) -> Self {
        let mut all: Arc<[u8]> = iter::repeat_n(0, PLACE_BYTES + value.len()).collect();
        if let Some((before, after)) = Arc::get_mut(&mut all).and_then(|all| all.split_first_chunk_mut()) {
            *before = place.to_ne_bytes();
            after.copy_from_slice(value);
        }
        Self(all)
    }

    fn place(&self) -> u32 {
        self.0.first_chunk().map_or(NOWHERE, |place| u32::from_ne_bytes(*place))
    }

    fn bytes(&self) -> &[u8] {
        self.0.get(PLACE_BYTES..).unwrap_or_default()
    }

    /// The same bytes, not copied.
    fn shared(&self) -> Bytes {
        Bytes::from_owner(Arc::clone(&self.0)).slice(PLACE_BYTES..)
    }
}

/// A key that was written, and what it holds now.
type Touched = (Key, Option<Value>);

/// What was written, on its way out. What was kept with it is freed where that is gone through.
struct Taken {
    touched: vec::IntoIter<Touched>,
    _removed: BTreeMap<Key, u32>,
}

impl Iterator for Taken {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let (key, value) = self.touched.next()?;
        Some((Bytes::copy_from_slice(key.as_slice()), value.map(|value| value.shared())))
    }
}

impl Entries {
    /// None yet.
    pub const fn new() -> Self {
        Self { all: BTreeMap::new(), raw_bytes: 0, touched: Vec::new(), removed: BTreeMap::new() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The bytes of all keys and values.
    pub const fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// The value of `key`, shared.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.all.get(key).map(Value::shared)
    }

    /// The bytes of the value of `key`.
    pub fn get_slice(&self, key: &[u8]) -> Option<&[u8]> {
        self.all.get(key).map(Value::bytes)
    }

    /// Sets the value of `key`, and says whether there was one. Both are copied: a slice of a batch would keep the whole
    /// batch in memory for as long as the entry lives.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.raw_bytes = self.raw_bytes.saturating_add(raw_bytes(key, value));
        match self.all.entry(Key::from(key)) {
            MapEntry::Occupied(mut entry) => {
                let held = entry.get_mut();
                self.raw_bytes = self.raw_bytes.saturating_sub(raw_bytes(key, held.bytes()));
                *held = write(&mut self.touched, held.place(), key, value);
                true
            }
            MapEntry::Vacant(entry) => {
                let place = self.removed.remove(key).unwrap_or(NOWHERE);
                entry.insert(write(&mut self.touched, place, key, value));
                false
            }
        }
    }

    /// Removes `key` and its value, and says whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(before) = self.all.remove(key) else { return false };
        self.raw_bytes = self.raw_bytes.saturating_sub(raw_bytes(key, before.bytes()));
        let place = place_of(&mut self.touched, before.place(), key);
        set(&mut self.touched, place, None);
        self.removed.insert(Key::from(key), place);
        true
    }

    /// All entries in ascending order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all.iter().map(|(key, value)| (key.as_slice(), value.bytes()))
    }

    /// The entries whose keys begin with `prefix` and lie after `after`, in ascending order.
    pub fn range(&self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &[u8])> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let candidates = self.all.range::<[u8], _>((start, Bound::Unbounded));
        let pairs = candidates.map(|(key, value)| (key.as_slice(), value.bytes()));
        pairs.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// What was written since this was last asked, each key once. Costs nothing yet.
    pub fn changes(&mut self) -> Changes {
        let touched = core::mem::take(&mut self.touched).into_iter();
        Box::new(Taken { touched, _removed: core::mem::take(&mut self.removed) })
    }

    /// Replaces all entries by `entries`, in any order. No change is left to be told.
    ///
    /// # Errors
    /// [`NotAState`] if two have one key: there are no entries then.
    pub fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState> {
        self.restore_checked(entries, |_| Ok(()))
    }

    /// The same, of entries that `check` must approve one by one before they are kept.
    ///
    /// # Errors
    /// [`NotAState`] with the reason that `check` gave too.
    pub fn restore_checked(
        &mut self,
        entries: &mut dyn Iterator<Item = Entry>,
        mut check: impl FnMut(&Entry) -> Result<(), &'static str>,
    ) -> Result<(), NotAState> {
        *self = Self::new();
        let (mut raw, mut count) = (0_u64, 0_u64);
        let entries = entries.map(|entry| {
            check(&entry).map_err(|reason| NotAState { index: count, reason })?;
            count += 1;
            raw = raw.saturating_add(raw_bytes(&entry.key, &entry.value));
            Ok((Key::from(&entry.key[..]), Value::new(NOWHERE, &entry.value)))
        });
        // Sorted once and built from the bottom, which is faster than an insertion for each.
        let all = entries.collect::<Result<BTreeMap<_, _>, NotAState>>()?;
        if all.len() as u64 != count {
            return Err(NotAState { index: count, reason: "two entries have the same key" });
        }
        self.all = all;
        self.raw_bytes = raw;
        Ok(())
    }
}

/// The place of `key` in `touched`: `known`, if it stands there, or a new one.
fn place_of(touched: &mut Vec<Touched>, known: u32, key: &[u8]) -> u32 {
    if touched.get(known as usize).is_some_and(|(there, _)| there.as_slice() == key) {
        return known;
    }
    let place = u32::try_from(touched.len()).expect("an interval writes fewer keys");
    touched.push((Key::from(key), None));
    place
}

/// Notes what the key at that place holds now.
fn set(touched: &mut [Touched], place: u32, now: Option<Value>) {
    if let Some((_, value)) = touched.get_mut(place as usize) {
        *value = now;
    }
}

/// Makes a value that is written to `key` and notes it; its place may be known.
fn write(touched: &mut Vec<Touched>, known: u32, key: &[u8], value: &[u8]) -> Value {
    let place = place_of(touched, known, key);
    let value = Value::new(place, value);
    set(touched, place, Some(value.clone()));
    value
}

const fn raw_bytes(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64
}

impl Default for Entries {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

impl Hash for Entries {
    fn hash<H: StdHasher>(&self, state: &mut H) {
        self.len().hash(state);
        self.iter().for_each(|entry| entry.hash(state));
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Entries")
            .field("entries", &self.len())
            .field("raw_bytes", &self.raw_bytes)
            .finish_non_exhaustive()
    }
}
