//! Taking a backup from the replicas of a cluster that runs: from one of them, and from the next where that one is silent
//! or lies.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::codec::{ENCODED_BYTES_MAX, decode};
use quorate_protocol::message::{Part, Piece, StableState, Want};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::state::{DEPTH, WANTED_BUCKETS_MAX};
use serde::Serialize;

use super::check::{Check, Checked, InvalidState};
use super::partial::Partial;
use super::wants::Wants;
use super::writer::Writer;
use super::{Content, Header, InvalidHeader};
use crate::client::{ClientError, Connection};
use crate::configuration::Genesis;

/// How often all replicas are asked before it is given up.
const ROUNDS_MAX: usize = 3;

/// How often a question is asked of a replica that does not answer.
const QUESTIONS_MAX: usize = 3;

/// The least that a piece holds unless it ends its part, in bytes: a replica that hands out less holds the backup up.
const PIECE_BYTES_MIN: usize = 64 << 10;

/// For the same reason, so many bytes or so many entries have come for each part, some parts left out, and one
/// for so many buckets.
const PART_BYTES_MIN: u64 = 64 << 10;
const PART_ENTRIES_MIN: u64 = 2048;
const SMALL_PARTS_MAX: u64 = 16 + (1 << DEPTH) / WANTED_BUCKETS_MAX as u64;

/// What is taken, and how patiently.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file to make.
    pub out: PathBuf,
    /// How long a replica may take to answer a question; it is asked three times.
    pub patience: Duration,
    /// The most that the entries may take, 64 bytes counted for each besides its own: a replica that lies could go on for
    /// ever.
    pub bytes_max: u64,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// What it holds.
    #[serde(flatten)]
    pub content: Content,
    /// The replica that it came from.
    pub source: u8,
}

/// How it goes, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It comes from this replica.
    Began {
        /// Which.
        source: ReplicaId,
        /// The checkpoint's slot.
        sequence: Sequence,
    },
    /// So much came.
    Received {
        /// Entries of the application.
        entries: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// This replica is of no use; another one is asked.
    Replaced {
        /// Which.
        source: ReplicaId,
        /// Why.
        reason: String,
    },
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// The file exists.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another backup is written to it.
    #[error("another backup is being written to {}", path.display())]
    Busy {
        /// The file that it writes.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done: a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There are no replicas to ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No checkpoint is stable yet.
    #[error("no replica has a stable checkpoint yet")]
    NothingStable,
    /// No replica gave a state that is the certified one.
    #[error("no replica gives a backup: {}", list(failures))]
    NoSource {
        /// What came of each, the last time.
        failures: Vec<(ReplicaId, String)>,
    },
}

impl TakeError {
    /// What the reader can do about it, where that is known.
    pub fn mend(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("name another file with --out, or move this one away".to_owned()),
            Self::Busy { .. } => Some("wait for it, or name another file with --out".to_owned()),
            Self::NothingStable => Some(
                "run it again once the cluster has ordered `checkpoint_interval` slots, see genesis.toml".to_owned(),
            ),
            Self::NoSource { .. } => {
                Some("see `quorate status`, and run it again; where links are slow, with a longer --timeout".to_owned())
            }
            Self::Io { .. } | Self::Client(_) => None,
        }
    }
}

fn list(failures: &[(ReplicaId, String)]) -> String {
    let said: Vec<String> = failures.iter().map(|(replica, said)| format!("replica {replica}: {said}")).collect();
    said.join(", ")
}

/// Why one replica is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it does not answer")]
    Silent,
    #[error("it has no stable checkpoint yet")]
    NothingStable,
    #[error("it hands out that checkpoint no more")]
    Gone,
    #[error("it hands out too little at a time")]
    Dawdles,
    #[error("it lies: {0}")]
    Header(#[from] InvalidHeader),
    #[error("it lies: {0}")]
    State(#[from] InvalidState),
    #[error("it lies: {0}")]
    Lies(&'static str),
    /// Not the replica's.
    #[error(transparent)]
    Ours(#[from] TakeError),
}

/// Replicas that can be asked.
pub(super) trait Source {
    /// Those that are there.
    async fn reached(&self) -> Vec<ReplicaId>;

    /// See [`Connection::checkpoint`].
    async fn checkpoint(
        &self,
        replica: ReplicaId,
        patience: Duration,
    ) -> Result<Option<Option<StableState>>, ClientError>;

    /// See [`Connection::piece`].
    async fn piece(
        &self,
        replica: ReplicaId,
        of: (Sequence, Want, u32),
        patience: Duration,
    ) -> Result<Option<Option<Piece>>, ClientError>;
}

impl Source for Connection {
    async fn reached(&self) -> Vec<ReplicaId> {
        let reached = self.reachability().await.replicas.into_iter().filter(|reach| reach.is_reached);
        reached.map(|reach| reach.replica).collect()
    }

    async fn checkpoint(
        &self,
        replica: ReplicaId,
        patience: Duration,
    ) -> Result<Option<Option<StableState>>, ClientError> {
        Self::checkpoint(self, replica, patience).await
    }

    async fn piece(
        &self,
        replica: ReplicaId,
        of: (Sequence, Want, u32),
        patience: Duration,
    ) -> Result<Option<Option<Piece>>, ClientError> {
        Self::piece(self, replica, of, patience).await
    }
}

/// Takes the newest stable checkpoint that a replica hands out, and puts it into a file, whole or not at all.
///
/// # Errors
/// [`TakeError`].
pub async fn take(
    connection: &Connection,
    genesis: &Genesis,
    options: &Options,
    tell: &mut dyn FnMut(Progress),
) -> Result<Taken, TakeError> {
    connection.wait_for_replicas(connection.configuration().quorum(), options.patience).await.or_else(|error| {
        // One is enough, if no more are there.
        if matches!(error, ClientError::TimedOut { .. }) { Ok(()) } else { Err(error) }
    })?;
    take_from(connection, genesis, options, tell).await
}

pub(super) async fn take_from<S: Source>(
    source: &S,
    genesis: &Genesis,
    options: &Options,
    tell: &mut dyn FnMut(Progress),
) -> Result<Taken, TakeError> {
    let mut taking = Taking { source, genesis, options, partial: Partial::create(&options.out)?, failures: Vec::new() };
    for _ in 0..ROUNDS_MAX {
        taking.failures.clear();
        for (replica, header) in taking.offers(tell).await? {
            match taking.copy(replica, &header, tell).await {
                Ok((checked, bytes)) => {
                    taking.partial.finish()?;
                    let content = content(&options.out, &header, checked, bytes);
                    return Ok(Taken { content, source: replica.value() });
                }
                Err(Fault::Ours(error)) => return Err(error),
                Err(fault) => taking.replace(replica, &fault, tell),
            }
        }
    }
    Err(TakeError::NoSource { failures: taking.failures })
}

struct Taking<'a, S> {
    source: &'a S,
    genesis: &'a Genesis,
    options: &'a Options,
    partial: Partial,
    /// Bound: one a replica, in a round.
    failures: Vec<(ReplicaId, String)>,
}

impl<S: Source> Taking<'_, S> {
    fn replace(&mut self, source: ReplicaId, fault: &Fault, tell: &mut dyn FnMut(Progress)) {
        let reason = fault.to_string();
        self.failures.push((source, reason.clone()));
        tell(Progress::Replaced { source, reason });
    }

    /// What the replicas hand out, the newest first.
    async fn offers(&mut self, tell: &mut dyn FnMut(Progress)) -> Result<Vec<(ReplicaId, Header)>, TakeError> {
        let mut offers = Vec::new();
        let reached = self.source.reached().await;
        let mut without = 0;
        for replica in &reached {
            match self.offer(*replica).await {
                Ok(header) => offers.push((*replica, header)),
                Err(Fault::Ours(error)) => return Err(error),
                Err(fault) => {
                    without += usize::from(matches!(fault, Fault::NothingStable));
                    self.replace(*replica, &fault, tell);
                }
            }
        }
        if offers.is_empty() && without > 0 {
            return Err(TakeError::NothingStable);
        }
        offers.sort_by_key(|(_, header)| std::cmp::Reverse(header.certificate.statement.sequence));
        Ok(offers)
    }

    async fn offer(&self, replica: ReplicaId) -> Result<Header, Fault> {
        for _ in 0..QUESTIONS_MAX {
            let answer = self.source.checkpoint(replica, self.options.patience / 4).await.map_err(TakeError::from)?;
            if let Some(offered) = answer {
                let StableState { certificate, root } = offered.ok_or(Fault::NothingStable)?;
                return Ok(Header::new(self.genesis.clone(), certificate, root)?);
            }
        }
        Err(Fault::Silent)
    }

    /// Copies what a replica hands out; gives what it is, if it is the certified state, and the bytes of the file.
    async fn copy(
        &mut self,
        replica: ReplicaId,
        header: &Header,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(Checked, u64), Fault> {
        let sequence = header.certificate.statement.sequence;
        tell(Progress::Began { source: replica, sequence });
        let file = BufWriter::new(self.partial.begin()?);
        let partial = self.partial.path().to_owned();
        let failed = |source| TakeError::Io { action: "write", path: partial.clone(), source };
        let mut writer = Writer::begin(file, header).map_err(failed)?;
        let mut check = Check::new(header.clone(), self.options.bytes_max);
        let (mut wants, mut parts) = (Wants::default(), 0_u64);
        while let Some(want) = wants.next() {
            let part = self.part(replica, sequence, &want).await?;
            parts += 1;
            if part.sequence != sequence || part.want != want || !part.is_within_bounds() {
                return Err(Fault::Lies("a part is not the one that was asked for"));
            }
            let (map, entries) = wants.take(part.content, &header.root().application)?;
            if !entries.is_empty() {
                check.admit(map, &entries)?;
                writer.chunk(map, entries).map_err(failed)?;
            }
            let (entries, bytes) = (check.entries(), writer.bytes());
            tell(Progress::Received { entries, bytes });
            if parts > SMALL_PARTS_MAX + bytes / PART_BYTES_MIN + entries / PART_ENTRIES_MIN {
                return Err(Fault::Dawdles);
            }
        }
        let checked = check.finish()?;
        let (file, bytes) = writer.end().map_err(failed)?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(|source| TakeError::Io { action: "sync", path: partial, source })?;
        Ok((checked, bytes))
    }

    /// A part, put together of its pieces.
    async fn part(&self, replica: ReplicaId, sequence: Sequence, want: &Want) -> Result<Part, Fault> {
        let mut whole = BytesMut::new();
        loop {
            let offset = u32::try_from(whole.len()).map_err(|_too_long| Fault::Lies("a part is longer than any"))?;
            let Piece { length, bytes } = self.piece(replica, (sequence, want.clone(), offset)).await?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > ENCODED_BYTES_MAX || whole.len() + bytes.len() > length {
                return Err(Fault::Lies("a part is longer than any"));
            }
            let is_last = whole.len() + bytes.len() == length;
            if bytes.len() < PIECE_BYTES_MIN && !is_last {
                return Err(Fault::Dawdles);
            }
            whole.extend_from_slice(&bytes);
            if is_last {
                let whole: Bytes = whole.freeze();
                return decode(&whole).map_err(|_malformed| Fault::Lies("a part is none"));
            }
        }
    }

    async fn piece(&self, replica: ReplicaId, of: (Sequence, Want, u32)) -> Result<Piece, Fault> {
        for _ in 0..QUESTIONS_MAX {
            let patience = self.options.patience;
            if let Some(answer) = self.source.piece(replica, of.clone(), patience).await.map_err(TakeError::from)? {
                return answer.ok_or(Fault::Gone);
            }
        }
        Err(Fault::Silent)
    }
}

/// What stands in a file, as it is shown.
pub(super) fn content(file: &Path, header: &Header, checked: Checked, bytes: u64) -> Content {
    let statement = &header.certificate.statement;
    Content {
        file: file.to_owned(),
        cluster: header.genesis.cluster().digest().to_string(),
        sequence: statement.sequence.value(),
        epoch: checked.protocol.epoch.value(),
        state_root: statement.root.to_string(),
        entries: checked.entries,
        entry_bytes: checked.bytes,
        sessions: checked.protocol.sessions as u64,
        time_ns: checked.protocol.time.nanoseconds(),
        bytes,
    }
}
