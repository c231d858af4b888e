//! The program as scripts see it: exit status, stdout, stderr, and what is left in the file system.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::{json, quorate, text};

#[test]
fn init_writes_a_cluster_that_genesis_check_finds_valid() {
    let root = tempfile::tempdir().unwrap();
    let founded = quorate(&["init", "--replicas", "7", "--dir", "net", "--base-port", "5000", "--json"], root.path());
    assert_eq!(founded.status.code(), Some(0), "{founded:?}");
    let founded = json(&founded);
    assert_eq!(founded["replicas"].as_array().unwrap().len(), 7);
    assert_eq!(founded["replicas"][6]["peer"], "127.0.0.1:5012");
    let checked = quorate(&["genesis", "check", "net/genesis.toml", "--json"], root.path());
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let checked = json(&checked);
    assert_eq!(checked["valid"], true);
    assert_eq!(checked["cluster"], founded["cluster"]);
    assert_eq!((&checked["faults_max"], &checked["quorum"]), (&2.into(), &5.into()));
}

#[test]
fn init_refuses_to_overwrite_and_says_how_to_mend_it() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("net")).unwrap();
    fs::write(root.path().join("net/mine"), "mine").unwrap();
    let refused = quorate(&["init", "--dir", "net"], root.path());
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), ""));
    let said = text(&refused.stderr);
    assert!(said.contains("net exists already and is not overwritten\n  mend: "), "{said}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(root.path().join("net")).unwrap().count(), 1);
}

#[test]
fn an_edited_genesis_does_not_pass() {
    let root = tempfile::tempdir().unwrap();
    assert!(quorate(&["init", "--dir", "net"], root.path()).status.success());
    let path = root.path().join("net/genesis.toml");
    let edited = fs::read_to_string(&path).unwrap().replace("heartbeat_ms = 100", "heartbeat_ms = 101");
    fs::write(&path, edited).unwrap();
    for arguments in [&["genesis", "check", "net/genesis.toml"][..], &["replica", "--dir", "net/replica-0"]] {
        let refused = quorate(arguments, root.path());
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("net/") && said.contains("genesis.toml:6: key `cluster` is "), "{said}");
        assert!(said.contains("it was edited\n  mend: "), "{said}");
    }
}

#[test]
fn what_is_wrong_is_one_json_object_where_json_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let refused = quorate(&["genesis", "check", "none.toml", "--json"], root.path());
    assert_eq!(refused.status.code(), Some(1));
    let report = json(&refused);
    assert!(report["error"].as_str().unwrap().starts_with("cannot open none.toml: "), "{report}");
    assert!(report["mend"].is_string());
}

#[test]
fn wrong_usage_has_its_own_status() {
    let root = tempfile::tempdir().unwrap();
    for arguments in [
        &["init"][..],
        &["init", "--dir", "net", "--replicas", "3"],
        &["init", "--dir", "net", "--replicas", "32"],
        &["init", "--dir", "net", "--host", "a", "--host", "b"],
        &["init", "--dir", "net", "--replicas", "5", "--host", "a", "--host", "b", "--host", "c", "--host", "d"],
        &["init", "--dir", "net", "--host", "a:1", "--host", "b", "--host", "c", "--host", "d"],
        &["init", "--dir", "net", "--base-port", "65535"],
        &["init", "--dir", "net", "--parameter", "windows=3"],
        &["testnet", "--bench", "20"],
        &["testnet", "--bench", "0s"],
        &["testnet", "--malicious", "silent"],
        &["testnet", "--malicious", "0=nonsense"],
        &["testnet", "--malicious", "4=silent"],
        &["testnet", "--malicious", "0=silent", "--malicious", "0=flood", "--dir", "net"],
        &["attacks", "nonsense"],
        &["attack", "start", "--dir", "net"],
        &["attack", "start", "silent", "--dir", "net"],
        &["bench", "--net", "net/client", "--requests", "0"],
        &["bench", "--net", "net/client", "--duration", "0s"],
        &["kv", "get", "key"],
        &["kv", "get", "key", "--net", "net/client", "--timeout", "0s"],
        &["dance"],
    ] {
        let refused = quorate(arguments, root.path());
        assert_eq!(refused.status.code(), Some(2), "{arguments:?} {refused:?}");
        assert!(text(&refused.stdout).is_empty() && !refused.stderr.is_empty(), "{arguments:?}");
        let refused = quorate(&[arguments, &["--json"]].concat(), root.path());
        let report = json(&refused);
        assert!(report["error"].as_str().is_some_and(|error| !error.contains('\n')), "{report}");
        assert!(report["mend"].is_string(), "{report}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// What is said on stderr, with what was wrong and how to mend it.
fn refused(arguments: &[&str], folder: &Path) -> String {
    let refused = quorate(arguments, folder);
    let said = text(&refused.stderr).to_owned();
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), ""), "{said}");
    assert!(said.contains("error: ") && said.contains("\n  mend: "), "{arguments:?}: {said}");
    said
}

#[test]
fn whatever_keeps_a_command_from_its_work_is_said_with_the_way_to_mend_it() {
    let root = tempfile::tempdir().unwrap();
    assert!(quorate(&["init", "--dir", "net"], root.path()).status.success());
    for (arguments, place) in [
        (&["genesis", "check", "/"][..], "cannot read /"),
        (&["genesis", "check", "none.toml"], "none.toml"),
        (&["bench", "--net", "none"], "none/client.toml"),
        (&["bench", "--net", "net/client", "--history", "none/history"], "none/history"),
        (&["status", "--net", "none"], "none/client.toml"),
        (&["kv", "--net", "net/client", "put", "key", "--file", "none"], "none"),
        (&["testnet", "--dir", "net/genesis.toml"], "net/genesis.toml"),
        (&["replica", "--dir", "net/replica-0", "--malicious", "none.json"], "none.json"),
        (&["attack", "show", "--dir", "none"], "none is no cluster's folder"),
        (&["attack", "start", "0=silent", "--net", "net/client"], "replica 0 does not run"),
        (&["attack", "stop", "--dir", "net"], "started as an attacker"),
    ] {
        let said = refused(arguments, root.path());
        assert!(said.contains(place), "{arguments:?}: {said}");
    }
}

#[test]
fn an_unknown_attack_is_answered_with_those_that_there_are() {
    let root = tempfile::tempdir().unwrap();
    assert!(quorate(&["init", "--dir", "net"], root.path()).status.success());
    let told = json(&quorate(&["attacks", "--json"], root.path()));
    let names: Vec<&str> =
        told["attacks"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for arguments in [
        &["replica", "--dir", "net/replica-0", "--malicious", "nonsense"][..],
        &["testnet", "--dir", "net", "--malicious", "1=silent,nonsense"],
        &["attack", "start", "0=nonsense", "--dir", "net"],
    ] {
        let refused = quorate(arguments, root.path());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(names.iter().all(|name| text(&refused.stderr).contains(name)), "{refused:?}");
    }
}

#[test]
fn version_and_help_are_results_and_a_reader_may_stop_reading() {
    let root = tempfile::tempdir().unwrap();
    assert!(text(&quorate(&["--version"], root.path()).stdout).starts_with("quorate "));
    assert!(text(&quorate(&["init", "--help"], root.path()).stdout).contains("quorate init --replicas 4 --dir net"));
    for arguments in [&["completions", "bash"][..], &["--help"], &["init", "--dir", "net"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        let status = command.args(arguments).current_dir(root.path()).stdout(writer).stderr(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
}
