//! Checkpoints that clients read whole, for backups: kept readable while later ones are stored, within bounds.
//!
//! A backup takes longer than an interval, so what it began to read is lent to it: it stays readable as long as it is
//! read, and not for ever, since it takes room on the disk. Who asks while others read shares what they read, if there are
//! as many of those as may be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_protocol::message::{StableState, Want};
use quorate_protocol::number::{RequestNumber, Sequence};

use super::clients::Place;

use super::readable::Readable;
use crate::transport::{ConnectionId, Permit};

/// Checkpoints that are lent at once.
const LENT_MAX: usize = 2;

/// How long a checkpoint stays lent after somebody last read of it.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a checkpoint is lent at most: a state as large as memory is read sooner, and what is older is of little use.
const LENT_FOR_MAX: Duration = Duration::from_hours(1);

/// Bytes a second that are read for all backups together: so much that they end soon, so little that replicas and clients do
/// not feel it. A part counts each time that a piece of it is asked for: it is read as a whole.
const BYTES_PER_SECOND: u32 = 16 << 20;

/// A client's question for a checkpoint, or for a piece of it.
#[derive(Debug)]
pub(super) struct BackupQuestion {
    pub(super) connection: ConnectionId,
    pub(super) number: RequestNumber,
    /// None: which checkpoint there is.
    pub(super) piece: Option<WantedPiece>,
    /// Its share of the client's budget, and its place among the questions, until the answer is handed over.
    pub(super) _permit: Permit,
    pub(super) _place: Place,
}

/// Which piece of a checkpoint.
#[derive(Debug)]
pub(super) struct WantedPiece {
    pub(super) sequence: Sequence,
    pub(super) want: Want,
    pub(super) offset: u32,
}

/// The checkpoints that are lent.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// In ascending order of their slots. Bound: [`LENT_MAX`].
    lent: Vec<Lent>,
}

#[derive(Debug)]
struct Lent {
    state: StableState,
    readable: Arc<Readable>,
    since: Instant,
    read: Instant,
}

impl Lending {
    /// What a client that asks now is to read: the newest stable checkpoint, or what others read already.
    pub(super) fn offer(&mut self, newest: Option<(StableState, Arc<Readable>)>, now: Instant) -> Option<StableState> {
        self.expire(now);
        let known = self.lent.last().map(Lent::sequence);
        if let Some((state, readable)) = newest
            && self.lent.len() < LENT_MAX
            && known.is_none_or(|known| known < state.certificate.statement.sequence)
        {
            self.lent.push(Lent { state, readable, since: now, read: now });
        }
        let lent = self.lent.last_mut()?;
        lent.read = now;
        Some(lent.state.clone())
    }

    /// The state of a checkpoint that is lent.
    pub(super) fn read(&mut self, sequence: Sequence, now: Instant) -> Option<Arc<Readable>> {
        self.expire(now);
        let lent = self.lent.iter_mut().find(|lent| lent.sequence() == sequence)?;
        lent.read = now;
        Some(Arc::clone(&lent.readable))
    }

    /// Lets go of what is lent no more.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_read = |lent: &Lent| {
            now.saturating_duration_since(lent.read) < IDLE_MAX
                && now.saturating_duration_since(lent.since) < LENT_FOR_MAX
        };
        self.lent.retain(is_read);
    }
}

impl Lent {
    fn sequence(&self) -> Sequence {
        self.state.certificate.statement.sequence
    }
}

/// When the next piece may be handed out.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Option<Instant>,
}

impl Pace {
    /// How long a question that came now has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// So many bytes were read.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let from = self.next.map_or(now, |next| next.max(now));
        self.next = Some(from + Duration::from_secs(1) * bytes / BYTES_PER_SECOND);
    }
}

#[cfg(test)]
mod tests {
    use quorate_crypto::Digest;
    use quorate_protocol::certificate::StableCertificate;
    use quorate_protocol::codec::List;
    use quorate_protocol::message::StateRoot;
    use quorate_protocol::number::Epoch;
    use quorate_protocol::state::Index;
    use quorate_protocol::statement::Checkpoint;

    use super::*;
    use crate::storage::checkpoint::CheckpointStore;

    fn newest(sequence: u64) -> (StableState, Arc<Readable>) {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(sequence), root: Digest::ZERO };
        let certificate = StableCertificate { statement, votes: List::empty() };
        let root = StateRoot { application: Digest::ZERO, protocol: Digest::ZERO };
        let (sequence, snapshot) = (Sequence::new(sequence), store.snapshot().unwrap());
        let readable = Readable { sequence, snapshot, tree: Index::new(0).tree() };
        (StableState { certificate, root }, Arc::new(readable))
    }

    fn offered(lending: &mut Lending, sequence: u64, now: Instant) -> Option<u64> {
        lending.offer(Some(newest(sequence)), now).map(|state| state.certificate.statement.sequence.value())
    }

    fn is_readable(lending: &mut Lending, sequence: u64, now: Instant) -> bool {
        lending.read(Sequence::new(sequence), now).is_some()
    }

    #[test]
    fn what_is_read_stays_readable_though_later_checkpoints_are_stable() {
        let (mut lending, mut now) = (Lending::default(), Instant::now());
        assert_eq!(offered(&mut lending, 128, now), Some(128));
        for _ in 0..20 {
            now += IDLE_MAX / 2;
            assert!(is_readable(&mut lending, 128, now));
        }
        now += IDLE_MAX;
        assert!(!is_readable(&mut lending, 128, now), "nobody read it");
        assert_eq!(lending.offer(None, now), None);
    }

    #[test]
    fn nothing_is_lent_for_ever() {
        let (mut lending, begin) = (Lending::default(), Instant::now());
        assert_eq!(offered(&mut lending, 128, begin), Some(128));
        let mut now = begin;
        while now + IDLE_MAX / 2 < begin + LENT_FOR_MAX {
            now += IDLE_MAX / 2;
            assert!(is_readable(&mut lending, 128, now));
        }
        assert!(!is_readable(&mut lending, 128, begin + LENT_FOR_MAX));
    }

    #[test]
    fn as_many_are_lent_as_may_be_and_who_comes_later_shares_the_last() {
        let (mut lending, now) = (Lending::default(), Instant::now());
        let given: Vec<_> = [128, 128, 256, 384, 512].map(|newest| offered(&mut lending, newest, now)).into();
        assert_eq!(given, [128, 128, 256, 256, 256].map(Some));
        assert_eq!(lending.lent.len(), LENT_MAX);
        assert!(is_readable(&mut lending, 128, now) && is_readable(&mut lending, 256, now));
        assert!(!is_readable(&mut lending, 384, now));
    }

    #[test]
    fn pieces_are_read_at_a_bounded_rate() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(begin), Duration::ZERO);
        pace.spend(1 << 20, begin);
        let each = Duration::from_secs(1) / 16;
        assert_eq!(pace.wait(begin), each);
        pace.spend(1 << 20, begin);
        assert_eq!(pace.wait(begin + each), each);
        assert_eq!(pace.wait(begin + 3 * each), Duration::ZERO, "what was not asked for is not made up for");
    }
}
