//! The first record of a log: written when its replica is founded, once. (PROTOCOL §9, loss of votes)

use std::path::Path;

use quorate_protocol::number::Incarnation;
use quorate_protocol::record::{EncodedRecord, Record};

use crate::storage::log::{Error, Identity, Log, Options, SEGMENT_BYTES_MIN};

/// The number of the first record.
const FIRST: u64 = 1;

/// Begins the log in `folder`, which has none yet, durably. A replica that is started on a log without this record knows
/// that what it signed is lost.
///
/// # Errors
/// What the log could not do; then there is none.
pub(super) fn found(folder: &Path, identity: Identity) -> Result<(), Error> {
    let mut options = Options::new(folder.to_owned(), identity);
    // One record: what follows goes into segments of the size that is configured.
    options.segment_bytes = SEGMENT_BYTES_MIN;
    let (log, _) = Log::open(&options, &mut |_| {}, Box::new(|_| {}))?;
    let EncodedRecord { head, body } = Record::Incarnation(Incarnation::ZERO).encode();
    log.append(FIRST, head, body)?;
    log.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_of_a_log_names_its_life() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let identity = Identity { cluster: [7; 32], replica: 2 };
        found(&log, identity).unwrap();
        let mut heads = Vec::new();
        let mut on_record = |found: crate::storage::log::Recovered| heads.push((found.number, found.head));
        let (opened, recovery) = Log::open(&Options::new(log, identity), &mut on_record, Box::new(|_| {})).unwrap();
        assert_eq!(heads, [(FIRST, Record::Incarnation(Incarnation::ZERO).encode().head)]);
        assert_eq!((recovery.next, recovery.missing.len()), (Some(FIRST + 1), 0));
        opened.close().unwrap();
    }
}
