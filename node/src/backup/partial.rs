//! The file of a backup while it is written: under a name of its own, so that what has its name is whole.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::TakeError;

/// The permission bits of a backup: it holds all that clients wrote.
const MODE: u32 = 0o600;

/// The file under way, under a name of its own. Unless it is finished, it is removed when dropped.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    is_finished: bool,
}

impl Partial {
    pub(super) fn create(target: &Path) -> Result<Self, TakeError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        loop {
            refuse_target(target)?;
            if let Some(partial) = Self::claim(open(&path)?, &path, target)? {
                return Ok(partial);
            }
        }
    }

    /// Locks what was opened at `path`. None if it has that name no more: another backup had it under way, and has just
    /// finished it or given it up.
    fn claim(file: File, path: &Path, target: &Path) -> Result<Option<Self>, TakeError> {
        let failed = |source| TakeError::Io { action: "create", path: path.to_owned(), source };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TakeError::Busy { path: target.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Under the lock nobody else renames or removes it.
        let own = file.metadata().map_err(failed)?;
        let is_named = |found: fs::Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
        if !fs::symlink_metadata(path).is_ok_and(is_named) {
            return Ok(None);
        }
        let partial = Self { file, target: target.to_owned(), is_finished: false, path: path.to_owned() };
        refuse_target(target)?;
        partial.file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(Some(partial))
    }

    /// Where it is until it is finished.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, empty.
    pub(super) fn begin(&self) -> Result<File, TakeError> {
        let emptied = self.file.set_len(0).and_then(|()| {
            let mut file = self.file.try_clone()?;
            file.rewind()?;
            Ok(file)
        });
        emptied.map_err(|source| TakeError::Io { action: "write", path: self.path.clone(), source })
    }

    /// Gives it its name, durably, if nobody else has taken that meanwhile.
    pub(super) fn finish(&mut self) -> Result<(), TakeError> {
        let target = &self.target;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => TakeError::Exists { path: target.clone() },
            _ => TakeError::Io { action: "make", path: target.clone(), source },
        };
        renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE).map_err(|error| failed(error.into()))?;
        self.is_finished = true;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// A file with the backup's name is not overwritten.
fn refuse_target(target: &Path) -> Result<(), TakeError> {
    if fs::symlink_metadata(target).is_ok() { Err(TakeError::Exists { path: target.to_owned() }) } else { Ok(()) }
}

/// One that a crash left behind is written anew; a link that somebody put there is not followed.
fn open(path: &Path) -> Result<File, TakeError> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).custom_flags(flags).open(path);
    opened.map_err(|source| TakeError::Io { action: "create", path: path.to_owned(), source })
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_another_finishes_before_it_is_locked_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("backup"), folder.path().join("backup.partial"));
        let mut first = Partial::create(&target).unwrap();
        first.begin().unwrap().write_all(b"whole").unwrap();
        let late = open(&path).unwrap();
        first.finish().unwrap();
        drop(first);
        assert!(Partial::claim(late, &path, &target).unwrap().is_none());
        assert!(matches!(Partial::create(&target), Err(TakeError::Exists { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert!(!path.exists());
    }

    #[test]
    fn what_another_gives_up_before_it_is_locked_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("backup"), folder.path().join("backup.partial"));
        let first = Partial::create(&target).unwrap();
        let late = open(&path).unwrap();
        drop(first);
        assert!(Partial::claim(late, &path, &target).unwrap().is_none());
        assert!(Partial::create(&target).unwrap().path().exists());
    }

    #[test]
    fn what_is_finished_before_another_is_begun_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("backup"), folder.path().join("backup.partial"));
        let mut first = Partial::create(&target).unwrap();
        first.finish().unwrap();
        let late = open(&path).unwrap();
        assert!(matches!(Partial::claim(late, &path, &target), Err(TakeError::Exists { .. })));
        assert!(!path.exists());
    }
}
