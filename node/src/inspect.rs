//! What stands in the folder of a replica that is stopped, whether it is whole, and what a start would make of it. The log is
//! only read; the checkpoint store is opened as at a start, which ends what it had begun.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use quorate_crypto::Digest;
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::Entry;
use quorate_protocol::number::{RecordNumber, Sequence};
use quorate_protocol::output::{Loss, NotVoting};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::{DurableCheckpoint, Mode, Start};
use quorate_protocol::state::{DEPTH, Index};
use quorate_protocol::time::{Now, Time, WallTime};
use serde::Serialize;

use crate::certificates::is_signed;
use crate::configuration::{EVIDENCE, LOG, ReplicaConfiguration, Role, STATE};
use crate::host::{identity, start_machine};
use crate::storage::checkpoint::{CheckpointStore, Map};
use crate::storage::lock::FolderLock;
use crate::storage::log;

/// Slots that are listed: the last ones.
const SLOTS_MAX: usize = 64;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Inspection {
    replica: u8,
    /// Whether it is that of a standby beside the replica.
    standby: bool,
    cluster: String,
    log: FoundLog,
    /// The last slots of which the log knows something.
    slots: Vec<FoundSlot>,
    /// Slots that are not listed, below those.
    slots_below: usize,
    checkpoint: Option<FoundCheckpoint>,
    /// Proofs of misbehaviour, in files of the folder `evidence`.
    evidence: usize,
    /// What is wrong; a start says what it does about it.
    problems: Vec<String>,
    start: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FoundLog {
    segments: Vec<FoundSegment>,
    records: u64,
    /// How many there are of each kind.
    kinds: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// The life of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<u64>,
    /// The epoch in which it last took part.
    epoch: u64,
    /// The last view that it entered or asked for.
    view: u64,
    /// The last stable checkpoint that it knew of.
    stable: u64,
}

#[derive(Debug, Serialize)]
struct FoundSegment {
    file: String,
    bytes: u64,
    /// All its records have smaller numbers.
    end: u64,
}

/// What a log knows of a slot, in the highest view.
#[derive(Debug, Clone, Default, Serialize)]
struct FoundSlot {
    sequence: u64,
    view: u64,
    digest: String,
    /// `accepted`, `prepared` or `decided`.
    phase: &'static str,
    /// Whether its batch is here.
    has_batch: bool,
    /// Requests in the batch.
    requests: usize,
}

#[derive(Debug, Serialize)]
struct FoundCheckpoint {
    sequence: u64,
    application_root: String,
    /// The root of all of it; none, if the protocol's own part is no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// `yes` or `no`, if the log holds a certificate of this slot; else `unknown`.
    certified: &'static str,
    entries: u64,
    bytes: u64,
}

/// Looks at the folder of a replica that is stopped.
///
/// # Errors
/// It runs, or its files cannot be read.
pub fn inspect(files: &ReplicaConfiguration) -> anyhow::Result<Inspection> {
    let configuration = files.genesis.configuration();
    let _lock = FolderLock::acquire(&files.data)?;
    let mut problems = Vec::new();
    let (log, records, lost) = read_log(files, configuration, &mut problems)?;
    let state = read_state(&files.data.join(STATE), &mut problems)?;
    let mut seen = Seen::default();
    for (number, record) in &records {
        seen.take(*number, record, configuration, &mut problems);
    }
    let checkpoint = state.as_ref().map(|(checkpoint, _)| checkpoint.sequence);
    let decided = seen.decided_after(checkpoint.unwrap_or_default());
    let (start, root) = start(files, &records, state.as_ref().map(|(found, _)| found.clone()), lost, decided);
    let stable = seen.stable.as_ref().map(|certificate| certificate.statement);
    let checkpoint = state.map(|(found, (entries, bytes))| {
        let same = stable.filter(|stable| stable.sequence == found.sequence);
        FoundCheckpoint {
            sequence: found.sequence.value(),
            application_root: found.application_root.to_string(),
            root: root.map(|root| root.to_string()),
            certified: match (same, root) {
                (Some(stable), Some(root)) if stable.root == root => "yes",
                (Some(_), _) => "no",
                (None, _) => "unknown",
            },
            entries,
            bytes,
        }
    });
    if checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.certified == "no") {
        problems.push("the checkpoint is not the state that a quorum vouched for: the replica has diverged".to_owned());
    }
    let slots_below = seen.slots.len().saturating_sub(SLOTS_MAX);
    Ok(Inspection {
        replica: files.id.value(),
        standby: files.role == Role::Standby,
        cluster: configuration.cluster().digest().to_string(),
        slots: seen.slots.into_values().skip(slots_below).collect(),
        slots_below,
        log: FoundLog {
            kinds: seen.kinds,
            incarnation: seen.incarnation,
            epoch: seen.epoch,
            view: seen.view,
            stable: stable.map_or(0, |stable| stable.sequence.value()),
            ..log
        },
        checkpoint,
        evidence: std::fs::read_dir(files.data.join(EVIDENCE)).map_or(0, Iterator::count),
        problems,
        start,
    })
}

type Records = Vec<(RecordNumber, Recovered)>;

/// The log, its records, and whether some are lost that had been durable.
fn read_log(
    files: &ReplicaConfiguration,
    configuration: &Configuration,
    problems: &mut Vec<String>,
) -> anyhow::Result<(FoundLog, Records, bool)> {
    let options = log::Options::new(files.data.join(LOG), identity(files));
    let mut records = Vec::new();
    let mut unknown = Vec::new();
    let mut on_record = |found: log::Recovered| match Recovered::decode(&found.head, found.body.as_ref(), configuration)
    {
        Ok(record) => records.push((RecordNumber::new(found.number), record)),
        Err(error) => unknown.push(format!("record {} is none of this version: {error}", found.number)),
    };
    let (recovery, segments) = log::survey(&options, &mut on_record)?;
    problems.extend(unknown);
    for missing in &recovery.missing {
        let numbers = format!("records {} to {} are lost", missing.numbers.start, missing.numbers.end - 1);
        let what = if missing.was_durable { ", and votes with them" } else { ", of a write that never ended" };
        problems.push(numbers + what);
    }
    let counts = [
        (recovery.repaired_heads, "votes were read from their second copy"),
        (recovery.damaged_bodies, "records have lost their batch or message"),
        (recovery.damaged_segments, "segments have no readable header"),
    ];
    problems.extend(counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let segments = segments.into_iter();
    let segments = segments.map(|found| FoundSegment { file: name(&found.path), bytes: found.bytes, end: found.end });
    let found = FoundLog {
        segments: segments.collect(),
        records: recovery.records,
        kinds: BTreeMap::new(),
        first: recovery.first,
        next: recovery.next,
        incarnation: None,
        epoch: 0,
        view: 0,
        stable: 0,
    };
    Ok((found, records, recovery.missing.iter().any(|missing| missing.was_durable)))
}

/// The durable checkpoint with its application's root computed anew, and how many entries and bytes it has.
type FoundState = (DurableCheckpoint, (u64, u64));

fn read_state(folder: &Path, problems: &mut Vec<String>) -> anyhow::Result<Option<FoundState>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let read = || -> anyhow::Result<Option<FoundState>> {
        let store = CheckpointStore::open(folder)?;
        let Some(latest) = store.latest() else { return Ok(None) };
        let snapshot = store.snapshot()?;
        let (mut index, mut entries, mut bytes) = (Index::new(DEPTH), 0, 0);
        for entry in snapshot.entries(Map::Application, None) {
            let (key, value) = entry?;
            entries += 1;
            bytes += (key.len() + value.len()) as u64;
            index.add(&key, &value);
        }
        let protocol = snapshot.entries(Map::Protocol, None);
        let protocol = protocol.map(|entry| entry.map(|(key, value)| Entry { key: key.into(), value: value.into() }));
        let found = DurableCheckpoint {
            sequence: Sequence::new(latest.sequence),
            application_root: index.finish(),
            protocol: protocol.collect::<Result<_, _>>()?,
        };
        Ok(Some((found, (entries, bytes))))
    };
    let state = read().with_context(|| format!("reading {}", folder.display()));
    state.or_else(|error| {
        problems.push(format!("{error:#}"));
        Ok(None)
    })
}

/// What records say, put together.
#[derive(Debug, Default)]
struct Seen {
    kinds: BTreeMap<&'static str, u64>,
    slots: BTreeMap<Sequence, FoundSlot>,
    incarnation: Option<u64>,
    epoch: u64,
    view: u64,
    stable: Option<StableCertificate>,
}

impl Seen {
    fn take(
        &mut self,
        number: RecordNumber,
        recovered: &Recovered,
        configuration: &Configuration,
        problems: &mut Vec<String>,
    ) {
        let (kind, is_valid) = match recovered {
            Recovered::Whole(Record::Accepted(vote, batch)) => {
                let (view, digest) = (vote.statement.view.value(), vote.statement.digest);
                let requests = batch.as_ref().map(|batch| batch.requests().len());
                self.note(vote.statement.sequence, view, digest, "accepted", requests);
                ("accepted", true)
            }
            Recovered::AcceptedWithoutBatch(vote) => {
                let (view, digest) = (vote.statement.view.value(), vote.statement.digest);
                self.note(vote.statement.sequence, view, digest, "accepted", None);
                ("accepted", true)
            }
            Recovered::Whole(Record::Prepared(certificate, _)) => {
                let of = certificate.statement;
                self.note(of.sequence, of.view.value(), of.digest, "prepared", None);
                ("prepared", is_signed(configuration, certificate))
            }
            Recovered::Whole(Record::Committed(certificate)) | Recovered::LearnedWithoutBatch(certificate) => {
                let of = certificate.statement;
                self.note(of.sequence, of.view.value(), of.digest, "decided", None);
                ("decided", is_signed(configuration, certificate))
            }
            Recovered::Whole(Record::Learned(certificate, batch)) => {
                let of = certificate.statement;
                self.note(of.sequence, of.view.value(), of.digest, "decided", Some(batch.requests().len()));
                ("learned", is_signed(configuration, certificate))
            }
            Recovered::Whole(Record::Stable(certificate)) => ("stable", self.note_stable(configuration, certificate)),
            Recovered::Whole(Record::Epoch(membership, certificate)) => {
                self.epoch = self.epoch.max(membership.epoch().value());
                ("epoch", self.note_stable(configuration, certificate))
            }
            Recovered::Whole(Record::ViewChange(_, view, _)) | Recovered::ViewChangeLost(_, view) => {
                self.view = self.view.max(view.value());
                ("view change", true)
            }
            Recovered::Whole(Record::NewView(_, view, _)) | Recovered::NewViewLost(_, view) => {
                self.view = self.view.max(view.value());
                ("new view", true)
            }
            Recovered::Whole(Record::Batch(..)) | Recovered::BatchLost(..) => ("batch", true),
            Recovered::Whole(Record::Incarnation(incarnation)) => {
                self.incarnation = Some(incarnation.value());
                ("incarnation", true)
            }
        };
        *self.kinds.entry(kind).or_default() += 1;
        if !is_valid {
            problems.push(format!("record {number} holds a certificate without a quorum of valid signatures"));
        }
    }

    fn note(&mut self, sequence: Sequence, view: u64, digest: Digest, phase: &'static str, requests: Option<usize>) {
        let digest = digest.to_string();
        let slot = self.slots.entry(sequence).or_default();
        if slot.digest != digest {
            *slot = FoundSlot { sequence: sequence.value(), digest, ..FoundSlot::default() };
        }
        slot.view = slot.view.max(view);
        slot.phase = if slot.phase == "decided" { slot.phase } else { phase };
        if let Some(requests) = requests {
            (slot.has_batch, slot.requests) = (true, requests);
        }
    }

    /// Whether it is one.
    fn note_stable(&mut self, configuration: &Configuration, certificate: &StableCertificate) -> bool {
        let is_higher = |known: &StableCertificate| certificate.statement.sequence > known.statement.sequence;
        if self.stable.as_ref().is_none_or(is_higher) {
            self.stable = Some(certificate.clone());
        }
        is_signed(configuration, certificate)
    }

    /// The last slot up to which all after `sequence` are decided and here.
    fn decided_after(&self, sequence: Sequence) -> Sequence {
        let mut last = sequence;
        while let Some(next) = last.next()
            && self.slots.get(&next).is_some_and(|slot| slot.phase == "decided" && slot.has_batch)
        {
            last = next;
        }
        last
    }
}

/// What a start would do, sentence by sentence, and the root of the checkpoint.
fn start(
    files: &ReplicaConfiguration,
    records: &Records,
    checkpoint: Option<DurableCheckpoint>,
    is_damaged: bool,
    decided: Sequence,
) -> (Vec<String>, Option<Digest>) {
    let from = checkpoint.as_ref().map(|checkpoint| checkpoint.sequence);
    let now = Now { monotonic: Time::ZERO, wall: WallTime::ZERO };
    let start = Start {
        id: files.id,
        configuration: Arc::new(files.genesis.configuration().clone()),
        signer: Arc::new(files.key.clone()),
        checkpoint,
        records: if is_damaged { Vec::new() } else { records.clone() },
        first_record: records.last().and_then(|(number, _)| number.next()).unwrap_or(RecordNumber::new(1)),
        is_damaged,
        token: 1,
    };
    let replica = match start_machine(files.role, start, now) {
        Ok(replica) => replica,
        Err(error) => return (vec![format!("It would refuse to start: {error}.")], None),
    };
    let mut steps = Vec::new();
    steps.push(match from {
        Some(from) => format!("It starts from the checkpoint at slot {from}."),
        None => "It starts without a checkpoint, from slot 0.".to_owned(),
    });
    let first = from.unwrap_or_default().saturating_add(1);
    if is_damaged {
        steps.push("The log is set aside, since votes in it are lost, and another one is begun.".to_owned());
    } else if decided >= first {
        steps.push(format!("It executes slots {first} to {decided} from its log."));
    }
    if replica.is_diverged() {
        steps.push(
            "Its state differs from the certified one: it executes nothing, and takes the state from others."
                .to_owned(),
        );
    }
    let (epoch, view) = (replica.configuration().epoch(), replica.view());
    steps.push(match replica.mode() {
        Mode::Normal => format!("It is in view {view} of epoch {epoch}."),
        Mode::ViewChange { to } => format!("It has left view {view} of epoch {epoch}, and asks for view {to}."),
    });
    steps.push(match replica.not_voting() {
        None => "It votes at once.".to_owned(),
        Some(NotVoting::Asking { needed, .. }) => {
            format!("It asks the others what it has signed, and votes when {needed} have answered.")
        }
        Some(NotVoting::StandsBy) => {
            format!("It stands by replica {}: it executes what the members decide, and never votes.", files.id)
        }
        Some(NotVoting::Lost(loss)) => {
            let why = match loss {
                Loss::Empty => "its log is new or gone",
                Loss::Damaged => "votes in its log are damaged",
                Loss::Earlier | Loss::Shown { .. } => "it lost votes before",
                Loss::Replaced => "another log was started under its key",
            };
            format!("It does not vote, since {why}: it has the epoch ended, and votes again in the next.")
        }
    });
    let root = from.and_then(|from| replica.state_root_at(from));
    (steps, root)
}

impl Inspection {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, standby, cluster, log, slots, slots_below, checkpoint, evidence, problems, start } = self;
        let standby = if *standby { "a standby beside " } else { "" };
        writeln!(formatter, "replica     {standby}{replica} of cluster {cluster}")?;
        writeln!(formatter, "log         {} records in {} segments", log.records, log.segments.len())?;
        for FoundSegment { file, bytes, end } in &log.segments {
            writeln!(formatter, "  {file}  {bytes} bytes, records below {end}")?;
        }
        let kinds: Vec<String> = log.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if !kinds.is_empty() {
            writeln!(formatter, "  {}", kinds.join(", "))?;
        }
        writeln!(formatter, "  epoch {}, view {}, stable at slot {}", log.epoch, log.view, log.stable)?;
        match checkpoint {
            Some(found) => {
                let FoundCheckpoint { sequence, root, certified, entries, bytes, .. } = found;
                let root = root.as_deref().unwrap_or("none");
                writeln!(formatter, "checkpoint  slot {sequence}: {entries} entries, {bytes} bytes, root {root}")?;
                writeln!(formatter, "  certified: {certified}")?;
            }
            None => writeln!(formatter, "checkpoint  none")?,
        }
        writeln!(formatter, "slots       {}", slots.len() + slots_below)?;
        if *slots_below > 0 {
            writeln!(formatter, "  … and {slots_below} before these")?;
        }
        for FoundSlot { sequence, view, digest, phase, has_batch, requests } in slots {
            let batch = if *has_batch { format!("{requests} requests") } else { "no batch".to_owned() };
            writeln!(formatter, "  {sequence:>8}  view {view}  {phase:<8}  {batch:<14}  {}", &digest[..16])?;
        }
        writeln!(formatter, "evidence    {evidence}")?;
        for problem in problems {
            writeln!(formatter, "problem     {problem}")?;
        }
        write!(formatter, "a start     {}", start.join("\n            "))
    }
}
