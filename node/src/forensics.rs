//! The logs of stopped replicas, read together: who is to blame if correct replicas decided differently. (PROTOCOL §15)
//!
//! Folders may come from anybody. What stands in them is checked, with nothing but the genesis, and the log is only read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::forensics::{Findings, Forensics};
use quorate_protocol::message::from_frame;
use quorate_protocol::number::Sequence;
use quorate_protocol::record::{Record, Recovered};
use serde::Serialize;

use crate::configuration::{EVIDENCE, Genesis, LOG, Outline};
use crate::error::Problem;
use crate::host::Zip215;
use crate::storage::lock::FolderLock;
use crate::storage::log::{self, Identity};

/// Longest file of a proof that is read: a batch of the largest size, and some.
pub(crate) const EVIDENCE_BYTES_MAX: u64 = 8 << 20;

/// Proofs that are read of a folder: more than a replica keeps.
const EVIDENCE_FILES_MAX: usize = 1024;

/// What was read in a folder.
#[derive(Debug, Serialize)]
pub struct ReadFolder {
    /// Where it is.
    pub folder: PathBuf,
    /// Whose it says it is.
    pub replica: u8,
    /// Records of its log.
    pub records: u64,
    /// The first slot of which its log knows what is decided.
    pub first_decided: Option<u64>,
    /// The last one.
    pub last_decided: Option<u64>,
    /// The last stable checkpoint in it: at most from there on the log is whole.
    pub stable: u64,
    /// Whether records are lost in the midst of it.
    pub is_damaged: bool,
    #[serde(skip)]
    pub(crate) decided: BTreeSet<Sequence>,
}

/// What stands in folders, and what follows from it.
#[derive(Debug)]
pub struct Reading {
    /// The folders, as they were named.
    pub folders: Vec<ReadFolder>,
    /// What follows from all of them together.
    pub findings: Findings,
    /// Slots that at least two of the logs say are decided, so that they can be compared.
    pub compared: BTreeSet<Sequence>,
}

/// Reads the logs, and the proofs, in the folders of replicas that are stopped.
///
/// # Errors
/// One of them runs, is none of this cluster, is named twice, or cannot be read.
pub fn read(genesis: &Genesis, folders: &[PathBuf]) -> anyhow::Result<Reading> {
    let configuration = genesis.configuration();
    let mut verifier = Zip215::default();
    let mut forensics = Forensics::new(configuration);
    let mut read = Vec::new();
    let mut known = BTreeSet::new();
    for folder in folders {
        let what = || format!("reading {}", folder.display());
        let outline = Outline::load(folder)?;
        let real = fs::canonicalize(&outline.data).with_context(what)?;
        if !known.insert(real) {
            return Err(Problem::usage(format!("{} is named twice", folder.display()), "name each folder once").into());
        }
        let _lock = FolderLock::acquire(&outline.data)?;
        let found = read_folder(folder, &outline, configuration, &mut forensics, &mut verifier).with_context(what)?;
        read_evidence(&outline.data.join(EVIDENCE), &mut forensics, &mut verifier).with_context(what)?;
        read.push(found);
    }
    let mut seen = BTreeSet::new();
    let all = read.iter().flat_map(|folder: &ReadFolder| &folder.decided);
    let compared = all.filter(|sequence| !seen.insert(**sequence)).copied().collect();
    Ok(Reading { folders: read, findings: forensics.conclude(), compared })
}

fn read_folder(
    folder: &Path,
    outline: &Outline,
    configuration: &Configuration,
    forensics: &mut Forensics<'_>,
    verifier: &mut Zip215,
) -> anyhow::Result<ReadFolder> {
    let path = outline.data.join(LOG);
    if !path.is_dir() {
        let what = format!("{} is no folder of a log", path.display());
        return Err(Problem::failed(what, "name folders of replicas, as `quorate init` made them").into());
    }
    let cluster = *configuration.cluster().digest().as_bytes();
    let options = log::Options::new(path, Identity { cluster, replica: outline.id.value().into() });
    let mut found = ReadFolder {
        folder: folder.to_owned(),
        replica: outline.id.value(),
        records: 0,
        first_decided: None,
        last_decided: None,
        stable: 0,
        is_damaged: false,
        decided: BTreeSet::new(),
    };
    let mut on_record =
        |record: log::Recovered| match Recovered::decode(&record.head, record.body.as_ref(), configuration) {
            Ok(record) => {
                forensics.read(&record, verifier);
                found.note(&record);
            }
            Err(_) => found.is_damaged = true,
        };
    let (recovery, _) = log::survey(&options, &mut on_record)?;
    found.records = recovery.records;
    found.is_damaged |= recovery.missing.iter().any(|missing| missing.was_durable) || recovery.damaged_bodies > 0;
    found.first_decided = found.decided.first().map(|sequence| sequence.value());
    found.last_decided = found.decided.last().map(|sequence| sequence.value());
    Ok(found)
}

impl ReadFolder {
    fn note(&mut self, record: &Recovered) {
        match record {
            Recovered::Whole(Record::Committed(certificate) | Record::Learned(certificate, _))
            | Recovered::LearnedWithoutBatch(certificate) => {
                self.decided.insert(certificate.statement.sequence);
            }
            Recovered::Whole(Record::Stable(certificate) | Record::Epoch(_, certificate)) => {
                self.stable = self.stable.max(certificate.statement.sequence.value());
            }
            _ => {}
        }
    }
}

/// Takes in the proofs that the replica kept; what is none counts for nothing.
fn read_evidence(folder: &Path, forensics: &mut Forensics<'_>, verifier: &mut Zip215) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)?.take(EVIDENCE_FILES_MAX) {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "bin") {
            continue;
        }
        let mut bytes = Vec::new();
        File::open(&path)?.take(EVIDENCE_BYTES_MAX).read_to_end(&mut bytes)?;
        if let Ok(evidence) = from_frame::<Evidence>(&bytes.into()) {
            forensics.read_evidence(evidence, verifier);
        }
    }
    Ok(())
}
