//! `quorate testnet`: what it prints, what it measures, and that it leaves nothing behind. (`quorate testnet --help`)

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use quorate_tests::{LIMIT, Turn, quorate, runs, start, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The fields of `bench --json`, as the command line's page promises them.
const BENCH_FIELDS: [&str; 10] = [
    "duration_s",
    "errors",
    "latency_ms",
    "operations",
    "operations_per_second",
    "replicas",
    "requests",
    "retries",
    "settings",
    "view_changes",
];

#[test]
fn interrupted_from_the_keyboard_it_leaves_no_process_and_no_folder() {
    let _turn = Turn::take();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = start(["testnet", "--replicas", "4", "--json"]);
    let mut testnet = command.env("TMPDIR", temporary.path()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(testnet.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let dir = Path::new(ready["dir"].as_str().unwrap()).to_owned();
    assert!(dir.starts_with(temporary.path()) && dir.is_dir(), "{ready}");
    let replicas = ready["replicas"].as_array().unwrap();
    for (index, replica) in replicas.iter().enumerate() {
        assert_eq!(replica["id"], index);
        assert!(["peer", "client"].iter().all(|field| replica[field].is_string()), "{replica}");
        assert_eq!(replica.get("admin"), Some(&Value::Null), "nothing listens there yet");
    }
    let pid = |replica: &Value| Pid::from_raw(i32::try_from(replica["pid"].as_i64().unwrap()).unwrap()).unwrap();
    let pids: Vec<Pid> = replicas.iter().map(pid).collect();
    assert!(pids.len() == 4 && pids.iter().all(|pid| runs(*pid)));
    let client = dir.join("client").into_os_string().into_string().unwrap();
    assert_eq!(quorate(["kv", "put", "k", "v", "--net", &client]).status, Some(0));
    assert_eq!(quorate(["kv", "get", "k", "--net", &client]).text(), "v\n");
    // Replicas that start together do not suspect each other for it.
    let log = |index| fs::read_to_string(dir.join(format!("replica-{index}/replica.log"))).unwrap();
    assert!((0..4).all(|index| !log(index).contains("suspects")), "{}", log(1));

    kill_process(Pid::from_child(&testnet), Signal::INT).unwrap();
    wait_until("the testnet to end", LIMIT, || testnet.try_wait().unwrap().is_some());
    assert_eq!(testnet.wait().unwrap().code(), Some(0));
    assert!(!pids.into_iter().any(runs));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn its_bench_prints_one_object_with_the_fields_of_the_contract() {
    let _turn = Turn::take();
    let measured = quorate(["testnet", "--replicas", "4", "--bench", "3s", "--json"]);
    assert_eq!(measured.status, Some(0), "{}", measured.stderr);
    let report = measured.json();
    for field in BENCH_FIELDS {
        assert!(report.get(field).is_some(), "no {field} in {report}");
    }
    for quantile in ["p50", "p90", "p99", "p999", "max"] {
        assert!(report["latency_ms"][quantile].as_f64() > Some(0.0), "no {quantile} in {report}");
    }
    assert_eq!((&report["replicas"], &report["view_changes"], &report["errors"]), (&4.into(), &0.into(), &0.into()));
    assert!(report["operations"].as_u64() > Some(0), "{report}");
}
