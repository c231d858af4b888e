//! A scenario: a whole run as data. What it does not say follows from its seed.
//!
//! The campaign draws scenarios from seeds, people write them as JSON, the shrinker takes parts away while the run still
//! fails: all of them run the same way, by [`crate::play`].

pub mod expectation;
pub mod rule;
pub mod step;

use std::collections::BTreeMap;

use quorate_protocol::configuration::Parameters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adversary::{Attacks, UnknownAttack};
use crate::signature::Scheme;

pub use crate::adversary::script::{Script, ScriptError};
pub use crate::pattern::{Kind, Pattern};
pub use crate::span::Span;
pub use expectation::Expectation;
pub use rule::{Fate, Rule};
pub use step::{Action, Deed, Disk, Links, Step, Trap, When};

/// A run, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// In a few words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What it shows, and from where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Decides whatever the scenario does not.
    pub seed: u64,
    /// Replicas, 4 to 13, or 16, 19 or 31.
    pub replicas: u8,
    /// Clients, each with a key of its own.
    pub clients: u8,
    /// Members beside which there is a standby, that loses its power now and then and its disk with it sometimes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<u8>,
    /// What is replicated.
    pub application: ApplicationKind,
    /// Entries of the state that the cluster begins with, as if it were founded from a backup: none, if absent.
    #[serde(skip_serializing_if = "is_zero")]
    pub founded: u32,
    /// Which signatures are used.
    pub signatures: Scheme,
    /// Parameters of the configuration that differ from those of a small cluster, by their names in a genesis file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, u64>,
    /// The links, at first.
    pub links: Links,
    /// The disks, at first.
    pub disk: Disk,
    /// The machines.
    pub machines: Machines,
    /// Replicas that are not correct.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attackers: Vec<Attacker>,
    /// What becomes of single messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What is done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// How it ends.
    pub ending: Ending,
    /// What must have come about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expectation>,
}

/// The applications that can be replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationKind {
    /// The built-in key-value store.
    #[default]
    Store,
    /// The simplest that can tell right from wrong: each result depends on all that ran before.
    Ledger,
}

/// How machines behave, other than their disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Machines {
    /// How long the application takes for a slot, a checkpoint or a state that is transferred: `[shortest, mean]`.
    pub work: [Span; 2],
    /// How far a wall clock is off, either way.
    pub clock_offset: Span,
    /// By how many parts of a million a clock runs too fast or too slow.
    pub clock_drift_ppm: u32,
    /// Most entries in a part of a transferred state.
    pub part_entries: u32,
    /// Whether hosts ask a replica if a message may still matter, and drop it unchecked if not.
    pub drops_unwanted: bool,
    /// How many of the messages of attackers arrive with a byte changed, in a million: garbage that no signature covers.
    pub garbled_ppm: u32,
}

impl Default for Machines {
    fn default() -> Self {
        let span = |microseconds| Span(core::time::Duration::from_micros(microseconds));
        Self {
            work: [span(20), span(100)],
            clock_offset: Span::milliseconds(100),
            clock_drift_ppm: 200,
            part_entries: 16,
            drops_unwanted: false,
            garbled_ppm: 0,
        }
    }
}

/// A replica in the adversary's hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attacker {
    /// Which.
    pub replica: u8,
    /// What it does: names of attacks, with their moments, as on the command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attack: String,
    /// What it does besides, or instead, written down.
    #[serde(default, skip_serializing_if = "Script::is_empty")]
    pub script: Script,
}

impl Attacker {
    /// One that does what has a name.
    pub fn named(replica: u8, attack: String) -> Self {
        Self { replica, attack, script: Script::default() }
    }

    /// What it does among so many replicas.
    ///
    /// # Errors
    /// [`ScenarioError`], if it cannot.
    pub fn attacks(&self, replicas: u8) -> Result<Attacks, ScenarioError> {
        if self.replica >= replicas {
            return Err(ScenarioError::NoSuch { what: "replica", index: self.replica, count: replicas });
        }
        self.script.check(replicas)?;
        let named = match &*self.attack {
            "" if self.script.is_empty() => return Err(ScenarioError::Idle),
            "" => Attacks::default(),
            names => names.parse().map_err(|error: UnknownAttack| ScenarioError::Attack(error.to_string()))?,
        };
        Ok(if self.script.is_empty() { named } else { named.with_script(self.script.clone()) })
    }

    /// What it does, in a few words.
    pub fn title(&self) -> String {
        let script = if self.script.is_empty() { "" } else { "script" };
        let parts = [&*self.attack, script];
        parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
    }
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ending {
    /// When the last step has been done, the run goes on for so long.
    pub after: Span,
    /// Whether the cluster is mended then, and has to answer every call and to agree.
    pub mend: bool,
    /// The correct replicas that are mended; all, if empty. The others stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub core: Vec<u8>,
    /// The links from then on.
    pub links: Links,
    /// Calls that are made after that, one after the other.
    pub calls: u32,
    /// How long a client may wait for its next answer, and agreement take, once everything is mended.
    pub bound: Span,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            after: Span::default(),
            mend: true,
            core: Vec::new(),
            links: Links::default(),
            calls: 4,
            bound: Span::milliseconds(60_000),
        }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            title: String::new(),
            description: String::new(),
            seed: 0,
            replicas: 4,
            clients: 4,
            standbys: Vec::new(),
            founded: 0,
            application: ApplicationKind::default(),
            signatures: Scheme::default(),
            parameters: BTreeMap::new(),
            links: Links::default(),
            disk: Disk::default(),
            machines: Machines::default(),
            attackers: Vec::new(),
            rules: Vec::new(),
            steps: Vec::new(),
            ending: Ending::default(),
            expect: Vec::new(),
        }
    }
}

/// Why a scenario cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// It is not the JSON of a scenario.
    #[error("line {line}, column {column}: {reason}")]
    Json {
        /// Where, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Something is wrong with one part of it.
    #[error("`{part}`: {error}")]
    In {
        /// Which, as `steps[3]`.
        part: String,
        /// What.
        error: Box<Self>,
    },
    /// There is nobody to call.
    #[error("`clients` is 0")]
    Clients,
    /// A cluster of this size is not simulated.
    #[error("`replicas` is {0}: at least 4, at most 13, or 16, 19 or 31")]
    Size(u8),
    /// A replica or client is named that there is not.
    #[error("{what} {index} is named, and there are {count}")]
    NoSuch {
        /// `replica` or `client`.
        what: &'static str,
        /// Which.
        index: u8,
        /// How many there are.
        count: u8,
    },
    /// The configuration has no parameter of this name that is a number.
    #[error("there is no parameter `{0}`")]
    Parameter(String),
    /// The parameters contradict each other.
    #[error("{0}")]
    Configuration(String),
    /// An attack is unknown, or its moment is.
    #[error("{0}")]
    Attack(String),
    /// A script cannot be followed.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// An attacker has nothing to do.
    #[error("it has neither `attack` nor `script`")]
    Idle,
}

impl ScenarioError {
    /// What the reader can do about it.
    pub fn mend(&self) -> String {
        let names = |names: &[&str]| format!("write one of {}", names.join(", "));
        match self {
            Self::Json { .. } => {
                "see docs/simulator.md; an editor that is shown simulator/scenarios/schema.json checks it as you write"
                    .to_owned()
            }
            Self::In { error, .. } => error.mend(),
            Self::Clients => "leave it out for 4, or write 1 to 255".to_owned(),
            Self::Size(_) => "write one of these sizes".to_owned(),
            Self::NoSuch { what, count, .. } => format!("{what}s are numbered from 0: name one below {count}"),
            Self::Parameter(_) => names(&PARAMETERS),
            Self::Configuration(_) => "change `parameters` so that they agree".to_owned(),
            Self::Attack(_) => {
                "write names of attacks, each with a moment or without, as \"silent@from:2s\"".to_owned()
            }
            Self::Script(_) => {
                "see \"An attacker as a script\" in docs/simulator.md; reactions are counted from 0".to_owned()
            }
            Self::Idle => "give it a `script`, or an `attack` by name".to_owned(),
        }
    }

    fn json(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let place = format!(" at line {line} column {column}");
        Self::Json { line, column, reason: text.strip_suffix(&place).unwrap_or(&text).to_owned() }
    }
}

impl Scenario {
    /// The scenario that `json` describes.
    ///
    /// # Errors
    /// [`ScenarioError::Json`] says what is wrong, and where.
    pub fn from_json(json: &str) -> Result<Self, ScenarioError> {
        serde_json::from_str(json).map_err(|error| ScenarioError::json(&error))
    }

    /// The scenario as a file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a scenario has only text and numbers")
    }

    /// The JSON schema of scenario files.
    pub fn schema() -> String {
        let schema = schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Self>();
        serde_json::to_string_pretty(&schema).expect("a schema has only text and numbers")
    }

    /// The parameters of the configuration.
    ///
    /// # Errors
    /// [`ScenarioError::Parameter`].
    pub(crate) fn parameters(&self) -> Result<Parameters, ScenarioError> {
        let mut parameters = Parameters { checkpoint_interval: 8, window: 32, ..Parameters::default() };
        for (name, value) in &self.parameters {
            set(&mut parameters, name, *value)?;
        }
        Ok(parameters)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is the signature that serde calls")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The parameters that a scenario may set.
const PARAMETERS: [&str; 18] = [
    "checkpoint_interval",
    "window",
    "pipeline",
    "batch_bytes_max",
    "batch_operations_max",
    "request_bytes_max",
    "outstanding_max",
    "sessions_max",
    "reply_cache_bytes_max",
    "heartbeat_ms",
    "crash_suspicion_ms",
    "ordering_deadline_ms",
    "deadline_cap_ms",
    "clock_bound_ms",
    "client_timeout_ms",
    "rejoin_interval_ms",
    "passed_over_ms",
    "fast_reads",
];

fn set(parameters: &mut Parameters, name: &str, value: u64) -> Result<(), ScenarioError> {
    let unknown = || ScenarioError::Parameter(name.to_owned());
    let small = || u32::try_from(value).map_err(|_too_large| unknown());
    match name {
        "checkpoint_interval" => parameters.checkpoint_interval = value,
        "window" => parameters.window = value,
        "pipeline" => parameters.pipeline = value,
        "batch_bytes_max" => parameters.batch_bytes_max = small()?,
        "batch_operations_max" => parameters.batch_operations_max = small()?,
        "request_bytes_max" => parameters.request_bytes_max = small()?,
        "outstanding_max" => parameters.outstanding_max = small()?,
        "sessions_max" => parameters.sessions_max = small()?,
        "reply_cache_bytes_max" => parameters.reply_cache_bytes_max = value,
        "heartbeat_ms" => parameters.heartbeat_ms = small()?,
        "crash_suspicion_ms" => parameters.crash_suspicion_ms = small()?,
        "ordering_deadline_ms" => parameters.ordering_deadline_ms = small()?,
        "deadline_cap_ms" => parameters.deadline_cap_ms = small()?,
        "clock_bound_ms" => parameters.clock_bound_ms = small()?,
        "client_timeout_ms" => parameters.client_timeout_ms = small()?,
        "rejoin_interval_ms" => parameters.rejoin_interval_ms = small()?,
        "passed_over_ms" => parameters.passed_over_ms = small()?,
        "fast_reads" if value <= 1 => parameters.fast_reads = value == 1,
        _ => return Err(unknown()),
    }
    Ok(())
}
