//! What is said of a state on disk that cannot be read.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::Problem;

/// Adds what to do about a state in `folder` that cannot be read, unless it is kept from this process rather than damaged.
/// The votes stand in the log: without its state a replica has only fallen behind, and takes the others'. (PROTOCOL §9)
pub(super) fn advise(error: anyhow::Error, folder: &Path) -> anyhow::Error {
    if !is_damage(&error) {
        return error;
    }
    let mend = format!(
        "move {} away, keep the log beside it, and start the replica: it takes the state from the others",
        folder.display()
    );
    Problem::failed(format!("{error:#}"), mend).into()
}

/// Whether a state that cannot be read is damaged: otherwise it is kept from this process, or that lacks what it takes to read.
pub(super) fn is_damage(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let is_kept = |error: &io::Error| {
        let kinds = [OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
        let is_without_files = matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
        is_without_files || kinds.contains(&error.kind())
    };
    !error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_kept)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::error::Report;

    fn mend(kind: io::ErrorKind) -> Option<String> {
        let error = Err::<(), _>(io::Error::new(kind, "odd")).context("opening the state").unwrap_err();
        let report = Report::new(&advise(error, Path::new("data/state")).context("replica 1"));
        assert_eq!(report.error, "replica 1: opening the state: odd");
        report.mend
    }

    #[test]
    fn a_damaged_state_is_to_be_moved_away_and_one_that_is_kept_from_us_is_not() {
        assert!(mend(io::ErrorKind::InvalidData).is_some_and(|mend| mend.starts_with("move data/state away")));
        for kept in [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull] {
            assert!(mend(kept).is_some_and(|mend| !mend.contains("data/state")));
        }
    }

    #[test]
    fn a_state_that_this_process_has_no_files_or_memory_to_read_is_not_damaged() {
        for lacking in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert!(!is_damage(&io::Error::from(lacking).into()), "{lacking}");
        }
        assert!(is_damage(&io::Error::from(Errno::IO).into()));
    }
}
