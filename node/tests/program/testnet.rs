//! A testnet's processes and files: all there when it says so, all gone when it ended, however it ended. That Ctrl-C ends
//! one that works is told in `tests/e2e/testnet.rs`.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::run::{Run, runs, wait_until};

fn start(arguments: &[&str]) -> Run {
    Run::start(&[&["testnet", "--json"], arguments].concat())
}

fn pids(ready: &Value) -> Vec<Pid> {
    let replicas = ready["replicas"].as_array().unwrap();
    let pid = |replica: &Value| Pid::from_raw(i32::try_from(replica["pid"].as_i64().unwrap()).unwrap()).unwrap();
    replicas.iter().map(pid).collect()
}

#[test]
fn a_testnet_leaves_no_process_and_no_folder_whatever_stops_it() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let mut testnet = start(&[]);
        let pids = pids(&testnet.line());
        assert_eq!(pids.len(), 4);
        assert!(pids.iter().all(|pid| runs(*pid)));
        testnet.signal(signal);
        let ended = testnet.end();
        assert_eq!((ended.status, ended.stdout.len()), (Some(0), 0), "{ended:?}");
        assert!(!pids.into_iter().any(runs));
        testnet.assert_left_nothing();
    }
}

#[test]
fn a_testnet_that_is_interrupted_while_it_starts_leaves_nothing_and_says_so() {
    // It may be ready before the signal comes.
    wait_until("a signal to come in time", || {
        let mut testnet = start(&["--replicas", "7"]);
        wait_until("the first replica's process", || !testnet.processes().is_empty());
        testnet.signal(Signal::INT);
        let ended = testnet.end();
        testnet.assert_left_nothing();
        assert_eq!(ended.stdout.len(), 1, "{ended:?}");
        let said: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
        let is_interrupted = ended.status == Some(1);
        assert!(is_interrupted || ended.status == Some(0), "{ended:?}");
        assert_eq!((said["error"].is_string(), said["mend"].is_string()), (is_interrupted, is_interrupted), "{said}");
        is_interrupted
    });
}

#[test]
fn a_bench_of_a_testnet_that_is_interrupted_leaves_nothing_and_says_that_nothing_was_measured() {
    let mut testnet = start(&["--bench", "1h"]);
    testnet.wait_until_said("driving load");
    assert_eq!(testnet.processes().len(), 4);
    testnet.signal(Signal::INT);
    let ended = testnet.end();
    assert_eq!((ended.status, ended.stdout.len()), (Some(1), 1), "{ended:?}");
    assert!(ended.stdout[0].starts_with(r#"{"error":"SIGINT: nothing was measured","mend":"#), "{ended:?}");
    testnet.assert_left_nothing();
}

#[test]
fn replicas_end_with_a_testnet_that_is_killed() {
    let mut testnet = start(&[]);
    let pids = pids(&testnet.line());
    testnet.signal(Signal::KILL);
    wait_until("the replicas to end", || !pids.iter().any(|pid| runs(*pid)));
}

#[test]
fn a_replica_that_ends_is_reported_and_the_others_go_on() {
    let mut testnet = start(&[]);
    let pids = pids(&testnet.line());
    kill_process(pids[1], Signal::KILL).unwrap();
    wait_until("the replica to end", || !runs(pids[1]));
    assert!(runs(pids[0]) && runs(pids[2]) && runs(pids[3]));
    testnet.signal(Signal::TERM);
    let ended = testnet.end();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("replica 1 ended with signal: 9"), "{ended:?}");
    testnet.assert_left_nothing();
}

#[test]
fn a_replica_that_does_not_stop_is_killed() {
    let mut testnet = start(&[]);
    let pids = pids(&testnet.line());
    kill_process(pids[2], Signal::STOP).unwrap();
    testnet.signal(Signal::TERM);
    // The second one asks for haste.
    wait_until("the other replicas to end", || !runs(pids[0]));
    testnet.signal(Signal::TERM);
    assert_eq!(testnet.end().status, Some(0));
    assert!(!pids.into_iter().any(runs));
    testnet.assert_left_nothing();
}

#[test]
fn a_testnet_that_cannot_start_leaves_nothing_and_shows_why() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net").into_os_string().into_string().unwrap();
    let mut first = start(&["--dir", &net]);
    let pids = pids(&first.line());
    // Its folder and its addresses are those of the first, which runs.
    let mut second = start(&["--dir", &net]);
    let ended = second.end();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let user = format!("is in use by process {}", pids[0].as_raw_pid());
    assert!(ended.stderr.contains(&user) && ended.stderr.contains("mend: "), "{ended:?}");
    second.assert_left_nothing();
    assert!(pids.iter().all(|pid| runs(*pid)));
    first.signal(Signal::TERM);
    assert_eq!(first.end().status, Some(0));
}

#[test]
fn a_testnet_in_a_folder_of_its_own_is_started_again_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net").into_os_string().into_string().unwrap();
    let same = ["--dir", &net, "--replicas", "4", "--parameter", "window=256"];
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let mut testnet = start(&same);
        let ready = testnet.line();
        assert_eq!(ready["dir"], *net);
        addresses.push(ready["replicas"].as_array().unwrap().iter().map(|row| row["peer"].clone()).collect::<Vec<_>>());
        testnet.signal(Signal::TERM);
        assert_eq!(testnet.end().status, Some(0));
    }
    assert_eq!(addresses[0], addresses[1]);
    for other in [&["--replicas", "7"][..], &["--parameter", "window=512"]] {
        let refused = start(&[&["--dir", &net], other].concat()).end();
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(other[0]) && refused.stderr.contains("mend: "), "{refused:?}");
    }
}
