//! The checkpoint store alone on a disk on which power fails, thousands of times: a checkpoint is there as a whole or not at
//! all, and one that was said to be durable is. (PROTOCOL §5, §9)

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use quorate_node::storage::checkpoint::{Change, CheckpointStore, Error, Map};
use quorate_tests::{Draw, Forgotten, LIMIT, PowerDisk, Which, say, wait_until};

use crate::power::cycles;

/// A state: its slot and what the application keeps.
type State = (u64, BTreeMap<Vec<u8>, Vec<u8>>);

/// What the store was asked to hold.
#[derive(Debug, Default)]
struct Asked {
    /// What it said to be durable.
    durable: State,
    /// What was being stored when power failed.
    under_way: Option<State>,
}

/// Checkpoints that are stored before power fails in any case.
const CHECKPOINTS_MAX: usize = 40;

/// Changes of the next checkpoint.
fn changes(draw: &mut Draw) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    // Now and then so much that it is stored past the journal.
    let (keys, bytes) = if draw.one_in(60) { (10, 1 << 20) } else { (1 + draw.below(12), 3_000) };
    let change = |_| {
        let key = format!("key-{}", draw.below(30)).into_bytes();
        let byte = draw.number().to_le_bytes()[0];
        let length = usize::try_from(if bytes > 3_000 { bytes } else { draw.below(bytes) }).unwrap();
        (key, (!draw.one_in(5)).then(|| vec![byte; length]))
    };
    (0..keys).map(change).collect()
}

/// What the store holds.
fn state_of(store: &CheckpointStore) -> Result<State, Error> {
    let snapshot = store.snapshot()?;
    let entries = snapshot.entries(Map::Application, None);
    let entries: Result<_, _> = entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect();
    Ok((store.latest().map_or(0, |latest| latest.sequence), entries?))
}

/// Opens the store, looks at what it holds, and stores checkpoints until the disk is gone. Gives why it could not be opened
/// or read.
fn use_store(folder: &Path, asked: &Mutex<Asked>, mut draw: Draw) -> Result<(), String> {
    let told = |error: Error| format!("{error}: {error:?}");
    let mut store = CheckpointStore::open(folder).map_err(told)?;
    let found = state_of(&store).map_err(told)?;
    {
        let asked = &mut *asked.lock().unwrap();
        let is_durable = found == asked.durable;
        assert!(is_durable || Some(&found) == asked.under_way.as_ref(), "{} after {}", found.0, asked.durable.0);
        (asked.durable, asked.under_way) = (found, None);
    }
    for _ in 0..CHECKPOINTS_MAX {
        let changes = changes(&mut draw);
        let mut state = asked.lock().unwrap().durable.clone();
        state.0 += 1;
        for (key, value) in &changes {
            match value {
                Some(value) => state.1.insert(key.clone(), value.clone()),
                None => state.1.remove(key),
            };
        }
        let sequence = state.0;
        asked.lock().unwrap().under_way = Some(state);
        let changes: Vec<Change> =
            changes.into_iter().map(|(key, value)| (key.into(), value.map(Into::into))).collect();
        if store.apply(sequence, b"", changes, Vec::new()).is_err() {
            return Ok(());
        }
        let asked = &mut *asked.lock().unwrap();
        asked.durable = asked.under_way.take().unwrap();
    }
    Ok(())
}

fn survive_cuts(cycles: u64) {
    let folder = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::create_dir(&path).unwrap();
    let mut draw = Draw::begin();
    let Some(disk) = PowerDisk::mount(&path) else { return };
    let asked = Arc::new(Mutex::new(Asked::default()));
    let (mut forgotten, mut troubles) = (Forgotten::default(), Vec::new());
    for cycle in 1..=cycles {
        // At a sync all that it is to make durable is written and is not.
        let (which, after) = match draw.below(4) {
            0 => (Which::Names, draw.below(12)),
            1 => (Which::All, draw.below(80)),
            _ => (Which::Syncs, draw.below(30)),
        };
        disk.cut_after(which, after);
        let user = thread::spawn({
            let (asked, path, draw) = (Arc::clone(&asked), path.join("state"), Draw::of(draw.number()));
            move || use_store(&path, &asked, draw)
        });
        wait_until("power to fail, or the store's user to end", LIMIT, || disk.is_cut() || user.is_finished());
        let is_cut = disk.is_cut();
        if !is_cut {
            disk.cut();
        }
        let seed = draw.number();
        forgotten += disk.forget(seed);
        let ended = user.join();
        disk.switch_on();
        let trouble = match ended {
            Ok(Err(error)) if !is_cut => error,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned()),
            Ok(_) => continue,
        };
        troubles.push(format!("cycle {cycle}: {trouble}"));
        // It goes on with a new disk: as an operator who moves the state away.
        fs::remove_dir_all(path.join("state")).unwrap();
        *asked.lock().unwrap() = Asked::default();
    }
    let Forgotten { kept, lost, torn } = forgotten;
    say(&format!("{cycles} cuts: of what was not synced {lost} changes were lost, {kept} kept and {torn} torn"));
    assert!(troubles.is_empty(), "{} troubles in {cycles} cuts: {troubles:#?}", troubles.len());
}

#[test]
fn a_checkpoint_is_whole_after_a_power_cut_or_not_there() {
    survive_cuts(200);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_power_cuts_of_the_checkpoint_store() {
    survive_cuts(cycles(10_000));
}

/// Stores a checkpoint, and replaces the state by a received one.
fn store_and_replace(folder: &Path) -> Result<(), Error> {
    let mut store = CheckpointStore::open(folder)?;
    let change = |number: u8| (vec![number].into(), Some(vec![number; 3_000].into()));
    store.apply(1, b"", (0..10).map(change).collect(), Vec::new())?;
    let mut reception = store.receive()?;
    reception
        .put(Map::Application, (0..10).map(|number: u8| (vec![number].into(), vec![7; 3_000].into())).collect())?;
    store.install(reception, 2, b"")?;
    store.apply(3, b"", vec![change(11)], Vec::new())
}

/// Each write, and each sync, fails: the store says so; or it does without what failed, and all that it said to be durable is.
#[test]
fn whatever_fails_the_store_says_so() {
    let mut failed = 0;
    for which in [Which::Writes, Which::Syncs, Which::SyncsOfFolders] {
        for after in 0.. {
            let folder = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
            let path = folder.path().join("disk");
            fs::create_dir(&path).unwrap();
            let Some(disk) = PowerDisk::mount(&path) else { return };
            disk.fail_after(which, after, after % 2 == 0, after, || ());
            let state = path.join("state");
            let user = thread::spawn({
                let state = state.clone();
                move || store_and_replace(&state).map_err(|error| format!("{error:?}"))
            });
            wait_until("the store's user to end", LIMIT, || user.is_finished());
            let outcome = user.join().unwrap();
            let Some(what) = disk.failed() else {
                outcome.unwrap();
                break;
            };
            failed += 1;
            if outcome.is_ok() {
                // What it said to be durable is.
                disk.cut();
                disk.forget(after);
                disk.switch_on();
                let (sequence, entries) = state_of(&CheckpointStore::open(&state).unwrap()).unwrap();
                assert_eq!((sequence, entries.len()), (3, 11), "{what}");
            }
        }
    }
    say(&format!("{failed} operations failed, one at a time"));
    assert!(failed > 20);
}
