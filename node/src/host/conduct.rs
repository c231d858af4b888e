//! How peers behave: one that keeps sending what counts for nothing is disconnected, and stays so for a while.
//!
//! A correct member checks what it sends and passes on, so nothing of it is ever invalid. A few such messages are let pass
//! all the same: they cost little, and a link costs more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_protocol::number::ReplicaId;

/// Invalid messages within [`INTERVAL`] that a peer may send.
const INVALID_MAX: u32 = 64;

/// The time over which they are counted.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long a peer that sent more is kept out.
const BARRED_FOR: Duration = Duration::from_secs(10);

/// What is held against peers.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// Bound: one a member.
    peers: BTreeMap<ReplicaId, Record>,
}

/// What is held against one peer.
#[derive(Debug)]
struct Record {
    /// When the interval began.
    since: Instant,
    /// Invalid messages in it.
    invalid: u32,
    barred_until: Option<Instant>,
}

impl Conduct {
    /// Notes an invalid message; says whether it is one too many, and its sender barred from now on.
    pub(super) fn note_invalid(&mut self, from: ReplicaId, now: Instant) -> bool {
        let record = self.peers.entry(from).or_insert(Record { since: now, invalid: 0, barred_until: None });
        if now.duration_since(record.since) >= INTERVAL {
            (record.since, record.invalid) = (now, 0);
        }
        record.invalid += 1;
        let is_too_many = record.invalid > INVALID_MAX;
        if is_too_many {
            *record = Record { since: now, invalid: 0, barred_until: Some(now + BARRED_FOR) };
        }
        is_too_many
    }

    /// Whether a peer is barred.
    pub(super) fn is_barred(&self, peer: ReplicaId, now: Instant) -> bool {
        self.peers.get(&peer).and_then(|record| record.barred_until).is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId::new(1);

    #[test]
    fn a_peer_that_sends_too_much_that_is_invalid_is_barred_for_a_while() {
        let (mut conduct, start) = (Conduct::default(), Instant::now());
        for _ in 0..INVALID_MAX {
            assert!(!conduct.note_invalid(PEER, start));
        }
        assert!(!conduct.is_barred(PEER, start));
        assert!(conduct.note_invalid(PEER, start));
        assert!(conduct.is_barred(PEER, start) && !conduct.is_barred(ReplicaId::new(2), start));
        let end = start + BARRED_FOR;
        assert!(conduct.is_barred(PEER, start + BARRED_FOR / 2) && !conduct.is_barred(PEER, end));
        assert!(!conduct.note_invalid(PEER, end), "it begins anew");
    }

    #[test]
    fn a_little_that_is_invalid_now_and_then_is_let_pass() {
        let (mut conduct, start) = (Conduct::default(), Instant::now());
        for interval in 0..10 {
            for _ in 0..INVALID_MAX {
                assert!(!conduct.note_invalid(PEER, start + INTERVAL * interval));
            }
        }
    }
}
