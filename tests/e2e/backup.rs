//! Backups taken while a cluster runs, and what is made of them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use quorate_tests::damage::flip;
use quorate_tests::{Cluster, Finished, LIMIT, Load, quorate, say, start, wait_until};
use serde_json::Value;

fn run(arguments: &[&OsStr]) -> Finished {
    quorate(arguments.iter())
}

/// Takes a backup into a file of the test's own.
fn backup(cluster: &Cluster, name: &str) -> (PathBuf, Finished) {
    let out = cluster.scratch().join(name);
    let net = cluster.client_folder();
    let said =
        run(&["backup".as_ref(), "--json".as_ref(), "--net".as_ref(), net.as_ref(), "--out".as_ref(), out.as_ref()]);
    (out, said)
}

/// The same, of a cluster that has a stable checkpoint.
fn backed_up(cluster: &Cluster, name: &str) -> (PathBuf, Value) {
    let (out, said) = backup(cluster, name);
    assert_eq!(said.status, Some(0), "{said:?}");
    (out, said.json())
}

fn verify(file: &Path, genesis: Option<&Path>) -> Finished {
    let mut arguments = vec![OsStr::new("restore"), file.as_os_str(), "--verify".as_ref(), "--json".as_ref()];
    arguments.extend(genesis.iter().flat_map(|genesis| [OsStr::new("--genesis"), genesis.as_os_str()]));
    run(&arguments)
}

fn restore(file: &Path, folder: &Path) -> Finished {
    run(&["restore".as_ref(), file.as_ref(), "--dir".as_ref(), folder.as_ref(), "--json".as_ref()])
}

fn assert_refused(said: &Finished, expected: &str) {
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains(expected), "no `{expected}` in {}", said.stderr);
    assert!(said.stderr.contains("mend: ") && !said.stderr.contains("panicked"), "{}", said.stderr);
}

/// Waits until replica `id`, which lost votes, votes again.
fn wait_until_it_votes_again(cluster: &Cluster, id: u8) {
    wait_until("the replica to vote again", LIMIT, || {
        let status = cluster.status_of(id);
        status.epoch > 0 && status.role != "learner" && status.waits_for.is_none()
    });
}

#[test]
fn a_backup_under_load_is_verified_and_holds_what_was_acknowledged_before() {
    let cluster = Cluster::start(4);
    let early = Load::start(&cluster, 4);
    early.wait_for(300);
    let written = early.stop();
    cluster.assert_converged();
    let load = Load::start(&cluster, 4);
    load.wait_for(50);
    let (file, taken) = backed_up(&cluster, "under-load");
    load.wait_for(50);
    let bytes = fs::metadata(&file).unwrap();
    assert_eq!((bytes.mode() & 0o777, Some(bytes.len())), (0o600, taken["bytes"].as_u64()), "{taken}");
    for field in ["file", "sequence", "epoch", "state_root", "entries", "bytes", "source"] {
        assert!(!taken[field].is_null(), "{field} in {taken}");
    }
    let genesis = cluster.net().join("genesis.toml");
    let checked = verify(&file, Some(&genesis));
    assert_eq!(checked.status, Some(0), "{checked:?}");
    let checked = checked.json();
    for field in ["sequence", "epoch", "state_root", "entries", "bytes"] {
        assert_eq!(checked[field], taken[field]);
    }
    // One of the five clients counts, on one key.
    assert!(taken["entries"].as_u64() >= Some(200), "{taken}");
    let (_, again) = backup(&cluster, "under-load");
    assert_refused(&again, "exists already and is not overwritten");
    cluster.assert_nothing_lost(load);
    written.assert_all_acknowledged_readable();
}

#[test]
fn before_the_first_stable_checkpoint_there_is_no_backup() {
    let cluster = Cluster::start(4);
    let (file, said) = backup(&cluster, "early");
    assert_refused(&said, "no replica has a stable checkpoint yet");
    assert!(!file.exists() && !file.with_extension("partial").exists());
}

#[test]
fn a_replica_whose_disk_is_gone_comes_back_from_a_backup_and_votes() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(200);
    let written = load.stop();
    cluster.assert_converged();
    let (file, taken) = backed_up(&cluster, "backup");
    cluster.kill(1);
    let folder = cluster.replica_folder(1);
    assert_refused(&restore(&file, &folder), "a replica's data is not overwritten");
    fs::remove_dir_all(folder.join("data")).unwrap();
    let restored = restore(&file, &folder);
    assert_eq!(restored.status, Some(0), "{restored:?}");
    assert_eq!(restored.json()["state_root"], taken["state_root"]);
    assert_eq!(fs::metadata(folder.join("data")).unwrap().mode() & 0o777, 0o700);
    let found = quorate(["inspect", folder.to_str().unwrap(), "--json"]).json();
    assert_eq!(found["checkpoint"]["root"], taken["state_root"], "{found}");
    assert!(found["start"].to_string().contains("votes again in the next"), "{found}");
    cluster.restart(1);
    wait_until_it_votes_again(&cluster, 1);
    assert!(cluster.log_of(1).contains("lost votes"), "{}", cluster.process(1).log_tail());
    assert!(!cluster.log_of(1).contains("state transfer began"), "{}", cluster.process(1).log_tail());
    // It is needed: another one is down.
    cluster.kill(2);
    let load = Load::start(&cluster, 2);
    load.wait_for(50);
    cluster.restart(2);
    cluster.assert_nothing_lost(load);
    written.assert_all_acknowledged_readable();
}

#[test]
fn a_replica_comes_back_from_a_backup_that_the_others_have_left_far_behind() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(50);
    let (file, _) = backed_up(&cluster, "old");
    load.wait_for(600);
    cluster.kill(3);
    fs::remove_dir_all(cluster.replica_folder(3).join("data")).unwrap();
    load.wait_for(600);
    assert_eq!(restore(&file, &cluster.replica_folder(3)).status, Some(0));
    cluster.restart(3);
    wait_until_it_votes_again(&cluster, 3);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_damaged_file_a_cut_one_and_one_of_another_cluster_are_refused_and_change_nothing() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(100);
    load.stop();
    cluster.assert_converged();
    let (file, _) = backed_up(&cluster, "whole");
    cluster.kill(1);
    let folder = cluster.replica_folder(1);
    fs::remove_dir_all(folder.join("data")).unwrap();
    let length = fs::metadata(&file).unwrap().len();
    let copy = cluster.scratch().join("copy");
    // The magic, the genesis, the certificate behind it, entries at several places, and the tail.
    let header = u64::from(u32::from_le_bytes(fs::read(&file).unwrap()[12..16].try_into().unwrap()));
    let places = [0, 9, 100, 16 + header - 200, 16 + header + 40, length / 2, length - 80, length - 20, length - 1];
    for place in places {
        fs::copy(&file, &copy).unwrap();
        flip(&copy, place, 1);
        let expected = match place {
            0 => "not a backup of quorate",
            9 => "version",
            _ => "damaged at byte",
        };
        assert_refused(&verify(&copy, None), expected);
        assert_refused(&restore(&copy, &folder), expected);
    }
    for kept in [0, 8, 500, length / 2, length - 1] {
        fs::write(&copy, &fs::read(&file).unwrap()[..usize::try_from(kept).unwrap()]).unwrap();
        assert_refused(&restore(&copy, &folder), if kept < 16 { "not a backup" } else { "cut off at byte" });
    }
    let other = cluster.scratch().join("other");
    let founded = run(&["init".as_ref(), "--dir".as_ref(), other.as_ref()]);
    assert_eq!(founded.status, Some(0), "{founded:?}");
    assert_refused(&verify(&file, Some(&other.join("genesis.toml"))), "is a backup of cluster");
    fs::remove_dir_all(other.join("replica-1/data")).unwrap();
    assert_refused(&restore(&file, &other.join("replica-1")), "is a backup of cluster");
    assert!(!folder.join("data").exists(), "nothing of what was refused is left");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".quorate-new")), "{left:?}");
    cluster.restart(1);
    cluster.assert_converged();
}

#[test]
fn a_backup_goes_on_with_another_replica_where_one_is_stopped_meanwhile() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(100);
    cluster.pause(0);
    let net = cluster.client_folder();
    let out = cluster.scratch().join("without-one");
    let said = run(&[
        "backup".as_ref(),
        "--json".as_ref(),
        "--timeout".as_ref(),
        "2s".as_ref(),
        "--net".as_ref(),
        net.as_ref(),
        "--out".as_ref(),
        out.as_ref(),
    ]);
    cluster.resume(0);
    assert_eq!(said.status, Some(0), "{said:?}");
    assert_ne!(said.json()["source"], 0);
    assert_eq!(verify(&out, None).status, Some(0));
    say(&format!("a backup without replica 0: {}", said.text().trim_end()));
    cluster.assert_nothing_lost(load);
}

/// A cluster with what an earlier one held: founded from its backup.
fn founded_from(file: &Path) -> Cluster {
    Cluster::builder(4).from_backup(file).found()
}

/// A backup of a cluster that held `held`, and is gone.
fn backup_of_another_cluster(folder: &Path) -> PathBuf {
    let cluster = Cluster::start(4);
    let store = cluster.store();
    for number in 0..50 {
        store.put(&format!("key {number}"), format!("value {number}").as_bytes()).unwrap();
    }
    cluster.assert_converged();
    let (file, _) = backed_up(&cluster, "backup");
    let kept = folder.join("kept");
    fs::copy(file, &kept).unwrap();
    kept
}

fn assert_holds_what_it_began_with(cluster: &Cluster) {
    for number in [0, 17, 49] {
        let read = cluster.kv(&["get", &format!("key {number}")]);
        assert_eq!((read.status, read.text().trim_end()), (Some(0), &*format!("value {number}")), "{read:?}");
    }
}

#[test]
fn a_cluster_that_is_founded_from_a_backup_begins_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let file = backup_of_another_cluster(folder.path());
    let before = verify(&file, None).json();
    let mut cluster = founded_from(&file);
    assert_ne!(before["cluster"].as_str(), Some(&*cluster.genesis().cluster().digest().to_string()));
    cluster.start_all();
    assert_holds_what_it_began_with(&cluster);
    // A second start finds the same.
    cluster.stop_all();
    cluster.start_all();
    cluster.assert_converged();
    assert_holds_what_it_began_with(&cluster);
    let (_, taken) = backed_up(&cluster, "again");
    assert!(taken["entries"].as_u64() >= before["entries"].as_u64(), "{taken}");
    assert!(taken["time_ns"].as_u64() > before["time_ns"].as_u64(), "{taken}");
}

#[test]
fn a_replica_without_the_state_that_its_cluster_began_with_takes_it_from_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = backup_of_another_cluster(folder.path());
    let mut cluster = founded_from(&file);
    // All of it, and the state alone.
    fs::remove_dir_all(cluster.replica_folder(1).join("data")).unwrap();
    cluster.start_all();
    wait_until("the transfer", LIMIT, || cluster.log_of(1).contains("state transfer ended"));
    wait_until_it_votes_again(&cluster, 1);
    assert_holds_what_it_began_with(&cluster);
    cluster.stop(2);
    fs::remove_dir_all(cluster.replica_folder(2).join("data/state")).unwrap();
    cluster.restart(2);
    cluster.assert_converged();
    // They are needed: another one is down.
    cluster.kill(3);
    assert_holds_what_it_began_with(&cluster);
}

#[test]
fn a_replica_with_another_state_than_its_genesis_names_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = backup_of_another_cluster(folder.path());
    let other = backup_of_another_cluster(&{
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        other
    });
    let mut cluster = founded_from(&file);
    let stranger = cluster.scratch().join("stranger");
    let founded =
        run(&["init".as_ref(), "--dir".as_ref(), stranger.as_ref(), "--from-backup".as_ref(), other.as_ref()]);
    assert_eq!(founded.status, Some(0), "{founded:?}");
    let state = cluster.replica_folder(1).join("data/state");
    fs::rename(&state, cluster.scratch().join("away")).unwrap();
    fs::rename(stranger.join("replica-1/data/state"), &state).unwrap();
    assert_refused(&cluster.refused(1), "is not the one that the genesis names");
    fs::remove_dir_all(&state).unwrap();
    cluster.start_all();
    assert_holds_what_it_began_with(&cluster);
    let damaged = cluster.scratch().join("damaged");
    fs::copy(&file, &damaged).unwrap();
    flip(&damaged, fs::metadata(&damaged).unwrap().len() / 2, 1);
    let net = cluster.scratch().join("none");
    let refused = run(&["init".as_ref(), "--dir".as_ref(), net.as_ref(), "--from-backup".as_ref(), damaged.as_ref()]);
    assert_refused(&refused, "damaged at byte");
    assert!(!net.exists());
}

#[test]
fn a_restore_that_is_killed_leaves_a_replica_without_data_or_with_all_of_it() {
    let mut cluster = Cluster::start(4);
    let load = Load::with_values(&cluster, 4, 64 << 10);
    load.wait_for(300);
    load.stop();
    cluster.assert_converged();
    let (file, taken) = backed_up(&cluster, "backup");
    cluster.kill(1);
    let folder = cluster.replica_folder(1);
    let data = folder.join("data");
    fs::remove_dir_all(&data).unwrap();
    let staged = || {
        let mut paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        paths.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(".quorate-new"))
    };
    let (mut without, mut complete) = (0, 0);
    // The folder, the store in it, the state that is received, and the one that is in its place there.
    for reached in ["", "state", "state/state.new", "state/state.new", "state/state-0000000000000002"] {
        let mut child =
            start(["restore".as_ref(), file.as_os_str(), "--dir".as_ref(), folder.as_os_str()]).spawn().unwrap();
        wait_until("the restore to come there", LIMIT, || {
            data.exists() || staged().is_some_and(|path| path.join(reached).exists())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(left) = staged() {
            fs::remove_dir_all(left).unwrap();
        }
        if data.exists() {
            complete += 1;
            let found = quorate(["inspect", folder.to_str().unwrap(), "--json"]).json();
            assert_eq!(found["checkpoint"]["root"], taken["state_root"], "{found}");
            fs::remove_dir_all(&data).unwrap();
        } else {
            without += 1;
        }
    }
    say(&format!("a restore was killed: {without} times nothing was left, {complete} times all of it"));
    assert!(without > 0, "it was never killed on the way");
    assert_eq!(restore(&file, &folder).status, Some(0));
    cluster.restart(1);
    wait_until_it_votes_again(&cluster, 1);
    cluster.assert_converged();
}
