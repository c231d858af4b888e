//! Clients: who is connected, whose replies go where, and what is taken from them. (PROTOCOL §4.1, §12)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use quorate_crypto::{PublicKey, Signature, verify};
use quorate_protocol::Input;
use quorate_protocol::application::Reading;
use quorate_protocol::batch::{RequestId, SignedRequest};
use quorate_protocol::codec::{Blob, Encode};
use quorate_protocol::message::{
    ClientMessage, ENTRY_KEY_BYTES_MAX, QUERY_BYTES_MAX, ReadAnswer, ReplicaMessage, Reply, attach_digest, from_frame,
    to_frame,
};
use quorate_protocol::number::{Epoch, RequestNumber};
use quorate_protocol::verify::Invalid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::executor::{Command, WantedReading};
use super::keeper::Question;
use super::lending::{BackupQuestion, WantedPiece};
use super::standbys::Standbys;
use super::turns::{Line as _, Turns};
use super::verification::{CheckedRequest, REQUESTS_MAX, Received, SMALL_BYTES_MAX, check_requests};
use super::{Event, Host};
use crate::transport::{
    ClientEvent, ClientServer, CloseReason, ConnectionId, ConnectionRefusal, PerSource, Permit, host,
};

/// Keys that one connection serves, at most: for each a signature is checked, on the host's own task.
const KEYS_MAX: usize = 1024;

/// Connections that get the replies to one key, at most; the oldest gives way, and is closed: it would wait for nothing.
const CONNECTIONS_PER_KEY_MAX: usize = 8;

/// Questions for proofs that are not answered yet. What is asked beyond that is not answered.
const QUESTIONS: Bounds = Bounds { all: 64, source: 16, connection: 8 };

/// Reads of the executed state that are not answered yet. What is asked beyond that is to be ordered.
const READS: Bounds = Bounds { all: 1024, source: 256, connection: 256 };

/// Questions for checkpoints and pieces of them that are not answered yet. What is asked beyond that is not answered.
const BACKUP_QUESTIONS: Bounds = Bounds { all: 16, source: 8, connection: 1 };

/// Codes of the reasons for which a connection is closed.
const CODE_MALFORMED: u16 = 1;
const CODE_SIGNATURE: u16 = 2;
const CODE_KEYS: u16 = 3;

/// The clients' side of the host.
pub(super) struct Clients {
    server: ClientServer,
    cluster: quorate_protocol::configuration::ClusterId,
    /// Bound: the transport's connections.
    connections: BTreeMap<ConnectionId, Connection>,
    /// Bound: [`KEYS_MAX`] a connection.
    by_key: BTreeMap<PublicKey, Vec<ConnectionId>>,
    /// Requests that wait to be checked: each host that they come from has its turn, and each connection of one. Bound: the clients'
    /// budgets, of which each holds its share: a connection has a few dozen frames at most, and who sends more is made to wait.
    unchecked: Turns<IpAddr, Turns<ConnectionId, VecDeque<Received>>>,
    /// What standbys asked.
    pub(super) standbys: Standbys,
    /// The places of all.
    places: Arc<PlacesOf>,
    /// Those of each host from which somebody is connected.
    places_by_source: PerSource<PlacesOf>,
}

struct Connection {
    /// The host that it comes from.
    source: IpAddr,
    binding: [u8; 32],
    /// Its own places, those of its source, and those of all.
    places: [Arc<PlacesOf>; 3],
    /// Bound: [`KEYS_MAX`].
    keys: BTreeSet<PublicKey>,
}

/// How many of something may be unanswered: of all clients, of those that come from one host, and of one connection.
#[derive(Clone, Copy)]
struct Bounds {
    all: usize,
    source: usize,
    connection: usize,
}

/// The places of a connection, of a host, or of all.
#[derive(Debug)]
struct PlacesOf {
    questions: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    backups: Arc<Semaphore>,
}

impl PlacesOf {
    fn new(bound: impl Fn(Bounds) -> usize) -> Self {
        let places = |bounds| Arc::new(Semaphore::new(bound(bounds)));
        Self { questions: places(QUESTIONS), reads: places(READS), backups: places(BACKUP_QUESTIONS) }
    }
}

/// A place of a connection's, one of its source, and one of all.
#[derive(Debug)]
pub(super) struct Place {
    _permits: [OwnedSemaphorePermit; 3],
    /// Whoever comes from there meanwhile finds it taken, though all who were there have gone.
    _of_source: Arc<PlacesOf>,
}

#[cfg(test)]
impl Place {
    /// One that is taken from nobody.
    pub(super) fn of_a_test() -> Self {
        let permit = || Arc::new(Semaphore::new(1)).try_acquire_owned().expect("nobody else takes it");
        Self { _permits: [permit(), permit(), permit()], _of_source: Arc::new(PlacesOf::new(|bounds| bounds.source)) }
    }
}

impl Clients {
    pub(super) fn new(server: ClientServer, cluster: quorate_protocol::configuration::ClusterId) -> Self {
        Self {
            server,
            cluster,
            connections: BTreeMap::new(),
            by_key: BTreeMap::new(),
            unchecked: Turns::default(),
            standbys: Standbys::new(Instant::now()),
            places: Arc::new(PlacesOf::new(|bounds| bounds.all)),
            places_by_source: PerSource::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.connections.len()
    }

    /// How many connections were refused for that reason.
    pub(super) fn refused(&self, reason: ConnectionRefusal) -> u64 {
        self.server.refused(reason)
    }

    /// Takes in a request that is to be checked.
    fn take(&mut self, connection: ConnectionId, request: SignedRequest, is_copy: bool, permit: Permit) {
        let Some(source) = self.source(connection) else { return };
        let waiting = self.unchecked.line(source).line(connection);
        waiting.push_back(Received { connection, request, is_copy, _permit: permit });
    }

    /// The requests that are checked next.
    fn next_unchecked(&mut self) -> Vec<Received> {
        let next = std::iter::from_fn(|| self.unchecked.pop()).take(REQUESTS_MAX);
        next.map(|(_source, (_connection, received))| received).collect()
    }

    /// The host that a connection comes from.
    pub(super) fn source(&self, connection: ConnectionId) -> Option<IpAddr> {
        self.connections.get(&connection).map(|connection| connection.source)
    }

    /// Sends a reply to wherever its client is connected.
    pub(super) fn reply(&self, reply: Reply) {
        let client = reply.client;
        self.tell(&client, &ReplicaMessage::Reply(reply));
    }

    pub(super) fn tell(&self, client: &PublicKey, message: &ReplicaMessage) {
        let Some(connections) = self.by_key.get(client) else { return };
        let Ok(frame) = to_frame(message) else { return };
        for connection in connections {
            self.server.send(*connection, frame.clone()).ok();
        }
    }

    pub(super) fn answer(&self, connection: ConnectionId, message: &impl Encode) {
        if let Ok(frame) = to_frame(message) {
            self.server.send(connection, frame).ok();
        }
    }

    /// An answer that the client can do without, since it has the read ordered where none comes: who takes answers too slowly
    /// does not get it, and keeps the connection.
    pub(super) fn try_answer(&self, connection: ConnectionId, message: &impl Encode) {
        if let Ok(frame) = to_frame(message) {
            self.server.try_send(connection, frame).ok();
        }
    }

    /// Closes a connection for an offence: what it still says, or has said, counts for nothing.
    fn close(&mut self, connection: ConnectionId, code: u16, text: String) {
        self.server.close(connection, CloseReason { code, text, is_offence: true });
        self.closed(connection);
    }

    fn connected(&mut self, connection: ConnectionId, key: PublicKey, source: IpAddr, binding: [u8; 32]) {
        let own = PlacesOf::new(|bounds| bounds.connection);
        let of_source = self.places_by_source.of(source, || PlacesOf::new(|bounds| bounds.source));
        let places = [Arc::new(own), of_source, Arc::clone(&self.places)];
        let connected = Connection { source, binding, places, keys: BTreeSet::new() };
        self.connections.insert(connection, connected);
        self.attach(connection, key);
    }

    /// A client proved that another key of its own is at this connection: nobody can turn its replies elsewhere.
    fn on_attach(&mut self, connection: ConnectionId, key: PublicKey, signature: &Signature) {
        let Some(known) = self.connections.get(&connection) else { return };
        if known.keys.contains(&key) {
            return;
        }
        // The key that the connection began with is one, too.
        if known.keys.len() >= KEYS_MAX {
            return self.close(connection, CODE_KEYS, format!("more than {KEYS_MAX} keys at one connection"));
        }
        if verify(&key, &attach_digest(&self.cluster, &known.binding), signature).is_err() {
            // A client whose connection was replaced a moment ago may sign what bound the one before.
            let text = format!("the signature that attaches {key} is not valid");
            self.server.close(connection, CloseReason { code: CODE_SIGNATURE, text, is_offence: false });
            return self.closed(connection);
        }
        self.attach(connection, key);
    }

    fn attach(&mut self, connection: ConnectionId, key: PublicKey) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        known.keys.insert(key);
        let connections = self.by_key.entry(key).or_default();
        connections.push(connection);
        if connections.len() > CONNECTIONS_PER_KEY_MAX {
            let oldest = connections.remove(0);
            self.server.give_way(oldest);
            self.closed(oldest);
        }
    }

    fn closed(&mut self, connection: ConnectionId) {
        let Some(gone) = self.connections.remove(&connection) else { return };
        self.unchecked.remove_within(gone.source, connection);
        self.standbys.closed(gone.source, connection);
        for key in gone.keys {
            if let Some(connections) = self.by_key.get_mut(&key) {
                connections.retain(|other| *other != connection);
                if connections.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// A place for a question for a proof, if one is free.
    fn place_for_question(&self, connection: ConnectionId) -> Option<Place> {
        self.place(connection, |places| &places.questions)
    }

    /// A place for a read, if one is free.
    fn place_for_read(&self, connection: ConnectionId) -> Option<Place> {
        self.place(connection, |places| &places.reads)
    }

    /// A place for a question for a checkpoint, if one is free.
    fn place_for_backup(&self, connection: ConnectionId) -> Option<Place> {
        self.place(connection, |places| &places.backups)
    }

    fn place(&self, connection: ConnectionId, kind: impl Fn(&PlacesOf) -> &Arc<Semaphore>) -> Option<Place> {
        let places = &self.connections.get(&connection)?.places;
        let [own, of_source, of_all] =
            places.each_ref().map(|places| Arc::clone(kind(places)).try_acquire_owned().ok());
        Some(Place { _permits: [own?, of_source?, of_all?], _of_source: Arc::clone(&places[1]) })
    }

    pub(super) fn is_connected(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    fn serves(&self, connection: ConnectionId, key: &PublicKey) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.keys.contains(key))
    }

    pub(super) async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

impl Host {
    pub(super) fn on_client(&mut self, event: ClientEvent) -> anyhow::Result<()> {
        match event {
            ClientEvent::Connected { connection, key, remote, channel_binding } => {
                tracing::debug!(?connection, %key, %remote, "client connected");
                self.clients.connected(connection, key, host(remote.ip()), channel_binding);
            }
            ClientEvent::Closed { connection, reason } => {
                tracing::debug!(?connection, %reason, "client gone");
                self.clients.closed(connection);
            }
            // It is being closed.
            ClientEvent::Frame { connection, .. } if !self.clients.is_connected(connection) => {}
            ClientEvent::Frame { connection, bytes, permit } => match from_frame::<ClientMessage>(&bytes) {
                Ok(message) => self.on_client_message(connection, message, permit)?,
                Err(error) => {
                    self.counters.invalid_from_clients += 1;
                    self.clients.close(connection, CODE_MALFORMED, format!("a frame that is no message: {error}"));
                }
            },
        }
        Ok(())
    }

    fn on_client_message(
        &mut self,
        connection: ConnectionId,
        message: ClientMessage,
        permit: Permit,
    ) -> anyhow::Result<()> {
        match message {
            ClientMessage::Attach { client, signature } => self.clients.on_attach(connection, client, &signature),
            ClientMessage::Standby(frame) => {
                if !self.on_standby(connection, &frame) {
                    self.counters.invalid_from_clients += 1;
                    let text = "what no standby says".to_owned();
                    self.clients.close(connection, CODE_MALFORMED, text);
                }
            }
            ClientMessage::Request(request) | ClientMessage::Copy(request) if self.others.are_doors() => {
                if let Some(RequestId { client, number, .. }) = request.claimed_id() {
                    self.refuse(connection, client, number, "a standby has nothing ordered: ask a member".to_owned());
                }
            }
            ClientMessage::Request(request) => self.clients.take(connection, request, false, permit),
            ClientMessage::Copy(request) => self.clients.take(connection, request, true, permit),
            ClientMessage::Status => {
                let report = self.report();
                self.clients.answer(connection, &ReplicaMessage::Status(report.into()));
            }
            ClientMessage::Prove { query, .. } if query.len() > QUERY_BYTES_MAX => {
                self.counters.invalid_from_clients += 1;
                let text = format!("a query of more than {QUERY_BYTES_MAX} bytes");
                self.clients.close(connection, CODE_MALFORMED, text);
            }
            ClientMessage::Read { client, number, operation } => {
                self.on_read(connection, (client, number), operation, permit)?;
            }
            ClientMessage::Checkpoint { number } => self.on_backup_question(connection, number, None, permit)?,
            ClientMessage::Part { want, .. } if !want.is_within_bounds() => {
                self.counters.invalid_from_clients += 1;
                let text = format!("a key of more than {ENTRY_KEY_BYTES_MAX} bytes");
                self.clients.close(connection, CODE_MALFORMED, text);
            }
            ClientMessage::Part { number, sequence, want, offset } => {
                let piece = WantedPiece { sequence, want, offset };
                self.on_backup_question(connection, number, Some(piece), permit)?;
            }
            ClientMessage::Prove { number, query } => match self.clients.place_for_question(connection) {
                Some(place) => {
                    let question = Question { connection, number, query, _permit: permit, _place: place };
                    self.executor.prove(question)?;
                }
                // The client asks another replica.
                None => self.counters.busy += 1,
            },
        }
        Ok(())
    }

    /// Has a question for a checkpoint answered, or one for a piece of it when its turn has come. Whoever is connected may
    /// ask: what a proved read shows of a key, to any client that the policy admits, this shows of all. (PROTOCOL §8)
    fn on_backup_question(
        &mut self,
        connection: ConnectionId,
        number: RequestNumber,
        piece: Option<WantedPiece>,
        permit: Permit,
    ) -> anyhow::Result<()> {
        let Some(place) = self.clients.place_for_backup(connection) else {
            // The client asks again, or another replica.
            self.counters.busy += 1;
            return Ok(());
        };
        let question = BackupQuestion { connection, number, piece, _permit: permit, _place: place };
        let wait = self.pace.wait(Instant::now());
        if wait.is_zero() {
            return self.executor.lend(question);
        }
        let events = self.events.clone();
        // Bound: the places for these questions.
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            events.send(Event::BackupDue(question)).ok();
        });
        Ok(())
    }

    /// Hands over what was asked of a checkpoint.
    pub(super) fn answer_backup(&mut self, question: &BackupQuestion, message: &ReplicaMessage) {
        self.clients.answer(question.connection, message);
    }

    /// The epoch that a read from the executed state is answered in; none if it is not. A standby's answer is one that nobody
    /// counts: whoever asks it knows whom he asks.
    fn reads_in(&self) -> Option<Epoch> {
        let replica = self.machine.replica();
        if self.others.are_doors() {
            (!replica.is_diverged()).then(|| replica.configuration().epoch())
        } else {
            replica.reads_in()
        }
    }

    /// Has the executed state read, if this replica may answer from it: else the client has the read ordered, at once.
    fn on_read(
        &mut self,
        connection: ConnectionId,
        (client, number): (PublicKey, RequestNumber),
        operation: Blob,
        permit: Permit,
    ) -> anyhow::Result<()> {
        let may_read = self.reads_in().is_some()
            && self.clients.serves(connection, &client)
            && self.machine.replica().configuration().parameters().clients.takes(&client);
        let place = self.clients.place_for_read(connection).filter(|_| may_read);
        let Some(place) = place else {
            self.clients.try_answer(connection, &ReplicaMessage::Read { client, number, answer: None });
            return Ok(());
        };
        let wanted = WantedReading { connection, client, number, operation, _permit: permit, _place: place };
        self.executor.send(Command::Read(wanted))
    }

    /// What was read counts if this replica may still answer: it is told what it executes before it is told what was read.
    pub(super) fn answer_read(&self, wanted: &WantedReading, reading: Option<Reading>) {
        let WantedReading { connection, client, number, .. } = *wanted;
        let answer = self.reads_in().zip(reading).map(|(epoch, reading)| ReadAnswer { epoch, reading });
        self.clients.try_answer(connection, &ReplicaMessage::Read { client, number, answer });
    }

    /// Hands requests to the pool, as many at once as have come meanwhile. A small one that comes alone is checked here: that
    /// takes less time than to hand it over.
    pub(super) fn submit_requests(&mut self) -> anyhow::Result<()> {
        while !self.clients.unchecked.is_empty() && self.pool.takes_requests() {
            let received = self.clients.next_unchecked();
            if let [only] = &received[..]
                && self.pool.has_no_requests()
                && only.request.body.len() <= SMALL_BYTES_MAX
            {
                let checked = check_requests(received, self.machine.replica().configuration(), &mut self.rule);
                return self.take_checked_requests(checked);
            }
            self.pool.check_requests(received);
        }
        Ok(())
    }

    pub(super) fn on_checked_requests(&mut self, checked: Vec<CheckedRequest>) -> anyhow::Result<()> {
        self.pool.on_requests_checked();
        self.take_checked_requests(checked)?;
        self.submit_requests()
    }

    fn take_checked_requests(&mut self, checked: Vec<CheckedRequest>) -> anyhow::Result<()> {
        for CheckedRequest { connection, id, is_copy, outcome } in checked {
            match outcome {
                Ok(request) if self.clients.serves(connection, &request.request.client) => {
                    self.counters.requests_received += 1;
                    self.handle(if is_copy { Input::Copy(request) } else { Input::Request(request) })?;
                }
                Ok(request) => {
                    let RequestId { client, number, .. } = request.request.id();
                    let reason = format!("the key {client} is not attached to this connection");
                    self.refuse(connection, client, number, reason);
                }
                Err(invalid) => self.refuse_invalid(connection, id, &invalid),
            }
        }
        Ok(())
    }

    /// What no honest client sends ends the connection; what a mistaken one sends is answered, if it says who asks.
    fn refuse_invalid(&mut self, connection: ConnectionId, id: Option<RequestId>, invalid: &Invalid) {
        self.counters.invalid_from_clients += 1;
        match (invalid, id) {
            (Invalid::Signature, _) => {
                self.clients.close(connection, CODE_SIGNATURE, "a request whose signature is not valid".to_owned());
            }
            (Invalid::Codec(_), _) | (_, None) => {
                self.clients.close(connection, CODE_MALFORMED, invalid.to_string());
            }
            (_, Some(RequestId { client, number, .. })) => {
                self.refuse(connection, client, number, invalid.to_string());
            }
        }
    }

    fn refuse(&self, connection: ConnectionId, client: PublicKey, number: RequestNumber, reason: String) {
        let reason = reason.into_bytes().into();
        self.clients.answer(connection, &ReplicaMessage::Refused { client, number, reason });
    }
}

#[cfg(test)]
mod tests;
