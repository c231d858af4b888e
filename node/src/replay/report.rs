//! What came of a replay, in words and as JSON.

use std::fmt;

use quorate_protocol::recording::End;
use serde::Serialize;

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// The replica.
    pub replica: u8,
    /// Its cluster.
    pub cluster: String,
    /// Whether all that was replayed put out the same as when it was recorded.
    pub same: bool,
    /// Each start that was replayed, in order.
    pub starts: Vec<ReplayedStart>,
    /// The steps that were to be shown, if they are shown here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ShownStep>,
}

/// What came of one start.
#[derive(Debug, Serialize)]
pub struct ReplayedStart {
    /// Its number.
    pub start: u64,
    /// The version of the program that recorded it.
    pub program: String,
    /// Inputs that were fed.
    pub inputs: u64,
    /// Outputs that came, those of the start among them.
    pub outputs: u64,
    /// The epoch at the end.
    pub epoch: u64,
    /// The view at the end.
    pub view: u64,
    /// The last slot that was executed.
    pub executed: u64,
    /// The stable checkpoint's slot.
    pub stable: u64,
    /// How it ended.
    pub ended: Ended,
    /// What the core said when it stopped at the last input that was recorded, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panicked: Option<String>,
    /// Where it first put out something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Where the replica was stopped.
    Stopped,
    /// Where the recording took all the room that it was given.
    Limit,
    /// Where the disk could not keep up.
    Slow,
    /// Where a write failed.
    WriteFailed,
    /// Where an input was too long to be recorded.
    InputTooLong,
    /// Where the process was ended.
    Killed,
    /// The same, within a write.
    Torn,
    /// Where it was to end.
    Until,
    /// Where it put out something else.
    Diverged,
}

/// The first input of which something else came.
#[derive(Debug, Clone, Serialize)]
pub struct Divergence {
    /// The input, counted from 1; 0 is the start itself.
    pub input: u64,
    /// The first of its outputs that differs, counted from 1.
    pub output: u64,
    /// Outputs when it was recorded.
    pub recorded: u64,
    /// Outputs now.
    pub replayed: u64,
    /// What the core said when it stopped there, where the one that was recorded went on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panicked: Option<String>,
    /// The input and what came of it now.
    pub step: ShownStep,
}

/// An input and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ShownStep {
    /// The input, counted from 1; 0 is the start itself.
    pub input: u64,
    /// The monotonic clock, since an arbitrary start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monotonic_ns: Option<u64>,
    /// The wall clock, since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ns: Option<u64>,
    /// The input in words.
    pub what: String,
    /// The outputs in words, in order.
    pub outputs: Vec<String>,
    /// Outputs beyond those.
    pub outputs_not_shown: u64,
}

impl ReplayedStart {
    /// Whether it put out the same as when it was recorded.
    pub fn is_same(&self) -> bool {
        self.divergence.is_none()
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        match end {
            End::Stopped => Self::Stopped,
            End::Limit => Self::Limit,
            End::Slow => Self::Slow,
            End::Failed => Self::WriteFailed,
            End::TooLong => Self::InputTooLong,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stopped => "the replica was stopped",
            Self::Limit => "the recording took all the room that it was given",
            Self::Slow => "the disk could not keep up with the recording",
            Self::WriteFailed => "a write of the recording failed",
            Self::InputTooLong => "an input was too long to be recorded",
            Self::Killed => "the process was ended",
            Self::Torn => "the process was ended while it wrote",
            Self::Until => "it was to end here",
            Self::Diverged => "something else came out",
        })
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, cluster, same, starts, steps: _ } = self;
        writeln!(formatter, "replica {replica} of cluster {cluster}")?;
        starts.iter().try_for_each(|start| write!(formatter, "{start}"))?;
        formatter.write_str(if *same { "same" } else { "NOT the same" })
    }
}

impl fmt::Display for ReplayedStart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, inputs, outputs, epoch, view, executed, stable, ended, panicked, divergence, .. } = self;
        let verdict = if divergence.is_none() { "same" } else { "NOT the same" };
        writeln!(formatter, "start {start}: {inputs} inputs, {outputs} outputs, {verdict}")?;
        writeln!(
            formatter,
            "  at the end: epoch {epoch}, view {view}, executed slot {executed}, stable slot {stable}"
        )?;
        writeln!(formatter, "  it ends where {ended}")?;
        if let (Some(said), None) = (panicked, divergence) {
            writeln!(formatter, "  the core stopped at its last input, as it did: {said}")?;
        }
        divergence.iter().try_for_each(|divergence| write!(formatter, "{divergence}"))
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, output, recorded, replayed, panicked, step } = self;
        if let Some(said) = panicked {
            writeln!(formatter, "  at input {input} the core stops here, and went on then: {said}")?;
        } else {
            writeln!(formatter, "  at input {input}, output {output} differs: {recorded} came then, {replayed} now")?;
        }
        writeln!(formatter, "{step}")
    }
}

impl fmt::Display for ShownStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, monotonic_ns, wall_ns: _, what, outputs, outputs_not_shown } = self;
        write!(formatter, "{input:>8}")?;
        if let Some(nanoseconds) = monotonic_ns {
            write!(formatter, "  at {}.{:09} s", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)?;
        }
        write!(formatter, "  {what}")?;
        for (index, output) in outputs.iter().enumerate() {
            write!(formatter, "\n          -> {}  {output}", index + 1)?;
        }
        if *outputs_not_shown > 0 {
            write!(formatter, "\n          -> … and {outputs_not_shown} more")?;
        }
        Ok(())
    }
}
