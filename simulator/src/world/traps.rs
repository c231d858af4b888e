//! Traps: what a replica does, at which a scenario does something.

use quorate_protocol::Output;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::output::Notice;

use crate::scenario::{Deed, Trap};

/// A trap that was set.
#[derive(Debug)]
struct Set {
    /// Its name, for whoever set it.
    id: usize,
    trap: Trap,
    /// Whether the replica crashes there and then, before what it does leaves it.
    crashes: bool,
    /// How often it was stepped on.
    times: u32,
}

/// All traps.
#[derive(Debug, Default)]
pub(crate) struct Traps {
    /// Each leaves when it springs.
    set: Vec<Set>,
    /// Those that sprang, until somebody asks.
    sprung: Vec<usize>,
}

impl Traps {
    pub(crate) fn set(&mut self, id: usize, trap: Trap, crashes: bool) {
        self.set.push(Set { id, trap, crashes, times: 0 });
    }

    /// Forgets all that did not spring.
    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    pub(crate) const fn has_sprung(&self) -> bool {
        !self.sprung.is_empty()
    }

    pub(crate) fn take_sprung(&mut self) -> Vec<usize> {
        core::mem::take(&mut self.sprung)
    }

    /// A replica is about to do something: whether it crashes instead.
    pub(crate) fn spring(&mut self, replica: ReplicaId, output: &Output) -> bool {
        let mut crashes = false;
        for set in &mut self.set {
            if set.trap.replica != replica.value() || !is_meant(&set.trap.does, output) {
                continue;
            }
            set.times += 1;
            if set.times >= set.trap.time.unwrap_or(1) {
                self.sprung.push(set.id);
                crashes |= set.crashes;
            }
        }
        self.set.retain(|set| set.times < set.trap.time.unwrap_or(1));
        crashes
    }
}

fn is_meant(deed: &Deed, output: &Output) -> bool {
    match (deed, output) {
        (Deed::Send(pattern), Output::Send { message, .. } | Output::Broadcast(message)) => pattern.is_about(message),
        (Deed::Append, Output::Append { .. })
        | (Deed::Cut, Output::Cut { .. })
        | (Deed::Install, Output::StageInstall) => true,
        (Deed::Execute(slot), Output::Execute(execution)) => execution.sequence.value() >= *slot,
        (Deed::TakeCheckpoint(slot), Output::TakeCheckpoint { sequence, .. }) => sequence.value() >= *slot,
        (Deed::EnterView(wanted), Output::Notice(Notice::ViewEntered { view })) => view.value() >= *wanted,
        _ => false,
    }
}
