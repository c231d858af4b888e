//! The keeper of checkpoints, over stores with little or damage in them.

use std::fs;
use std::path::Path;

use quorate_protocol::codec::{List, decode};
use quorate_protocol::kv::Store;
use quorate_protocol::message::Content;
use quorate_protocol::number::Epoch;
use quorate_protocol::state::{DEPTH, Proof, bucket_of, crown_level};
use quorate_protocol::statement::Checkpoint;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn replacing() -> Replacing {
    Replacing { current: Current::default(), build: Arc::new(|| Box::new(Store::default())), limits: LIMITS }
}

/// The key of the one entry of the store.
const KEY: &[u8] = b"key";

/// The bucket of that key, after another one.
fn bucket_of_key(after: Option<Blob>) -> Want {
    bucket_with(KEY, after)
}

fn bucket_with(key: &[u8], after: Option<Blob>) -> Want {
    let (bucket, height) = (bucket_of(key, DEPTH), DEPTH - crown_level(DEPTH));
    let narrow = |number: u32| u16::try_from(number).unwrap();
    let place = narrow(bucket & ((1 << height) - 1));
    Want::Buckets { group: narrow(bucket >> height), buckets: List::new(vec![place]).unwrap(), after }
}

/// A keeper of a store with one entry of the application at slot 128.
fn keeping(folder: &Path) -> Keeping {
    let mut store = CheckpointStore::open(folder).unwrap();
    store.apply(128, &[], vec![(KEY.into(), Some(Bytes::new()))], vec![]).unwrap();
    let mut index = Index::new(DEPTH);
    index.add(KEY, b"");
    index.finish();
    let mut keeping = Keeping::new(store, index, 512, replacing(), unbounded_channel().0);
    keeping.keep_snapshot(Sequence::new(128)).unwrap();
    keeping
}

#[test]
fn what_no_part_can_begin_with_is_not_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeping = keeping(folder.path());
    let mut keys_after = |bytes: usize| {
        let after = Some(Blob::from(vec![0; bytes]));
        let want = bucket_of_key(after);
        let part = keeping.part(Sequence::new(128), &want).unwrap()?;
        let Content::Buckets { entries, whole: 1 } = part.content else { panic!("{part:?}") };
        Some(entries.iter().map(|entry| entry.key.to_vec()).collect::<Vec<_>>())
    };
    // Which of them lie behind the key in its bucket is decided by their digests.
    assert!(keys_after(ENTRY_KEY_BYTES_MAX).is_some());
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
    let mut keeping = Keeping::new(store, Index::new(DEPTH), 8, replacing(), events);
    for sequence in (4..=40).step_by(4) {
        keeping.on_command(checkpoint(sequence, Vec::new())).unwrap();
    }
    let kept: Vec<u64> = keeping.snapshots.iter().map(|kept| kept.state.sequence.value()).collect();
    assert_eq!(kept, [32, 36, 40]);
}

#[test]
fn what_was_stable_a_moment_ago_stays_readable_and_not_more_of_that_than_a_few() {
    let folder = tempfile::tempdir().unwrap();
    let (events, _said) = unbounded_channel();
    let store = CheckpointStore::open(folder.path()).unwrap();
    let mut keeping = Keeping::new(store, Index::new(DEPTH), 8, replacing(), events);
    let kept = |keeping: &Keeping| keeping.snapshots.iter().map(|kept| kept.state.sequence.value()).collect::<Vec<_>>();
    for sequence in (4..=80).step_by(4) {
        keeping.on_command(checkpoint(sequence, Vec::new())).unwrap();
        keeping.on_command(stable(sequence)).unwrap();
    }
    let last: Vec<u64> = (80 - 4 * SUPERSEDED_MAX as u64..=80).step_by(4).collect();
    assert_eq!(kept(&keeping), last);
    assert!(keeping.part(Sequence::new(last[0]), &Want::Crown).unwrap().is_some());
    for kept in &mut keeping.snapshots {
        kept.read = None;
        kept.superseded = kept.superseded.and_then(|superseded| superseded.checked_sub(SUPERSEDED_FOR));
    }
    keeping.on_command(stable(80)).unwrap();
    assert_eq!(kept(&keeping), [80]);
}

fn checkpoint(sequence: u64, application: Vec<Change>) -> Keep {
    let (sequence, application) = (Sequence::new(sequence), Box::new(application.into_iter()));
    Keep::Checkpoint { sequence, application, protocol: Vec::new() }
}

fn stable(sequence: u64) -> Keep {
    let statement = Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(sequence), root: Digest::ZERO };
    Keep::Stable { certificate: StableCertificate { statement, votes: List::empty() }, root: NOTHING_STABLE }
}

fn question(key: &[u8]) -> Keep {
    Keep::Prove(Question {
        connection: ConnectionId(1),
        number: RequestNumber::new(7),
        query: Blob::from(key),
        _permit: Permit::of_a_test(),
        _place: Place::of_a_test(),
    })
}

/// What came of commands to a keeper of a store with nothing in it.
fn answers(commands: impl IntoIterator<Item = Keep>) -> Vec<ReplicaMessage> {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut said): (_, UnboundedReceiver<Event>) = unbounded_channel();
    let store = CheckpointStore::open(folder.path()).unwrap();
    let mut keeping = Keeping::new(store, Index::new(DEPTH), 512, replacing(), events);
    commands.into_iter().for_each(|command| keeping.on_command(command).unwrap());
    let answer = |event| match event {
        Event::Proved { message, .. } => Some(*message),
        _ => None,
    };
    std::iter::from_fn(|| said.try_recv().ok()).filter_map(answer).collect()
}

/// The slots of the certificates in answers to questions.
fn proved(commands: impl IntoIterator<Item = Keep>) -> Vec<Option<u64>> {
    let certificate = |message| match message {
        ReplicaMessage::Proved { certificate, .. } => certificate.map(|found| found.statement.sequence.value()),
        other => panic!("{other:?}"),
    };
    answers(commands).into_iter().map(certificate).collect()
}

#[test]
fn before_the_first_checkpoint_a_question_is_answered_without_a_proof() {
    assert_eq!(proved([question(KEY)]), [None]);
}

#[test]
fn a_question_is_answered_as_soon_as_the_last_checkpoint_is_known_to_be_stable() {
    let commands = [checkpoint(128, vec![]), question(KEY), stable(128), question(KEY)];
    assert_eq!(proved(commands), [Some(128), Some(128)]);
}

#[test]
fn a_question_waits_while_the_last_checkpoint_is_not_the_stable_one() {
    let before = [checkpoint(128, vec![]), checkpoint(256, vec![]), stable(128), question(KEY)];
    assert_eq!(proved(before), []);
}

/// What is proved is the value under the root of the checkpoint, or that there is none.
#[test]
fn an_answer_proves_what_the_checkpoint_holds() {
    let set = |value: &[u8]| (KEY.into(), Some(Bytes::copy_from_slice(value)));
    let mut index = Index::new(DEPTH);
    index.apply([set(b"new")]);
    let asked = [question(KEY), question(b"absent"), question(&[]), question(&vec![b'a'; KEY_BYTES_MAX + 1])];
    let commands = [checkpoint(128, vec![set(b"old")]), checkpoint(256, vec![set(b"new")]), stable(256)];
    let shown = answers(commands.into_iter().chain(asked)).into_iter().map(|message| match message {
        ReplicaMessage::Proved { proof, .. } => decode::<Proof>(proof.bytes()).unwrap(),
        other => panic!("{other:?}"),
    });
    let shown: Vec<Proof> = shown.collect();
    let value = |place: usize, key: &[u8]| shown[place].verify(&index.root(), key).map(Option::<&Blob>::cloned);
    assert_eq!(value(0, KEY), Ok(Some(Blob::from(&b"new"[..]))));
    assert_eq!(value(1, b"absent"), Ok(None));
    assert_eq!(value(2, &[]), Ok(None));
    assert_eq!(value(3, &vec![b'a'; KEY_BYTES_MAX + 1]), Ok(None));
}
fn lend(piece: Option<WantedPiece>) -> Keep {
    Keep::Lend(BackupQuestion {
        connection: ConnectionId(1),
        number: RequestNumber::new(7),
        piece,
        _permit: Permit::of_a_test(),
        _place: Place::of_a_test(),
    })
}

fn piece(sequence: u64, offset: usize) -> Keep {
    let want = bucket_of_key(None);
    lend(Some(WantedPiece { sequence: Sequence::new(sequence), want, offset: u32::try_from(offset).unwrap() }))
}

fn lent(commands: impl IntoIterator<Item = Keep>) -> Vec<ReplicaMessage> {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut said): (_, UnboundedReceiver<Event>) = unbounded_channel();
    let store = CheckpointStore::open(folder.path()).unwrap();
    let mut keeping = Keeping::new(store, Index::new(DEPTH), 4, replacing(), events);
    commands.into_iter().for_each(|command| keeping.on_command(command).unwrap());
    let answer = |event| match event {
        Event::Lent { message, .. } => Some(*message),
        _ => None,
    };
    std::iter::from_fn(|| said.try_recv().ok()).filter_map(answer).collect()
}

#[test]
fn a_checkpoint_that_a_client_reads_stays_whole_while_later_ones_are_stable() {
    let large = Bytes::from(vec![7; 3 * PIECE_BYTES / 2]);
    let set = |value: &Bytes| vec![(KEY.into(), Some(value.clone()))];
    let before = [lend(None), checkpoint(128, set(&large)), lend(None), stable(128), lend(None)];
    let later = (2..6).flat_map(|round| [checkpoint(128 * round, set(&Bytes::new())), stable(128 * round)]);
    let read = [piece(128, 0), piece(128, PIECE_BYTES), piece(128, 1 << 30), piece(384, 0)];
    let mut said = lent(before.into_iter().chain(later).chain(read)).into_iter();
    let mut offers = said.by_ref().take(3).map(|message| match message {
        ReplicaMessage::Checkpoint { checkpoint, .. } => {
            checkpoint.map(|state| state.certificate.statement.sequence.value())
        }
        other => panic!("{other:?}"),
    });
    assert_eq!([offers.next(), offers.next(), offers.next()], [Some(None), Some(None), Some(Some(128))]);
    drop(offers);
    let pieces: Vec<Option<Piece>> = said
        .map(|message| match message {
            ReplicaMessage::Part { piece, .. } => piece,
            other => panic!("{other:?}"),
        })
        .collect();
    let [Some(first), Some(second), None, None] = &pieces[..] else { panic!("{pieces:?}") };
    let whole = Bytes::from([&first.bytes[..], &second.bytes[..]].concat());
    assert_eq!(whole.len(), first.length as usize);
    let part: Part = decode(&whole).unwrap();
    let Content::Buckets { entries, .. } = part.content else { panic!("{part:?}") };
    assert_eq!(entries[0].value, large.into());
}

/// How many bytes each question for a piece costs.
fn read_bytes(commands: impl IntoIterator<Item = Keep>) -> Vec<usize> {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut said) = unbounded_channel();
    let store = CheckpointStore::open(folder.path()).unwrap();
    let mut keeping = Keeping::new(store, Index::new(DEPTH), 4, replacing(), events);
    commands.into_iter().for_each(|command| keeping.on_command(command).unwrap());
    let cost = |event| match event {
        Event::Lent { message, read_bytes, .. } => {
            matches!(*message, ReplicaMessage::Part { .. }).then_some(read_bytes)
        }
        _ => None,
    };
    std::iter::from_fn(|| said.try_recv().ok()).filter_map(cost).collect()
}

#[test]
fn a_piece_costs_as_much_as_its_part_however_little_is_handed_out() {
    let set = vec![(KEY.into(), Some(Bytes::from(vec![7; PIECE_BYTES])))];
    let before = [checkpoint(128, set), stable(128)];
    // The first piece, the last ones, one beyond the end, and one of a part that is not here.
    let read = [piece(128, 0), piece(128, PIECE_BYTES), piece(128, 1 << 30), piece(256, 0)];
    let costs = read_bytes(before.into_iter().chain(read));
    let [first, last, beyond, 0] = costs[..] else { panic!("{costs:?}") };
    assert!(first > PIECE_BYTES && first == last && last == beyond, "{costs:?}");
}

/// A hundred keys in a store with an entry each at slot 128, of which one or two are rotten on the disk; and their index.
fn rotten(folder: &Path) -> (Vec<String>, CheckpointStore, Index) {
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    // So much that it is written to a table.
    let value = Bytes::from(vec![7; 100_000]);
    let changes = keys.iter().map(|key| (key.clone().into(), Some(value.clone()))).collect();
    CheckpointStore::open(folder).unwrap().apply(128, &[], changes, vec![]).unwrap();
    let tables = fs::read_dir(folder.join("state-0000000000000001/keyspaces/1/tables")).unwrap();
    let [table] = &tables.map(|table| table.unwrap().path()).collect::<Vec<_>>()[..] else { panic!("one table") };
    let mut bytes = fs::read(table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(table, bytes).unwrap();
    let mut index = Index::new(DEPTH);
    for key in &keys {
        index.add(key.as_bytes(), &value);
    }
    index.finish();
    (keys, CheckpointStore::open(folder).unwrap(), index)
}

#[test]
fn a_damaged_state_is_told_of_by_whoever_reads_it_and_nothing_is_answered_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut said) = unbounded_channel();
    let (keys, store, index) = rotten(folder.path());
    let mut keeping = Keeping::new(store, index, 512, replacing(), events);
    keeping.keep_snapshot(Sequence::new(128)).unwrap();
    let before = [stable(128), lend(None)];
    let read = keys.iter().flat_map(|key| {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (to, sequence, want) = (ReplicaId::new(1), Sequence::new(128), bucket_with(key.as_bytes(), None));
        let piece = WantedPiece { sequence, want: want.clone(), offset: 0 };
        [question(key.as_bytes()), Keep::SendPart(WantedPart { to, sequence, want, place }), lend(Some(piece))]
    });
    before.into_iter().chain(read).for_each(|command| keeping.on_command(command).unwrap());
    let (mut proved, mut parts, mut pieces, mut without, mut damaged) = (0, 0, 0, 0, 0);
    while let Ok(event) = said.try_recv() {
        match event {
            Event::Proved { .. } => proved += 1,
            Event::Part { .. } => parts += 1,
            Event::Lent { message, read_bytes, .. } => match *message {
                ReplicaMessage::Part { piece: Some(_), .. } => pieces += 1,
                ReplicaMessage::Part { piece: None, .. } => {
                    without += 1;
                    assert_eq!(read_bytes, PIECE_BYTES, "it costs as much as if there had been something");
                }
                other => assert!(matches!(other, ReplicaMessage::Checkpoint { checkpoint: Some(_), .. })),
            },
            Event::StateDamaged => damaged += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=2).contains(&(100 - proved)), "{proved}");
    assert!((1..=4).contains(&without), "{without}");
    assert_eq!((parts, pieces), (100 - without, 100 - without));
    assert_eq!(damaged, 1, "however often it is met");
    assert_eq!(keeping.damage.get().0, 100 - proved + 2 * without);
}

#[test]
fn a_damaged_state_whose_place_another_has_taken_is_not_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut said) = unbounded_channel();
    let (keys, store, index) = rotten(folder.path());
    let mut keeping = Keeping::new(store, index, 512, replacing(), events);
    keeping.keep_snapshot(Sequence::new(128)).unwrap();
    for command in [stable(128), lend(None)] {
        keeping.on_command(command).unwrap();
    }
    let reception = keeping.store.receive().unwrap();
    keeping.store.install(reception, 256, &[]).unwrap();
    for key in keys {
        let want = bucket_with(key.as_bytes(), None);
        let piece = WantedPiece { sequence: Sequence::new(128), want, offset: 0 };
        keeping.on_command(lend(Some(piece))).unwrap();
    }
    let said: Vec<Event> = std::iter::from_fn(|| said.try_recv().ok()).collect();
    assert!(said.iter().all(|event| matches!(event, Event::Lent { .. })), "{said:?}");
}
