//! Decided slots on their way to the application and back. (PROTOCOL §4.5)
//!
//! Several slots may be in execution at once; none follows a checkpoint's slot until its results are back, since the
//! session table must then be that of exactly this slot.

use alloc::vec::Vec;

use super::{Effect, Replica};
use crate::application::{Executable, Execution, Results};
use crate::batch::Batch;
use crate::configuration::Parameters;
use crate::membership::Rejoin;
use crate::message::Outcome;
use crate::number::{ReplicaId, Sequence};
use crate::output::Output;
use crate::sessions::Admission;

/// Most slots in execution at once.
pub(super) const IN_EXECUTION_MAX: usize = 32;

impl Replica {
    /// Gives decided slots to execution, in order and without a gap.
    pub(super) fn try_execute(&mut self) {
        while let Some((sequence, batch)) = self.next_to_execute() {
            self.execute(sequence, &batch);
        }
    }

    fn next_to_execute(&self) -> Option<(Sequence, Batch)> {
        let execution = &self.execution;
        let is_barrier = self.configuration.is_checkpoint(execution.issued) && execution.executed < execution.issued;
        let is_stopped = execution.is_diverged || self.catching_up.transfer.is_some();
        if is_barrier || is_stopped || execution.in_execution.len() >= IN_EXECUTION_MAX {
            return None;
        }
        let sequence = execution.issued.next().filter(|sequence| self.executes_in_epoch(*sequence))?;
        let batch = self.log.slot(sequence)?.decided_batch()?;
        Some((sequence, batch.clone()))
    }

    fn execute(&mut self, sequence: Sequence, batch: &Batch) {
        self.execution.time = self.execution.time.max(batch.stamp());
        let mut requests = Vec::new();
        let mut effects = Vec::with_capacity(batch.requests().len());
        for (index, parsed) in (0_u32..).zip(batch.requests()) {
            let request = &parsed.request;
            if let Some((member, rejoin)) = self.rejoin_of(parsed) {
                self.admit_rejoin(member, &rejoin, sequence);
                effects.push(Effect::Skip(request.id()));
                continue;
            }
            effects.push(match self.sessions.admit(request, sequence, index) {
                Admission::Execute => {
                    requests.push(Executable {
                        client: request.client,
                        session: request.session,
                        number: request.number,
                        index,
                        operations: request.operations.clone(),
                    });
                    Effect::Complete(request.id(), index)
                }
                Admission::Answer(outcome) => Effect::Answer(request.id(), outcome),
                Admission::Skip => Effect::Skip(request.id()),
            });
        }
        self.execution.issued = sequence;
        self.execution.in_execution.push_back((sequence, effects));
        self.outbox.push(Output::Execute(Execution { sequence, time: self.execution.time, requests }));
    }

    /// A member that lost votes is to vote again: the next checkpoint ends the epoch. One that does not count changes nothing.
    fn admit_rejoin(&mut self, member: ReplicaId, rejoin: &Rejoin, sequence: Sequence) {
        let Parameters { checkpoint_interval, .. } = *self.configuration.parameters();
        let (time, interval) = (self.execution.time, self.parameters().rejoin_interval());
        if !self.execution.membership.accepts(member, rejoin, time, interval) {
            return;
        }
        self.execution.membership.admit(member, rejoin, (sequence, time), checkpoint_interval);
        self.execution.ending_since.get_or_insert(self.now.monotonic);
    }

    /// The results of the slot that is in execution longest.
    pub(super) fn on_executed(&mut self, sequence: Sequence, results: Vec<Results>) {
        let (expected, effects) =
            self.execution.in_execution.pop_front().expect("results come only for what was issued");
        assert!(sequence == expected, "slots execute in order");
        self.note_pace_of_execution(sequence);
        let mut results = results.into_iter();
        for effect in effects {
            self.apply(sequence, effect, &mut results);
        }
        assert!(results.next().is_none(), "as many results as requests");
        self.execution.executed = sequence;
        self.note_window_done();
        self.proposer.in_flight.remove(&sequence);
        if self.configuration.is_checkpoint(sequence) {
            self.take_checkpoint(sequence);
        }
        self.log.prune(sequence);
        self.try_execute();
        self.continue_catching_up();
        self.suspect_if_slow();
    }

    fn apply(&mut self, sequence: Sequence, effect: Effect, results: &mut impl Iterator<Item = Results>) {
        let (id, outcome) = match effect {
            Effect::Complete(id, index) => {
                let results = results.next().expect("as many results as requests");
                let outcome = Outcome::Executed { sequence, index, results };
                self.sessions.complete(id.client, id.session, id.number, outcome.clone());
                (id, Some(outcome))
            }
            Effect::Answer(id, outcome) => (id, Some(outcome)),
            Effect::Skip(id) => (id, None),
        };
        let oldest = self.queue.oldest();
        if let Some(arrived) = self.queue.remove(&id) {
            self.note_progress(arrived, oldest == Some(arrived));
        }
        if let Some(outcome) = outcome {
            self.reply(id.client, id.session, id.number, outcome);
        }
    }
}
