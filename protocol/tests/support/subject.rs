//! One replica under test with its disk, its clock and its application, all moved by hand.

use std::sync::Arc;

use quorate_protocol::application::{Change, Execution, Results};
use quorate_protocol::batch::{Batch, SignedRequest};
use quorate_protocol::codec::List;
use quorate_protocol::message::{Entry, Fetch, Message, Status};
use quorate_protocol::number::{Incarnation, RecordNumber, Sequence};
use quorate_protocol::output::{Notice, Suspicion};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::{DurableCheckpoint, Replica, Start, StartError};
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::{Input, Machine, Now, Output};

use super::state::application_root;
use super::{Group, START_MS, TOKEN, replica, view};

/// A replica and what surrounds it.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) group: Group,
    pub(crate) id: u8,
    pub(crate) replica: Replica,
    pub(crate) now_ms: u64,
    /// All that was appended.
    pub(crate) records: Vec<(RecordNumber, Record)>,
    /// Slots given to execution whose results are not back.
    pub(crate) executions: Vec<Execution>,
    /// Checkpoints asked for and not taken, with the protocol's changes.
    pub(crate) checkpoints: Vec<Sequence>,
    /// The protocol's own entries, as they are written at checkpoints.
    pub(crate) entries: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    /// The last status that was broadcast.
    pub(crate) status: Option<Status>,
    /// The checkpoint that a restart would load.
    pub(crate) durable_checkpoint: Option<DurableCheckpoint>,
}

/// The results of the stand-in application: each operation gives itself.
pub(crate) fn results(execution: &Execution) -> Vec<Results> {
    execution.requests.iter().map(|request| List::new(request.operations.to_vec()).expect("as many")).collect()
}

impl Subject {
    /// Member `id` of `group` at its very beginning, after it heard of members 0 to 2: each will be a primary.
    pub(crate) fn new(group: &Group, id: u8) -> Self {
        let mut subject = Self::start(group, id, START_MS, None, vec![]);
        for from in (0..3).filter(|from| *from != id) {
            assert_eq!(subject.hear(from, Message::Status(idle_status(0))), []);
        }
        subject
    }

    /// Member `id` of four.
    pub(crate) fn of_four(id: u8) -> Self {
        Self::new(&Group::of_four(), id)
    }

    /// Member `id` with what is on its disk, once the others have told that they know of nothing that it has lost.
    pub(crate) fn start(
        group: &Group,
        id: u8,
        now_ms: u64,
        checkpoint: Option<DurableCheckpoint>,
        mut records: Vec<(RecordNumber, Recovered)>,
    ) -> Self {
        if !records.iter().any(|(_, recovered)| matches!(recovered, Recovered::Whole(Record::Incarnation(_)))) {
            records.insert(0, (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(Incarnation::ZERO))));
        }
        let mut subject = Self::start_asking(group, id, now_ms, checkpoint, records);
        for from in group.0.replicas().rev().filter(|from| from.value() != id).take(group.0.quorum() - 1) {
            subject.tell(from.value(), group.nothing_said());
        }
        subject
    }

    /// Hands in a message without looking at what is to be done for it yet.
    fn tell(&mut self, from: u8, message: Message) {
        let message = self.group.check(from, message);
        self.replica.handle(now(self.now_ms), Input::Message { from: replica(from), message });
    }

    /// Member `id` with exactly what is on its disk, nobody having told it anything.
    pub(crate) fn start_asking(
        group: &Group,
        id: u8,
        now_ms: u64,
        checkpoint: Option<DurableCheckpoint>,
        records: Vec<(RecordNumber, Recovered)>,
    ) -> Self {
        Self::boot(Replica::start, group, (id, now_ms), checkpoint, records, false)
    }

    /// Member `id` whose host says that its log is damaged.
    pub(crate) fn start_damaged(group: &Group, id: u8, records: Vec<(RecordNumber, Recovered)>) -> Self {
        Self::boot(Replica::start, group, (id, START_MS), None, records, true)
    }

    /// A standby beside member `id`.
    pub(crate) fn start_standby(
        group: &Group,
        id: u8,
        checkpoint: Option<DurableCheckpoint>,
        records: Vec<(RecordNumber, Recovered)>,
    ) -> Self {
        Self::boot(Replica::start_standby, group, (id, START_MS), checkpoint, records, false)
    }

    fn boot(
        start_machine: fn(Start, Now) -> Result<Replica, StartError>,
        group: &Group,
        (id, now_ms): (u8, u64),
        checkpoint: Option<DurableCheckpoint>,
        records: Vec<(RecordNumber, Recovered)>,
        is_damaged: bool,
    ) -> Self {
        let kept = records.iter().filter_map(|(number, recovered)| match recovered {
            Recovered::Whole(record) => Some((*number, record.clone())),
            _ => None,
        });
        let kept = kept.collect();
        let first_record = records.last().map_or(RecordNumber::new(1), |(number, _)| number.next().expect("few"));
        let start = Start {
            id: replica(id),
            configuration: Arc::clone(&group.0),
            signer: Arc::new(group.signer(id)),
            checkpoint: checkpoint.clone(),
            records,
            first_record,
            is_damaged,
            token: TOKEN,
        };
        let replica = start_machine(start, now(now_ms)).expect("a disk in order");
        let entries = checkpoint.iter().flat_map(|checkpoint| &checkpoint.protocol);
        let entries = entries.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect();
        Self {
            group: group.clone(),
            id,
            replica,
            now_ms,
            records: kept,
            executions: vec![],
            checkpoints: vec![],
            entries,
            status: None,
            durable_checkpoint: checkpoint,
        }
    }

    /// What waits to be done. Left aside are statuses, and what a start asks and is told before it votes.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        let is_of_start = |output: &Output| match output {
            Output::Send { message: Message::Fetch(Fetch::Statements { .. }), .. } => true,
            Output::Notice(notice) => matches!(notice, Notice::NotVoting { .. } | Notice::Voting { .. }),
            _ => false,
        };
        self.all_outputs().into_iter().filter(|output| !is_of_start(output)).collect()
    }

    /// What waits to be done, statuses left aside.
    pub(crate) fn all_outputs(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.replica.poll_output() {
            self.note(&output);
            if !matches!(output, Output::Broadcast(Message::Status(_))) {
                outputs.push(output);
            }
        }
        outputs
    }

    fn note(&mut self, output: &Output) {
        match output {
            Output::Append { number, record } => self.records.push((*number, record.clone())),
            Output::Execute(execution) => self.executions.push(execution.clone()),
            Output::TakeCheckpoint { sequence, protocol } => {
                self.checkpoints.push(*sequence);
                self.write(protocol);
            }
            Output::Broadcast(Message::Status(status)) => self.status = Some(status.clone()),
            _ => {}
        }
    }

    fn write(&mut self, changes: &[Change]) {
        for (key, value) in changes {
            match value {
                Some(value) => self.entries.insert(key.to_vec(), value.to_vec()),
                None => self.entries.remove(&key[..]),
            };
        }
    }

    /// Hands in one input and gives all that is to be done for it, statuses left aside.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Output> {
        self.replica.handle(now(self.now_ms), input);
        self.outputs()
    }

    /// A peer says something.
    pub(crate) fn hear(&mut self, from: u8, message: Message) -> Vec<Output> {
        let message = self.group.check(from, message);
        self.step(Input::Message { from: replica(from), message })
    }

    /// Several peers say something, each in turn.
    pub(crate) fn hear_all(&mut self, messages: impl IntoIterator<Item = (u8, Message)>) -> Vec<Output> {
        messages.into_iter().flat_map(|(from, message)| self.hear(from, message)).collect()
    }

    /// A client asks for something.
    pub(crate) fn ask(&mut self, request: SignedRequest) -> Vec<Output> {
        let request = self.group.verified(request);
        self.step(Input::Request(request))
    }

    /// A client shows what it asks the primary for.
    pub(crate) fn show(&mut self, request: SignedRequest) -> Vec<Output> {
        let request = self.group.verified(request);
        self.step(Input::Copy(request))
    }

    /// All that was appended becomes durable.
    pub(crate) fn sync(&mut self) -> Vec<Output> {
        let last = self.records.last().map_or(RecordNumber::ZERO, |(number, _)| *number);
        self.step(Input::Durable(last))
    }

    /// Time passes, in heartbeats, so that the replica does not seem to have been stopped.
    pub(crate) fn pass(&mut self, milliseconds: u64) -> Vec<Output> {
        let end = self.now_ms + milliseconds;
        let heartbeat = u64::from(self.group.0.parameters().heartbeat_ms);
        let mut outputs = Vec::new();
        while self.now_ms < end {
            self.now_ms = end.min(self.now_ms + heartbeat);
            outputs.extend(self.step(Input::Wake));
        }
        outputs
    }

    /// The same, while the primary of the replica's view goes on sending its status.
    pub(crate) fn pass_with_primary_alive(&mut self, milliseconds: u64) -> Vec<Output> {
        let end = self.now_ms + milliseconds;
        let mut outputs = Vec::new();
        while self.now_ms < end {
            let of_view = self.replica.view();
            let primary = self.group.0.primary(of_view).value();
            if primary != self.id {
                outputs.extend(self.hear(primary, Message::Status(idle_status(of_view.value()))));
            }
            outputs.extend(self.pass((end - self.now_ms).min(100)));
        }
        outputs
    }

    /// Its primary falls silent and another backup suspects it too, so that this replica leaves its view.
    pub(crate) fn leave(&mut self) -> Vec<Output> {
        let of_view = self.replica.view();
        let primary = self.group.0.primary(of_view).value();
        let other = (0..4).find(|id| *id != self.id && *id != primary).expect("there are others");
        let suspects = Status { suspects: true, ..idle_status(of_view.value()) };
        let mut outputs = self.hear(other, Message::Status(suspects));
        outputs.extend(self.pass(300));
        outputs
    }

    /// Enters view `to`, in which somebody else is primary, by the view changes of three others and the primary's new view.
    pub(crate) fn enter(&mut self, to: u64) {
        let group = self.group.clone();
        let primary = group.0.primary(view(to)).value();
        let others: Vec<u8> = (0..4).filter(|id| *id != self.id).collect();
        let view_changes: Vec<_> = others.iter().map(|id| (*id, group.empty_view_change(*id, to))).collect();
        let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
        let new_view = group.new_view(primary, to, &named, &[]);
        self.hear_all(view_changes.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
        self.hear(primary, Message::NewView(new_view));
        self.settle();
        assert_eq!(self.replica.view(), view(to));
    }

    /// The slots in execution are executed, oldest first, and the checkpoints that follow are taken and durable; what is
    /// appended becomes durable; until nothing is left to do.
    pub(crate) fn settle(&mut self) -> Vec<Output> {
        let mut outputs = self.outputs();
        loop {
            let step = if !self.executions.is_empty() {
                self.execute()
            } else if !self.checkpoints.is_empty() {
                let mut step = self.take_checkpoint();
                step.extend(self.checkpoint_durable());
                step
            } else {
                let before = self.records.len();
                let step = self.sync();
                if step.is_empty() && self.records.len() == before {
                    return outputs;
                }
                step
            };
            outputs.extend(step);
        }
    }

    /// The slot in execution longest is executed.
    pub(crate) fn execute(&mut self) -> Vec<Output> {
        let execution = self.executions.remove(0);
        self.step(Input::Executed { sequence: execution.sequence, results: results(&execution) })
    }

    /// The application takes the checkpoint that was asked for longest.
    pub(crate) fn take_checkpoint(&mut self) -> Vec<Output> {
        let sequence = self.checkpoints.remove(0);
        let application_root = application_root(sequence);
        self.durable_checkpoint = Some(DurableCheckpoint { sequence, application_root, protocol: self.protocol() });
        self.step(Input::CheckpointTaken { sequence, application_root })
    }

    /// The checkpoint taken last becomes durable.
    pub(crate) fn checkpoint_durable(&mut self) -> Vec<Output> {
        let sequence = self.durable_checkpoint.as_ref().expect("one was taken").sequence;
        self.step(Input::CheckpointDurable { sequence })
    }

    /// The protocol's own entries.
    pub(crate) fn protocol(&self) -> Vec<Entry> {
        let entries = self.entries.iter();
        entries.map(|(key, value)| Entry { key: key.clone().into(), value: value.clone().into() }).collect()
    }

    /// Decides `batch` in slot `sequence` of view `of_view`: proposal and votes of the three others with the lowest numbers
    /// and, where it is durable at once, its own.
    pub(crate) fn decide(&mut self, of_view: u64, sequence: u64, batch: &Batch) -> Vec<Output> {
        let group = self.group.clone();
        let primary = group.0.primary(view(of_view)).value();
        let others: Vec<u8> = (0..4).filter(|id| *id != self.id).collect();
        let mut outputs = Vec::new();
        if primary != self.id {
            outputs.extend(self.hear(primary, group.pre_prepare(primary, of_view, sequence, batch)));
        }
        for id in others.iter().filter(|id| **id != primary) {
            outputs.extend(self.hear(*id, group.prepare(*id, of_view, sequence, batch.digest())));
        }
        outputs.extend(self.sync());
        for id in others {
            outputs.extend(self.hear(id, group.commit(id, of_view, sequence, batch.digest())));
        }
        outputs.extend(self.sync());
        outputs
    }

    /// Stops and starts again from the records up to `durable`, and the last checkpoint.
    pub(crate) fn restart_with(&self, durable: RecordNumber) -> Self {
        let records = self.records.iter().filter(|(number, _)| *number <= durable);
        let records = records.map(|(number, record)| (*number, Recovered::Whole(record.clone()))).collect();
        Self::start(&self.group, self.id, self.now_ms, self.durable_checkpoint.clone(), records)
    }

    /// Stops and starts again with everything that was appended, and nobody has answered yet.
    pub(crate) fn restart_asking(&self) -> Self {
        let records = self.records.iter().map(|(number, record)| (*number, Recovered::Whole(record.clone()))).collect();
        Self::start_asking(&self.group, self.id, self.now_ms, self.durable_checkpoint.clone(), records)
    }

    /// Stops and starts again with everything that was appended.
    pub(crate) fn restart(&self) -> Self {
        self.restart_with(RecordNumber::new(u64::MAX))
    }
}

/// Both clocks, so many milliseconds after zero.
pub(crate) fn now(milliseconds: u64) -> Now {
    let nanoseconds = milliseconds * 1_000_000;
    Now { monotonic: Time::from_nanoseconds(nanoseconds), wall: WallTime::from_nanoseconds(nanoseconds) }
}

/// The status of a replica in `of_view` that has executed nothing.
pub(crate) fn idle_status(of_view: u64) -> Status {
    Status {
        epoch: quorate_protocol::number::Epoch::ZERO,
        view: view(of_view),
        entered: true,
        suspects: false,
        stable: Sequence::ZERO,
        executed: Sequence::ZERO,
        decided_from: Sequence::new(1),
        view_changes: 0,
        checkpoint_votes: 0,
        slots: List::empty(),
    }
}

/// What is said to others among `outputs`: broadcasts and sends.
pub(crate) fn said(outputs: &[Output]) -> Vec<Message> {
    let messages = outputs.iter().filter_map(|output| match output {
        Output::Send { message, .. } | Output::Broadcast(message) => Some(message.clone()),
        _ => None,
    });
    messages.collect()
}

/// The records appended among `outputs`.
pub(crate) fn appended(outputs: &[Output]) -> Vec<Record> {
    let records = outputs.iter().filter_map(|output| match output {
        Output::Append { record, .. } => Some(record.clone()),
        _ => None,
    });
    records.collect()
}

/// The slots given to execution among `outputs`.
pub(crate) fn executed(outputs: &[Output]) -> Vec<u64> {
    let slots = outputs.iter().filter_map(|output| match output {
        Output::Execute(execution) => Some(execution.sequence.value()),
        _ => None,
    });
    slots.collect()
}

/// What the operator is told among `outputs`.
pub(crate) fn notices(outputs: &[Output]) -> Vec<Notice> {
    let notices = outputs.iter().filter_map(|output| match output {
        Output::Notice(notice) => Some(*notice),
        _ => None,
    });
    notices.collect()
}

/// The views whose primary is suspected from then on among `outputs`, and why.
pub(crate) fn suspected(outputs: &[Output]) -> Vec<(u64, Suspicion)> {
    let suspected = notices(outputs).into_iter().filter_map(|notice| match notice {
        Notice::PrimarySuspected { view, reason } => Some((view.value(), reason)),
        _ => None,
    });
    suspected.collect()
}

/// The views asked for among `outputs`, and why.
pub(crate) fn wanted(outputs: &[Output]) -> Vec<(u64, Suspicion)> {
    let wanted = notices(outputs).into_iter().filter_map(|notice| match notice {
        Notice::ViewWanted { view, reason } => Some((view.value(), reason)),
        _ => None,
    });
    wanted.collect()
}
