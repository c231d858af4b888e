//! A state that is fetched from peers, put together upon the state that is here. (PROTOCOL §9)
//!
//! What is here is read anew from the disk when that begins, every entry of it, so that rot there is found and fetched with
//! the rest: a store that cannot be read at all counts as empty. The whole is read once more when it is put in place.

use std::collections::BTreeMap;
use std::mem;

use anyhow::Context as _;
use quorate_crypto::Digest;
use quorate_protocol::application::{Application, restore};
use quorate_protocol::message::Entry;
use quorate_protocol::number::Sequence;
use quorate_protocol::output::StagedBucket;
use quorate_protocol::state::{DEPTH, Index, bucket_of, leaf_of};

use super::start::Build;
use crate::storage::checkpoint::{self, CheckpointStore, FoundBucket, Map, Reception, Snapshot, Staged};

/// Bytes of entries that are put in place at once, about.
const PUT_BYTES: usize = 4 << 20;

/// Bytes of entries that are staged in memory, about: little is fetched in less time than a file takes.
const HELD_BYTES: usize = 8 << 20;

/// What is staged.
pub(super) struct Stage {
    /// Buckets that are not on the disk yet. Bound: [`HELD_BYTES`], and a part.
    held: BTreeMap<u32, FoundBucket>,
    held_bytes: usize,
    /// Those that are.
    staged: Option<Staged>,
    /// The state that buckets are put upon; none, if it counts for nothing.
    base: Option<Snapshot>,
    whole: Option<Whole>,
}

/// A state that is whole, before it is in its place.
pub(super) struct Whole {
    pub(super) sequence: Sequence,
    pub(super) application: Box<dyn Application + Send>,
    pub(super) index: Index,
    pub(super) reception: Reception,
}

impl Stage {
    /// Begins with what is in the store, and with what an earlier process staged; with nothing, if `afresh`. Gives the leaves.
    ///
    /// # Errors
    /// The folder of what is staged cannot be written.
    pub(super) fn begin(store: &CheckpointStore, afresh: bool) -> anyhow::Result<(Self, Vec<Digest>)> {
        let found = store.found_staged(DEPTH, afresh).context("opening what was fetched of a state")?;
        let mut leaves = vec![Digest::ZERO; 1 << DEPTH];
        let mut base = None;
        if !afresh {
            base = store.snapshot().and_then(|snapshot| read_leaves(&snapshot, &mut leaves).map(|()| snapshot)).ok();
        }
        if base.is_none() {
            leaves.fill(Digest::ZERO);
            tracing::warn!(afresh, "nothing of the state here is used: all of it is fetched");
        }
        let staged = match found {
            Some(found) => take_over(store, found, &mut leaves)?,
            None => None,
        };
        let (held, held_bytes) = (BTreeMap::new(), 0);
        Ok((Self { held, held_bytes, staged, base, whole: None }, leaves))
    }

    /// Puts buckets in their places.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn replace(&mut self, store: &CheckpointStore, buckets: Vec<StagedBucket>) -> anyhow::Result<()> {
        for StagedBucket { number, leaf, entries } in buckets {
            let entries: Vec<checkpoint::Entry> =
                entries.into_iter().map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect();
            self.held_bytes += entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            self.held.insert(number, FoundBucket { number, leaf: *leaf.as_bytes(), entries });
        }
        if self.held_bytes >= HELD_BYTES {
            let staged = match &mut self.staged {
                Some(staged) => staged,
                none => none.insert(store.stage(DEPTH)?),
            };
            staged.replace(mem::take(&mut self.held).into_values().collect())?;
            self.held_bytes = 0;
        }
        Ok(())
    }

    /// The entries of all buckets that were put in their places.
    fn entries(&self) -> impl Iterator<Item = Result<checkpoint::Entry, checkpoint::Error>> {
        let on_disk = self.staged.iter().flat_map(Staged::entries);
        let on_disk = on_disk.filter(|entry| entry.as_ref().map_or(true, |(key, _)| !self.is_held(key)));
        on_disk.chain(self.held.values().flat_map(|bucket| bucket.entries.iter().cloned().map(Ok)))
    }

    fn is_held(&self, key: &[u8]) -> bool {
        self.held.contains_key(&bucket_of(key, DEPTH))
    }

    fn is_replaced(&self, key: &[u8]) -> bool {
        let is_on_disk = |staged: &Staged| staged.numbers().contains(&bucket_of(key, DEPTH));
        self.is_held(key) || self.staged.as_ref().is_some_and(is_on_disk)
    }

    /// Rebuilds an application from what is staged, and writes that beside the state. Gives its root, if it is a state of
    /// this application that can be read.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn end(
        &mut self,
        store: &CheckpointStore,
        build: &Build,
        (sequence, protocol): (Sequence, Vec<Entry>),
    ) -> anyhow::Result<Option<Digest>> {
        let mut reception = store.receive()?;
        let own = protocol.into_iter().map(|entry| (entry.key.into_bytes(), entry.value.into_bytes()));
        reception.put(Map::Protocol, own.collect())?;
        let is_kept =
            |entry: &Result<checkpoint::Entry, _>| entry.as_ref().map_or(true, |(key, _)| !self.is_replaced(key));
        let base = self.base.iter().flat_map(|base| base.entries(Map::Application, None)).filter(is_kept);
        let mut entries = Writing::new(base.chain(self.entries()), &mut reception);
        let mut application = build();
        let restored = restore(&mut *application, DEPTH, &mut entries);
        if let Err(error) = entries.finish()? {
            tracing::error!(%error, "what was staged cannot be read");
            return Ok(None);
        }
        match restored {
            Ok((index, root)) => {
                self.whole = Some(Whole { sequence, application, index, reception });
                Ok(Some(root))
            }
            Err(error) => {
                tracing::warn!(%error, "the transferred state is not one of this application");
                Ok(None)
            }
        }
    }

    /// What is whole, and what is staged to be forgotten.
    pub(super) fn into_whole(self) -> (Option<Whole>, Option<Staged>) {
        (self.whole, self.staged)
    }
}

/// Goes on with what an earlier process staged, as far as it is still what was fetched; with nothing, if it cannot be read.
fn take_over(
    store: &CheckpointStore,
    mut staged: Staged,
    leaves: &mut [Digest],
) -> Result<Option<Staged>, checkpoint::Error> {
    match still_right(&mut staged) {
        Ok(right) => {
            for (number, leaf) in right {
                leaves[number as usize] = leaf;
            }
            Ok(Some(staged))
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "what was fetched of a state cannot be read: it is fetched again");
            store.forget_staged(staged)?;
            Ok(None)
        }
    }
}

/// The buckets that are still what was fetched, with their leaves. The others are forgotten.
fn still_right(staged: &mut Staged) -> Result<Vec<(u32, Digest)>, checkpoint::Error> {
    let mut right = Vec::new();
    for FoundBucket { number, leaf, entries } in staged.found()? {
        let leaf = Digest::from_bytes(leaf);
        if number < 1 << DEPTH && leaf_of(&to_entries(entries)) == leaf {
            right.push((number, leaf));
        } else {
            staged.forget(number)?;
        }
    }
    Ok(right)
}

/// The leaf of each bucket that holds something.
fn read_leaves(snapshot: &Snapshot, leaves: &mut [Digest]) -> Result<(), checkpoint::Error> {
    let mut bucket: Vec<Entry> = Vec::new();
    let mut number = 0;
    let mut put = |number: u32, bucket: &mut Vec<Entry>| {
        leaves[number as usize] = leaf_of(bucket);
        bucket.clear();
    };
    for entry in snapshot.entries(Map::Application, None) {
        let (key, value) = entry?;
        let next = bucket_of(&key, DEPTH);
        if next != number {
            put(number, &mut bucket);
            number = next;
        }
        bucket.push(Entry { key: key.into(), value: value.into() });
    }
    put(number, &mut bucket);
    Ok(())
}

fn to_entries(entries: Vec<checkpoint::Entry>) -> Vec<Entry> {
    entries.into_iter().map(|(key, value)| Entry { key: key.into(), value: value.into() }).collect()
}

/// Entries on their way to an application, which are written down as they pass.
struct Writing<'a, I> {
    entries: I,
    reception: &'a mut Reception,
    /// Bound: [`PUT_BYTES`], and an entry.
    held: Vec<checkpoint::Entry>,
    bytes: usize,
    unreadable: Option<checkpoint::Error>,
    failed: Option<checkpoint::Error>,
}

impl<'a, I> Writing<'a, I> {
    const fn new(entries: I, reception: &'a mut Reception) -> Self {
        Self { entries, reception, held: Vec::new(), bytes: 0, unreadable: None, failed: None }
    }

    fn put(&mut self) {
        self.bytes = 0;
        let put = self.reception.put(Map::Application, mem::take(&mut self.held));
        self.failed = self.failed.take().or_else(|| put.err());
    }

    /// Writes the last ones; the inner error is that of reading.
    fn finish(mut self) -> Result<Result<(), checkpoint::Error>, checkpoint::Error> {
        self.put();
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.unreadable.map_or(Ok(()), Err)),
        }
    }
}

impl<I: Iterator<Item = Result<checkpoint::Entry, checkpoint::Error>>> Iterator for Writing<'_, I> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.failed.is_some() || self.unreadable.is_some() {
            return None;
        }
        match self.entries.next()? {
            Ok((key, value)) => {
                self.bytes += key.len() + value.len();
                self.held.push((key.clone(), value.clone()));
                if self.bytes >= PUT_BYTES {
                    self.put();
                }
                Some(Entry { key: key.into(), value: value.into() })
            }
            Err(error) => {
                self.unreadable = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use quorate_protocol::kv::Store;

    use super::*;

    /// Longest wait for anything.
    const PATIENCE: Duration = Duration::from_secs(20);

    type Model = BTreeMap<String, String>;

    fn build() -> Build {
        Arc::new(|| Box::new(Store::default()))
    }

    /// What the application has at slot 128.
    fn model() -> Model {
        (0..200).map(|number| (format!("key {number:03}"), format!("value {number}"))).collect()
    }

    fn index(model: &Model) -> Index {
        let mut index = Index::new(DEPTH);
        for (key, value) in model {
            index.add(key.as_bytes(), value.as_bytes());
        }
        index.finish();
        index
    }

    fn store(folder: &Path) -> CheckpointStore {
        let mut store = CheckpointStore::open(folder).unwrap();
        let changes = model().into_iter().map(|(key, value)| (key.into(), Some(value.into()))).collect();
        store.apply(128, &[], changes, vec![(Bytes::from_static(b"t"), Some(Bytes::from_static(b"now")))]).unwrap();
        store
    }

    /// The bucket of a key in this model.
    fn bucket(model: &Model, key: &str) -> StagedBucket {
        let number = bucket_of(key.as_bytes(), DEPTH);
        let entries = model.iter().filter(|(key, _)| bucket_of(key.as_bytes(), DEPTH) == number);
        let entries = entries.map(|(key, value)| Entry { key: key.as_bytes().into(), value: value.as_bytes().into() });
        let entries: Vec<Entry> = entries.collect();
        StagedBucket { number, leaf: leaf_of(&entries), entries }
    }

    /// What peers have: one value changed, an entry more and one less; and the keys of these.
    fn theirs() -> (Model, [&'static str; 3]) {
        let mut theirs = model();
        let keys = ["key 003", "another", "key 100"];
        theirs.insert(keys[0].to_owned(), "changed".to_owned());
        theirs.insert(keys[1].to_owned(), "new".to_owned());
        theirs.remove(keys[2]);
        (theirs, keys)
    }

    fn protocol() -> Vec<Entry> {
        vec![Entry { key: b"t"[..].into(), value: b"later"[..].into() }]
    }

    fn read(store: &CheckpointStore) -> Model {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let snapshot = store.snapshot().unwrap();
        let entries = snapshot.entries(Map::Application, None).map(Result::unwrap);
        entries.map(|(key, value)| (text(key), text(value))).collect()
    }

    #[test]
    fn buckets_upon_what_is_here_are_the_state_of_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(folder.path());
        let (theirs, keys) = theirs();
        let (mut stage, leaves) = Stage::begin(&store, false).unwrap();
        assert_eq!(leaves, index(&model()).row(DEPTH));
        stage.replace(&store, keys.iter().map(|key| bucket(&theirs, key)).collect()).unwrap();
        let root = stage.end(&store, &build(), (Sequence::new(256), protocol())).unwrap();
        assert_eq!(root, Some(index(&theirs).root()));
        let (whole, staged) = stage.into_whole();
        let Whole { sequence, index: found, reception, .. } = whole.unwrap();
        assert_eq!((sequence, found.root()), (Sequence::new(256), index(&theirs).root()));
        store.install(reception, 256, &[]).unwrap();
        assert!(staged.is_none(), "so little stays in memory");
        drop(store);
        let store = CheckpointStore::open(folder.path()).unwrap();
        assert_eq!((store.latest().unwrap().sequence, read(&store)), (256, theirs));
        let own: Vec<_> = store.snapshot().unwrap().entries(Map::Protocol, None).map(Result::unwrap).collect();
        assert_eq!(own, [(Bytes::from_static(b"t"), Bytes::from_static(b"later"))]);
    }

    #[test]
    fn what_was_fetched_before_a_crash_counts_if_it_is_still_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let (theirs, keys) = theirs();
        let (mut stage, _) = Stage::begin(&store, false).unwrap();
        let right = bucket(&theirs, keys[0]);
        let rotten = StagedBucket { leaf: right.leaf, ..bucket(&theirs, keys[1]) };
        stage.held_bytes = HELD_BYTES;
        stage.replace(&store, vec![right.clone(), rotten]).unwrap();
        drop((stage, store));
        let store = CheckpointStore::open(folder.path()).unwrap();
        let (stage, leaves) = Stage::begin(&store, false).unwrap();
        let mut expected = model();
        expected.insert(keys[0].to_owned(), "changed".to_owned());
        assert_eq!(leaves, index(&expected).row(DEPTH));
        drop(stage);
        let (mut stage, leaves) = Stage::begin(&store, true).unwrap();
        assert_eq!(leaves, index(&Model::new()).row(DEPTH), "afresh");
        stage.replace(&store, vec![right.clone()]).unwrap();
        let root = stage.end(&store, &build(), (Sequence::new(256), protocol())).unwrap();
        let only = right.entries.iter().map(|entry| {
            let text = |blob: &[u8]| String::from_utf8(blob.to_vec()).unwrap();
            (text(&entry.key), text(&entry.value))
        });
        assert_eq!(root, Some(index(&only.collect()).root()));
    }

    /// The tables of the database of what was fetched.
    fn tables(folder: &Path) -> Vec<PathBuf> {
        let tables = folder.join("parts-0000000000000080/keyspaces/1/tables");
        fs::read_dir(tables).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_fetched_before_a_crash_is_fetched_again_if_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut theirs = model();
        // So much that it is written to a table.
        let large: Vec<String> = (0..100).map(|number| format!("large {number}")).collect();
        theirs.extend(large.iter().map(|key| (key.clone(), "x".repeat(120 << 10))));
        let buckets: BTreeMap<u32, StagedBucket> =
            large.iter().map(|key| bucket(&theirs, key)).map(|bucket| (bucket.number, bucket)).collect();
        let buckets: Vec<StagedBucket> = buckets.into_values().collect();
        let (mut stage, _) = Stage::begin(&store, false).unwrap();
        stage.replace(&store, buckets.clone()).unwrap();
        let until = Instant::now() + PATIENCE;
        while tables(folder.path()).is_empty() {
            assert!(Instant::now() < until, "no table is written");
            thread::yield_now();
        }
        drop(stage);
        let [table] = &tables(folder.path())[..] else { panic!("one table is written") };
        let mut bytes = fs::read(table).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(table, bytes).unwrap();
        let (mut stage, leaves) = Stage::begin(&store, false).unwrap();
        assert_eq!(leaves, index(&model()).row(DEPTH), "nothing of it counts");
        assert!(!folder.path().join("parts-0000000000000080").exists());
        stage.replace(&store, buckets).unwrap();
        let root = stage.end(&store, &build(), (Sequence::new(256), protocol())).unwrap();
        assert_eq!(root, Some(index(&theirs).root()));
    }
}
