//! What a link tells an operator about itself: counters that cost nothing to keep, read when somebody asks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Connection;

use crate::transport::ReplicaId;
use crate::transport::close::LinkError;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LinkPhase {
    /// Waits to be dialled by the other side, or for the next attempt to dial it.
    #[default]
    Waiting,
    /// Dialling, or exchanging hellos.
    Connecting,
    /// Frames flow.
    Up,
}

/// One link, as it is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Who is at the other end.
    pub peer: ReplicaId,
    /// Where the link stands.
    pub phase: LinkPhase,
    /// The address at the other end, while there is a connection.
    pub remote: Option<SocketAddr>,
    /// Round-trip time as QUIC estimates it, while there is a connection.
    pub rtt: Option<Duration>,
    /// Frames taken from the other side since the start.
    pub frames_in: u64,
    /// Their bytes, headers counted.
    pub bytes_in: u64,
    /// Frames handed to QUIC since the start.
    pub frames_out: u64,
    /// Their bytes, headers counted.
    pub bytes_out: u64,
    /// Frames for the other side that were dropped: refused by `send`, or still waiting when the link went down.
    pub drops: u64,
    /// How often the link came up again after the first time.
    pub reconnects: u64,
    /// Why the link went down, or did not come up, the last time.
    pub last_error: Option<LinkError>,
}

/// The state and the counters of one link.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    live: Mutex<Live>,
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    frames_out: AtomicU64,
    bytes_out: AtomicU64,
    drops: AtomicU64,
}

#[derive(Debug, Default)]
struct Live {
    phase: LinkPhase,
    connection: Option<Connection>,
    /// Why this side is closing the connection, until its end is noted.
    closing: Option<LinkError>,
    last_error: Option<LinkError>,
    times_up: u64,
}

impl LinkState {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn on_connecting(&self) {
        self.live().phase = LinkPhase::Connecting;
    }

    /// A connection exists; hellos are next.
    pub(crate) fn on_connection(&self, connection: &Connection) {
        let mut live = self.live();
        live.phase = LinkPhase::Connecting;
        live.connection = Some(connection.clone());
        live.closing = None;
    }

    pub(crate) fn on_up(&self) {
        let mut live = self.live();
        live.phase = LinkPhase::Up;
        live.times_up += 1;
    }

    pub(crate) fn on_down(&self, error: LinkError) {
        let mut live = self.live();
        live.phase = LinkPhase::Waiting;
        live.connection = None;
        live.last_error = Some(error);
    }

    /// Closes the connection, if there is one, for that reason; the first reason counts.
    pub(crate) fn close(&self, error: LinkError) {
        let mut live = self.live();
        let Some(connection) = live.connection.clone() else { return };
        let (code, text) = error.farewell();
        live.closing.get_or_insert(error);
        drop(live);
        connection.close(code, text.as_bytes());
    }

    /// Why this side closed the connection, if it did by [`Self::close`].
    pub(crate) fn closing(&self) -> Option<LinkError> {
        self.live().closing.take()
    }

    pub(crate) fn on_frame_in(&self, bytes: usize) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn on_frames_out(&self, frames: usize, bytes: usize) {
        self.frames_out.fetch_add(frames as u64, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn on_drops(&self, frames: usize) {
        self.drops.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(crate) fn status(&self, peer: ReplicaId) -> LinkStatus {
        let live = self.live();
        LinkStatus {
            peer,
            phase: live.phase,
            remote: live.connection.as_ref().map(Connection::remote_address),
            rtt: live.connection.as_ref().map(Connection::rtt),
            frames_in: self.frames_in.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            frames_out: self.frames_out.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            drops: self.drops.load(Ordering::Relaxed),
            reconnects: live.times_up.saturating_sub(1),
            last_error: live.last_error.clone(),
        }
    }
}
