//! What a host does for each output, and what it tells the replica when that is done. (`output.rs` of the protocol)

use bytes::Bytes;
use quorate_protocol::Output;
use quorate_protocol::input::Input;
use quorate_protocol::message::{Message, ReplicaMessage, to_frame};
use quorate_protocol::number::{RecordNumber, ReplicaId};
use quorate_protocol::output::Notice;
use quorate_protocol::record::Record;
use quorate_protocol::time::Time;

use super::{Event, World};
use crate::checker::{Invariant, Observation};
use crate::disk::checkpoints::Stored;
use crate::host::{Done, Work};
use crate::marks::Mark;
use crate::network::{Endpoint, Passage};
use crate::pattern::Matter as _;
use crate::trace::{Flight, Lane, Stance};

impl World {
    pub(super) fn carry_out(&mut self, id: ReplicaId, output: Output) {
        match output {
            Output::Append { number, record } => self.append(id, number, &record),
            Output::BeginSegment => self.hosts[id.index()].disk.log.begin_segment(),
            Output::Cut { before } => self.hosts[id.index()].disk.log.cut(before),
            Output::Send { to, message } => self.send(id, core::iter::once(to), &message),
            Output::Broadcast(message) => self.send(id, self.replicas().filter(|to| *to != id), &message),
            Output::Execute(execution) => self.work(id, Work::Execute(execution)),
            Output::TakeCheckpoint { sequence, protocol } => self.work(id, Work::TakeCheckpoint { sequence, protocol }),
            Output::CheckpointStable { certificate, root } => {
                let host = &mut self.hosts[id.index()];
                let sequence = certificate.statement.sequence;
                if host.checkpoint_stable(sequence) && host.stable_application_root() != Some(root.application) {
                    let message = format!("replica {id} calls another state than its own stable at {sequence}");
                    self.report(Invariant::Checkpoint, message);
                }
            }
            Output::SendPart { to, sequence, want } => {
                let now = self.time;
                if let Some(part) = self.hosts[id.index()].part(now, sequence, &want) {
                    self.send(id, core::iter::once(to), &Message::Part(part));
                }
            }
            Output::StageBegin { afresh } => self.work(id, Work::BeginStaging { afresh }),
            Output::StageBuckets(buckets) => self.hosts[id.index()].stage_buckets(buckets),
            Output::StageEnd { sequence, protocol } => self.work(id, Work::EndStaging { sequence, protocol }),
            Output::StageInstall => self.work(id, Work::Install),
            // No client is connected to a standby.
            Output::Reply(_) | Output::Busy { .. } if !self.is_member(id) => {}
            Output::Reply(reply) => self.answer(id, &reply.client.clone(), &ReplicaMessage::Reply(reply)),
            Output::Busy { client, number, retry_after_ms } => {
                self.answer(id, &client, &ReplicaMessage::Busy { client, number, retry_after_ms });
            }
            Output::Evidence(evidence) => {
                if self.is_member(id) && !self.checkers.is_faulty(id) {
                    self.proved_faulty.insert(evidence.accused());
                }
                if !self.checkers.may_be_accused(evidence.accused()) {
                    let accused = evidence.accused();
                    self.report(Invariant::Understanding, format!("replica {id} accuses {accused}, which is correct"));
                }
            }
            Output::Notice(notice) => self.notice(id, notice),
        }
    }

    fn append(&mut self, id: ReplicaId, number: RecordNumber, record: &Record) {
        let members = self.configuration.size() as u64;
        let host = &mut self.hosts[id.index()];
        if let Err(gap) = host.disk.log.append(number, record, id, members) {
            self.report(Invariant::Contract, format!("replica {id}: {gap}"));
        }
        self.sync(id);
    }

    fn sync(&mut self, id: ReplicaId) {
        let is_member = self.is_member(id);
        let host = &mut self.hosts[id.index()];
        if host.disk.log.begin_sync() {
            let random = if is_member { &mut self.disk_random } else { &mut self.standbys.random };
            let when = self.time.after(host.disk.sync_delay(random));
            let incarnation = host.incarnation;
            self.schedule(when, Event::Synced { to: id, incarnation });
        }
    }

    pub(super) fn on_synced(&mut self, id: ReplicaId) {
        // What the kernel keeps after a failed sync is unknown: the process ends.
        if self.hosts[id.index()].disk.take_failing_sync() {
            self.spotter.reach(Mark::SyncFailed);
            return self.crash(id);
        }
        let durable = self.hosts[id.index()].disk.log.end_sync();
        self.sync(id);
        if let Some(last) = durable {
            self.feed(id, Input::Durable(last));
        }
    }

    fn send(&mut self, from: ReplicaId, receivers: impl Iterator<Item = ReplicaId>, message: &Message) {
        if !self.is_member(from) {
            return self.ask_at_doors(from, receivers, message);
        }
        let frame = match to_frame(message) {
            Ok(frame) => frame,
            Err(error) => return self.report(Invariant::Contract, format!("replica {from} sends what is {error}")),
        };
        let frame = if self.checkers.is_faulty(from) { self.garble(frame) } else { frame };
        for to in receivers {
            if from == to || !self.is_member(to) {
                return self.report(Invariant::Contract, format!("replica {from} sends something to {to}"));
            }
            let arrivals = self.network.send_message(&Passage { from, to, at: self.time, message });
            self.trace_message(from, to, message, &arrivals);
            for arrival in arrivals {
                self.schedule(arrival, Event::Arrival { from, to, frame: frame.clone() });
            }
        }
    }

    /// What an attacker sends, or now and then the same with a byte changed.
    fn garble(&mut self, frame: Bytes) -> Bytes {
        if frame.is_empty() || !self.garble_random.happens(self.options.garbled) {
            return frame;
        }
        let mut bytes = frame.to_vec();
        let place = usize::try_from(self.garble_random.below(bytes.len() as u64)).unwrap_or(0);
        bytes[place] ^= 1 << self.garble_random.below(8);
        bytes.into()
    }

    fn trace_message(&mut self, from: ReplicaId, to: ReplicaId, message: &Message, arrivals: &[Time]) {
        self.trace_with(|trace, sent| {
            let ends = if arrivals.is_empty() { vec![None] } else { arrivals.iter().copied().map(Some).collect() };
            for arrived in ends {
                trace.fly(Flight {
                    from: Lane::Replica(from),
                    to: Lane::Replica(to),
                    sent,
                    arrived,
                    kind: message.kind().name(),
                    slot: message.place().1,
                    text: crate::account::describe(message),
                });
            }
        });
    }

    pub(super) fn answer(&mut self, from: ReplicaId, client: &quorate_crypto::PublicKey, message: &ReplicaMessage) {
        let Some(&to) = self.clients_by_key.get(client) else {
            return;
        };
        let frame = match to_frame(message) {
            Ok(frame) => frame,
            Err(error) => return self.report(Invariant::Contract, format!("replica {from} answers what is {error}")),
        };
        let arrivals = self.network.send(self.time, Endpoint::Replica(from), Endpoint::Client(to));
        self.trace_with(|trace, sent| {
            let (slot, text) = crate::account::describe_answer(message);
            let arrived = arrivals.first().copied();
            trace.fly(Flight {
                from: Lane::Replica(from),
                to: Lane::Client(to),
                sent,
                arrived,
                kind: "Answer",
                slot,
                text,
            });
        });
        for arrival in arrivals {
            self.schedule(arrival, Event::Answer { from, to, frame: frame.clone() });
        }
    }

    fn work(&mut self, id: ReplicaId, work: Work) {
        let host = &mut self.hosts[id.index()];
        host.work.push_back(work);
        if host.work.len() == 1 {
            self.schedule_work(id);
        }
    }

    fn schedule_work(&mut self, id: ReplicaId) {
        let random = if self.is_member(id) { &mut self.work_random } else { &mut self.standbys.random };
        let when = self.time.after(random.delay(self.options.work));
        let incarnation = self.hosts[id.index()].incarnation;
        self.schedule(when, Event::Worked { to: id, incarnation });
    }

    pub(super) fn on_worked(&mut self, id: ReplicaId) {
        let Some(done) = self.hosts[id.index()].do_work() else {
            return;
        };
        if !self.hosts[id.index()].work.is_empty() {
            self.schedule_work(id);
        }
        match done {
            Done::Input(input) => {
                if let Input::Executed { sequence, results } = &input {
                    self.counts.executed += u64::from(self.is_member(id));
                    self.observe(&Observation::Executed { replica: id, sequence: *sequence, results });
                    let (slot, requests) = (sequence.value(), results.len());
                    self.trace_of(id, |trace, now| {
                        let text = format!("executes slot {slot}: {requests} requests");
                        trace.mark(id, now, "execute", Some(slot), text);
                    });
                }
                self.feed(id, input);
            }
            Done::Taken { input, state } => {
                let (sequence, root) = (state.sequence, state.application_root);
                self.observe(&Observation::Taken { replica: id, sequence, root });
                if self.hosts[id.index()].disk.checkpoints.write(state) {
                    self.store(id);
                }
                self.feed(id, input);
            }
            Done::Installed(state) => {
                if self.hosts[id.index()].disk.checkpoints.install(state) {
                    self.store(id);
                }
            }
            Done::Nonsense(what) => self.report(Invariant::Contract, format!("replica {id}: {what}")),
        }
    }

    fn store(&mut self, id: ReplicaId) {
        let random = if self.is_member(id) { &mut self.disk_random } else { &mut self.standbys.random };
        let host = &self.hosts[id.index()];
        let when = self.time.after(host.disk.store_delay(random));
        let incarnation = host.incarnation;
        self.schedule(when, Event::Stored { to: id, incarnation });
    }

    pub(super) fn on_stored(&mut self, id: ReplicaId) {
        let store = &mut self.hosts[id.index()].disk.checkpoints;
        let Some(stored) = store.end_write() else {
            return;
        };
        if store.is_writing() {
            self.store(id);
        }
        match stored {
            Stored::Taken(sequence) => self.feed(id, Input::CheckpointDurable { sequence }),
            Stored::Installed(sequence) => {
                self.hosts[id.index()].end_install();
                if self.is_member(id) {
                    self.counts.transfers += 1;
                    self.took_over_state.insert(id);
                } else {
                    self.spotter.reach(Mark::StandbyTookState);
                }
                let root = self.hosts[id.index()].disk.checkpoints.durable().map(|state| state.application_root);
                if let Some(root) = root {
                    self.observe(&Observation::Installed { replica: id, sequence, root });
                }
                if self.hosts[id.index()].is_rotten() {
                    self.observe(&Observation::Rotted(id));
                }
                self.feed(id, Input::StateInstalled { sequence });
            }
        }
    }

    fn notice(&mut self, id: ReplicaId, notice: Notice) {
        self.note(|| format!("{id}: {notice:?}"));
        self.trace_of(id, |trace, now| match notice {
            Notice::ViewEntered { view } => {
                trace.mark(id, now, "enter", None, format!("enters view {view}"));
                trace.stand(id, now, Stance::In(view.value()));
            }
            Notice::ViewWanted { view, reason } => {
                trace.mark(id, now, "other", None, format!("asks for view {view}: {reason:?}"));
                trace.stand(id, now, Stance::Asking(view.value()));
            }
            Notice::PrimarySuspected { view, reason } => {
                trace.mark(id, now, "suspect", None, format!("suspects the primary of view {view}: {reason:?}"));
            }
            Notice::Stable { sequence } => {
                trace.mark(id, now, "stable", None, format!("checkpoint {sequence} is stable"));
            }
            other => trace.mark(id, now, "other", None, format!("{other:?}")),
        });
        if self.checkers.is_faulty(id) {
            return;
        }
        match notice {
            Notice::ViewEntered { view } if self.is_member(id) => {
                self.counts.views_entered += 1;
                self.counts.highest_view = self.counts.highest_view.max(view.value());
            }
            Notice::TransferSourceReplaced { source, lied: true } => {
                self.named_liars.insert(source);
                if !self.checkers.may_be_accused(source) {
                    let message = format!("replica {id} says that {source}, which is correct, hands out a false state");
                    self.report(Invariant::Understanding, message);
                }
            }
            _ => {}
        }
    }
}
