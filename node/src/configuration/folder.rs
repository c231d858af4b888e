//! Making a folder of files so that after a crash, a failure or a full disk it is there whole or not at all: it is built
//! under a name beside its own, synced, and renamed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::file_error::FileError;

/// Permission bits of a folder that holds private keys.
const MODE_PRIVATE: u32 = 0o700;

/// A folder that is being built. Unless it is finished, it is removed when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    target: PathBuf,
    built: TempDir,
    // Declared last, so that it is dropped last: a parent can be removed only when it is empty.
    parents: MadeParents,
}

impl Staging {
    /// Begins a folder that is to stand at `target`, where nothing or an empty folder may be. Missing parents are made.
    pub(crate) fn begin(target: &Path) -> Result<Self, FileError> {
        let target = std::path::absolute(target).map_err(FileError::io("find", target))?;
        if is_taken(&target)? {
            return Err(FileError::Exists { path: target });
        }
        let parent = target.parent().ok_or_else(|| FileError::Exists { path: target.clone() })?;
        let parents = MadeParents::make(parent)?;
        let built = tempfile::Builder::new()
            .prefix(".quorate-new-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(FileError::io("make a folder in", parent))?;
        Ok(Self { target, built, parents })
    }

    /// Where to build.
    pub(crate) fn path(&self) -> &Path {
        self.built.path()
    }

    /// Syncs the folder and puts it in its place.
    pub(crate) fn finish(self) -> Result<(), FileError> {
        let target = &self.target;
        sync_folder(self.built.path())?;
        // Replaces nothing but an empty folder: with anything else at the target, the system refuses.
        fs::rename(self.built.path(), target).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                FileError::Exists { path: target.clone() }
            }
            _ => FileError::Io { action: "make", path: target.clone(), source },
        })?;
        drop(self.built.keep());
        self.parents.keep();
        target.parent().map_or(Ok(()), sync_folder)
    }
}

/// Folders above the target that had to be made. Removed when dropped, where they are empty.
#[derive(Debug)]
struct MadeParents(Vec<PathBuf>);

impl MadeParents {
    fn make(folder: &Path) -> Result<Self, FileError> {
        let missing = folder.ancestors().take_while(|ancestor| !ancestor.exists());
        let made = Self(missing.map(Path::to_owned).collect());
        fs::create_dir_all(folder).map_err(FileError::io("make", folder))?;
        made.0.iter().filter_map(|path| path.parent()).try_for_each(sync_folder)?;
        Ok(made)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for MadeParents {
    fn drop(&mut self) {
        for path in &self.0 {
            // One that somebody else put something into stays, and so do those above it.
            fs::remove_dir(path).ok();
        }
    }
}

/// Makes a folder that only its owner may enter.
pub(super) fn create_private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().mode(MODE_PRIVATE).create(path).map_err(FileError::io("make", path))
}

/// Writes a new file and syncs it; the umask may take bits from `mode`.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::Io { action: "create", path: path.to_owned(), source },
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(FileError::io("write", path))
}

/// Makes durable which files are in a folder.
pub(super) fn sync_folder(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::io("sync", path))
}

/// Whether anything but an empty folder stands at `path`.
fn is_taken(path: &Path) -> Result<bool, FileError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::Io { action: "look at", path: path.to_owned(), source }),
        Ok(metadata) if !metadata.is_dir() => Ok(true),
        Ok(_) => Ok(fs::read_dir(path).map_err(FileError::io("list", path))?.next().is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_finished_folder_stands_in_its_place_and_nothing_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::begin(&root.path().join("a/b/net")).unwrap();
        write_new(&staging.path().join("file"), b"content", 0o644).unwrap();
        staging.finish().unwrap();
        assert_eq!(names(&root.path().join("a/b")), ["net"]);
        assert_eq!(fs::read(root.path().join("a/b/net/file")).unwrap(), b"content");
    }

    #[test]
    fn an_unfinished_folder_and_the_parents_made_for_it_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::begin(&root.path().join("a/b/net")).unwrap();
        write_new(&staging.path().join("file"), b"content", 0o644).unwrap();
        drop(staging);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn nothing_is_overwritten_but_an_empty_folder() {
        let root = tempfile::tempdir().unwrap();
        let (file, full, empty) = (root.path().join("file"), root.path().join("full"), root.path().join("empty"));
        fs::write(&file, b"mine").unwrap();
        fs::create_dir_all(full.join("inner")).unwrap();
        fs::create_dir(&empty).unwrap();
        assert!(matches!(Staging::begin(&file), Err(FileError::Exists { .. })));
        assert!(matches!(Staging::begin(&full), Err(FileError::Exists { .. })));
        assert!(matches!(Staging::begin(Path::new("/")), Err(FileError::Exists { .. })));
        Staging::begin(&empty).unwrap().finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn what_appears_at_the_target_meanwhile_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("net");
        let staging = Staging::begin(&target).unwrap();
        fs::create_dir_all(target.join("somebody's")).unwrap();
        assert!(matches!(staging.finish(), Err(FileError::Exists { .. })));
        assert_eq!(names(root.path()), ["net"]);
        assert_eq!(names(&target), ["somebody's"]);
    }
}
