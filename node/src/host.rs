//! What drives a replica: sockets, disks, clocks and threads around the pure core.
//!
//! ```text
//! peers ----\                        /--> log thread (group commit) ----\
//! clients ---> verification pool --> host task: Machine --> executor --> checkpoint keeper
//!                                    ^------------ events from all of them ------------/
//! ```
//!
//! The host task owns the machine and nothing blocks it: each of the others is a thread with a bounded queue of its own,
//! and what a queue may hold is bounded by what the core has outstanding. What comes in is taken in bulk, so that one
//! wake-up of the task serves many messages.

mod backlog;
mod carry_out;
mod clients;
mod damage;
mod executor;
mod keeper;
mod priority;
mod report;
mod staging;
mod start;
#[cfg(test)]
mod tests;
mod verification;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use quorate_crypto::Digest;
use quorate_protocol::application::Results;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::input::StagedState;
use quorate_protocol::message::{Message, ReplicaMessage, from_frame};
use quorate_protocol::number::{RecordNumber, ReplicaId, Sequence};
use quorate_protocol::replica::Replica;
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::verify::Invalid;
use quorate_protocol::{Input, Machine, Now};
use tokio::sync::mpsc;

use crate::storage::log;
use crate::transport::{ClientEvent, ConnectionId, PeerEvent, PeerNetwork, Permit};

pub use report::{LinkReport, Report};
pub use start::{Build, ReplicaOptions, Replicated, run};

use backlog::Backlog;
use clients::Clients;
use executor::Executor;
use report::Counters;
use staging::Staging;
use verification::{Checked, CheckedMessage, Pool};

/// Events taken at once from a queue.
const BULK_MAX: usize = 256;

/// What the host's own threads report. Bound: each command is answered by at most two of these.
#[derive(Debug)]
enum Event {
    /// From the log's thread.
    Log(log::Event),
    /// A slot was executed.
    Executed { sequence: Sequence, results: Vec<Results> },
    /// The application's root at a checkpoint.
    CheckpointTaken { sequence: Sequence, application_root: Digest },
    /// A checkpoint is durable.
    CheckpointDurable { sequence: Sequence },
    /// A part of the stable checkpoint, for a peer.
    Part { to: ReplicaId, message: Box<Message> },
    /// A transferred state is staged.
    Staged(StagedState),
    /// A staged state is installed.
    Installed { sequence: Sequence },
    /// The answer to a question for a proof.
    Proved { connection: ConnectionId, message: Box<ReplicaMessage> },
    /// Messages and requests whose signatures were checked.
    Checked(Checked),
    /// Something failed that leaves the state on disk unknown: the process has to end.
    Failed(anyhow::Error),
}

/// The host of one replica.
struct Host {
    machine: Replica,
    configuration: Arc<Configuration>,
    clock: Clock,
    peers: PeerNetwork,
    clients: Clients,
    log: log::Log,
    backlog: Backlog,
    executor: Executor,
    staging: Staging,
    pool: Pool,
    /// For what is checked at once, outside the pool.
    rule: verification::Zip215,
    counters: Counters,
    data: PathBuf,
}

/// Both clocks of the machine.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(self) -> Now {
        let monotonic = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Now { monotonic: Time::from_nanoseconds(monotonic), wall: WallTime::from_nanoseconds(wall) }
    }

    fn instant(self, time: Time) -> Instant {
        self.start + Duration::from_nanos(time.nanoseconds())
    }
}

/// Where everything comes from.
struct Sources {
    peers: mpsc::Receiver<PeerEvent>,
    clients: mpsc::Receiver<ClientEvent>,
    own: mpsc::UnboundedReceiver<Event>,
}

impl Host {
    /// Serves until `stop` ends, or something fails that the replica must not survive.
    async fn serve(mut self, mut sources: Sources, stop: impl Future<Output = ()>) -> anyhow::Result<Self> {
        tokio::pin!(stop);
        let (mut own, mut peers, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        self.carry_out()?;
        loop {
            let deadline = self.machine.next_deadline().map(|time| self.clock.instant(time));
            let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            tokio::select! {
                biased;
                () = &mut stop => return Ok(self),
                _ = sources.own.recv_many(&mut own, BULK_MAX) => {}
                _ = sources.peers.recv_many(&mut peers, BULK_MAX) => {}
                _ = sources.clients.recv_many(&mut clients, BULK_MAX) => {}
                () = tokio::time::sleep_until(deadline.into()) => self.handle(Input::Wake)?,
            }
            for event in own.drain(..) {
                self.on_own(event)?;
            }
            for event in peers.drain(..) {
                self.on_peer(event)?;
            }
            for event in clients.drain(..) {
                self.on_client(event);
            }
            self.submit_requests();
            if Instant::now() >= deadline {
                self.handle(Input::Wake)?;
            }
            // Whoever has just been served lets the tasks that move bytes have the thread.
            tokio::task::yield_now().await;
        }
    }

    fn handle(&mut self, input: Input) -> anyhow::Result<()> {
        self.machine.handle(self.clock.now(), input);
        self.carry_out()
    }

    fn on_peer(&mut self, event: PeerEvent) -> anyhow::Result<()> {
        match event {
            PeerEvent::Up(peer) => tracing::info!(%peer, "link up"),
            PeerEvent::Down(peer, reason) => tracing::info!(%peer, %reason, "link down"),
            PeerEvent::Frame { from, bytes, permit, .. } => match from_frame::<Message>(&bytes) {
                Ok(message) => self.on_message(from, message, permit)?,
                Err(error) => self.note_invalid(from, &error.into()),
            },
        }
        Ok(())
    }

    fn on_message(&mut self, from: ReplicaId, mut message: Message, permit: Permit) -> anyhow::Result<()> {
        if !self.machine.is_wanted(&message) {
            self.counters.unwanted += 1;
            return Ok(());
        }
        if let Message::Part(part) = &mut message {
            self.staging.cut(part);
        }
        self.check(from, message, permit)
    }

    /// Few signatures are checked at once, many on the pool.
    fn check(&mut self, from: ReplicaId, message: Message, permit: Permit) -> anyhow::Result<()> {
        if verification::is_small(&message) {
            let checked = verification::check(from, message, &self.configuration, &mut self.rule);
            return self.on_checked_message(from, checked);
        }
        self.pool.check_message(from, message, permit);
        Ok(())
    }

    fn on_checked_message(&mut self, from: ReplicaId, checked: CheckedMessage) -> anyhow::Result<()> {
        match checked {
            Ok(message) => self.handle(Input::Message { from, message }),
            Err(Invalid::Misbehaviour(evidence)) => self.handle(Input::Misbehaviour(evidence)),
            Err(invalid) => {
                self.note_invalid(from, &invalid);
                Ok(())
            }
        }
    }

    fn note_invalid(&mut self, from: ReplicaId, invalid: &Invalid) {
        self.counters.invalid_from_peers += 1;
        if self.counters.invalid_from_peers.is_power_of_two() {
            tracing::warn!(%from, %invalid, total = self.counters.invalid_from_peers, "invalid message from a peer");
        }
    }

    fn on_own(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Log(event) => self.on_log(event),
            Event::Executed { sequence, results } => {
                self.counters.requests_executed += results.len() as u64;
                self.handle(Input::Executed { sequence, results })
            }
            Event::CheckpointTaken { sequence, application_root } => {
                self.handle(Input::CheckpointTaken { sequence, application_root })
            }
            Event::CheckpointDurable { sequence } => self.handle(Input::CheckpointDurable { sequence }),
            Event::Part { to, message } => {
                self.send(to, &message);
                Ok(())
            }
            Event::Staged(staged) => self.handle(Input::StateStaged(staged)),
            Event::Installed { sequence } => self.handle(Input::StateInstalled { sequence }),
            Event::Proved { connection, message } => {
                self.clients.answer(connection, &*message);
                Ok(())
            }
            Event::Checked(Checked::Message { from, message, permit }) => {
                drop(permit);
                self.on_checked_message(from, *message)
            }
            Event::Checked(Checked::Requests(checked)) => self.on_checked_requests(checked),
            Event::Failed(error) => Err(error),
        }
    }

    fn on_log(&mut self, event: log::Event) -> anyhow::Result<()> {
        match event {
            log::Event::Durable(number) => {
                self.backlog.hand_over(&self.log)?;
                self.handle(Input::Durable(RecordNumber::new(number)))
            }
            log::Event::Full(error) => {
                self.counters.is_disk_full = true;
                tracing::error!(%error, "the disk is full: nothing is accepted until there is room");
                self.handle(Input::LogFull)
            }
            log::Event::Room => {
                self.counters.is_disk_full = false;
                tracing::info!("there is room on the disk again");
                self.handle(Input::LogHasRoom)
            }
            // What the kernel keeps after a failed sync is unknown: stop. (PROTOCOL §9)
            log::Event::Failed(error) => Err(anyhow::Error::from(error).context("the write-ahead log failed")),
            log::Event::Cut(_) => Ok(()),
        }
    }

    /// Ends in order: what was accepted is written, threads are joined, peers are told.
    async fn end(self) -> anyhow::Result<()> {
        let Self { peers, clients, log, executor, pool, counters, .. } = self;
        let closed = tokio::task::spawn_blocking(move || {
            executor.close();
            pool.close();
            log.close()
        });
        let (closed, (), ()) = tokio::join!(closed, peers.shutdown(), clients.shutdown());
        let closed = closed?;
        if counters.is_disk_full {
            tracing::warn!("the log was full: what had no room was not accepted");
        }
        match closed {
            Err(log::Error::Full { .. }) => Ok(()),
            closed => Ok(closed?),
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Host").field("replica", &self.machine.id()).finish_non_exhaustive()
    }
}
