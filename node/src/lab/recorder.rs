//! What a replica signs, written down as it leaves, so that it can be seen afterwards whether it ever contradicted itself.
//!
//! A line of JSON for each statement, appended before the message that carries it goes out. What is said again is written
//! again now and then: that contradicts nothing.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::replica::Replica;
use quorate_protocol::time::Time;
use quorate_protocol::{Input, Machine, Now, Output};
use quorate_simulator::statement::{Said, Subject as Spoken, in_message};
use serde::{Deserialize, Serialize};

use crate::host::{MakeSubject, Subject};

/// Statements that are remembered, so as not to be written again.
const REMEMBERED_MAX: usize = 8_192;

/// A statement as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Statement {
    /// What a correct replica says one thing about, ever.
    #[serde(flatten)]
    pub(crate) about: About,
    /// What it says: the digest of the batch or of what it signed, or the root of the state; in hexadecimal.
    pub(crate) says: String,
}

/// Who speaks, and of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct About {
    /// The replica.
    pub(crate) replica: u8,
    /// `prepare`, `commit`, `checkpoint`, `view-change` or `new-view`.
    pub(crate) kind: String,
    /// The epoch.
    pub(crate) epoch: u64,
    /// The view; none of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) view: Option<u64>,
    /// The slot; none of what begins or leaves a view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slot: Option<u64>,
}

impl From<Said> for Statement {
    fn from(said: Said) -> Self {
        let (kind, epoch, view, slot) = match said.subject {
            Spoken::Prepare(epoch, view, slot) => ("prepare", epoch, Some(view), Some(slot)),
            Spoken::Commit(epoch, view, slot) => ("commit", epoch, Some(view), Some(slot)),
            Spoken::Checkpoint(epoch, slot) => ("checkpoint", epoch, None, Some(slot)),
            Spoken::ViewChange(epoch, view) => ("view-change", epoch, Some(view), None),
            Spoken::NewView(epoch, view) => ("new-view", epoch, Some(view), None),
        };
        let about = About {
            replica: said.replica.value(),
            kind: kind.to_owned(),
            epoch: epoch.value(),
            view: view.map(View::value),
            slot: slot.map(Sequence::value),
        };
        Self { about, says: said.digest.to_string() }
    }
}

/// A machine whose statements are written down.
struct Recorder {
    machine: Box<dyn Subject>,
    record: Record,
}

/// The file, and what is in it.
struct Record {
    /// None once it could not be written to.
    file: Option<File>,
    known: BTreeSet<Said>,
    /// The same in the order in which it was said. Bound of both: [`REMEMBERED_MAX`].
    order: VecDeque<Said>,
}

/// Makes what `make` makes, and appends all that it signs to `path`.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn record(path: &Path, make: MakeSubject) -> anyhow::Result<MakeSubject> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("opening {}, to record what is signed", path.display()))?;
    Ok(Box::new(move |start, now| {
        let record = Record { file: Some(file), known: BTreeSet::new(), order: VecDeque::new() };
        Ok(Box::new(Recorder { machine: make(start, now)?, record }))
    }))
}

impl Record {
    fn add(&mut self, said: Said) {
        if !self.known.insert(said) {
            return;
        }
        self.order.push_back(said);
        if self.order.len() > REMEMBERED_MAX {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        if let Some(Err(error)) = self.file.as_mut().map(|file| write(file, said)) {
            tracing::error!(%error, "what is signed cannot be recorded any more: the record ends here");
            self.file = None;
        }
    }
}

fn write(file: &mut File, said: Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Statement::from(said))?;
    line.push(b'\n');
    file.write_all(&line)
}

impl Machine for Recorder {
    fn handle(&mut self, now: Now, input: Input) {
        self.machine.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.machine.poll_output()?;
        let replica = self.machine.replica();
        let own = replica.id();
        let members = replica.configuration().size() as u64;
        let said = match &output {
            // What is only handed to the disk is not said: a crash may forget it, and something else be said in its place.
            Output::Send { message, .. } | Output::Broadcast(message) => in_message(message, members),
            _ => Vec::new(),
        };
        said.into_iter().filter(|said| said.replica == own).for_each(|said| self.record.add(said));
        Some(output)
    }

    fn next_deadline(&self) -> Option<Time> {
        self.machine.next_deadline()
    }
}

impl Subject for Recorder {
    fn replica(&self) -> &Replica {
        self.machine.replica()
    }

    fn is_wanted(&self, from: ReplicaId, message: &Message) -> bool {
        self.machine.is_wanted(from, message)
    }
}
