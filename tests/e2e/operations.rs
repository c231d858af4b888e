//! Every operation of the key-value store, as scripts see them: exit status, stdout, files. (`quorate kv --help`)

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_tests::{Cluster, Load, wait_until};

#[test]
fn every_operation_of_the_store_does_what_its_help_says_with_four_replicas() {
    every_operation_of_the_store_does_what_its_help_says(4);
}

#[test]
fn every_operation_of_the_store_does_what_its_help_says_with_seven_replicas() {
    every_operation_of_the_store_does_what_its_help_says(7);
}

fn every_operation_of_the_store_does_what_its_help_says(replicas: u8) {
    let cluster = Cluster::start(replicas);
    reads_and_writes(&cluster);
    compares_and_sets(&cluster);
    lists_ranges(&cluster);
    takes_bytes_that_are_no_text(&cluster);
    reads_with_a_proof(&cluster);
    cluster.assert_converged();
}

fn reads_and_writes(cluster: &Cluster) {
    assert_eq!(cluster.kv(&["get", "greeting"]).status, Some(4));
    assert_eq!(cluster.kv(&["delete", "greeting"]).status, Some(4));
    let put = cluster.kv(&["put", "greeting", "hello", "--json"]);
    assert_eq!((put.status, &put.json()["found"]), (Some(0), &false.into()), "{put:?}");
    let again = cluster.kv(&["put", "greeting", "hello again", "--json"]).json();
    assert_eq!((&again["key"], &again["found"]), (&"greeting".into(), &true.into()), "{again}");
    assert!(again["sequence"].as_u64() > put.json()["sequence"].as_u64(), "{again}");
    let text = cluster.kv(&["get", "greeting", "--ordered"]);
    assert_eq!((text.status, text.text()), (Some(0), "hello again\n"));
    let json = cluster.kv(&["get", "greeting", "--json"]).json();
    assert_eq!((&json["found"], &json["value"]), (&true.into(), &"hello again".into()), "{json}");
    assert_eq!(cluster.kv(&["delete", "greeting"]).status, Some(0));
    let gone = cluster.kv(&["get", "greeting", "--json"]);
    assert_eq!((gone.status, &gone.json()["found"]), (Some(4), &false.into()), "{gone:?}");
    assert_eq!(cluster.kv(&["put", "empty", ""]).status, Some(0));
    assert_eq!(cluster.kv(&["get", "empty"]).text(), "\n");
}

fn compares_and_sets(cluster: &Cluster) {
    let cas = |arguments: &[&str]| cluster.kv(&[&["cas", "lock", "--json"], arguments].concat());
    let taken = cas(&["--expect-absent", "--set", "mine"]);
    assert_eq!((taken.status, &taken.json()["swapped"]), (Some(0), &true.into()), "{taken:?}");
    let held = cas(&["--expect-absent", "--set", "yours"]);
    assert_eq!((held.status, &held.json()["swapped"]), (Some(5), &false.into()), "{held:?}");
    assert_eq!(cas(&["--expect", "yours", "--set", "stolen"]).status, Some(5));
    assert_eq!(cluster.kv(&["get", "lock"]).text(), "mine\n");
    assert_eq!(cas(&["--expect", "mine", "--set", "mine still"]).status, Some(0));
    assert_eq!(cas(&["--expect", "mine still", "--set-absent"]).status, Some(0));
    assert_eq!(cluster.kv(&["get", "lock"]).status, Some(4));
}

fn lists_ranges(cluster: &Cluster) {
    for (key, value) in [("user/2", "two"), ("user/1", "one"), ("user/3", "three"), ("users", "no")] {
        assert_eq!(cluster.kv(&["put", key, value]).status, Some(0));
    }
    let all = cluster.kv(&["range", "user/"]);
    assert_eq!((all.status, all.text()), (Some(0), "user/1\tone\nuser/2\ttwo\nuser/3\tthree\n"));
    let two = cluster.kv(&["range", "user/", "--limit", "2", "--json"]).json_lines();
    let keys: Vec<_> = two.iter().map(|line| line["key"].as_str()).collect();
    assert_eq!(keys, [Some("user/1"), Some("user/2")]);
    let none = cluster.kv(&["range", "nothing/"]);
    assert_eq!((none.status, none.text()), (Some(0), ""));
}

fn takes_bytes_that_are_no_text(cluster: &Cluster) {
    let (original, copy) = (cluster.scratch().join("original"), cluster.scratch().join("copy"));
    let bytes: Vec<u8> = (0..=255).cycle().take(40_000).collect();
    fs::write(&original, &bytes).unwrap();
    let [original, copy] = [&original, &copy].map(|path| path.to_str().unwrap());
    assert_eq!(cluster.kv(&["put", "picture", "--file", original]).status, Some(0));
    assert_eq!(cluster.kv(&["get", "picture", "--file", copy]).status, Some(0));
    assert_eq!(fs::read(copy).unwrap(), bytes);
    let json = cluster.kv(&["get", "picture", "--json"]).json();
    assert!(json["value"].is_null() && json["value_base64"].is_string(), "{json}");
    // The key is the bytes 0, 255; the value the byte 128.
    assert_eq!(cluster.kv(&["put", "AP8=", "gA==", "--base64"]).status, Some(0));
    assert_eq!(cluster.kv(&["get", "AP8=", "--base64"]).text(), "gA==\n");
    let refused = cluster.kv(&["put", "no base64!", "gA==", "--base64"]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
}

fn reads_with_a_proof(cluster: &Cluster) {
    assert_eq!(cluster.kv(&["put", "proved", "indeed"]).status, Some(0));
    cluster.assert_converged();
    let proved = cluster.kv(&["get", "proved", "--proved", "--json"]);
    assert_eq!((proved.status, &proved.json()["value"]), (Some(0), &"indeed".into()), "{proved:?}");
    let absent = cluster.kv(&["get", "never", "--proved", "--json"]);
    assert_eq!((absent.status, &absent.json()["found"]), (Some(4), &false.into()), "{absent:?}");
    // A proof is of a checkpoint; this one does not exist yet.
    let oldest = (proved.json()["sequence"].as_u64().unwrap() + 1_000_000).to_string();
    let early = cluster.kv(&["get", "proved", "--proved", "--oldest", &oldest, "--timeout", "2s"]);
    assert_eq!(early.status, Some(1), "{early:?}");
}

#[test]
fn a_proved_read_says_that_nothing_is_stable_yet_and_is_answered_at_once_after_a_restart() {
    let mut cluster = Cluster::start(4);
    assert_eq!(cluster.kv(&["put", "key", "value"]).status, Some(0));
    let early = cluster.kv(&["get", "key", "--proved"]);
    assert_eq!(early.status, Some(1), "{early:?}");
    assert!(early.stderr.contains("no checkpoint is stable yet"), "{}", early.stderr);
    cluster.assert_converged();
    cluster.stop_all();
    cluster.ids().for_each(|id| cluster.launch(id));
    cluster.ids().for_each(|id| cluster.process(id).wait_ready());
    // Nothing is written any more: the proof is of the state that was found on the disk.
    let proved = cluster.kv(&["get", "key", "--proved", "--json"]);
    assert_eq!((proved.status, &proved.json()["value"]), (Some(0), &"value".into()), "{proved:?}");
}

#[test]
fn without_a_quorum_a_write_is_given_up_in_time_and_says_who_is_not_reached() {
    let mut cluster = Cluster::start(4);
    assert_eq!(cluster.kv(&["put", "before", "yes"]).status, Some(0));
    cluster.kill(2);
    cluster.kill(3);
    let refused = cluster.kv(&["put", "during", "no", "--timeout", "2s"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("error: ") && refused.stderr.contains("mend: "), "{}", refused.stderr);
    assert!(refused.stderr.contains("replica 2") && refused.stderr.contains("replica 3"), "{}", refused.stderr);
    cluster.restart(2);
    wait_until("the cluster to answer again", quorate_tests::LIMIT, || {
        cluster.kv(&["get", "before", "--timeout", "2s"]).text() == "yes\n"
    });
}

#[test]
fn a_load_notices_each_write_that_is_missing_changed_or_not_its_own() {
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let written = load.stop();
    written.assert_all_acknowledged_readable();
    let notices = || catch_unwind(AssertUnwindSafe(|| written.assert_all_acknowledged_readable())).is_err();
    let key = written.keys()[7].clone();
    let value = cluster.kv(&["get", &key]).text().trim_end().to_owned();
    assert_eq!(cluster.kv(&["delete", &key]).status, Some(0));
    assert!(notices(), "a write is gone");
    assert_eq!(cluster.kv(&["put", &key, "other"]).status, Some(0));
    assert!(notices(), "a write is another");
    assert_eq!(cluster.kv(&["put", &key, &value]).status, Some(0));
    written.assert_all_acknowledged_readable();
    assert_eq!(cluster.kv(&["put", &format!("{key}0"), "mine"]).status, Some(0));
    assert!(notices(), "nobody wrote that");
    assert_eq!(cluster.kv(&["delete", &format!("{key}0")]).status, Some(0));
    let counter = format!("{}counter", key.split_inclusive('/').next().unwrap());
    assert_eq!(cluster.kv(&["put", &counter, "1000000"]).status, Some(0));
    assert!(notices(), "somebody counted twice");
}
