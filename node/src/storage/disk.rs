//! The few calls by which the log changes its files: the seam at which tests count, refuse and lose writes and syncs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::{Errno, pwritev};

/// Most slices that one system call takes (`IOV_MAX` on Linux).
const SLICES_MAX: usize = 1024;

/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;

/// After this many bytes of zeros they are synced, so that filling a segment never hoards dirty pages which a vote's sync
/// would then have to wait for.
const ZEROS_BETWEEN_SYNCS: u64 = 8 << 20;

/// What the log asks of a disk.
pub(super) trait Disk: std::fmt::Debug + Send + Sync {
    /// Makes the file `path`, `bytes` long, allocated and filled with zeros, and syncs it with its length.
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Writes all of `slices` at `position`.
    fn write(&self, file: &File, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Makes the names in `folder` durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(super) struct FileSystem;

impl Disk for FileSystem {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if !has_room(path.parent().unwrap_or(path), bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let filled = fill(&file, bytes);
        if filled.is_err() {
            drop(file);
            fs::remove_file(path)?;
        }
        filled
    }

    fn write(&self, file: &File, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        write_all(file, position, slices)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Whether the file system has room for so many bytes, as far as it says. Who finds out by taking what there is leaves nothing
/// to others for as long as that takes.
fn has_room(folder: &Path, bytes: u64) -> bool {
    statvfs(folder).map_or(true, |found| found.f_blocks == 0 || found.f_bavail.saturating_mul(found.f_frsize) >= bytes)
}

/// Space is claimed first, so that a full disk is known at once; then written, so that no later sync has to convert it.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let zeros = vec![0; ZEROS];
    let mut position = 0;
    let mut synced = 0;
    while position < bytes {
        let wanted = usize::try_from(bytes - position).map_or(ZEROS, |rest| rest.min(ZEROS));
        write_all(file, position, &mut [IoSlice::new(&zeros[..wanted])])?;
        position += wanted as u64;
        if position - synced >= ZEROS_BETWEEN_SYNCS {
            file.sync_data()?;
            synced = position;
        }
    }
    file.sync_all()
}

fn write_all(file: &File, mut position: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let some = slices.len().min(SLICES_MAX);
        let written = match pwritev(file, &slices[..some], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        position += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

/// Writes `bytes` again where they stand in the file `path`, and syncs it: after a failed sync the system may show what
/// the disk does not hold.
pub(super) fn write_again(disk: &dyn Disk, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    disk.write(&file, position, &mut [IoSlice::new(bytes)])?;
    disk.sync(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not one that is too large: nothing of it is tried.
    #[test]
    fn a_file_for_which_the_disk_has_no_room_is_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        let refused = FileSystem.allocate(&folder.path().join("file"), 1 << 60).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn more_slices_than_a_call_takes_are_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        FileSystem.allocate(&path, 16 << 10).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let parts: Vec<[u8; 2]> = (0..3000_u16).map(u16::to_le_bytes).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        FileSystem.write(&file, 8, &mut slices).unwrap();
        let found = fs::read(&path).unwrap();
        assert_eq!(found.len(), 16 << 10);
        assert_eq!(found[8..6008], parts.concat());
        assert!(found[6008..].iter().all(|byte| *byte == 0));
    }
}
