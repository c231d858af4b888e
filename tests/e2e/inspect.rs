//! `quorate inspect`: what stands in a stopped replica's folder, and what a start would make of it. (PROTOCOL §9)

use std::fs;
use std::path::PathBuf;

use quorate_tests::damage::{files, flip, frames};
use quorate_tests::{Cluster, Load, quorate};
use serde_json::Value;

/// A cluster whose replica 1 was stopped after a load.
fn stopped() -> Cluster {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    load.wait_for(300);
    load.stop();
    cluster.assert_converged();
    cluster.stop(1);
    cluster
}

/// What is said of replica 1, and the exit status.
fn inspect(cluster: &Cluster) -> (Option<i32>, Value) {
    let folder = cluster.replica_folder(1).display().to_string();
    let said = quorate(["inspect", &folder, "--json"]);
    assert!(said.status.is_some(), "{said:?}");
    (said.status, said.json())
}

/// What a start would do, in one line.
fn start(found: &Value) -> String {
    found["start"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn log_files(cluster: &Cluster) -> Vec<(PathBuf, Vec<u8>)> {
    let found = files(&cluster.replica_folder(1).join("data/log"));
    found.into_iter().map(|(path, _)| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_folder_that_is_whole_is_shown_and_left_as_it_is() {
    let mut cluster = stopped();
    let before = log_files(&cluster);
    let status = cluster.status_of(0);
    let (exit, found) = inspect(&cluster);
    assert_eq!((exit, &found["problems"]), (Some(0), &Value::Array(vec![])), "{found}");
    assert!(found["log"]["records"].as_u64() > Some(10), "{found}");
    assert_eq!(found["checkpoint"]["certified"], "yes", "{found}");
    assert_eq!(found["checkpoint"]["sequence"], found["log"]["stable"], "{found}");
    assert_eq!(found["checkpoint"]["root"].as_str(), status.state_root.as_deref(), "{found}");
    let last = found["slots"].as_array().unwrap().last().unwrap();
    assert_eq!((last["sequence"].as_u64(), &last["phase"]), (Some(status.executed), &"decided".into()), "{found}");
    assert!(start(&found).contains("votes when 2 have answered"), "{}", start(&found));
    assert!(log_files(&cluster) == before, "the log was changed");
    cluster.restart(1);
    cluster.assert_converged();
}

#[test]
fn a_replica_that_runs_is_not_inspected() {
    let cluster = Cluster::start(4);
    let said = quorate(["inspect", cluster.replica_folder(1).to_str().unwrap()]);
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains("mend: "), "{}", said.stderr);
}

#[test]
fn what_is_damaged_is_named_with_what_a_start_does_about_it() {
    let mut cluster = stopped();
    let log = frames(&cluster.replica_folder(1).join("data/log"));
    let middle = &log[log.len() / 2];
    flip(&middle.path, middle.front_head(), 8);
    let (exit, found) = inspect(&cluster);
    assert_eq!(exit, Some(1), "{found}");
    assert!(found["problems"].to_string().contains("second copy"), "{found}");
    flip(&middle.path, middle.position, middle.length);
    let (exit, found) = inspect(&cluster);
    assert_eq!(exit, Some(1), "{found}");
    assert!(found["problems"].to_string().contains("votes with them"), "{found}");
    assert!(start(&found).contains("set aside") && start(&found).contains("votes again in the next"), "{found}");
    cluster.restart(1);
    cluster.assert_converged();
}

#[test]
fn an_empty_folder_has_lost_its_votes() {
    let cluster = stopped();
    fs::remove_dir_all(cluster.replica_folder(1).join("data")).unwrap();
    fs::create_dir(cluster.replica_folder(1).join("data")).unwrap();
    let (exit, found) = inspect(&cluster);
    assert_eq!((exit, &found["log"]["records"], &found["checkpoint"]), (Some(0), &0.into(), &Value::Null), "{found}");
    assert!(start(&found).contains("its log is new or gone"), "{found}");
}
