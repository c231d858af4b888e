//! `quorate replay`: what real replicas recorded comes out again of a fresh core. (docs/formats.md §11)

use std::fs;
use std::path::PathBuf;

use quorate_tests::{Cluster, LIMIT, Load, quorate, wait_until};
use serde_json::Value;

/// A cluster whose replicas record.
fn recording() -> Cluster {
    let mut cluster = Cluster::builder(4).found();
    for id in cluster.ids() {
        cluster.set(id, "on", "true");
    }
    cluster.start_all();
    cluster
}

/// What is said of replica `id`'s recordings, and the exit status.
fn replay(cluster: &Cluster, id: u8, arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = cluster.replica_folder(id).display().to_string();
    let arguments = ["replay", &folder, "--json"].into_iter().chain(arguments.iter().copied());
    let said = quorate(arguments);
    assert!(said.status.is_some(), "{said:?}");
    (said.status, said.json())
}

/// Sees that all of replica `id`'s starts come out the same; gives how each ended.
fn assert_same(cluster: &Cluster, id: u8) -> Vec<String> {
    let (exit, said) = replay(cluster, id, &[]);
    assert_eq!((exit, &said["same"]), (Some(0), &Value::Bool(true)), "{said}");
    let starts = said["starts"].as_array().expect("a list").clone();
    for start in &starts {
        assert!(start["inputs"].as_u64() > Some(20) && start["outputs"].as_u64() > Some(20), "{said}");
        assert!(start["executed"].as_u64() > Some(0), "{said}");
    }
    starts.iter().map(|start| start["ended"].as_str().expect("a word").to_owned()).collect()
}

fn last_recording(cluster: &Cluster, id: u8) -> PathBuf {
    let folder = fs::read_dir(cluster.replica_folder(id).join("data/recording")).expect("it records");
    folder.map(|entry| entry.expect("it can be listed").path()).max().expect("it was started")
}

#[test]
fn what_replicas_recorded_comes_out_again_though_one_was_killed_and_the_view_changed() {
    let mut cluster = recording();
    let load = Load::start(&cluster, 3);
    load.wait_for(100);
    // The primary: the others change the view, and it comes back as a backup.
    cluster.kill(0);
    load.wait_for(100);
    cluster.restart(0);
    cluster.assert_nothing_lost(load);
    let executed = cluster.status_of(1).executed;
    cluster.stop_all();
    let ended = assert_same(&cluster, 0);
    assert_eq!(ended.len(), 2, "a start each");
    assert!(["killed", "torn"].contains(&&*ended[0]) && ended[1] == "stopped", "{ended:?}");
    for id in 1..4 {
        assert_eq!(assert_same(&cluster, id), ["stopped"]);
    }
    let (_, said) = replay(&cluster, 1, &[]);
    assert_eq!(said["starts"][0]["executed"].as_u64(), Some(executed), "{said}");
    assert!(said["starts"][0]["view"].as_u64() > Some(0), "{said}");
}

/// A new disk begins a new epoch, and a state is transferred: whoever is started again after that votes in it.
#[test]
fn epochs_and_transferred_states_come_out_again() {
    let mut cluster = recording();
    let load = Load::start(&cluster, 3);
    load.wait_for(300);
    cluster.kill(2);
    fs::remove_dir_all(cluster.replica_folder(2).join("data")).expect("it is stopped");
    fs::create_dir(cluster.replica_folder(2).join("data")).expect("just removed");
    cluster.restart(2);
    load.wait_for(300);
    load.stop();
    cluster.assert_converged();
    cluster.stop(3);
    cluster.restart(3);
    wait_until("replica 3 to vote in the epoch in which it was started", LIMIT, || {
        let status = cluster.status_of(3);
        status.reachable && status.epoch == 1 && status.waits_for.is_none()
    });
    cluster.assert_converged();
    cluster.stop_all();
    for id in cluster.ids() {
        assert_same(&cluster, id);
    }
    let (_, said) = replay(&cluster, 2, &[]);
    assert_eq!(said["starts"][0]["epoch"].as_u64(), Some(1), "{said}");
}

#[test]
fn what_is_damaged_is_refused_with_its_place_and_a_torn_end_is_the_end() {
    let mut cluster = recording();
    let load = Load::start(&cluster, 1);
    load.wait_for(30);
    load.stop();
    cluster.stop_all();
    let path = last_recording(&cluster, 1);
    let whole = fs::read(&path).expect("it was recorded");
    fs::write(&path, &whole[..whole.len() - 5]).expect("it can be written");
    assert_eq!(assert_same(&cluster, 1), ["torn"]);
    let mut harmed = whole.clone();
    harmed[whole.len() / 2] ^= 1;
    fs::write(&path, harmed).expect("it can be written");
    let folder = cluster.replica_folder(1);
    let said = quorate(["replay", folder.to_str().expect("text")]);
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains("is damaged at byte ") && said.stderr.contains("mend: "), "{}", said.stderr);
    fs::write(&path, whole).expect("it can be written");
    let (exit, said) = replay(&cluster, 1, &["--show", "0..1", "--until", "10"]);
    assert_eq!((exit, &said["starts"][0]["inputs"]), (Some(0), &10.into()), "{said}");
    assert_eq!(
        (said["steps"].as_array().map(Vec::len), &said["steps"][0]["what"]),
        (Some(2), &"Start".into()),
        "{said}"
    );
}

#[test]
fn without_a_recording_it_is_said_how_to_have_one() {
    let mut cluster = Cluster::start(4);
    cluster.stop(1);
    assert!(!cluster.replica_folder(1).join("data/recording").exists(), "it is off unless it is asked for");
    let folder = cluster.replica_folder(1);
    let said = quorate(["replay", folder.to_str().expect("text")]);
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains("no recording") && said.stderr.contains("--record"), "{}", said.stderr);
    let running = cluster.replica_folder(0);
    let said = quorate(["replay", running.to_str().expect("text")]);
    assert!(said.status == Some(1) && said.stderr.contains("in use"), "{said:?}");
}
