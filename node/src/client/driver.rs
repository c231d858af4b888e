//! The one task of a connection: it owns the links and the sessions' state machines, and does everything in bulk.
//!
//! Requests are signed here, when they get their number: that is most of what a request costs a client (PROTOCOL §4.1).
//! Who needs more than one processor's worth of requests opens more connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate_crypto::{PublicKey, SigningKey};
use quorate_protocol::application::Reading;
use quorate_protocol::batch::OPERATIONS_MAX;
use quorate_protocol::client::{Client, ClientInput, ClientOptions, ClientOutput, Ticket};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::{ClientMessage, ReplicaMessage, attach_digest, from_frame, to_frame};
use quorate_protocol::number::{ReplicaId, RequestNumber};
use quorate_protocol::time::{Now, Time, WallTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use super::CLIENTS_MAX;
use super::deadlines::Deadlines;
use super::error::ClientError;
use super::pending::{Question, Questions, Respond};
use super::session::Answer;
use crate::transport::{ChannelBinding, Dropped, LinkStatus, ReplicaEvent, ReplicaLinks};

/// Events or commands that are taken at once.
const BULK: usize = 256;

/// How long the end of a connection waits for its last packets to leave.
const FAREWELL: Duration = Duration::from_millis(20);

/// What the connection and its sessions ask of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// A session for a key, or the one that it has.
    Add {
        key: Box<SigningKey>,
        opens_late: bool,
        added: oneshot::Sender<Result<usize, ClientError>>,
    },
    Submit {
        client: usize,
        operations: List<Blob, OPERATIONS_MAX>,
        respond: Respond,
    },
    Read {
        client: usize,
        operation: Blob,
        respond: Respond,
    },
    Status {
        to: ReplicaId,
        answer: oneshot::Sender<Blob>,
    },
    Ask {
        to: ReplicaId,
        question: Question,
        answer: oneshot::Sender<ReplicaMessage>,
    },
    Links(oneshot::Sender<Vec<LinkStatus>>),
    Close,
}

/// A session and who waits for it.
struct Driven {
    machine: Client,
    key: Arc<SigningKey>,
    public_key: PublicKey,
    /// By replica: whether it was told over its present link that this key is here. It refuses requests of other keys.
    attached: Vec<bool>,
    /// Bound: a permit each, of [`super::PENDING_MAX`].
    waiting: HashMap<Ticket, Respond>,
    next_ticket: Ticket,
    /// Whether its deadline may have changed in this bulk.
    is_touched: bool,
}

/// The task's state.
pub(super) struct Driver {
    configuration: Arc<Configuration>,
    /// The key of the links: a replica knows without being told that it is at this connection.
    own_key: PublicKey,
    links: ReplicaLinks,
    /// By replica: what binds its link, while that is up.
    bindings: Vec<Option<ChannelBinding>>,
    reached: watch::Sender<usize>,
    view: Arc<AtomicU64>,
    /// Bound: [`CLIENTS_MAX`].
    clients: Vec<Driven>,
    by_key: HashMap<PublicKey, usize>,
    /// Sessions touched in this bulk. Bound: one entry a session.
    touched: Vec<usize>,
    deadlines: Deadlines,
    questions: Questions,
    start: Instant,
}

impl Driver {
    pub(super) fn new(
        configuration: Arc<Configuration>,
        own_key: PublicKey,
        links: ReplicaLinks,
        reached: watch::Sender<usize>,
        view: Arc<AtomicU64>,
    ) -> Self {
        Self {
            bindings: vec![None; configuration.size()],
            configuration,
            own_key,
            links,
            reached,
            view,
            clients: Vec::new(),
            by_key: HashMap::new(),
            touched: Vec::new(),
            deadlines: Deadlines::default(),
            questions: Questions::default(),
            start: Instant::now(),
        }
    }

    /// Works until the connection is closed, or all who could ask for something are gone.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<ReplicaEvent>, mut commands: mpsc::Receiver<Command>) {
        let (mut new_events, mut new_commands) = (Vec::with_capacity(BULK), Vec::with_capacity(BULK));
        loop {
            let wake_at = self.deadlines.next().map(|time| self.start + Duration::from_nanos(time.nanoseconds()));
            tokio::select! {
                count = events.recv_many(&mut new_events, BULK) => if count == 0 { break },
                count = commands.recv_many(&mut new_commands, BULK) => if count == 0 { break },
                () = sleep_until(wake_at.unwrap_or(self.start).into()), if wake_at.is_some() => {}
            }
            let now = self.now();
            for event in new_events.drain(..) {
                self.on_event(now, event);
            }
            for command in new_commands.drain(..) {
                if matches!(command, Command::Close) {
                    return self.take_leave().await;
                }
                self.on_command(now, command);
            }
            while let Some(client) = self.deadlines.pop_due(now) {
                self.give(now, client, ClientInput::Wake);
            }
            self.settle();
        }
        self.take_leave().await;
    }

    /// Tells the replicas. That is sent at once; who does not hear it notices by the silence.
    async fn take_leave(self) {
        timeout(FAREWELL, self.links.shutdown()).await.ok();
    }

    fn now(&self) -> Time {
        Time::from_nanoseconds(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn on_event(&mut self, now: Time, event: ReplicaEvent) {
        match event {
            ReplicaEvent::Up { replica, channel_binding } => self.on_up(now, replica, channel_binding),
            ReplicaEvent::Down { replica, reason } => {
                tracing::debug!(%replica, %reason, "lost a replica");
                self.set_binding(replica, None);
                for driven in &mut self.clients {
                    driven.attached[replica.index()] = false;
                }
                for client in 0..self.clients.len() {
                    self.give(now, client, ClientInput::LinkDown(replica));
                }
            }
            // The permit frees the frame's room when it is dropped, after the frame was dealt with.
            ReplicaEvent::Frame { from, bytes, permit: _permit } => match from_frame(&bytes) {
                Ok(message) => self.on_message(now, from, message),
                Err(error) => tracing::debug!(replica = %from, %error, "a frame that is no message"),
            },
        }
    }

    /// All keys first, then what is due to the replica: it takes requests of keys that it knows to be here.
    fn on_up(&mut self, now: Time, replica: ReplicaId, binding: ChannelBinding) {
        self.set_binding(replica, Some(binding));
        for client in 0..self.clients.len() {
            self.attach(client, replica);
        }
        for client in 0..self.clients.len() {
            self.give(now, client, ClientInput::LinkUp(replica));
        }
        for question in self.questions.again(replica) {
            self.send(replica, &question);
        }
    }

    fn set_binding(&mut self, replica: ReplicaId, binding: Option<ChannelBinding>) {
        if let Some(place) = self.bindings.get_mut(replica.index()) {
            *place = binding;
        }
        self.reached.send_replace(self.bindings.iter().flatten().count());
    }

    /// Proves to a replica that a key is at this connection.
    fn attach(&mut self, client: usize, replica: ReplicaId) {
        let Driven { key, public_key, .. } = &self.clients[client];
        let Some(binding) = self.bindings.get(replica.index()).copied().flatten() else { return };
        let is_attached = *public_key == self.own_key || {
            let signature = key.sign(&attach_digest(self.configuration.cluster(), &binding));
            self.send(replica, &ClientMessage::Attach { client: *public_key, signature })
        };
        self.clients[client].attached[replica.index()] = is_attached;
    }

    fn on_message(&mut self, now: Time, from: ReplicaId, message: ReplicaMessage) {
        match message {
            ReplicaMessage::Reply(reply) => {
                if let Some(client) = self.by_key.get(&reply.client).copied() {
                    self.give(now, client, ClientInput::Reply { from, reply });
                }
            }
            ReplicaMessage::Busy { client, number, retry_after_ms } => {
                if let Some(client) = self.by_key.get(&client).copied() {
                    self.give(now, client, ClientInput::Busy { from, number, retry_after_ms });
                }
            }
            ReplicaMessage::Refused { client, number, reason } => {
                tracing::debug!(replica = %from, reason = %String::from_utf8_lossy(&reason).escape_debug(), "refused");
                if let Some(client) = self.by_key.get(&client).copied() {
                    self.give(now, client, ClientInput::Refused { from, number });
                }
            }
            ReplicaMessage::Read { client, number, answer } => {
                match self.by_key.get(&client).copied() {
                    Some(client) => self.give(now, client, ClientInput::ReadAnswer { from, number, answer }),
                    // A session numbers its reads itself; without one, this was asked of a standby.
                    None => self.questions.on_answer(from, number, ReplicaMessage::Read { client, number, answer }),
                }
            }
            ReplicaMessage::Status(account) => self.questions.on_account(from, &account),
            ReplicaMessage::Proved { number, .. }
            | ReplicaMessage::Checkpoint { number, .. }
            | ReplicaMessage::Part { number, .. } => self.questions.on_answer(from, number, message),
            // Not asked for.
            ReplicaMessage::Standby(_) => {}
        }
    }

    fn on_command(&mut self, now: Time, command: Command) {
        match command {
            Command::Add { key, opens_late, added } => {
                let client = self.add(now, *key, opens_late);
                added.send(client).ok();
            }
            Command::Submit { client, operations, respond } => {
                self.submit(now, client, respond, |ticket| ClientInput::Submit { ticket, operations });
            }
            Command::Read { client, operation, respond } => {
                self.submit(now, client, respond, |ticket| ClientInput::Read { ticket, operation });
            }
            Command::Status { to, answer } => {
                let question = self.questions.ask_account(to, answer);
                self.ask(to, question);
            }
            Command::Ask { to, question, answer } => {
                let message = self.questions.ask(to, question, answer);
                self.ask(to, message);
            }
            Command::Links(answer) => drop(answer.send(self.links.links())),
            Command::Close => {}
        }
    }

    fn ask(&self, to: ReplicaId, question: Option<ClientMessage>) {
        if let Some(question) = question {
            self.send(to, &question);
        }
    }

    fn add(&mut self, now: Time, key: SigningKey, opens_late: bool) -> Result<usize, ClientError> {
        let public_key = key.public_key();
        if let Some(client) = self.by_key.get(&public_key) {
            return Ok(*client);
        }
        // The key of the links takes one of a replica's places even without a session.
        let own = usize::from(!self.by_key.contains_key(&self.own_key) && public_key != self.own_key);
        if self.clients.len() + own >= CLIENTS_MAX {
            return Err(ClientError::TooManyClients);
        }
        let client = self.clients.len();
        self.by_key.insert(public_key, client);
        self.clients.push(self.driven(now, key, opens_late));
        let replicas: Vec<ReplicaId> = self.configuration.replicas().collect();
        for replica in replicas {
            match self.bindings.get(replica.index()) {
                Some(Some(_binding)) => self.attach(client, replica),
                Some(None) | None => self.clients[client].machine.handle(now, ClientInput::LinkDown(replica)),
            }
        }
        self.after(client);
        Ok(client)
    }

    fn driven(&self, now: Time, key: SigningKey, opens_late: bool) -> Driven {
        let (public_key, key) = (key.public_key(), Arc::new(key));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        let options = ClientOptions {
            configuration: Arc::clone(&self.configuration),
            key: public_key,
            signer: Arc::<SigningKey>::clone(&key),
            opening: RequestNumber::new(wall),
            // Without randomness from the system there is no TLS either, so no link on which retries could collide.
            jitter_seed: getrandom::u64().unwrap_or(wall),
            opens_late,
        };
        let machine = Client::new(options, Now { monotonic: now, wall: WallTime::from_nanoseconds(wall) });
        let attached = vec![false; self.configuration.size()];
        Driven { machine, key, public_key, attached, waiting: HashMap::new(), next_ticket: 0, is_touched: false }
    }

    fn submit(&mut self, now: Time, client: usize, respond: Respond, input: impl FnOnce(Ticket) -> ClientInput) {
        let Some(driven) = self.clients.get_mut(client) else { return respond.tell(Err(ClientError::Closed)) };
        let ticket = driven.next_ticket;
        driven.next_ticket += 1;
        driven.waiting.insert(ticket, respond);
        self.give(now, client, input(ticket));
    }

    /// Hands a session an input and does what it asks for.
    fn give(&mut self, now: Time, client: usize, input: ClientInput) {
        self.clients[client].machine.handle(now, input);
        self.after(client);
    }

    fn after(&mut self, client: usize) {
        while let Some(output) = self.clients[client].machine.poll_output() {
            self.carry_out(client, output);
        }
        if !self.clients[client].is_touched {
            self.clients[client].is_touched = true;
            self.touched.push(client);
        }
    }

    fn carry_out(&mut self, client: usize, output: ClientOutput) {
        let all = self.configuration.replicas();
        match output {
            ClientOutput::Send { to, request } => self.send_attached(client, [to], &ClientMessage::Request(request)),
            ClientOutput::SendAll(request) => {
                self.send_attached(client, all, &ClientMessage::Request(request));
            }
            ClientOutput::Copy { except, request } => {
                let others = all.filter(|replica| *replica != except);
                self.send_attached(client, others, &ClientMessage::Copy(request));
            }
            ClientOutput::Ask { number, operation } => {
                let message = ClientMessage::Read { client: self.clients[client].public_key, number, operation };
                self.send_attached(client, all, &message);
            }
            ClientOutput::Read { ticket, reading: Reading { result, since }, submitted_at: _ } => {
                let results = List::new(vec![result]).unwrap_or_else(List::empty);
                self.tell(client, ticket, Ok(Answer { sequence: since, index: None, results, retries: 0 }));
            }
            ClientOutput::Completed { ticket, sequence, index, results, retries, submitted_at: _ } => {
                self.tell(client, ticket, Ok(Answer { sequence, index: Some(index), results, retries }));
            }
            ClientOutput::Failed { ticket, error } => self.tell(client, ticket, Err(error.into())),
        }
    }

    fn tell(&mut self, client: usize, ticket: Ticket, outcome: Result<Answer, ClientError>) {
        if let Some(respond) = self.clients[client].waiting.remove(&ticket) {
            respond.tell(outcome);
        }
    }

    /// Only to replicas that know the key to be here: a link may carry frames before this task knows that it is up.
    fn send_attached(&mut self, client: usize, to: impl IntoIterator<Item = ReplicaId>, message: &ClientMessage) {
        let Some(frame) = frame(message) else { return };
        for replica in to {
            if !self.clients[client].attached[replica.index()] {
                self.attach(client, replica);
            }
            if self.clients[client].attached[replica.index()] {
                self.send_frame(replica, frame.clone());
            }
        }
    }

    fn send(&self, to: ReplicaId, message: &ClientMessage) -> bool {
        frame(message).is_some_and(|frame| self.send_frame(to, frame))
    }

    /// Whether it waits for its link now. What does not is sent again after a time-out, or when the link is up again.
    fn send_frame(&self, to: ReplicaId, frame: Bytes) -> bool {
        let sent = self.links.send(to, frame);
        match sent {
            // Sending it again would not help, and links take every request that the configuration allows.
            Err(Dropped::Size) => tracing::error!(replica = %to, "a message that no link takes"),
            Err(dropped) => tracing::trace!(replica = %to, %dropped, "not sent"),
            Ok(()) => {}
        }
        sent.is_ok()
    }

    /// Once a bulk: when those who were touched want to be woken, and what they believe.
    fn settle(&mut self) {
        let mut view = 0;
        for client in self.touched.drain(..) {
            let driven = &mut self.clients[client];
            driven.is_touched = false;
            self.deadlines.want(client, driven.machine.next_deadline());
            view = view.max(driven.machine.believed_view().value());
        }
        self.view.fetch_max(view, Ordering::Relaxed);
    }
}

/// None for a message beyond the bounds, of which there is none: sessions and questions are bounded where they are taken.
fn frame(message: &ClientMessage) -> Option<Bytes> {
    to_frame(message).inspect_err(|error| tracing::error!(%error, "a message that cannot be encoded")).ok()
}
