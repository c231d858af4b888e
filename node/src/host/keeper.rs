//! The checkpoint store's own thread: what it writes never holds up execution.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use quorate_protocol::application::Change;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{CURSOR_BYTES_MAX, ENTRY_KEY_BYTES_MAX, Entry, Message, PART_ENTRIES_MAX, Part};
use quorate_protocol::number::Sequence;
use tokio::sync::mpsc::UnboundedSender;

use super::damage::advise;
use super::executor::WantedPart;
use super::staging::cursor;
use super::{Event, priority};
use crate::storage::checkpoint::{CheckpointStore, KEY_BYTES_MAX, Map, Snapshot};

// What the store keeps can be transferred, and no more.
const _: () = assert!(KEY_BYTES_MAX == ENTRY_KEY_BYTES_MAX);

/// Bytes of entries in one part of a transferred state, about.
const PART_BYTES: usize = 256 << 10;

/// How long a checkpoint below the stable one stays readable after a peer last read a part of it.
const READ_LATELY: Duration = Duration::from_secs(5);

/// What the store is asked to do.
pub(super) enum Keep {
    Apply { sequence: Sequence, application: Vec<Change>, protocol: Vec<Change> },
    Stable(Sequence),
    SendPart(WantedPart),
    Install { sequence: Sequence, application: Vec<Entry>, protocol: Vec<Entry> },
}

/// The store's thread, as the application's sees it.
pub(super) struct Keeper {
    /// Bound: a checkpoint an interval of the window, and the places for parts.
    commands: Sender<Keep>,
    thread: JoinHandle<()>,
}

struct Keeping {
    store: CheckpointStore,
    events: UnboundedSender<Event>,
    /// The states of checkpoints that may become stable, of the stable one, and of the one below that peers still read.
    /// Bound: one an interval in the window below the last, the last, and one.
    snapshots: Vec<Kept>,
    /// Slots of the window: a checkpoint that far below the last is not the stable one any more, or of no use to others.
    window: u64,
}

/// A state that stays readable.
struct Kept {
    sequence: Sequence,
    snapshot: Snapshot,
    read: Option<Instant>,
}

impl Keeper {
    pub(super) fn start(store: CheckpointStore, window: u64, events: UnboundedSender<Event>) -> anyhow::Result<Self> {
        let mut keeping = Keeping { store, events, snapshots: Vec::new(), window };
        if let Some(sequence) = keeping.store.latest().map(|latest| Sequence::new(latest.sequence)) {
            keeping.keep_snapshot(sequence)?;
        }
        let (commands, waiting) = channel();
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            priority::give_way(priority::EXECUTION);
            keeping.work(&waiting);
        })?;
        Ok(Self { commands, thread })
    }

    pub(super) fn send(&self, command: Keep) -> anyhow::Result<()> {
        self.commands.send(command).map_err(|_ended| anyhow::anyhow!("the checkpoint store's thread has ended"))
    }

    pub(super) fn close(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("the checkpoint store's thread panicked");
        }
    }
}

impl Keeping {
    fn work(mut self, waiting: &Receiver<Keep>) {
        while let Ok(command) = waiting.recv() {
            if let Err(error) = self.on_command(command) {
                self.events.send(Event::Failed(error)).ok();
                return;
            }
        }
    }

    fn on_command(&mut self, command: Keep) -> anyhow::Result<()> {
        match command {
            Keep::Apply { sequence, application, protocol } => {
                let begin = Instant::now();
                self.store
                    .apply(sequence.value(), &[], application, protocol)
                    .with_context(|| format!("writing the checkpoint at slot {sequence}"))?;
                self.keep_snapshot(sequence)?;
                tracing::debug!(%sequence, took = ?begin.elapsed(), "checkpoint durable");
                self.events.send(Event::CheckpointDurable { sequence }).ok();
            }
            Keep::Stable(sequence) => self.keep_from(sequence),
            Keep::SendPart(WantedPart { to, sequence, cursor, place }) => {
                let part = self.part(sequence, cursor);
                if let Some(part) = part.map_err(|error| advise(error, self.store.folder()))? {
                    let message = Message::Part(part).into();
                    self.events.send(Event::Part { to, message, place }).ok();
                }
            }
            Keep::Install { sequence, application, protocol } => {
                let mut reception = self.store.receive()?;
                reception.put(Map::Application, entries(application))?;
                reception.put(Map::Protocol, entries(protocol))?;
                self.store
                    .install(reception, sequence.value(), &[])
                    .with_context(|| format!("installing the state at slot {sequence}"))?;
                self.snapshots.clear();
                self.keep_snapshot(sequence)?;
                self.events.send(Event::Installed { sequence }).ok();
            }
        }
        Ok(())
    }

    fn keep_snapshot(&mut self, sequence: Sequence) -> anyhow::Result<()> {
        let snapshot = self.store.snapshot().context("taking a snapshot of the checkpoint store")?;
        // Where this replica lags, its own checkpoints are below the stable one, and none of them is said to be it.
        self.keep_from(sequence.saturating_sub(self.window));
        self.snapshots.push(Kept { sequence, snapshot, read: None });
        Ok(())
    }

    /// Lets go of the states below `sequence`, but for the last one that a peer reads.
    fn keep_from(&mut self, sequence: Sequence) {
        let newest_read = self.snapshots.iter().rfind(|kept| kept.is_read_lately()).map(|kept| kept.sequence);
        self.snapshots.retain(|kept| kept.sequence >= sequence || Some(kept.sequence) == newest_read);
    }

    /// A part of the stable checkpoint: the protocol's entries first, then the application's. The cursor is the map's
    /// letter and the last key sent.
    fn part(&mut self, sequence: Sequence, begin: Blob) -> anyhow::Result<Option<Part>> {
        // The store asserts that no key is longer than it takes, also where one only says where to begin.
        if begin.len() > CURSOR_BYTES_MAX {
            return Ok(None);
        }
        let Some(kept) = self.snapshots.iter_mut().find(|kept| kept.sequence == sequence) else { return Ok(None) };
        kept.read = Some(Instant::now());
        let snapshot = &kept.snapshot;
        let (map, after) = match begin.split_first() {
            None => (Map::Protocol, None),
            Some((&cursor::PROTOCOL, after)) => (Map::Protocol, Some(after)),
            Some((&cursor::APPLICATION, [])) => (Map::Application, None),
            Some((&cursor::APPLICATION, after)) => (Map::Application, Some(after)),
            Some(_) => return Ok(None),
        };
        let mut map = map;
        let mut found = snapshot.read_part(map, after, PART_BYTES)?;
        if found.is_empty() && map == Map::Protocol {
            map = Map::Application;
            found = snapshot.read_part(map, None, PART_BYTES)?;
        }
        found.truncate(PART_ENTRIES_MAX);
        let letter = if map == Map::Protocol { cursor::PROTOCOL } else { cursor::APPLICATION };
        let found: Vec<Entry> =
            found.into_iter().map(|(key, value)| Entry { key: key.into(), value: value.into() }).collect();
        let next = cursor::after(letter, &found);
        let found = List::new(found).unwrap_or(List::empty());
        let (protocol, application) = match map {
            Map::Protocol => (found, List::empty()),
            Map::Application => (List::empty(), found),
        };
        Ok(Some(Part { sequence, cursor: begin, protocol, application, next }))
    }
}

impl Kept {
    fn is_read_lately(&self) -> bool {
        self.read.is_some_and(|read| read.elapsed() < READ_LATELY)
    }
}

fn entries(entries: Vec<Entry>) -> Vec<(Bytes, Bytes)> {
    entries.into_iter().map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// The key of the one entry of the store.
    const KEY: &[u8] = b"key";

    /// A keeper of a store with one entry of the application at slot 128.
    fn keeping(folder: &std::path::Path) -> Keeping {
        let mut store = CheckpointStore::open(folder).unwrap();
        store.apply(128, &[], vec![(KEY.into(), Some(Bytes::new()))], vec![]).unwrap();
        let mut keeping = Keeping { store, events: unbounded_channel().0, snapshots: Vec::new(), window: 512 };
        keeping.keep_snapshot(Sequence::new(128)).unwrap();
        keeping
    }

    #[test]
    fn what_no_part_can_begin_with_is_not_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeping = keeping(folder.path());
        let mut keys_after = |bytes: usize| {
            let cursor = [&[cursor::APPLICATION][..], &vec![b'a'; bytes]].concat();
            let part = keeping.part(Sequence::new(128), cursor.into()).unwrap()?;
            Some(part.application.iter().map(|entry| entry.key.to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(keys_after(ENTRY_KEY_BYTES_MAX), Some(vec![KEY.to_vec()]));
        // The last three are more than the store can compare with.
        for bytes in [ENTRY_KEY_BYTES_MAX + 1, 65_534, 65_535, 65_536, 1 << 20] {
            assert_eq!(keys_after(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn the_states_that_stay_readable_are_bounded_though_none_becomes_stable() {
        let folder = tempfile::tempdir().unwrap();
        let (events, _said) = unbounded_channel();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let mut keeping = Keeping { store, events, snapshots: Vec::new(), window: 8 };
        for sequence in (4..=40).step_by(4).map(Sequence::new) {
            keeping.on_command(Keep::Apply { sequence, application: Vec::new(), protocol: Vec::new() }).unwrap();
        }
        let kept: Vec<u64> = keeping.snapshots.iter().map(|kept| kept.sequence.value()).collect();
        assert_eq!(kept, [32, 36, 40]);
    }
}
