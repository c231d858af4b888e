//! The file of a backup while it is written: under a name of its own, so that what has its name is whole.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Seek as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
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
        if fs::symlink_metadata(target).is_ok() {
            return Err(TakeError::Exists { path: target.to_owned() });
        }
        let mut path = target.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let failed = |source| TakeError::Io { action: "create", path: path.clone(), source };
        // One that a crash left behind is written anew; a link that somebody put there is not followed.
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).custom_flags(flags).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TakeError::Busy { path: target.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(Self { file, target: target.to_owned(), is_finished: false, path: path.clone() })
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

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            fs::remove_file(&self.path).ok();
        }
    }
}
