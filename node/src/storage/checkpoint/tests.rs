//! Tests of the checkpoint store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fjall::PersistMode;
use proptest::prelude::*;

use quorate_protocol::state::{bucket_of, place_of};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Change {
    (bytes(key), Some(bytes(value)))
}

fn entries(snapshot: &Snapshot, map: Map) -> Vec<(String, String)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = snapshot.entries(map, None).map(|entry| entry.map(|(key, value)| (text(key), text(value))).unwrap());
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_checkpoint_is_found_again_with_both_maps_and_its_meta() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    assert_eq!(store.latest(), None);
    store.apply(128, b"root", vec![put("a", "1"), put("b", "2")], vec![put("a", "session")]).unwrap();
    store.apply(256, b"later", vec![(bytes("a"), None), put("c", "3")], vec![]).unwrap();
    drop(store);
    let store = CheckpointStore::open(folder.path()).unwrap();
    assert_eq!(store.latest(), Some(&Latest { sequence: 256, meta: bytes("later") }));
    let snapshot = store.snapshot().unwrap();
    assert_eq!(entries(&snapshot, Map::Application), pairs(&[("b", "2"), ("c", "3")]));
    assert_eq!(entries(&snapshot, Map::Protocol), pairs(&[("a", "session")]));
    assert_eq!(snapshot.get(Map::Application, b"c").unwrap(), Some(bytes("3")));
    assert_eq!(snapshot.get(Map::Application, b"a").unwrap(), None);
}

#[test]
fn a_snapshot_keeps_its_checkpoint_whatever_is_stored_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("a", "1"), put("b", "1")], vec![]).unwrap();
    let first = store.snapshot().unwrap();
    store.apply(2, b"", vec![put("a", "2"), (bytes("b"), None)], vec![]).unwrap();
    let second = store.snapshot().unwrap();
    let mut received = store.receive().unwrap();
    received.put(Map::Application, vec![(bytes("z"), bytes("9"))]).unwrap();
    store.install(received, 3, b"").unwrap();
    store.apply(4, b"", vec![put("y", "8")], vec![]).unwrap();
    assert_eq!(first.latest().map(|latest| latest.sequence), Some(1));
    assert_eq!(entries(&first, Map::Application), pairs(&[("a", "1"), ("b", "1")]));
    assert_eq!(entries(&second, Map::Application), pairs(&[("a", "2")]));
    assert_eq!(entries(&store.snapshot().unwrap(), Map::Application), pairs(&[("y", "8"), ("z", "9")]));
    assert_eq!(list(folder.path()).unwrap().len(), 2);
    drop((first, second));
    assert_eq!(list(folder.path()).unwrap().len(), 1, "a replaced state goes when nobody reads it");
}

#[test]
fn an_earlier_checkpoint_and_entries_out_of_bounds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(10, b"", vec![], vec![]).unwrap();
    for sequence in [0, 9, 10] {
        let refused = store.apply(sequence, b"", vec![], vec![]);
        assert!(matches!(refused, Err(Error::NotLater { latest: 10, found }) if found == sequence));
    }
    let long = Bytes::from(vec![0; KEY_BYTES_MAX + 1]);
    for key in [Bytes::new(), long] {
        let refused = store.apply(11, b"", vec![put("a", "1"), (key, None)], vec![]);
        assert!(matches!(refused, Err(Error::Entry { value: 0, .. })));
    }
    assert_eq!(entries(&store.snapshot().unwrap(), Map::Application), []);
    let received = store.receive().unwrap();
    store.install(received, 10, b"").expect("a state that went astray is replaced by an earlier one too");
}

#[test]
fn the_longest_key_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    let key = Bytes::from(vec![7; KEY_BYTES_MAX]);
    store.apply(1, b"", vec![(key.clone(), Some(bytes("value")))], vec![]).unwrap();
    drop(store);
    let store = CheckpointStore::open(folder.path()).unwrap();
    assert_eq!(store.snapshot().unwrap().get(Map::Application, &key).unwrap(), Some(bytes("value")));
}

#[test]
fn a_received_state_replaces_everything_and_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("old", "1")], vec![put("old", "1")]).unwrap();
    let mut received = store.receive().unwrap();
    let large = "x".repeat(3 << 20);
    received.put(Map::Protocol, vec![(bytes("new"), bytes("2")), (bytes("large"), bytes(&large))]).unwrap();
    received.put(Map::Application, vec![(bytes("other"), bytes(&large))]).unwrap();
    store.install(received, 128, b"root").unwrap();
    drop(store);
    let store = CheckpointStore::open(folder.path()).unwrap();
    assert_eq!(store.latest(), Some(&Latest { sequence: 128, meta: bytes("root") }));
    let snapshot = store.snapshot().unwrap();
    assert_eq!(entries(&snapshot, Map::Protocol), pairs(&[("large", &large), ("new", "2")]));
    assert_eq!(entries(&snapshot, Map::Application), pairs(&[("other", &large)]));
}

#[test]
fn a_crash_while_receiving_or_before_the_old_state_is_removed_leaves_one_whole_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("old", "1")], vec![]).unwrap();
    let mut received = store.receive().unwrap();
    received.put(Map::Application, vec![(bytes("half"), bytes("2"))]).unwrap();
    drop((received, store));
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    assert!(!folder.path().join(RECEIVED).exists());
    assert_eq!(entries(&store.snapshot().unwrap(), Map::Application), pairs(&[("old", "1")]));

    let mut received = store.receive().unwrap();
    received.put(Map::Application, vec![(bytes("whole"), bytes("2"))]).unwrap();
    let old = Arc::clone(&store.state);
    store.install(received, 2, b"").unwrap();
    // As after a crash: the old folder is still there.
    old.obsolete.store(false, Ordering::Release);
    drop((old, store));
    assert_eq!(list(folder.path()).unwrap().len(), 2);
    let store = CheckpointStore::open(folder.path()).unwrap();
    assert_eq!(list(folder.path()).unwrap().len(), 1);
    assert_eq!(entries(&store.snapshot().unwrap(), Map::Application), pairs(&[("whole", "2")]));
}

#[test]
fn buckets_add_up_to_the_whole_map_and_each_can_be_read_from_any_key_on() {
    const DEPTH: u8 = 3;
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    let changes = (0..100).map(|number| put(&format!("{number:03}"), &"v".repeat(number * 3))).collect();
    store.apply(1, b"", changes, vec![put("other", "session")]).unwrap();
    let snapshot = store.snapshot().unwrap();
    let whole: Vec<Entry> = snapshot.entries(Map::Application, None).map(Result::unwrap).collect();
    assert_eq!(whole.len(), 100);
    assert!(whole.is_sorted_by_key(|(key, _)| (place_of(key), key.clone())));
    let mut parts = Vec::new();
    for bucket in 0..1 << DEPTH {
        let entries: Vec<Entry> = snapshot.bucket(bucket, DEPTH, None).map(Result::unwrap).collect();
        assert!(entries.iter().all(|(key, _)| bucket_of(key, DEPTH) == bucket));
        for (index, (key, _)) in entries.iter().enumerate() {
            let rest: Vec<Entry> = snapshot.bucket(bucket, DEPTH, Some(key)).map(Result::unwrap).collect();
            assert_eq!(rest, entries[index + 1..]);
        }
        // From a key of another bucket on: all of it, or nothing.
        for (key, _) in &whole {
            let rest = snapshot.bucket(bucket, DEPTH, Some(key)).map(Result::unwrap).collect::<Vec<_>>();
            assert!(entries.ends_with(&rest));
        }
        parts.extend(entries);
    }
    assert_eq!(parts, whole);
}

fn bucket(number: u32, leaf: u8, keys: &[&str]) -> FoundBucket {
    let entries = keys.iter().map(|key| (bytes(key), bytes("new"))).collect();
    FoundBucket { number, leaf: [leaf; 32], entries }
}

fn found(staged: &Staged) -> Vec<(u32, u8, usize)> {
    let found = staged.found().unwrap().into_iter();
    found.map(|bucket| (bucket.number, bucket.leaf[0], bucket.entries.len())).collect()
}

/// Keys of one bucket in a tree of depth 3, and of another.
fn keys_of_two_buckets() -> [(u32, Vec<String>); 2] {
    let keys = (0..100).map(|number| format!("{number:03}"));
    let mut buckets: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    keys.for_each(|key| buckets.entry(bucket_of(key.as_bytes(), 3)).or_default().push(key));
    let mut buckets = buckets.into_iter();
    [buckets.next().unwrap(), buckets.next().unwrap()]
}

#[test]
fn buckets_that_are_staged_stay_until_another_checkpoint_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let [(one, keys), (other, others)] = keys_of_two_buckets();
    let (keys, others): (Vec<&str>, Vec<&str>) =
        (keys.iter().map(String::as_str).collect(), others.iter().map(String::as_str).collect());
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("a", "1")], vec![]).unwrap();
    assert!(store.found_staged(3, false).unwrap().is_none());
    let mut staged = store.stage(3).unwrap();
    staged.replace(vec![bucket(one, 1, &keys[..3]), bucket(other, 2, &others[..2])]).unwrap();
    staged.replace(vec![bucket(one, 3, &keys[2..4])]).unwrap();
    assert_eq!(found(&staged), [(one, 3, 2), (other, 2, 2)], "the later takes the place of the earlier");
    drop((staged, store));
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    let mut staged = store.found_staged(3, false).unwrap().expect("it was left");
    assert_eq!(found(&staged), [(one, 3, 2), (other, 2, 2)]);
    assert_eq!(staged.numbers().iter().copied().collect::<Vec<_>>(), [one, other]);
    staged.forget(one).unwrap();
    assert_eq!((found(&staged), staged.entries().count()), (vec![(other, 2, 2)], 2));
    drop(staged);
    assert!(store.found_staged(3, true).unwrap().is_none(), "afresh");
    let mut staged = store.stage(3).unwrap();
    staged.replace(vec![bucket(one, 1, &keys)]).unwrap();
    drop(staged);
    store.apply(2, b"", vec![put("a", "2")], vec![]).unwrap();
    assert!(store.found_staged(3, false).unwrap().is_none());
    store.stage(3).unwrap().replace(vec![bucket(one, 1, &keys)]).unwrap();
    store.apply(3, b"", vec![put("a", "3")], vec![]).unwrap();
    drop(store);
    drop(CheckpointStore::open(folder.path()).unwrap());
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_str().unwrap().starts_with("parts-")).count(), 0, "a start removes it");
}

/// A process that was killed, or had no room, while it made the folder; and one whose files rotted.
#[test]
fn an_unreadable_folder_of_parts_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("a", "1")], vec![]).unwrap();
    let path = folder.path().join(parts_name(Some(1)));
    let staged = || {
        let [(number, keys), _] = keys_of_two_buckets();
        let mut staged = store.stage(3).unwrap();
        staged.replace(vec![bucket(number, 1, &keys.iter().map(String::as_str).collect::<Vec<_>>())]).unwrap();
        found(&staged)
    };
    let harms: [fn(&Path); 4] = [
        |path| fs::remove_file(path.join("version")).unwrap(),
        |path| fs::write(path.join("version"), b"").unwrap(),
        |path| fs::write(path.join("keyspaces/0/current"), [0xA5; 64]).unwrap(),
        |path| {
            fs::remove_dir_all(path).unwrap();
            fs::create_dir(path).unwrap();
            fs::write(path.join("0.jnl"), b"").unwrap();
        },
    ];
    for (number, harm) in harms.iter().enumerate() {
        let whole = staged();
        harm(&path);
        assert!(store.found_staged(3, false).unwrap().is_none(), "harm {number}");
        assert!(!path.exists(), "harm {number}");
        assert_eq!(staged(), whole, "harm {number}");
    }
}

#[test]
fn a_key_that_a_checkpoint_names_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    for large_bytes in [0, usize::MAX] {
        store.large_bytes = large_bytes;
        let refused = store.apply(7, b"", vec![put("a", "1"), put("b", "1"), put("a", "2")], vec![put("a", "1")]);
        assert!(matches!(refused, Err(Error::Twice { sequence: 7, key: 1 })), "{refused:?}");
    }
    assert_eq!(store.latest(), None);
    assert_eq!(entries(&store.snapshot().unwrap(), Map::Application), []);
}

/// A round of changes: every key is written in some rounds, removed in others, and left alone in the rest.
fn round_of_changes(round: u64) -> impl Iterator<Item = (String, Option<String>)> {
    let changed = (0..30_u64).filter(move |number| !(number + round).is_multiple_of(3));
    changed.map(move |number| {
        let value = (!(number + round).is_multiple_of(5)).then(|| format!("{number} in round {round}"));
        (format!("key {number:02}"), value)
    })
}

/// In a process of its own: stores as many rounds as it is told, those large whose bit is set, and dies without closing.
#[test]
#[ignore = "a part of each_checkpoint_is_whole_after_a_crash_small_or_large_in_any_order"]
fn store_rounds_and_die() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Vec<&str> = told.splitn(3, ' ').collect();
    let (pattern, rounds): (u32, u64) = (told[0].parse().unwrap(), told[1].parse().unwrap());
    let mut store = CheckpointStore::open(Path::new(told[2])).unwrap();
    for round in 0..rounds {
        store.large_bytes = if pattern >> round & 1 == 1 { 0 } else { usize::MAX };
        let changes = round_of_changes(round).map(|(key, value)| (bytes(&key), value.map(|value| bytes(&value))));
        let session = put("session", &format!("round {round}"));
        store.apply(round + 1, b"", changes.collect(), vec![session]).unwrap();
    }
    std::process::abort();
}

const TOLD: &str = "QUORATE_STORE_ROUNDS_AND_DIE";

#[test]
fn each_checkpoint_is_whole_after_a_crash_small_or_large_in_any_order() {
    for (pattern, rounds) in (0..16_u32).flat_map(|pattern| [(pattern, 3), (pattern, 4)]) {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "--ignored", "storage::checkpoint::tests::store_rounds_and_die"]);
        child.env(TOLD, format!("{pattern} {rounds} {}", folder.path().display()));
        let output = child.output().unwrap();
        assert_eq!(output.status.code(), None, "it dies of a signal: {output:?}");
        let mut model = BTreeMap::new();
        for (key, value) in (0..rounds).flat_map(round_of_changes) {
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        let store = CheckpointStore::open(folder.path()).unwrap();
        assert_eq!(store.latest().map(|latest| latest.sequence), Some(rounds), "pattern {pattern}");
        let snapshot = store.snapshot().unwrap();
        assert!(entries(&snapshot, Map::Application).into_iter().eq(model), "pattern {pattern}");
        let session = format!("round {}", rounds - 1);
        assert_eq!(entries(&snapshot, Map::Protocol), pairs(&[("session", &session)]));
    }
}

#[test]
fn a_snapshot_shows_nothing_of_a_large_checkpoint_stored_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.large_bytes = 0;
    store.apply(1, b"", vec![put("a", "1"), put("b", "1")], vec![]).unwrap();
    let first = store.snapshot().unwrap();
    for sequence in 2..12 {
        store.apply(sequence, b"", vec![put("a", &sequence.to_string()), (bytes("b"), None)], vec![]).unwrap();
    }
    assert_eq!(entries(&first, Map::Application), pairs(&[("a", "1"), ("b", "1")]));
    assert_eq!(entries(&store.snapshot().unwrap(), Map::Application), pairs(&[("a", "11")]));
}

#[test]
fn the_journal_stays_bounded_when_small_and_large_checkpoints_take_turns() {
    const SMALL_BYTES: usize = 4 << 20;
    const JOURNAL_BYTES_BOUND: u64 = 160 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    let journal_bytes = |store: &CheckpointStore| store.state.database.journal_disk_space().unwrap();
    let mut most = 0;
    for round in 0..60 {
        store.large_bytes = usize::MAX;
        store.apply(2 * round + 1, b"", vec![put("small", &"s".repeat(SMALL_BYTES))], vec![]).unwrap();
        store.large_bytes = 0;
        store.apply(2 * round + 2, b"", vec![put("large", &round.to_string())], vec![]).unwrap();
        most = most.max(journal_bytes(&store));
    }
    assert!(most <= JOURNAL_BYTES_BOUND, "{most}");
}

#[test]
fn a_large_checkpoint_is_refused_by_a_store_whose_own_thread_failed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("a", "1")], vec![]).unwrap();
    let (tables, away) = (store.state.folder.join("keyspaces"), folder.path().join("away"));
    fs::rename(&tables, &away).unwrap();
    store.state.keyspace.rotate_memtable().unwrap();
    let until = Instant::now() + PATIENCE;
    while store.state.database.persist(PersistMode::Buffer).is_ok() {
        assert!(Instant::now() < until, "the store's thread does not fail");
        std::thread::yield_now();
    }
    fs::rename(&away, &tables).unwrap();
    store.large_bytes = 0;
    let refused = store.apply(2, b"", vec![put("a", "2")], vec![]);
    assert!(matches!(refused, Err(Error::Store { .. })), "{refused:?}");
}

/// In a process of its own, which may not write a file of the size that the store allocates: it dies on the way.
#[test]
#[ignore = "a part of a_store_whose_first_start_was_interrupted_opens"]
fn begin_and_die() {
    let Ok(told) = std::env::var(TOLD) else { return };
    CheckpointStore::open(Path::new(&told)).unwrap();
}

#[test]
fn a_store_whose_first_start_was_interrupted_opens() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sh");
    child.args(["-c", "ulimit -f 1024; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", "storage::checkpoint::tests::begin_and_die"]);
    let output = child.env(TOLD, folder.path()).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let mut store = CheckpointStore::open(folder.path()).unwrap();
    store.apply(1, b"", vec![put("a", "1")], vec![]).unwrap();
}

fn changes() -> impl Strategy<Value = Vec<(u8, Option<Vec<u8>>)>> {
    prop::collection::vec((0..40_u8, prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_a_map_would(
        checkpoints in prop::collection::vec((changes(), changes(), any::<bool>(), any::<bool>()), 1..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = CheckpointStore::open(folder.path()).unwrap();
        let mut model = [BTreeMap::new(), BTreeMap::new()];
        for (sequence, (application, protocol, reopen, is_large)) in (1..).zip(checkpoints) {
            store.large_bytes = if is_large { 0 } else { usize::MAX };
            let mut given = [Vec::new(), Vec::new()];
            for (changes, (model, given)) in [application, protocol].into_iter().zip(model.iter_mut().zip(&mut given)) {
                for (key, value) in changes.into_iter().collect::<BTreeMap<_, _>>() {
                    let key = Bytes::from(vec![key]);
                    let value = value.map(Bytes::from);
                    match &value {
                        Some(value) => model.insert(key.clone(), value.clone()),
                        None => model.remove(&key),
                    };
                    given.push((key, value));
                }
            }
            let [application, protocol] = given;
            store.apply(sequence, &[sequence.to_le_bytes()[0]], application, protocol).unwrap();
            if reopen {
                drop(store);
                store = CheckpointStore::open(folder.path()).unwrap();
            }
            let snapshot = store.snapshot().unwrap();
            prop_assert_eq!(snapshot.latest().map(|latest| latest.sequence), Some(sequence));
            for (map, model) in [Map::Application, Map::Protocol].into_iter().zip(&model) {
                let mut found: Vec<Entry> = snapshot.entries(map, None).map(Result::unwrap).collect();
                found.sort();
                let expected: Vec<Entry> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
