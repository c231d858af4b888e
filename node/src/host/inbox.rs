//! What came from peers and waits for the host, each peer's by itself: one that floods waits for itself, not others for it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_protocol::number::ReplicaId;

use crate::transport::{Lane, Permit};

/// A frame of a peer.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) lane: Lane,
    pub(super) bytes: Bytes,
    /// Its share of the peer's budget.
    pub(super) permit: Permit,
}

/// The frames that wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// None is empty. Bound: one a member, and in each what the transport lets it have outstanding.
    waiting: BTreeMap<ReplicaId, VecDeque<Frame>>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, from: ReplicaId, frame: Frame) {
        self.waiting.entry(from).or_default().push_back(frame);
    }

    /// Takes up to `count_max` frames, an equal share of each peer that has some, in the order in which they came.
    pub(super) fn take(&mut self, count_max: usize) -> Vec<(ReplicaId, Frame)> {
        let share = (count_max / self.waiting.len().max(1)).max(1);
        let mut taken = Vec::new();
        for (from, frames) in &mut self.waiting {
            taken.extend(frames.drain(..share.min(frames.len())).map(|frame| (*from, frame)));
        }
        self.waiting.retain(|_, frames| !frames.is_empty());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u8) -> Frame {
        Frame { lane: Lane::Votes, bytes: Bytes::from(vec![number]), permit: Permit::of_a_test() }
    }

    fn taken(inbox: &mut Inbox, count_max: usize) -> Vec<(u8, u8)> {
        inbox.take(count_max).into_iter().map(|(from, frame)| (from.value(), frame.bytes[0])).collect()
    }

    #[test]
    fn a_peer_that_floods_waits_for_itself() {
        let mut inbox = Inbox::default();
        (0..100).for_each(|number| inbox.push(ReplicaId::new(1), frame(number)));
        inbox.push(ReplicaId::new(2), frame(0));
        assert_eq!(taken(&mut inbox, 6), [(1, 0), (1, 1), (1, 2), (2, 0)]);
        assert_eq!(
            taken(&mut inbox, 6),
            [(1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (1, 8)],
            "whoever is alone has it all"
        );
    }

    #[test]
    fn everybody_gets_something_however_little_is_taken() {
        let mut inbox = Inbox::default();
        (1..=3).for_each(|id| inbox.push(ReplicaId::new(id), frame(id)));
        assert_eq!(taken(&mut inbox, 2), [(1, 1), (2, 2), (3, 3)]);
        assert!(inbox.is_empty());
    }
}
