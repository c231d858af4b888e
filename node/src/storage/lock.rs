//! One folder, one process (PROTOCOL §9): two processes that voted with one key from one folder would contradict each
//! other. The lock is advisory and belongs to the open file, so the system releases it whenever the process ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Name of the lock file in the folder. It stays there; only the lock on it matters.
pub const LOCK_FILE: &str = "lock";

/// Longest content of a lock file that is read: a process number and a line end fit many times over.
const CONTENT_BYTES_MAX: u64 = 64;

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process (or another part of this one) holds the lock.
    #[error("folder {} is in use by {}", folder.display(), holder(*process))]
    Held {
        /// The folder asked for.
        folder: PathBuf,
        /// The process that the lock file names, if it names one.
        process: Option<u32>,
    },
    /// The folder or its lock file could not be made, opened or locked.
    #[error("cannot lock folder {}", folder.display())]
    Io {
        /// The folder asked for.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An exclusive lock on a folder, held until this is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
    folder: PathBuf,
}

impl FolderLock {
    /// Locks `folder`, which is made if it is missing, and writes this process's number into its lock file. Never waits:
    /// a folder in use is [`LockError::Held`].
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join(LOCK_FILE))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { folder: folder.to_owned(), process: read_process(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        write_process(&mut file).map_err(failed)?;
        Ok(Self { _file: file, folder: folder.to_owned() })
    }

    /// The locked folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |process| format!("process {process}"))
}

fn read_process(file: &mut File) -> Option<u32> {
    let mut content = String::new();
    file.take(CONTENT_BYTES_MAX).read_to_string(&mut content).ok()?;
    content.trim().parse().ok()
}

fn write_process(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_the_folder_and_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(lock.folder(), folder.path());
        let refusal = FolderLock::acquire(folder.path()).unwrap_err();
        let LockError::Held { folder: named, process } = &refusal else { panic!("{refusal}") };
        assert_eq!((named.as_path(), *process), (folder.path(), Some(std::process::id())));
        assert!(refusal.to_string().contains(&std::process::id().to_string()), "{refusal}");
    }

    #[test]
    fn a_dropped_lock_can_be_taken_again_whatever_the_file_says() {
        let folder = tempfile::tempdir().unwrap();
        drop(FolderLock::acquire(folder.path()).unwrap());
        fs::write(folder.path().join(LOCK_FILE), "4294967296 is no process").unwrap();
        let _held = FolderLock::acquire(folder.path()).unwrap();
        fs::write(folder.path().join(LOCK_FILE), [0xff; 3]).unwrap();
        let refusal = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(refusal, LockError::Held { process: None, .. }), "{refusal}");
    }
}
