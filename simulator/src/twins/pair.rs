//! Two copies of one replica under one key, each with a disk and an application of its own, on two sides of the network.
//!
//! For the world they are one replica. What a copy asks of its machine is done at once: how writes get lost is others'
//! business.

use core::cell::Cell;
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::{RecordNumber, ReplicaId};
use quorate_protocol::replica::{Replica, Start};
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::{Machine, Now, Output};

use super::Split;
use crate::adversary::start_voting;
use crate::clock::{Clock, ClockOptions};
use crate::disk::checkpoints::Stored;
use crate::disk::{Disk, DiskOptions};
use crate::host::{ApplicationMaker, Boot, Done, Host, Subject, Work};
use crate::random::{Random, Stream};

/// How far the second copy's wall clock is ahead: what it proposes is never what the first proposes.
const AHEAD: Duration = Duration::from_millis(1);

/// Entries in a part of a state that a copy hands out.
const PART_ENTRIES: usize = 16;

/// The two copies.
pub(super) struct Pair {
    copies: [Copy; 2],
    out: VecDeque<Output>,
}

struct Copy {
    /// Its place among those that are parted.
    index: usize,
    replica: Replica,
    host: Host,
    split: Rc<Cell<Split>>,
}

impl core::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Pair").finish_non_exhaustive()
    }
}

impl Pair {
    /// Two copies of a new replica, which stand where `split` says.
    pub(super) fn start(
        boot: &Boot,
        now: Now,
        split: &Rc<Cell<Split>>,
        make_application: ApplicationMaker,
    ) -> Result<Self, String> {
        let copy = |index: usize| -> Result<Copy, String> {
            let start = Start {
                id: boot.id,
                configuration: boot.configuration.clone(),
                signer: boot.signer.clone(),
                checkpoint: None,
                records: Vec::new(),
                first_record: RecordNumber::new(1),
                is_damaged: false,
                token: 1,
            };
            let replica = start_voting(start, shifted(now, index)).map_err(|error| error.to_string())?;
            let clock = Clock::draw(ClockOptions::default(), &mut Random::new(0, Stream::Clock));
            let host = Host::new(boot.id, clock, Disk::new(DiskOptions::default()), make_application, PART_ENTRIES);
            Ok(Copy { index, replica, host, split: Rc::clone(split) })
        };
        let copies = [copy(Split::FIRST_TWIN)?, copy(Split::SECOND_TWIN)?];
        let mut pair = Self { copies, out: VecDeque::new() };
        pair.copies.iter_mut().for_each(|copy| copy.drain(now, &mut pair.out));
        Ok(pair)
    }
}

fn shifted(now: Now, index: usize) -> Now {
    if index != Split::SECOND_TWIN {
        return now;
    }
    let ahead = u64::try_from(AHEAD.as_nanos()).unwrap_or(0);
    Now { wall: WallTime::from_nanoseconds(now.wall.nanoseconds().saturating_add(ahead)), ..now }
}

impl Machine for Pair {
    fn handle(&mut self, now: Now, input: Input) {
        for copy in &mut self.copies {
            let hears = match &input {
                Input::Message { from, .. } => copy.is_near(*from),
                _ => true,
            };
            if hears {
                copy.handle(now, input.clone(), &mut self.out);
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.copies.iter().filter_map(|copy| copy.replica.next_deadline()).min()
    }
}

impl Subject for Pair {}

impl Copy {
    fn is_near(&self, other: ReplicaId) -> bool {
        self.split.get().joins(self.index, other.index())
    }

    fn handle(&mut self, now: Now, input: Input, out: &mut VecDeque<Output>) {
        self.replica.handle(shifted(now, self.index), input);
        self.drain(now, out);
    }

    /// Does what the replica wants done, and tells it that it is done, until it wants nothing more.
    fn drain(&mut self, now: Now, out: &mut VecDeque<Output>) {
        let mut done = VecDeque::new();
        loop {
            while let Some(output) = self.replica.poll_output() {
                self.carry_out(output, &mut done, out);
            }
            let Some(input) = done.pop_front() else { return };
            self.replica.handle(shifted(now, self.index), input);
        }
    }

    fn carry_out(&mut self, output: Output, done: &mut VecDeque<Input>, out: &mut VecDeque<Output>) {
        match output {
            // It is never started again: nobody reads the record.
            Output::Append { number, .. } => done.push_back(Input::Durable(number)),
            Output::Send { to, message } => self.say(to, message, out),
            Output::Broadcast(message) => {
                let (own, all) = (self.replica.id(), self.replica.configuration().replicas());
                all.filter(|to| *to != own).for_each(|to| self.say(to, message.clone(), out));
            }
            Output::SendPart { to, sequence, want } => {
                if let Some(part) = self.host.part(Time::ZERO, sequence, &want) {
                    self.say(to, Message::Part(part), out);
                }
            }
            Output::Execute(execution) => self.work(Work::Execute(execution), done),
            Output::TakeCheckpoint { sequence, protocol } => {
                self.work(Work::TakeCheckpoint { sequence, protocol }, done);
            }
            Output::CheckpointStable { certificate, .. } => {
                self.host.checkpoint_stable(certificate.statement.sequence);
            }
            Output::StageBegin { afresh } => self.work(Work::BeginStaging { afresh }, done),
            Output::StageBuckets(buckets) => self.host.stage_buckets(buckets),
            Output::StageEnd { sequence, protocol } => self.work(Work::EndStaging { sequence, protocol }, done),
            Output::StageInstall => self.work(Work::Install, done),
            reply @ (Output::Reply(_) | Output::Busy { .. }) => out.push_back(reply),
            Output::BeginSegment | Output::Cut { .. } | Output::Evidence(_) | Output::Notice(_) => {}
        }
    }

    fn say(&self, to: ReplicaId, message: Message, out: &mut VecDeque<Output>) {
        if self.is_near(to) {
            out.push_back(Output::Send { to, message });
        }
    }

    fn work(&mut self, work: Work, done: &mut VecDeque<Input>) {
        self.host.work.push_back(work);
        let store = match self.host.do_work() {
            Some(Done::Input(input)) => return done.push_back(input),
            Some(Done::Taken { input, state }) => {
                done.push_back(input);
                self.host.disk.checkpoints.write(state);
                self.host.disk.checkpoints.end_write()
            }
            Some(Done::Installed(state)) => {
                self.host.disk.checkpoints.install(state);
                self.host.disk.checkpoints.end_write()
            }
            Some(Done::Nonsense(_)) | None => None,
        };
        done.extend(store.map(|stored| match stored {
            Stored::Taken(sequence) => Input::CheckpointDurable { sequence },
            Stored::Installed(sequence) => Input::StateInstalled { sequence },
        }));
    }
}
