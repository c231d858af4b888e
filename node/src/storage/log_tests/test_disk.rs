//! A disk that counts syncs, refuses what it is told to refuse, and remembers what no sync has followed.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::super::disk::{Disk, FileSystem};

/// A write that no sync has followed yet.
#[derive(Debug, Clone)]
pub(super) struct Unsynced {
    pub(super) inode: u64,
    pub(super) position: u64,
    pub(super) before: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct TestDisk {
    pub(super) syncs: AtomicUsize,
    pub(super) writes: AtomicUsize,
    pub(super) allocations: AtomicUsize,
    pub(super) refuse_syncs: AtomicBool,
    pub(super) refuse_writes: AtomicBool,
    pub(super) refuse_space: AtomicBool,
    /// Folders whose names were synced.
    pub(super) synced_folders: Mutex<Vec<PathBuf>>,
    /// How many names were in the folder each time.
    pub(super) names_synced: Mutex<Vec<usize>>,
    pub(super) refuse_folder_syncs: AtomicBool,
    /// Where the last write began.
    pub(super) last_write: AtomicU64,
    /// While this is held by a test, syncs wait.
    pub(super) gate: Mutex<()>,
    pub(super) unsynced: Mutex<Vec<Unsynced>>,
    /// All that was written: the inode, and where.
    pub(super) written: Mutex<Vec<(u64, Range<u64>)>>,
}

impl Disk for TestDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.allocations.fetch_add(1, Ordering::SeqCst);
        if self.refuse_space.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        FileSystem.allocate(path, bytes)
    }

    fn write(&self, file: &File, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.last_write.store(position, Ordering::SeqCst);
        if self.refuse_writes.load(Ordering::SeqCst) {
            return Err(io::Error::other("the test refuses writes"));
        }
        let length = slices.iter().map(|slice| slice.len()).sum();
        let inode = file.metadata()?.ino();
        self.written.lock().unwrap().push((inode, position..position + length as u64));
        let mut before = vec![0; length];
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.read_exact_at(&mut before, position)?;
        self.unsynced.lock().unwrap().push(Unsynced { inode, position, before });
        FileSystem.write(file, position, slices)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let _gate = self.gate.lock().unwrap();
        if self.refuse_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("the test refuses syncs"));
        }
        let inode = file.metadata()?.ino();
        self.unsynced.lock().unwrap().retain(|write| write.inode != inode);
        FileSystem.sync(file)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.refuse_folder_syncs.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.synced_folders.lock().unwrap().push(folder.to_owned());
        self.names_synced.lock().unwrap().push(fs::read_dir(folder)?.count());
        FileSystem.sync_folder(folder)
    }
}
