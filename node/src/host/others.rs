//! How a replica reaches the others: a member by its links to them, a standby through the door that they keep for clients.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::codec::{Blob, decode};
use quorate_protocol::message::{ClientMessage, Fetch, Message, ReplicaMessage, from_frame, to_frame};
use quorate_protocol::number::ReplicaId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::carry_out;
use super::pieces::{Pieces, Taken};
use crate::transport::{
    CloseReason, ConnectionRefusal, Lane, LinkStatus, PeerEvent, PeerNetwork, ReplicaEvent, ReplicaLinks,
};

/// The links to the other replicas.
pub(super) enum Others {
    /// Those of a member.
    Members(PeerNetwork),
    /// Those of a standby.
    Doors(Doors),
}

/// A standby's links, which are those of a client.
pub(super) struct Doors {
    links: Arc<ReplicaLinks>,
    pieces: Arc<Mutex<Pieces>>,
    /// When a warm one asks; a hot one always does.
    rounds: Option<Arc<Rounds>>,
    /// Hands on what comes.
    listening: JoinHandle<()>,
}

impl Doors {
    /// What comes by `links` goes on to `events` as if it came from peers.
    pub(super) fn new(
        links: ReplicaLinks,
        mut received: mpsc::Receiver<ReplicaEvent>,
        events: mpsc::Sender<PeerEvent>,
        every: Option<Duration>,
    ) -> Self {
        let (links, pieces) = (Arc::new(links), Arc::new(Mutex::new(Pieces::default())));
        let rounds = every.map(Rounds::new).map(Arc::new);
        let ear = Ear { links: Arc::clone(&links), pieces: Arc::clone(&pieces), rounds: rounds.clone() };
        let listening = tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                if let Some(event) = ear.as_of_peer(event)
                    && events.send(event).await.is_err()
                {
                    return;
                }
            }
        });
        Self { links, pieces, rounds, listening }
    }

    /// Says what members hear of a standby, too; the rest is not said.
    fn send(&self, to: ReplicaId, message: &Message, frame: Bytes) {
        let message = match (message, &self.rounds) {
            (Message::Status(_), Some(rounds)) if !rounds.is_on(Instant::now()) => return,
            (Message::Fetch(Fetch::Decided { .. }), Some(_)) => return,
            (Message::Status(_) | Message::Fetch(Fetch::Decided { .. }), _) => {
                ClientMessage::Standby(Blob::from(frame))
            }
            (Message::Fetch(Fetch::Part { sequence, want }), _) => {
                match lock(&self.pieces).ask(to, *sequence, want.clone()) {
                    Some(question) => question,
                    None => return,
                }
            }
            _ => return,
        };
        send(&self.links, to, &message);
    }
}

/// When a warm standby asks the members how far they are: once an interval until a part of a checkpoint is here. It hears which
/// checkpoint is stable, finds nobody who hands out the slots up to there, and takes the state; until it has begun to read
/// that, a later one may take its place.
struct Rounds {
    every: Duration,
    last: Mutex<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    began: Instant,
    /// A checkpoint is being read.
    is_over: bool,
}

impl Rounds {
    /// Rounds of which the first begins now.
    fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(Round { began: Instant::now(), is_over: false }) }
    }

    /// Whether it is to ask now.
    fn is_on(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(last.began) >= self.every {
            *last = Round { began: now, is_over: false };
        }
        !last.is_over
    }

    /// A checkpoint is being read.
    fn end(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
    }
}

/// Who hears what the members say at their clients' doors.
struct Ear {
    links: Arc<ReplicaLinks>,
    pieces: Arc<Mutex<Pieces>>,
    rounds: Option<Arc<Rounds>>,
}

impl Ear {
    /// What a member says as what a peer says; nothing if it is no answer to a standby.
    fn as_of_peer(&self, event: ReplicaEvent) -> Option<PeerEvent> {
        let (from, bytes, permit) = match event {
            ReplicaEvent::Up { replica, .. } => return Some(PeerEvent::Up(replica)),
            ReplicaEvent::Down { replica, reason } => return Some(PeerEvent::Down(replica, reason)),
            ReplicaEvent::Frame { from, bytes, permit } => (from, bytes, permit),
        };
        let frame = match from_frame::<ReplicaMessage>(&bytes) {
            Ok(ReplicaMessage::Standby(frame)) => frame.into_bytes(),
            Ok(ReplicaMessage::Part { number, piece }) => match lock(&self.pieces).take(from, number, piece) {
                Taken::Whole(part, next) => {
                    if let Some(question) = next {
                        send(&self.links, from, &question);
                    }
                    let part = decode(&part).ok()?;
                    self.rounds.iter().for_each(|rounds| rounds.end());
                    to_frame(&Message::Part(part)).ok()?
                }
                Taken::More(question) => {
                    send(&self.links, from, &question);
                    return None;
                }
                Taken::Nothing => return None,
            },
            // Not worth more than to be forgotten: it is bounded like all that comes by this link.
            Ok(_) | Err(_) => return None,
        };
        Some(PeerEvent::Frame { from, lane: Lane::Bulk, bytes: frame, permit })
    }
}

/// What does not go out is counted by the transport, and asked for again.
fn send(links: &ReplicaLinks, to: ReplicaId, message: &ClientMessage) {
    if let Ok(frame) = to_frame(message) {
        links.send(to, frame).ok();
    }
}

fn lock(pieces: &Mutex<Pieces>) -> MutexGuard<'_, Pieces> {
    pieces.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Others {
    /// Sends a message, whose frame this is. What does not go out is counted by the transport.
    pub(super) fn send(&self, to: ReplicaId, message: &Message, frame: Bytes) {
        match self {
            Self::Members(network) => drop(network.send(to, carry_out::lane(message), frame)),
            Self::Doors(doors) => doors.send(to, message, frame),
        }
    }

    /// Whether a message may come by that lane: by the one door of a standby comes everything.
    pub(super) fn comes_by(&self, message: &Message, lane: Lane) -> bool {
        match self {
            Self::Members(_) => carry_out::lane(message) == lane,
            Self::Doors(_) => true,
        }
    }

    /// Disconnects a peer, which may come back. A standby goes on hearing it, and takes nothing of it meanwhile.
    pub(super) fn close(&self, peer: ReplicaId, reason: CloseReason) {
        match self {
            Self::Members(network) => network.close(peer, reason),
            Self::Doors(_) => {}
        }
    }

    /// All links, in the order of the replicas.
    pub(super) fn links(&self) -> Vec<LinkStatus> {
        match self {
            Self::Members(network) => network.links(),
            Self::Doors(Doors { links, .. }) => links.links(),
        }
    }

    /// How many connections were refused for that reason.
    pub(super) fn refused(&self, reason: ConnectionRefusal) -> u64 {
        match self {
            Self::Members(network) => network.refused(reason),
            Self::Doors(Doors { links, .. }) => links.refused(reason),
        }
    }

    /// Whether this is a standby's.
    pub(super) const fn are_doors(&self) -> bool {
        matches!(self, Self::Doors(_))
    }

    /// Tells the others and ends.
    pub(super) async fn shutdown(self) {
        match self {
            Self::Members(network) => network.shutdown().await,
            Self::Doors(Doors { links, listening, .. }) => {
                listening.abort();
                listening.await.ok();
                if let Some(links) = Arc::into_inner(links) {
                    links.shutdown().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_standby_asks_once_an_interval_until_it_reads_a_checkpoint() {
        let every = Duration::from_mins(1);
        let rounds = Rounds::new(every);
        let start = rounds.last.lock().unwrap().began;
        let asks = |after: Duration| rounds.is_on(start + after);
        assert!(asks(Duration::ZERO) && asks(every / 2));
        rounds.end();
        assert!(!asks(every / 2) && !asks(every * 99 / 100));
        assert!(asks(every) && asks(10 * every));
        rounds.end();
        assert!(!asks(10 * every), "rounds that were slept through are not made up for");
        assert!(asks(11 * every));
    }
}
