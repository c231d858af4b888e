//! The folder of the checkpoint store: names, and making them durable.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{Error, io_error};

/// Name of a database's folder.
pub(super) fn state_name(serial: u64) -> String {
    format!("state-{serial:016x}")
}

/// What the names of folders begin with that hold buckets of a state that is fetched.
const PARTS: &str = "parts-";

/// Name of the folder with buckets that are put upon the state of a checkpoint.
pub(super) fn parts_name(base: Option<u64>) -> String {
    base.map_or_else(|| format!("{PARTS}none"), |base| format!("{PARTS}{base:016x}"))
}

/// Removes all buckets that are put upon another checkpoint.
pub(super) fn remove_other_parts(folder: &Path, base: Option<u64>) -> Result<(), Error> {
    let failed = |source| io_error("list", folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let is_other = |name: &&str| name.starts_with(PARTS) && **name != parts_name(base);
        if let Some(name) = name.to_str().filter(is_other) {
            remove_folder(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Numbers of the states in `folder`, ascending.
pub(super) fn list(folder: &Path) -> Result<Vec<u64>, Error> {
    let failed = |source| io_error("list", folder, source);
    let mut serials = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("state-")).filter(|digits| digits.len() == 16);
        serials.extend(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    serials.sort_unstable();
    Ok(serials)
}

/// Removes a folder with all it holds, if it is there.
pub(super) fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder, source)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable, or a file.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    let synced = File::open(folder).and_then(|opened| opened.sync_all());
    synced.map_err(|source| io_error("sync", folder, source))
}

/// Syncs every file and folder below `folder`, and itself: once a rename makes it count, nothing of it may be missing.
pub(super) fn sync_tree(folder: &Path) -> Result<(), Error> {
    let failed = |source| io_error("list", folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            sync_folder(&entry.path())?;
        }
    }
    sync_folder(folder)
}
