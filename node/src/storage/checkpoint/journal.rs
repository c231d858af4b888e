//! The store's own journal after a power cut: what a batch under way left at its end is taken off before the store looks.
//!
//! Whoever writes a batch to a file without waiting may find any of its sectors there after a cut, and any missing. The store
//! forgives an end that is cut short, not one with a hole: a batch whose checksum is wrong stops it for good, and a length
//! out of a hole makes it reserve whatever that says. No checkpoint is lost with such a batch, as its sync never ended. What
//! rots in the midst of the journal looks the same, and takes the later checkpoints along: whoever reads the log beside the
//! store notices if one is missing that the log relies on. (Pillai et al., All File Systems Are Not Created Equal, OSDI 2014)
//!
//! ```text
//! journal  batches one after the other, then zeros or nothing; integers are little endian
//! batch    1, 4 bytes how many entries, 8 bytes number; entries; 3, 8 bytes XXH3 of the entries, "FJL" 3
//! entry    2, kind, 0 (as it is), 8 bytes keyspace, 2 bytes length of the key, 4 bytes length of the value, 4 bytes the same,
//!          key, value
//!          4, 8 bytes keyspace
//! ```
//!
//! After a failed sync, too, a batch can be read that is not on the disk: the system shows what it kept in memory, and takes it
//! for written. So at a start all that the journals hold is written again where it stands before anything is read from them.
//!
//! This is version 3 of the store's format; a test holds this reader to what the store writes. Nothing is taken off a journal
//! of another version.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::{Error, io_error};
use crate::storage::disk::{Disk, write_again};

/// Whose journals this reads: what the file `version` says, and each batch ends with.
const VERSION: &[u8] = b"FJL\x03";

const BATCH: u8 = 1;
const CHANGE: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// The highest kind of change: a value, and two kinds of removals.
const KIND_MAX: u8 = 2;

/// Values are not compressed.
const AS_IT_IS: u8 = 0;

const KEYSPACE_BYTES: u64 = 8;

/// So much is written again at once.
const PART_BYTES: usize = 8 << 20;

/// Takes what a power cut left off the end of the journal that was being written, in a database's folder, durably.
pub(super) fn mend(database: &Path) -> Result<(), Error> {
    let version = database.join("version");
    match fs::read(&version) {
        Ok(found) if found.starts_with(VERSION) => {}
        // Before the first batch there is nothing to mend, and of another version nothing is known.
        Ok(_) => return Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("read", &version, source)),
    }
    let Some(path) = latest(database)? else { return Ok(()) };
    let torn = cut_torn_end(&path).map_err(|source| io_error("mend", &path, source))?;
    if torn > 0 {
        tracing::warn!(
            file = %path.display(),
            bytes = torn,
            "the store's journal ended in what was not written whole, as after a power cut: that was taken off"
        );
    }
    Ok(())
}

/// Writes what the journals in a database's folder hold again where it stands, and syncs it: all that is read from them is on
/// the disk then, whether or not a sync had failed. Mends the last one before.
pub(super) fn make_durable(disk: &dyn Disk, database: &Path) -> Result<(), Error> {
    mend(database)?;
    for (_, path) in list(database)? {
        write_all_again(disk, &path).map_err(|source| io_error("write again to", &path, source))?;
    }
    Ok(())
}

fn write_all_again(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let (mut position, whole) = (0, file.metadata()?.len());
    let mut part = vec![0; usize::try_from(whole).map_or(PART_BYTES, |whole| whole.min(PART_BYTES))];
    while position < whole {
        let count = usize::try_from(whole - position).map_or(PART_BYTES, |rest| rest.min(PART_BYTES));
        file.read_exact_at(&mut part[..count], position)?;
        write_again(disk, path, position, &part[..count])?;
        position += count as u64;
    }
    Ok(())
}

/// Gives how many bytes were taken off, up to the last that was not zero.
fn cut_torn_end(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let whole = file.metadata()?.len();
    let mut batches = Batches { input: BufReader::new(&file), left: whole };
    let mut valid = 0;
    while batches.next()?.is_some() {
        valid = whole - batches.left;
    }
    if valid == whole {
        return Ok(0);
    }
    let torn = written_bytes(&file, valid)?;
    file.set_len(valid)?;
    file.sync_all()?;
    Ok(torn)
}

/// How many bytes follow `start` up to the last one that is not zero: space is reserved ahead.
fn written_bytes(mut file: &File, start: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(start))?;
    let (mut input, mut read, mut written) = (BufReader::new(file), 0, 0);
    loop {
        let found = input.fill_buf()?;
        if found.is_empty() {
            return Ok(written);
        }
        if let Some(last) = found.iter().rposition(|byte| *byte != 0) {
            written = read + last as u64 + 1;
        }
        read += found.len() as u64;
        let consumed = found.len();
        input.consume(consumed);
    }
}

/// The journal with the highest number: the one that was being written. Earlier ones were synced as a whole.
fn latest(database: &Path) -> Result<Option<PathBuf>, Error> {
    Ok(list(database)?.pop_last().map(|(_, path)| path))
}

/// The journals by their numbers.
fn list(database: &Path) -> Result<BTreeMap<u64, PathBuf>, Error> {
    let failed = |source| io_error("list", database, source);
    let mut journals = BTreeMap::new();
    for entry in fs::read_dir(database).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            journals.insert(number, path);
        }
    }
    Ok(journals)
}

/// The batches of a journal, one after the other.
struct Batches<'a> {
    input: BufReader<&'a File>,
    /// Bytes of the file that were not read yet.
    left: u64,
}

impl Batches<'_> {
    /// Reads another batch; `None` if none stands here, whole. Nothing can be read after that.
    fn next(&mut self) -> io::Result<Option<()>> {
        let Some([BATCH]) = self.take()? else { return Ok(None) };
        let Some(count) = self.take()?.map(u32::from_le_bytes) else { return Ok(None) };
        let Some(_number) = self.take::<8>()? else { return Ok(None) };
        let mut checksum = Xxh3::new();
        for _ in 0..count {
            if self.entry(&mut checksum)?.is_none() {
                return Ok(None);
            }
        }
        let Some([END]) = self.take()? else { return Ok(None) };
        let Some(expected) = self.take()?.map(u64::from_le_bytes) else { return Ok(None) };
        let Some(trailer) = self.take::<4>()? else { return Ok(None) };
        Ok((trailer == VERSION && expected == checksum.digest()).then_some(()))
    }

    /// Reads an entry; `None` if none stands here, whole.
    fn entry(&mut self, checksum: &mut Xxh3) -> io::Result<Option<()>> {
        match self.summed(checksum)? {
            Some([CHANGE]) => {}
            Some([CLEAR]) => return self.skip(KEYSPACE_BYTES, checksum),
            _ => return Ok(None),
        }
        let Some([0..=KIND_MAX, AS_IT_IS]) = self.summed(checksum)? else { return Ok(None) };
        if self.skip(KEYSPACE_BYTES, checksum)?.is_none() {
            return Ok(None);
        }
        let Some(key) = self.summed(checksum)?.map(u16::from_le_bytes) else { return Ok(None) };
        let Some(value) = self.summed(checksum)?.map(u32::from_le_bytes) else { return Ok(None) };
        let Some(stored) = self.summed(checksum)?.map(u32::from_le_bytes) else { return Ok(None) };
        if stored == value { self.skip(u64::from(key) + u64::from(value), checksum) } else { Ok(None) }
    }

    /// Shows the next `length` bytes to the checksum alone; `None` if the file has fewer.
    fn skip(&mut self, length: u64, checksum: &mut Xxh3) -> io::Result<Option<()>> {
        let Some(left) = self.left.checked_sub(length) else { return Ok(None) };
        let mut part = (&mut self.input).take(length);
        loop {
            let found = part.fill_buf()?;
            if found.is_empty() {
                break;
            }
            checksum.update(found);
            let read = found.len();
            part.consume(read);
        }
        self.left = left;
        Ok(Some(()))
    }

    /// The next bytes, shown to the checksum.
    fn summed<const N: usize>(&mut self, checksum: &mut Xxh3) -> io::Result<Option<[u8; N]>> {
        let bytes = self.take()?;
        checksum.update(bytes.as_ref().map_or(&[], |bytes| bytes.as_slice()));
        Ok(bytes)
    }

    /// The next bytes; `None` if the file has fewer.
    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let Some(left) = self.left.checked_sub(N as u64) else { return Ok(None) };
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.left = left;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Mutex;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::{Change, CheckpointStore, state_name};
    use super::*;
    use crate::storage::disk::FileSystem;

    const SECTOR_BYTES: usize = 512;

    /// Where the batches of a journal end.
    fn ends(path: &Path) -> Vec<usize> {
        let file = File::open(path).unwrap();
        let whole = file.metadata().unwrap().len();
        let mut batches = Batches { input: BufReader::new(&file), left: whole };
        let mut ends = Vec::new();
        while batches.next().unwrap().is_some() {
            ends.push(usize::try_from(whole - batches.left).unwrap());
        }
        ends
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let value = prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..3000));
        let changes = prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..40), value, 0..8);
        changes
            .prop_map(|changes| changes.into_iter().map(|(key, value)| (key.into(), value.map(Into::into))).collect())
    }

    #[test]
    fn what_is_taken_off_is_counted_and_reserved_space_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = CheckpointStore::open(folder.path()).unwrap();
        store.apply(1, b"meta", Vec::new(), Vec::new()).unwrap();
        drop(store);
        let path = latest(&folder.path().join(state_name(1))).unwrap().unwrap();
        let [end] = *ends(&path) else { unreachable!() };
        let whole = fs::read(&path).unwrap()[..end].to_vec();
        let holes = vec![0; 20_000];
        for (more, torn) in [(holes.clone(), 0), ([&[BATCH; 3][..], &holes, &[7], &holes].concat(), 20_004)] {
            fs::write(&path, [&whole[..], &more].concat()).unwrap();
            assert_eq!(cut_torn_end(&path).unwrap(), torn);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    /// A disk that holds nothing of a file but what is written to it from now on and then synced.
    #[derive(Debug, Default)]
    struct Forgetful {
        written: Mutex<BTreeMap<u64, Vec<u8>>>,
        durable: Mutex<BTreeMap<u64, Vec<u8>>>,
    }

    impl Disk for Forgetful {
        fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
            FileSystem.allocate(path, bytes)
        }

        fn write(&self, file: &File, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.written.lock().unwrap().insert(position, bytes);
            FileSystem.write(file, position, slices)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            self.durable.lock().unwrap().append(&mut self.written.lock().unwrap());
            FileSystem.sync(file)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            FileSystem.sync_folder(folder)
        }
    }

    /// As after a failed sync: the system shows a batch that the disk does not hold.
    #[test]
    fn what_the_system_shows_of_a_journal_is_on_the_disk_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = CheckpointStore::open(folder.path()).unwrap();
        let value = Bytes::from(vec![7; PART_BYTES - 1000]);
        for sequence in 1..=2 {
            let changes = vec![(Bytes::from(format!("key {sequence}")), Some(value.clone()))];
            store.apply(sequence, b"meta", changes, Vec::new()).unwrap();
        }
        drop(store);
        let disk = Forgetful::default();
        let store = CheckpointStore::open_on(&disk, folder.path()).unwrap();
        assert_eq!(store.latest().map(|latest| latest.sequence), Some(2));
        drop(store);
        let durable = disk.durable.lock().unwrap();
        let (mut held, mut end): (Vec<u8>, u64) = (Vec::new(), 0);
        for (position, bytes) in &*durable {
            assert_eq!(*position, end, "nothing is left out");
            held.extend(bytes);
            end += bytes.len() as u64;
        }
        let path = latest(&folder.path().join(state_name(1))).unwrap().unwrap();
        assert!(fs::read(path).unwrap() == held, "{} bytes", held.len());
        assert!(durable.len() == 2, "one after the other");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// What the store writes is read as a whole; and with any sectors of the last batch missing, it opens with the
        /// checkpoint before, and goes on from there.
        #[test]
        fn a_torn_last_batch_leaves_the_checkpoint_before_it(
            checkpoints in prop::collection::vec(changes(), 2..6),
            reopen_at in 0_usize..6,
            missing in any::<u64>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut store = CheckpointStore::open(folder.path()).unwrap();
            for (index, changes) in checkpoints.iter().enumerate() {
                if index == reopen_at {
                    drop(store);
                    store = CheckpointStore::open(folder.path()).unwrap();
                }
                store.apply(index as u64 + 1, b"meta", changes.clone(), Vec::new()).unwrap();
            }
            drop(store);
            let path = latest(&folder.path().join(state_name(1))).unwrap().unwrap();
            let ends = ends(&path);
            prop_assert_eq!(ends.len(), checkpoints.len());
            let mut bytes = fs::read(&path).unwrap();
            let [.., begin, end] = *ends else { unreachable!() };
            prop_assert!(bytes[end..].iter().all(|byte| *byte == 0));
            let mut is_torn = false;
            for (sector, at) in (begin - begin % SECTOR_BYTES..end).step_by(SECTOR_BYTES).enumerate() {
                if missing >> (sector % 64) & 1 == 1 {
                    let lost = &mut bytes[at.max(begin)..(at + SECTOR_BYTES).min(end)];
                    is_torn |= lost.iter().any(|byte| *byte != 0);
                    lost.fill(0);
                }
            }
            fs::write(&path, bytes).unwrap();
            let mut store = CheckpointStore::open(folder.path()).unwrap();
            let last = checkpoints.len() as u64;
            let expected = if is_torn { last - 1 } else { last };
            prop_assert_eq!(store.latest().map(|latest| latest.sequence), Some(expected));
            store.apply(last + 1, b"meta", checkpoints[0].clone(), Vec::new()).unwrap();
            drop(store);
            let store = CheckpointStore::open(folder.path()).unwrap();
            prop_assert_eq!(store.latest().map(|latest| latest.sequence), Some(last + 1));
        }
    }
}
