//! What is asked of a cluster that runs, by the commands and their flags: load, status, logs.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::run::{Run, json, quorate};

/// A testnet, with the folder to connect with.
fn start(arguments: &[&str]) -> (Run, PathBuf, String) {
    let mut testnet = Run::start(&[&["testnet", "--json"], arguments].concat());
    let ready = testnet.line();
    let folder = PathBuf::from(ready["dir"].as_str().unwrap());
    let net = folder.join("client").into_os_string().into_string().unwrap();
    (testnet, folder, net)
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_bench_drives_the_load_that_its_flags_ask_for() {
    let (mut testnet, _, net) = start(&[]);
    let bench = |arguments: &[&str]| {
        let common = ["bench", "--net", &net, "--json", "--clients", "4", "--window", "2", "--value-size", "16"];
        let measured = quorate(&[&common, arguments].concat(), testnet.folder());
        assert_eq!(measured.status.code(), Some(0), "{measured:?}");
        json(&measured)
    };
    let counted = ["--operations", "2", "--reads", "50%", "--requests", "40", "--history", "history.jsonl"];
    let report = bench(&counted);
    assert_eq!((&report["requests"], &report["operations"], &report["errors"]), (&40.into(), &80.into(), &0.into()));
    assert_eq!((&report["settings"]["reads"], &report["settings"]["window"]), (&"50%".into(), &2.into()));
    assert_history(&lines(&testnet.folder().join("history.jsonl")));
    // Due are 50 in a second; that at all times as many come is not promised.
    let report = bench(&["--rate", "50", "--duration", "1s", "--warm-up", "0s"]);
    assert!((1..=51).contains(&report["requests"].as_u64().unwrap()), "{report}");
    assert_eq!((&report["settings"]["rate"], &report["duration_s"]), (&50.0.into(), &1.0.into()), "{report}");
    testnet.signal(Signal::TERM);
    assert_eq!(testnet.end().status, Some(0));
}

/// A line for each operation, with the fields that a check of linearizability reads.
fn assert_history(lines: &[Value]) {
    assert_eq!(lines.len(), 80);
    for line in lines {
        for field in ["client", "number", "start_ns", "end_ns", "sequence", "index"] {
            assert!(line[field].is_u64(), "{field} in {line}");
        }
        assert!(line["key"].is_string() && line.get("result").is_some() && line["outcome"] == "ok", "{line}");
        assert_eq!(line["value"].is_string(), line["operation"] == "put", "{line}");
    }
    let reads = lines.iter().filter(|line| line["operation"] == "get").count();
    assert!((1..80).contains(&reads), "{reads} of 80 are reads");
}

#[test]
fn status_is_shown_again_and_again_until_it_is_interrupted() {
    let (mut testnet, _, net) = start(&[]);
    let mut status = Run::start(&["status", "--watch", "--json", "--net", &net]);
    for _ in 0..2 {
        let replicas = status.line()["replicas"].take();
        assert_eq!(replicas.as_array().unwrap().len(), 4);
        assert!(replicas.as_array().unwrap().iter().all(|row| row["reachable"] == true), "{replicas}");
    }
    status.signal(Signal::INT);
    assert_eq!(status.end().status, Some(0));
    testnet.signal(Signal::TERM);
    assert_eq!(testnet.end().status, Some(0));
}

#[test]
fn logs_are_as_long_and_in_the_form_that_is_asked_for_in_all_processes() {
    let levels = |lines: &[Value]| lines.iter().map(|line| line["level"].as_str().unwrap().to_owned()).collect();
    let logged = |arguments: &[&str]| -> [Vec<String>; 2] {
        let (mut testnet, folder, _) = start(&[&["--log-format", "json"], arguments].concat());
        let replica = lines(&folder.join("replica-0/replica.log"));
        testnet.signal(Signal::TERM);
        let said = testnet.end().stderr;
        let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        [levels(&said), levels(&replica)]
    };
    let [own, replica] = logged(&["-v"]);
    assert!(own.iter().any(|level| level == "DEBUG") && replica.iter().any(|level| level == "INFO"));
    let [own, replica] = logged(&[]);
    assert!(own.iter().chain(&replica).all(|level| level != "DEBUG"), "{own:?} {replica:?}");
    let [own, replica] = logged(&["-q"]);
    assert!(own.iter().chain(&replica).all(|level| level != "INFO"), "{own:?} {replica:?}");
}
