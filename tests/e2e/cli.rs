//! What is said when something is asked or set up wrongly: what is wrong, where, and how to mend it; never a panic.

use std::ffi::OsStr;
use std::fs;

use quorate_tests::{Cluster, Finished, quorate};

/// A refusal that a person can do something with.
fn assert_explains(refused: &Finished, status: i32, words: &[&str]) {
    assert_eq!(refused.status, Some(status), "{refused:?}");
    let said = &refused.stderr;
    assert!(said.contains("error: ") && said.contains("mend: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

#[test]
fn an_edited_genesis_is_refused_by_replicas_and_clients() {
    let cluster = Cluster::builder(4).found();
    for path in [cluster.net().join("genesis.toml"), cluster.client_folder().join("genesis.toml")] {
        cluster.edit(&path, "heartbeat_ms = 100", "heartbeat_ms = 99");
    }
    assert_explains(&cluster.refused(0), 1, &["genesis.toml:", "`cluster`", "it was edited"]);
    assert_explains(&cluster.kv(&["get", "k"]), 1, &["genesis.toml:", "`cluster`", "it was edited"]);
}

#[test]
fn a_replica_with_another_key_is_refused_and_told_whose_it_is() {
    let cluster = Cluster::builder(4).found();
    let key = |id| cluster.replica_folder(id).join("replica.key");
    fs::copy(key(1), key(0)).unwrap();
    assert_explains(&cluster.refused(0), 1, &["replica-0", "replica.key", "but replica 0 has"]);
    fs::write(key(0), "-----BEGIN PRIVATE KEY-----\nMC4CAQA=\n-----END PRIVATE KEY-----\n").unwrap();
    assert_explains(&cluster.refused(0), 1, &["replica-0", "replica.key"]);
    fs::remove_file(key(0)).unwrap();
    assert_explains(&cluster.refused(0), 1, &["replica-0", "replica.key"]);
}

#[test]
fn a_folder_in_use_is_refused_and_its_user_named() {
    let mut cluster = Cluster::builder(4).found();
    cluster.restart(0);
    let pid = cluster.process(0).pid().as_raw_pid().to_string();
    assert_explains(&cluster.refused(0), 1, &["replica-0", "in use by", &pid]);
    cluster.stop(0);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let mut cluster = Cluster::builder(4).found();
    cluster.restart(0);
    let address = cluster.genesis().configuration().members()[0].peer_address.clone();
    let listen = format!("[listen]\npeer = \"{address}\"");
    cluster.edit(&cluster.replica_folder(1).join("replica.toml"), "[listen]", &listen);
    assert_explains(&cluster.refused(1), 1, &[&address, "replica 1", "[listen]"]);
}

#[test]
fn a_wrong_line_in_a_file_is_named_with_its_number() {
    let cluster = Cluster::builder(4).found();
    let file = cluster.replica_folder(0).join("replica.toml");
    for (name, value, words) in [
        ("mtu_max", "9000", ["replica.toml:", "mtu_max", "1200 to 6500"]),
        ("log_segment_bytes", "\"1MB\"", ["replica.toml:", "log_segment_bytes", "no unit"]),
        ("disk_bytes_max", "\"66MiB\"", ["replica.toml:", "disk_bytes_max", "the log needs 67MiB"]),
        ("admin", "\"nowhere\"", ["replica.toml:", "admin", "not an address"]),
    ] {
        let before = fs::read_to_string(&file).unwrap();
        cluster.set(0, name, value);
        assert_explains(&cluster.refused(0), 1, &words);
        fs::write(&file, before).unwrap();
    }
}

#[test]
fn a_client_without_a_cluster_is_told_what_it_lacks() {
    let cluster = Cluster::builder(4).found();
    let missing = cluster.scratch().join("nowhere");
    let refused = quorate([OsStr::new("kv"), "get".as_ref(), "k".as_ref(), "--net".as_ref(), missing.as_os_str()]);
    assert_explains(&refused, 1, &["nowhere", "client.toml"]);
    // Nobody listens: each replica is named, and why it is not reached.
    let unreachable = cluster.kv(&["get", "k", "--timeout", "2s"]);
    assert_explains(&unreachable, 1, &["replica 0", "replica 3"]);
    let client = cluster.client_folder();
    let status = quorate([OsStr::new("status"), "--json".as_ref(), "--net".as_ref(), client.as_os_str()]);
    assert_eq!(status.status, Some(1), "{status:?}");
    assert!(status.json()["replicas"].as_array().unwrap().iter().all(|row| row["reachable"] == false), "{status:?}");
}

#[test]
fn wrong_usage_of_the_store_has_a_status_of_its_own() {
    let cluster = Cluster::builder(4).found();
    for arguments in [
        &["put", "key"][..],
        &["put", "key", "value", "--file", "too"],
        &["cas", "key", "--expect", "old"],
        &["cas", "key", "--expect", "old", "--expect-absent", "--set", "new"],
        &["get", "key", "--ordered", "--proved"],
        &["get", "key", "--oldest", "5"],
        &["range", "", "--limit", "0"],
        &["dance"],
    ] {
        let refused = cluster.kv(arguments);
        assert_eq!(refused.status, Some(2), "{arguments:?}: {refused:?}");
        assert!(refused.stdout.is_empty() && refused.stderr.contains("--help"), "{arguments:?}: {refused:?}");
    }
}

#[test]
fn status_shows_a_row_for_each_replica_reached_or_not() {
    let mut cluster = Cluster::start(4);
    cluster.kill(3);
    let client = cluster.client_folder();
    let table = quorate([OsStr::new("status"), "--net".as_ref(), client.as_os_str()]);
    assert_eq!((table.status, table.text().lines().count()), (Some(0), 5), "{table:?}");
    assert!(table.text().lines().last().unwrap().contains("unreachable"), "{table:?}");
    let status = cluster.status();
    assert_eq!(status.replicas.iter().map(|row| row.reachable).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(status.replicas.iter().filter(|row| row.role == "primary" && row.reachable).count(), 1, "{status}");
    assert!(status.replicas[0].links.iter().any(|link| link.peer == 1 && link.state == "up"), "{status}");
}
