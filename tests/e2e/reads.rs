//! Reads that nobody orders, asked of real replicas. (PROTOCOL §8)

use std::thread;

use quorate_tests::{Cluster, LIMIT, quorate, say, wait_until};

/// Replicas that answer reads without ordering them.
fn reading(replicas: u8) -> Cluster {
    Cluster::builder(replicas).parameter("fast_reads", true).start()
}

/// Reads a key fast until that takes no slot, which it does once all are up to date; gives what was found.
fn read_without_a_slot(cluster: &Cluster, key: &str) -> String {
    let mut found = String::new();
    wait_until("a read that nobody orders", LIMIT, || {
        cluster.assert_converged();
        let before = cluster.status_of(0).executed;
        let read = cluster.kv(&["get", key, "--fast", "-v"]);
        assert_eq!(read.status, Some(0), "{read:?}");
        found = read.text().trim_end().to_owned();
        cluster.status_of(0).executed == before && !read.stderr.contains("was ordered")
    });
    found
}

#[test]
fn a_fast_read_sees_the_last_write_and_takes_no_slot_with_four_replicas() {
    a_fast_read_sees_the_last_write_and_takes_no_slot(4);
}

#[test]
fn a_fast_read_sees_the_last_write_and_takes_no_slot_with_seven_replicas() {
    a_fast_read_sees_the_last_write_and_takes_no_slot(7);
}

fn a_fast_read_sees_the_last_write_and_takes_no_slot(replicas: u8) {
    let mut cluster = reading(replicas);
    for value in ["one", "two"] {
        assert_eq!(cluster.kv(&["put", "key", value]).status, Some(0));
        assert_eq!(cluster.kv(&["get", "key", "--fast"]).text().trim_end(), value);
        assert_eq!(read_without_a_slot(&cluster, "key"), value);
    }
    assert_eq!(cluster.kv(&["get", "absent", "--fast"]).status, Some(4));
    // A quorum is enough, and who comes back is one of it again.
    cluster.kill(0);
    assert_eq!(cluster.kv(&["put", "key", "three"]).status, Some(0));
    assert_eq!(cluster.kv(&["get", "key", "--fast"]).text(), "three\n");
    cluster.restart(0);
    for id in 1..=(replicas - 1) / 3 {
        cluster.kill(id);
    }
    assert_eq!(cluster.kv(&["put", "key", "four"]).status, Some(0));
    assert_eq!(cluster.kv(&["get", "key", "--fast"]).text(), "four\n");
}

#[test]
fn in_a_cluster_without_fast_reads_one_is_ordered_and_says_so() {
    let cluster = Cluster::start(4);
    assert_eq!(cluster.kv(&["put", "key", "value"]).status, Some(0));
    let read = cluster.kv(&["get", "key", "--fast"]);
    assert_eq!((read.status, read.text()), (Some(0), "value\n"), "{read:?}");
    assert!(read.stderr.contains("this cluster has no fast reads"), "{}", read.stderr);
}

#[test]
fn what_fast_readers_saw_is_linearizable_though_replicas_are_killed() {
    let mut cluster = reading(4);
    let history = cluster.scratch().join("history.jsonl");
    let arguments: Vec<String> = [
        "bench",
        "--clients",
        "16",
        "--window",
        "2",
        "--keys",
        "40",
        "--value-size",
        "8",
        "--reads",
        "60%",
        "--cas",
        "20%",
        "--fast-reads",
        "--duration",
        "12s",
        "--json",
        "--net",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([cluster.client_folder().display().to_string(), "--history".to_owned(), history.display().to_string()])
    .collect();
    let bench = thread::spawn(move || quorate(arguments));
    let mut kills = 0_u8;
    while !bench.is_finished() {
        let id = kills % 4;
        thread::sleep(std::time::Duration::from_millis(700));
        cluster.kill(id);
        thread::sleep(std::time::Duration::from_millis(300));
        cluster.restart(id);
        kills += 1;
    }
    let report = bench.join().unwrap();
    assert_eq!(report.status, Some(0), "{report:?}");
    let lines = std::fs::read_to_string(&history).unwrap();
    let answered: Vec<&str> = lines.lines().filter(|line| line.contains("\"outcome\":\"ok\"")).collect();
    let unordered = answered.iter().filter(|line| !line.contains("\"sequence\"")).count();
    say(&format!("{kills} kills, {} answered, {unordered} of them without being ordered", answered.len()));
    assert!(unordered > 1_000 && answered.len() - unordered > 1_000, "too few to judge");
    let verdict = quorate(["check-history", history.to_str().unwrap()]);
    assert_eq!(verdict.status, Some(0), "{verdict:?}");
    cluster.assert_converged();
}
