//! A second puppet under the same key, with a machine of its own in memory: log, checkpoints and application.
//!
//! What it asks of its host is done at once and nothing of it is ever lost, unless somebody puts an old copy of what is
//! durable in its place.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_protocol::application::{Change, Replicated};
use quorate_protocol::input::{Input, StageReady};
use quorate_protocol::message::Entry;
use quorate_protocol::number::{RecordNumber, Sequence};
use quorate_protocol::output::StagedBucket;
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::{DurableCheckpoint, Replica, Start};
use quorate_protocol::time::Time;
use quorate_protocol::{Machine, Output};

use super::{Body, MakeApplication, start_voting};
use crate::host::TRANSFER_LIMITS;
use crate::staging::staged_entries;

type Entries = BTreeMap<Bytes, Bytes>;

/// What is durable. Bounded as the log of a replica is: it cuts it.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    records: VecDeque<(RecordNumber, Record)>,
    checkpoint: Option<DurableCheckpoint>,
    application: Entries,
    protocol: Entries,
}

/// A second puppet.
pub(super) struct Understudy {
    replica: Replica,
    memory: Memory,
    application: Replicated,
    make_application: MakeApplication,
    /// Buckets of a state that is transferred. Bound: as many as the tree has.
    staged: BTreeMap<u32, StagedBucket>,
    /// That state, once it is whole: its slot, the protocol's entries and the application's.
    whole: Option<(Sequence, Vec<Entry>, Entries)>,
}

impl fmt::Debug for Understudy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Understudy").field("replica", &self.replica).finish_non_exhaustive()
    }
}

fn list(entries: &Entries) -> Vec<Entry> {
    entries.iter().map(|(key, value)| Entry { key: key.clone().into(), value: value.clone().into() }).collect()
}

fn map(entries: Vec<Entry>) -> Entries {
    entries.into_iter().map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect()
}

fn apply(entries: &mut Entries, changes: Vec<Change>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(entries.insert(key, value)),
            None => drop(entries.remove(&key)),
        }
    }
}

impl Understudy {
    /// One that starts on what is durable there; none if no replica would.
    pub(super) fn start(body: &Body, memory: Memory) -> Option<Self> {
        let (fresh, make_application) = body.fresh_start();
        let mut application = make_application();
        if memory.checkpoint.is_some() {
            application.restore(&mut list(&memory.application).into_iter()).ok()?;
        }
        let records = memory.records.iter().map(|(number, record)| (*number, Recovered::Whole(record.clone())));
        let next = memory.records.back().and_then(|(last, _)| last.next());
        let start = Start {
            checkpoint: memory.checkpoint.clone(),
            records: records.collect(),
            first_record: next.unwrap_or(fresh.first_record),
            ..fresh
        };
        let replica = start_voting(start, body.now()).ok()?;
        Some(Self { replica, memory, application, make_application, staged: BTreeMap::new(), whole: None })
    }

    /// What is durable.
    pub(super) const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// When it wants to be woken.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.replica.next_deadline()
    }

    /// Takes something in; gives what it says and asks beyond its machine.
    pub(super) fn handle(&mut self, body: &Body, input: Input) -> Vec<Output> {
        let mut said = Vec::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.replica.handle(body.now(), input);
            while let Some(output) = self.replica.poll_output() {
                match output {
                    Output::Send { .. } | Output::Broadcast(_) | Output::Reply(_) => said.push(output),
                    own => self.carry_out(own, &mut inputs),
                }
            }
        }
        said
    }

    fn carry_out(&mut self, output: Output, done: &mut VecDeque<Input>) {
        match output {
            Output::Append { number, record } => {
                self.memory.records.push_back((number, record));
                done.push_back(Input::Durable(number));
            }
            Output::Cut { before } => self.memory.records.retain(|(number, _)| *number >= before),
            Output::Execute(execution) => {
                let results = self.application.execute(&execution);
                done.push_back(Input::Executed { sequence: execution.sequence, results });
            }
            Output::TakeCheckpoint { sequence, protocol } => {
                let image = self.application.checkpoint();
                apply(&mut self.memory.application, image.changes);
                apply(&mut self.memory.protocol, protocol);
                let (application_root, protocol) = (image.root, list(&self.memory.protocol));
                self.memory.checkpoint = Some(DurableCheckpoint { sequence, application_root, protocol });
                done.push_back(Input::CheckpointTaken { sequence, application_root });
                done.push_back(Input::CheckpointDurable { sequence });
            }
            Output::StageBegin { .. } => {
                self.staged.clear();
                let mut application = (self.make_application)();
                drop(application.restore(&mut list(&self.memory.application).into_iter()));
                let leaves = application.index().row(application.index().depth());
                done.push_back(Input::StageReady(StageReady { leaves, limits: TRANSFER_LIMITS }));
            }
            Output::StageBuckets(buckets) => {
                self.staged.extend(buckets.into_iter().map(|bucket| (bucket.number, bucket)));
            }
            Output::StageEnd { sequence, protocol } => {
                let mut application = (self.make_application)();
                let entries = staged_entries(&self.memory.application, &self.staged, application.index().depth());
                let application_root = application.restore(&mut list(&entries).into_iter()).ok();
                self.whole = Some((sequence, protocol, entries));
                done.push_back(Input::StateStaged { sequence, application_root });
            }
            Output::StageInstall => self.install(done),
            _ => {}
        }
    }

    fn install(&mut self, done: &mut VecDeque<Input>) {
        let Some((sequence, protocol, application)) = self.whole.take() else { return };
        let Ok(application_root) = self.application.restore(&mut list(&application).into_iter()) else { return };
        self.memory.checkpoint = Some(DurableCheckpoint { sequence, application_root, protocol: protocol.clone() });
        self.memory.application = application;
        self.memory.protocol = map(protocol);
        done.push_back(Input::StateInstalled { sequence });
    }
}
