//! From items back to what a core is given: put together, and checked.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use quorate_crypto::Digest;

use super::{Clocks, Digests, End, Event, Item, Role};
use crate::application::Results;
use crate::batch::{ParsedRequest, SignedRequest};
use crate::codec::{Blob, CodecError};
use crate::configuration::Configuration;
use crate::input::{Input, StageReady};
use crate::message::Entry;
use crate::number::{Epoch, RecordNumber, ReplicaId};
use crate::record::Recovered;
use crate::replica::{DurableCheckpoint, Start};
use crate::statement::Signer;
use crate::time::Now;
use crate::verify::{Invalid, Verified, Verifier, verify, verify_requests};

/// Epochs whose configurations are kept: what was checked in one is handled in it, or soon after.
const EPOCHS_MAX: usize = 64;

/// Puts items together, in order.
#[derive(Debug, Default)]
pub struct Items {
    /// Bound of these: the items themselves, which whoever reads them has bounded.
    records: Vec<(RecordNumber, Blob, Option<Blob>)>,
    entries: Vec<Entry>,
    results: Vec<Results>,
    leaves: Vec<Digest>,
}

/// Something that happened to the core.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are inputs, and there is one at a time")]
pub enum Step {
    /// It was started.
    Start(RecordedStart),
    /// It was given an input.
    Input {
        /// Digests of the outputs of the step before.
        outputs: Digests,
        /// When.
        now: Now,
        /// What.
        input: RecordedInput,
    },
    /// The recording ends.
    End {
        /// Digests of the outputs of the step before, if the replica was stopped; else none.
        outputs: Digests,
        /// Why.
        reason: End,
    },
}

/// What a core was started with.
#[derive(Debug)]
pub struct RecordedStart {
    id: ReplicaId,
    checkpoint: Option<DurableCheckpoint>,
    records: Vec<(RecordNumber, Blob, Option<Blob>)>,
    first_record: RecordNumber,
    is_damaged: bool,
    token: u64,
    now: Clocks,
    role: Role,
}

/// An input that is yet to be checked.
#[derive(Debug)]
pub struct RecordedInput {
    event: Event,
    results: Vec<Results>,
    leaves: Vec<Digest>,
}

/// The configurations of the epochs in which a core has been.
#[derive(Debug)]
pub struct Configurations(BTreeMap<Epoch, Arc<Configuration>>);

/// Why what stands in a recording cannot have been given to a core.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// An item that belongs to another one stands before something else.
    #[error("parts of a start or an input that belong to nothing")]
    Stray,
    /// A record is none of this version.
    #[error("record {number} of the log: {source}")]
    Record {
        /// Its number.
        number: RecordNumber,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A message or request is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A proof of misbehaviour is none.
    #[error("a proof of misbehaviour that is none")]
    Evidence,
    /// It was checked in an epoch in which the core has not been.
    #[error("something of epoch {0}, in which this replica has not been")]
    Epoch(Epoch),
}

impl Items {
    /// The step that `item` makes whole, if it does.
    ///
    /// # Errors
    /// [`Rejected::Stray`]: parts came before it that do not belong to it.
    pub fn take(&mut self, item: Item) -> Result<Option<Step>, Rejected> {
        let step = match item {
            Item::Entries(entries) => {
                self.entries.extend(entries.into_vec());
                return Ok(None);
            }
            Item::Results(results) => {
                self.results.extend(results.into_vec());
                return Ok(None);
            }
            Item::Leaves(leaves) => {
                self.leaves.extend(leaves.into_vec());
                return Ok(None);
            }
            Item::Record { number, head, body } => {
                self.records.push((number, head, body));
                return Ok(None);
            }
            Item::Start { id, checkpoint, first_record, is_damaged, token, now, role } => {
                let checkpoint = checkpoint.map(|(sequence, application_root)| DurableCheckpoint {
                    sequence,
                    application_root,
                    protocol: mem::take(&mut self.entries),
                });
                let records = mem::take(&mut self.records);
                Step::Start(RecordedStart { id, checkpoint, records, first_record, is_damaged, token, now, role })
            }
            Item::Input { outputs, now, event } => {
                let is_stage = matches!(event, Event::StageReady(_));
                let leaves = if is_stage { mem::take(&mut self.leaves) } else { Vec::new() };
                let is_execution = matches!(event, Event::Executed { .. });
                let results = if is_execution { mem::take(&mut self.results) } else { Vec::new() };
                Step::Input { outputs, now: now.into(), input: RecordedInput { event, results, leaves } }
            }
            Item::End { outputs, reason } => Step::End { outputs, reason },
        };
        let are_parts_empty = self.entries.is_empty() && self.results.is_empty() && self.leaves.is_empty();
        let is_whole = self.records.is_empty() && are_parts_empty;
        if is_whole { Ok(Some(step)) } else { Err(Rejected::Stray) }
    }
}

impl RecordedStart {
    /// What to start the core with, as what, and when.
    ///
    /// # Errors
    /// [`Rejected::Record`].
    pub fn into_start(
        self,
        configuration: Arc<Configuration>,
        signer: Arc<dyn Signer + Send + Sync>,
    ) -> Result<(Start, Role, Now), Rejected> {
        let Self { id, checkpoint, records, first_record, is_damaged, token, now, role } = self;
        let record = |(number, head, body): (RecordNumber, Blob, Option<Blob>)| {
            let body = body.as_ref().map(Blob::bytes);
            let recovered = Recovered::decode(head.bytes(), body, &configuration);
            recovered.map(|recovered| (number, recovered)).map_err(|source| Rejected::Record { number, source })
        };
        let records = records.into_iter().map(record).collect::<Result<_, _>>()?;
        let start = Start { id, configuration, signer, checkpoint, records, first_record, is_damaged, token };
        Ok((start, role, now.into()))
    }
}

/// A client's request, its signature checked.
fn check(
    request: SignedRequest,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> Result<Verified<ParsedRequest>, Invalid> {
    verify_requests(vec![request], configuration, verifier).pop().expect("one for one")
}

impl RecordedInput {
    /// The input, with all signatures in it checked again.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn check(self, configurations: &Configurations, verifier: &mut dyn Verifier) -> Result<Input, Rejected> {
        let Self { event, results, leaves } = self;
        Ok(match event {
            Event::Message { from, epoch, message } => {
                Input::Message { from, message: verify(message, from, configurations.of(epoch)?, verifier)? }
            }
            Event::Request { epoch, request } => Input::Request(check(request, configurations.of(epoch)?, verifier)?),
            Event::Copy { epoch, request } => Input::Copy(check(request, configurations.of(epoch)?, verifier)?),
            Event::Misbehaviour(evidence) => {
                if !evidence.is_proof(configurations.of(evidence.epoch())?, verifier) {
                    return Err(Rejected::Evidence);
                }
                Input::Misbehaviour(evidence.into())
            }
            Event::Wake => Input::Wake,
            Event::Durable(number) => Input::Durable(number),
            Event::Executed { sequence } => Input::Executed { sequence, results },
            Event::CheckpointTaken { sequence, application_root } => {
                Input::CheckpointTaken { sequence, application_root }
            }
            Event::CheckpointDurable { sequence } => Input::CheckpointDurable { sequence },
            Event::StageReady(limits) => Input::StageReady(StageReady { leaves, limits }),
            Event::StateStaged { sequence, application_root } => Input::StateStaged { sequence, application_root },
            Event::StateInstalled { sequence } => Input::StateInstalled { sequence },
            Event::StateDamaged => Input::StateDamaged,
            Event::LogFull => Input::LogFull,
            Event::LogHasRoom => Input::LogHasRoom,
            Event::LogDamaged => Input::LogDamaged,
        })
    }
}

impl Configurations {
    /// Those of a core that was just started: the first epoch's counts, too.
    pub fn new(genesis: &Arc<Configuration>) -> Self {
        Self(BTreeMap::from([(genesis.epoch(), Arc::clone(genesis))]))
    }

    /// The core is in this epoch now.
    pub fn note(&mut self, configuration: &Arc<Configuration>) {
        self.0.entry(configuration.epoch()).or_insert_with(|| Arc::clone(configuration));
        if self.0.len() > EPOCHS_MAX {
            self.0.pop_first();
        }
    }

    fn of(&self, epoch: Epoch) -> Result<&Configuration, Rejected> {
        self.0.get(&epoch).map(|configuration| &**configuration).ok_or(Rejected::Epoch(epoch))
    }
}
