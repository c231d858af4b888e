//! A core that is fed with what another was, and compared with it.

use std::any::Any;
use std::fmt::{self, Debug, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::bail;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::recording::{
    Configurations, Digests, End, Item, Items, RecordedInput, RecordedStart, Role, Step,
};
use quorate_protocol::replica::Replica;
use quorate_protocol::{Input, Machine as _, Now, Output};

use super::report::{Divergence, Ended, ReplayedStart, ShownStep};
use crate::configuration::ReplicaConfiguration;
use crate::host::Zip215;
use crate::recording::digest::Outputs;
use crate::recording::file::Header;

/// Most letters of an input or output that is shown.
const SHOWN_MAX: usize = 4000;

/// Most outputs of an input that are shown.
const OUTPUTS_SHOWN_MAX: usize = 256;

/// How a comparison went, if not well.
#[derive(Debug)]
pub(super) struct Went(Divergence);

/// A core and what is known of it.
pub(super) struct Player<'a> {
    files: &'a ReplicaConfiguration,
    genesis: Arc<Configuration>,
    header: Header,
    items: Items,
    core: Option<Core>,
    inputs: u64,
    outputs: u64,
    /// What came last, and what came of it.
    last: Option<(Now, Input)>,
    last_outputs: Vec<Output>,
    /// Why the core stopped at the last input, if it did.
    panicked: Option<String>,
}

struct Core {
    machine: Replica,
    configurations: Configurations,
    rule: Zip215,
}

/// Called before the input that `--until` names is handled: the place for a breakpoint.
#[inline(never)]
pub fn before_last_input() {
    std::hint::black_box(());
}

impl<'a> Player<'a> {
    pub(super) fn new(files: &'a ReplicaConfiguration, header: Header) -> Self {
        Self {
            files,
            genesis: Arc::new(files.genesis.configuration().clone()),
            header,
            items: Items::default(),
            core: None,
            inputs: 0,
            outputs: 0,
            last: None,
            last_outputs: Vec::new(),
            panicked: None,
        }
    }

    /// Inputs so far.
    pub(super) fn inputs(&self) -> u64 {
        self.inputs
    }

    pub(super) fn put_together(&mut self, item: Item) -> anyhow::Result<Option<Step>> {
        Ok(self.items.take(item)?)
    }

    /// Compares what the recording says came of the step before with what came of it here.
    pub(super) fn compare(&mut self, step: &Step) -> Option<Went> {
        let recorded = match step {
            Step::Input { outputs, .. } | Step::End { outputs, reason: End::Stopped } => outputs,
            Step::Start(_) | Step::End { .. } => return None,
        };
        let replayed = digests(&self.last_outputs);
        if self.panicked.is_none() && *recorded == replayed {
            return None;
        }
        let same = recorded.iter().zip(&*replayed).take_while(|(recorded, replayed)| recorded == replayed).count();
        Some(Went(Divergence {
            input: self.inputs,
            output: same as u64 + 1,
            recorded: recorded.len() as u64,
            replayed: replayed.len() as u64,
            panicked: self.panicked.clone(),
            step: self.shown(self.inputs),
        }))
    }

    /// Feeds the core. What it says when it panics goes to stderr; the replay only ends there.
    pub(super) fn feed(&mut self, step: Step) -> anyhow::Result<()> {
        if let Some(said) = &self.panicked {
            bail!("the core stopped at the input before: {said}");
        }
        match step {
            Step::Start(start) => self.start(start),
            Step::Input { now, input, .. } => self.handle(now, input),
            Step::End { .. } => Ok(()),
        }
    }

    fn start(&mut self, start: RecordedStart) -> anyhow::Result<()> {
        if self.core.is_some() {
            bail!("a second start in one recording");
        }
        let (start, role, now) = start.into_start(Arc::clone(&self.genesis), Arc::new(self.files.key.clone()))?;
        if start.id != self.files.id {
            bail!("a start of replica {}", start.id);
        }
        let started = catch_unwind(AssertUnwindSafe(|| {
            let mut machine = match role {
                Role::Member => Replica::start(start, now)?,
                Role::Standby => Replica::start_standby(start, now)?,
            };
            let outputs = std::iter::from_fn(|| machine.poll_output()).collect();
            anyhow::Ok((machine, outputs))
        }));
        match started {
            Ok(started) => {
                let (machine, outputs) = started?;
                self.core =
                    Some(Core { machine, configurations: Configurations::new(&self.genesis), rule: Zip215::default() });
                self.take(outputs);
            }
            Err(panic) => self.panicked = Some(said(&*panic)),
        }
        Ok(())
    }

    fn handle(&mut self, now: Now, input: RecordedInput) -> anyhow::Result<()> {
        let Some(Core { machine, configurations, rule }) = &mut self.core else {
            bail!("an input before any start");
        };
        configurations.note(machine.configuration());
        let input = input.check(configurations, rule)?;
        self.last = Some((now, input.clone()));
        self.inputs += 1;
        let handled = catch_unwind(AssertUnwindSafe(|| {
            machine.handle(now, input);
            std::iter::from_fn(|| machine.poll_output()).collect()
        }));
        match handled {
            Ok(outputs) => self.take(outputs),
            Err(panic) => {
                self.panicked = Some(said(&*panic));
                self.take(Vec::new());
            }
        }
        Ok(())
    }

    fn take(&mut self, outputs: Vec<Output>) {
        self.outputs += outputs.len() as u64;
        self.last_outputs = outputs;
    }

    /// The last step in words.
    pub(super) fn shown(&self, number: u64) -> ShownStep {
        let outputs = self.last_outputs.iter().take(OUTPUTS_SHOWN_MAX).map(shorten);
        ShownStep {
            input: number,
            monotonic_ns: self.last.as_ref().map(|(now, _)| now.monotonic.nanoseconds()),
            wall_ns: self.last.as_ref().map(|(now, _)| now.wall.nanoseconds()),
            what: self.last.as_ref().map_or_else(|| "Start".to_owned(), |(_, input)| shorten(input)),
            outputs: outputs.collect(),
            outputs_not_shown: self.last_outputs.len().saturating_sub(OUTPUTS_SHOWN_MAX) as u64,
        }
    }

    pub(super) fn end(self, Went(divergence): Went) -> ReplayedStart {
        ReplayedStart { divergence: Some(divergence), ..self.finish(Ended::Diverged) }
    }

    pub(super) fn finish(self, ended: Ended) -> ReplayedStart {
        let machine = self.core.as_ref().map(|core| &core.machine);
        ReplayedStart {
            start: self.header.start,
            program: self.header.program,
            inputs: self.inputs,
            outputs: self.outputs,
            epoch: machine.map_or(0, |machine| machine.configuration().epoch().value()),
            view: machine.map_or(0, |machine| machine.view().value()),
            executed: machine.map_or(0, |machine| machine.executed().value()),
            stable: machine.map_or(0, |machine| machine.stable().value()),
            ended,
            panicked: self.panicked,
            divergence: None,
        }
    }
}

fn digests(outputs: &[Output]) -> Digests {
    let mut noted = Outputs::default();
    for output in outputs {
        noted.note(output);
    }
    noted.take()
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

/// A value in words, no more than can be read.
fn shorten(value: &impl Debug) -> String {
    let mut text = Short(String::new());
    if write!(text, "{value:?}").is_err() {
        text.0.push('…');
    }
    text.0
}

/// Takes [`SHOWN_MAX`] letters and then nothing more, so that what is left out is not even written.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = SHOWN_MAX.saturating_sub(self.0.len());
        let end = text.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|end| *end <= room).last();
        let taken = &text[..end.unwrap_or(0)];
        self.0.push_str(taken);
        if taken.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
