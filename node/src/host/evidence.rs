//! Proofs of misbehaviour, kept in files for the operator: those of earlier runs stay, and are reported, too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::to_frame;
use quorate_protocol::number::ReplicaId;

/// Proofs kept of one replica: the first says it all.
const EVIDENCE_MAX: usize = 16;

/// The folder of proofs.
#[derive(Debug)]
pub(super) struct EvidenceFolder {
    path: PathBuf,
    /// The highest number of a proof against each replica. Bound: one a member.
    kept: BTreeMap<ReplicaId, usize>,
}

impl EvidenceFolder {
    /// Finds what is in the folder, which need not be there.
    ///
    /// # Errors
    /// It cannot be listed.
    pub(super) fn open(path: PathBuf, members: impl Iterator<Item = ReplicaId>) -> io::Result<Self> {
        let mut kept: BTreeMap<ReplicaId, usize> = BTreeMap::new();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let members: Vec<ReplicaId> = members.collect();
        for entry in entries.into_iter().flatten() {
            let name = entry?.file_name();
            let Some((accused, number)) = name.to_str().and_then(read_name) else { continue };
            if let Some(accused) = members.iter().find(|member| member.value() == accused) {
                let highest = kept.entry(*accused).or_default();
                *highest = number.max(*highest);
            }
        }
        Ok(Self { path, kept })
    }

    /// Whom the proofs are against.
    pub(super) fn accused(&self) -> impl Iterator<Item = ReplicaId> {
        self.kept.keys().copied()
    }

    /// Keeps a proof, unless there are enough against its replica. Gives what writes it, durable as a whole or not at all:
    /// it may take its time.
    pub(super) fn keep(&mut self, evidence: &Evidence) -> Option<impl FnOnce() + Send + 'static> {
        let accused = evidence.accused();
        let highest = self.kept.entry(accused).or_default();
        if *highest >= EVIDENCE_MAX {
            return None;
        }
        let bytes = to_frame(evidence).ok()?;
        *highest += 1;
        tracing::error!(%accused, ?evidence, "proof of misbehaviour");
        let (folder, name) = (self.path.clone(), file_name(accused, *highest));
        Some(move || {
            if let Err(error) = write(&folder, &name, &bytes) {
                tracing::error!(folder = %folder.display(), name, %error, "the proof could not be written");
            }
        })
    }
}

fn file_name(accused: ReplicaId, number: usize) -> String {
    format!("replica-{accused}-{number}.bin")
}

fn read_name(name: &str) -> Option<(u8, usize)> {
    let (accused, number) = name.strip_prefix("replica-")?.strip_suffix(".bin")?.split_once('-')?;
    Some((accused.parse().ok()?, number.parse().ok()?))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use quorate_crypto::Signature;
    use quorate_protocol::codec::Blob;
    use quorate_protocol::message::from_frame;
    use quorate_protocol::number::{Epoch, Sequence, View};
    use quorate_protocol::statement::{Prepare, Vote};

    use super::*;

    /// A proof against a replica, unlike those of other slots.
    fn evidence(accused: u8, sequence: u64) -> Evidence {
        let (epoch, view, sequence) = (Epoch::ZERO, View::ZERO, Sequence::new(sequence));
        let statement = Prepare { epoch, view, sequence, digest: quorate_crypto::Digest::ZERO };
        let vote = Vote { statement, voter: ReplicaId::new(accused), signature: Signature::from_bytes([0; 64]) };
        Evidence::InvalidBatch { vote, batch: Blob::EMPTY }
    }

    fn open(path: &Path) -> EvidenceFolder {
        EvidenceFolder::open(path.to_owned(), ReplicaId::all(4)).unwrap()
    }

    /// Keeps a proof and writes it at once; says whether there was room for it.
    fn keep(folder: &mut EvidenceFolder, evidence: &Evidence) -> bool {
        folder.keep(evidence).map(|write| write()).is_some()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn proofs_of_an_earlier_run_stay_and_are_known() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data/evidence");
        let mut first = open(&path);
        assert_eq!(first.accused().count(), 0);
        assert!(keep(&mut first, &evidence(2, 1)));
        let mut second = open(&path);
        assert_eq!(second.accused().collect::<Vec<_>>(), [ReplicaId::new(2)]);
        assert!(keep(&mut second, &evidence(2, 2)) && keep(&mut second, &evidence(3, 3)));
        assert_eq!(names(&path), ["replica-2-1.bin", "replica-2-2.bin", "replica-3-1.bin"]);
        for (name, slot) in names(&path).into_iter().zip(1..) {
            let bytes = fs::read(path.join(name)).unwrap().into();
            let Evidence::InvalidBatch { vote, .. } = from_frame(&bytes).unwrap() else { unreachable!("of that kind") };
            assert_eq!(vote.statement.sequence, Sequence::new(slot));
        }
    }

    #[test]
    fn a_few_proofs_against_a_replica_are_enough_however_often_it_is_started() {
        let root = tempfile::tempdir().unwrap();
        for slot in 1..=2 * EVIDENCE_MAX {
            let had_room = keep(&mut open(root.path()), &evidence(2, slot as u64));
            assert_eq!(had_room, slot <= EVIDENCE_MAX, "slot {slot}");
        }
        assert_eq!(names(root.path()).len(), EVIDENCE_MAX);
    }

    #[test]
    fn files_that_are_no_proofs_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        for name in ["replica-2-1.bin.new", "replica-9-1.bin", "replica-x-1.bin", "notes.txt"] {
            fs::write(root.path().join(name), b"kept").unwrap();
        }
        assert_eq!(open(root.path()).accused().count(), 0);
        assert_eq!(names(root.path()).len(), 4);
    }
}
