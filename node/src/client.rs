//! The client library: one [`Connection`] to all replicas carries the sessions of many keys. (PROTOCOL §4.1, §4.6, §12)
//!
//! | file | holds |
//! | --- | --- |
//! | `client/session.rs` | a key's session: submitting operations, singly or many in flight |
//! | `client/kv.rs` | the key-value store, typed |
//! | `client/proved.rs` | reads that one replica answers and a quorum vouches for |
//! | `client/stale.rs` | reads that one standby answers, and nobody vouches for |
//! | `client/account.rs` | what replicas say of themselves |
//! | `client/driver.rs` | the one task that drives the sessions' state machines over the links |
//! | `client/pending.rs` | who waits for what |
//! | `client/deadlines.rs` | when which session wants to be woken |
//! | `client/identity.rs` | which key to use, and keys derived from it |
//! | `client/error.rs` | what can go wrong |
//!
//! What is believed, sent again and given up is decided by [`quorate_protocol::client::Client`], which is pure; here are
//! the sockets, the clock and the callers.

mod account;
mod deadlines;
mod driver;
mod error;
mod identity;
pub mod kv;
mod pending;
mod proved;
mod session;
mod stale;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_crypto::{PublicKey, SigningKey};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::{Piece, ReplicaMessage, StableState, Want};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::account::{Account, LinkAccount, ScrubAccount};
use self::driver::{Command, Driver};
pub use self::error::{ClientError, OpenError, Reachability, ReplicaReach};
pub use self::identity::{Identity, derive_key};
use self::pending::Question;
pub use self::proved::{ProofError, Proved};
pub use self::session::{Answer, Completion, CompletionSender, Completions, PENDING_MAX, Session, completions};
#[cfg(test)]
pub(crate) use self::tests::TestCluster;
use crate::transport::{
    LinkPhase, LinkStatus, MTU_DEFAULT, MTU_MAX, Member, ReplicaLinkLimits, ReplicaLinks, ReplicaLinksOptions, look_up,
};

/// Keys whose sessions one connection carries, at most: a replica takes no more from one.
pub const CLIENTS_MAX: usize = 1024;

/// Events of the links that wait for the task; divided among the replicas.
const EVENTS_MAX: usize = 16_384;

/// Commands that wait for the task; beyond it callers wait.
const COMMANDS_MAX: usize = 4096;

/// How long looking up all addresses may take before a connection is opened without those that are missing.
pub const LOOK_UP_PATIENCE: Duration = Duration::from_secs(2);

/// How long the question for the links' states may take.
const LINKS_PATIENCE: Duration = Duration::from_millis(500);

/// What a connection is made of.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// The cluster.
    pub configuration: Arc<Configuration>,
    /// The key that the links are made with. It can have a session, too; nobody else may use it at the same time.
    pub key: SigningKey,
    /// The address to send from; port 0 for any.
    pub local: SocketAddr,
    /// What packets may grow to, in bytes of UDP payload: 1200 to 6500.
    pub mtu_upper_bound: u16,
    /// Instead of all members: one standby, in the place of the first member.
    pub standby: Option<Member>,
}

/// Where a standby answers clients, and the key that it proves to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyAddress {
    /// `host:port`.
    pub address: String,
    /// Its key.
    pub key: PublicKey,
}

impl ConnectionOptions {
    /// Options that lead to a standby of the cluster and to nobody else: it answers single questions, and orders nothing.
    ///
    /// # Errors
    /// [`OpenError::Address`] if its address leads nowhere.
    pub async fn to_standby(
        configuration: Arc<Configuration>,
        key: SigningKey,
        standby: StandbyAddress,
    ) -> Result<Self, OpenError> {
        let StandbyAddress { address, key: of_standby } = standby;
        let found = match look_up(&address).await {
            Ok(found) => found,
            Err(source) => return Err(OpenError::Address { address, source }),
        };
        let mtu_upper_bound = if found.ip().is_loopback() { MTU_MAX } else { MTU_DEFAULT };
        let standby = Some(Member { id: ReplicaId::new(0), key: of_standby, address });
        Ok(Self { configuration, key, local: local(&[found]), mtu_upper_bound, standby })
    }

    /// Options that fit the addresses of the configuration, as far as they can be looked up within [`LOOK_UP_PATIENCE`].
    /// They are looked up again whenever a replica is dialled. Packets may grow larger where all replicas are on this
    /// machine.
    ///
    /// # Errors
    /// [`OpenError::Address`] if not one of them leads anywhere.
    pub async fn resolve(configuration: Arc<Configuration>, key: SigningKey) -> Result<Self, OpenError> {
        let mut looking = JoinSet::new();
        for address in configuration.members().iter().map(|member| member.client_address.clone()) {
            looking
                .spawn(async move { look_up(&address).await.map_err(|source| OpenError::Address { address, source }) });
        }
        let (mut found, mut failed) = (Vec::new(), None);
        let deadline = Instant::now() + LOOK_UP_PATIENCE;
        while let Ok(Some(Ok(outcome))) = timeout_at(deadline, looking.join_next()).await {
            match outcome {
                Ok(address) => found.push(address),
                Err(error) => failed = Some(error),
            }
        }
        if let (true, Some(error)) = (found.is_empty(), failed) {
            return Err(error);
        }
        let is_local = found.len() == configuration.size() && found.iter().all(|address| address.ip().is_loopback());
        let mtu_upper_bound = if is_local { MTU_MAX } else { MTU_DEFAULT };
        Ok(Self { configuration, key, local: local(&found), mtu_upper_bound, standby: None })
    }
}

/// Links to all replicas, and the sessions that they carry. Ends when it and all sessions are dropped, or by
/// [`Connection::close`].
#[derive(Debug)]
pub struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

/// What sessions and the connection itself reach the task by.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    reached: watch::Receiver<usize>,
    view: Arc<AtomicU64>,
    configuration: Arc<Configuration>,
    /// That of the links.
    key: PublicKey,
    /// Who is dialled, and where.
    linked: Arc<[(ReplicaId, String)]>,
}

impl Connection {
    /// Opens the socket and begins to dial. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: ConnectionOptions) -> Result<Self, OpenError> {
        let ConnectionOptions { configuration, key, local, mtu_upper_bound, standby } = options;
        let (events, from_links) = mpsc::channel(EVENTS_MAX);
        let cluster = *configuration.cluster().digest().as_bytes();
        let limits = ReplicaLinkLimits::for_requests(configuration.parameters().request_bytes_max);
        let members = standby.map_or_else(|| members(&configuration), |standby| vec![standby]);
        let linked = members.iter().map(|member| (member.id, member.address.clone())).collect();
        let mut link_options = ReplicaLinksOptions::new(key.clone(), local, members, cluster, limits);
        link_options.mtu_upper_bound = mtu_upper_bound;
        let links = ReplicaLinks::start(link_options, events).map_err(OpenError::Start)?;
        let (commands, from_callers) = mpsc::channel(COMMANDS_MAX);
        let (tell_reached, reached) = watch::channel(0);
        let view = Arc::new(AtomicU64::new(0));
        let driver = Driver::new(Arc::clone(&configuration), key.public_key(), links, tell_reached, Arc::clone(&view));
        let task = tokio::spawn(driver.run(from_links, from_callers));
        let handle = Handle { commands, reached, view, configuration, key: key.public_key(), linked };
        Ok(Self { handle, task })
    }

    /// The session of `key`, opened in the background if it is new here. Kept as long as the connection.
    ///
    /// # Errors
    /// [`ClientError::TooManyClients`] or [`ClientError::Closed`].
    pub async fn client(&self, key: SigningKey) -> Result<Session, ClientError> {
        self.add(key, false).await
    }

    /// The same, for one that mostly reads: the session is opened when something is to be ordered.
    ///
    /// # Errors
    /// As [`Connection::client`].
    pub async fn reader(&self, key: SigningKey) -> Result<Session, ClientError> {
        self.add(key, true).await
    }

    async fn add(&self, key: SigningKey, opens_late: bool) -> Result<Session, ClientError> {
        let (added, outcome) = oneshot::channel();
        self.handle.command(Command::Add { key: key.into(), opens_late, added }).await?;
        let client = outcome.await.map_err(|_closed| ClientError::Closed)??;
        Ok(Session::new(self.handle.clone(), client))
    }

    /// Waits until `count` replicas are reached.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`], or [`ClientError::Unreachable`] if none is.
    pub async fn wait_for_replicas(&self, count: usize, within: Duration) -> Result<(), ClientError> {
        let mut reached = self.handle.reached.clone();
        match timeout(within, reached.wait_for(|reached| *reached >= count)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(self.handle.too_late(within).await),
        }
    }

    /// Which replicas are reached, and why the others are not.
    pub async fn reachability(&self) -> Reachability {
        self.handle.reachability().await
    }

    /// A replica's account of itself, as soon as it is reached.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] or [`ClientError::Unreachable`]; [`ClientError::Nonsense`] if it is none.
    pub async fn status(&self, replica: ReplicaId, within: Duration) -> Result<Account, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.handle.command(Command::Status { to: replica, answer }).await?;
        match timeout(within, answered).await {
            Ok(Ok(account)) => Account::read(&account).map_err(|_nonsense| ClientError::Nonsense { replica }),
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(self.handle.too_late(within).await),
        }
    }

    /// Which stable checkpoint a replica hands out, unchecked; the inner one is none if it has none yet.
    ///
    /// # Errors
    /// [`ClientError::Closed`]. No answer within `patience` is none.
    pub(crate) async fn checkpoint(
        &self,
        replica: ReplicaId,
        patience: Duration,
    ) -> Result<Option<Option<StableState>>, ClientError> {
        match self.handle.ask(replica, Question::Checkpoint, patience).await? {
            Some(ReplicaMessage::Checkpoint { checkpoint, .. }) => Ok(Some(checkpoint)),
            Some(_) | None => Ok(None),
        }
    }

    /// A piece of a part of that checkpoint, unchecked; the inner one is none if the replica hands it out no more.
    ///
    /// # Errors
    /// As [`Connection::checkpoint`].
    pub(crate) async fn piece(
        &self,
        replica: ReplicaId,
        (sequence, want, offset): (Sequence, Want, u32),
        patience: Duration,
    ) -> Result<Option<Option<Piece>>, ClientError> {
        match self.handle.ask(replica, Question::Piece { sequence, want, offset }, patience).await? {
            Some(ReplicaMessage::Part { piece, .. }) => Ok(Some(piece)),
            Some(_) | None => Ok(None),
        }
    }

    /// The highest view that some session's answers proved to be reached.
    pub fn view(&self) -> View {
        View::new(self.handle.view.load(Ordering::Relaxed))
    }

    /// The cluster.
    pub fn configuration(&self) -> &Arc<Configuration> {
        &self.handle.configuration
    }

    /// Who is dialled: all members, or a standby in the place of the first.
    pub fn linked(&self) -> impl Iterator<Item = ReplicaId> {
        self.handle.linked.iter().map(|(replica, _)| *replica)
    }

    /// Takes leave of the replicas and ends. What is still under way has no result.
    pub async fn close(self) {
        // Both fail only if the task has ended already.
        self.handle.command(Command::Close).await.ok();
        self.task.await.ok();
    }
}

impl Handle {
    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_closed| ClientError::Closed)
    }

    /// A replica's answer to a question; none if it did not come in time.
    async fn ask(
        &self,
        replica: ReplicaId,
        question: Question,
        patience: Duration,
    ) -> Result<Option<ReplicaMessage>, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Ask { to: replica, question, answer }).await?;
        Ok(timeout(patience, answered).await.ok().and_then(Result::ok))
    }

    /// What to say when there was no answer within `patience`.
    async fn too_late(&self, patience: Duration) -> ClientError {
        let reachability = self.reachability().await;
        if reachability.reached() == 0 {
            ClientError::Unreachable(reachability)
        } else {
            ClientError::TimedOut { patience, reachability }
        }
    }

    async fn reachability(&self) -> Reachability {
        let (answer, answered) = oneshot::channel();
        let asked = self.command(Command::Links(answer)).await;
        let links = match asked {
            Ok(()) => timeout(LINKS_PATIENCE, answered).await.ok().and_then(Result::ok).unwrap_or_default(),
            Err(_closed) => Vec::new(),
        };
        let reach = |(replica, address): &(ReplicaId, String)| {
            let link: Option<&LinkStatus> = links.iter().find(|link| link.peer == *replica);
            ReplicaReach {
                replica: *replica,
                address: address.clone(),
                is_reached: link.is_some_and(|link| link.phase == LinkPhase::Up),
                last_error: link.and_then(|link| link.last_error.clone()),
            }
        };
        Reachability { replicas: self.linked.iter().map(reach).collect() }
    }
}

/// The address to send from: any of the family that reaches all of these.
pub(crate) fn local(addresses: &[SocketAddr]) -> SocketAddr {
    let has_only_ipv4 = addresses.iter().all(SocketAddr::is_ipv4);
    let any: IpAddr = if has_only_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

fn members(configuration: &Configuration) -> Vec<Member> {
    let members = configuration.replicas().zip(configuration.members());
    members.map(|(id, member)| Member { id, key: member.key, address: member.client_address.clone() }).collect()
}
