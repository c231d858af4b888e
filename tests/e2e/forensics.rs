//! `quorate forensics`: two of four replicas have the others decide differently, and the logs convict exactly those two.
//! (PROTOCOL §15)

use std::fs;
use std::path::{Path, PathBuf};

use quorate_tests::{Cluster, Finished, LIMIT, quorate, wait_until};
use serde_json::{Value, json};

/// Requests that are made, fewer than slots from one checkpoint to the next: no log is cut.
const REQUESTS: u64 = 40;

/// A cluster whose replicas 0 and 1 may play.
fn started() -> Cluster {
    Cluster::builder(4).malicious(0, "none").malicious(1, "none").relayed().start()
}

fn path(cluster: &Cluster, name: &str) -> String {
    cluster.net().join(name).display().to_string()
}

/// Makes requests; replicas 2 and 3 have executed something after them.
fn load(cluster: &Cluster) {
    let (client, requests) = (path(cluster, "client"), REQUESTS.to_string());
    let before = executed(cluster);
    let measured =
        quorate(["bench", "--net", &client, "--clients", "1", "--window", "1", "--requests", &requests, "--json"]);
    assert_eq!(measured.status, Some(0), "{measured:?}");
    wait_until("both others to execute", LIMIT, || {
        let after = executed(cluster);
        after.iter().zip(&before).all(|(after, before)| *after >= before + 5)
    });
}

/// How far replicas 2 and 3 are; one that stopped, since it lost an invariant, was far enough.
fn executed(cluster: &Cluster) -> Vec<u64> {
    let status = quorate(["status", "--net", &path(cluster, "client"), "--json"]).json();
    let row = |id: usize| status["replicas"][id]["executed"].as_u64().unwrap_or(u64::MAX);
    vec![row(2), row(3)]
}

/// What is found in the folders of these replicas.
fn forensics(cluster: &Cluster, replicas: &[u8], more: &[&str]) -> Finished {
    let folders: Vec<String> = replicas.iter().map(|id| path(cluster, &format!("replica-{id}"))).collect();
    let genesis = path(cluster, "genesis.toml");
    let arguments = ["forensics", "--json", "--genesis", &genesis].into_iter().chain(more.iter().copied());
    quorate(arguments.chain(folders.iter().map(String::as_str)))
}

/// Copies what an operator would hand out: no key.
fn hand_out(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("data/log")).unwrap();
    fs::copy(from.join("replica.toml"), to.join("replica.toml")).unwrap();
    for entry in fs::read_dir(from.join("data/log")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join("data/log").join(entry.file_name())).unwrap();
    }
}

fn verdict(found: &Finished) -> (Option<i32>, Value, Value) {
    let report = found.json();
    (found.status, report["verdict"].clone(), report["culprits"].clone())
}

#[test]
fn two_of_four_that_fork_the_others_are_convicted_and_nobody_else() {
    let mut cluster = started();
    // Else they show each other what the primary signed, and mostly leave its view before they have decided.
    cluster.cut(2, 3);
    let told = cluster.attack(&["start", "0=fork", "1=fork"]);
    assert_eq!(told.status, Some(0), "{told:?}");
    load(&cluster);
    // Those first: left without a primary they would exchange view changes, and each hear of what the other half prepared.
    for id in [2, 3, 0, 1] {
        cluster.stop(id);
    }

    let proofs = cluster.scratch().join("proofs");
    let found = forensics(&cluster, &[2, 3], &["--proofs", proofs.to_str().unwrap()]);
    assert_eq!(verdict(&found), (Some(0), json!("convicted"), json!([0, 1])), "{found:?}");
    let report = found.json();
    assert!(report["divergences"].as_u64() > Some(0) && report["first"]["of"] == "decisions", "{report}");
    let files: Vec<PathBuf> = fs::read_dir(&proofs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    let mut convicted: Vec<u64> = Vec::new();
    for file in &files {
        let proof = quorate([
            "evidence",
            "verify",
            file.to_str().unwrap(),
            "--genesis",
            &path(&cluster, "genesis.toml"),
            "--json",
        ]);
        assert_eq!(proof.status, Some(0), "{proof:?}");
        convicted.push(proof.json()["replica"].as_u64().unwrap());
    }
    convicted.sort_unstable();
    convicted.dedup();
    assert_eq!(convicted, [0, 1]);

    // The attackers' own folders change nothing, and copies without keys will do.
    assert_eq!(verdict(&forensics(&cluster, &[0, 1, 2, 3], &[])), (Some(0), json!("convicted"), json!([0, 1])));
    let copies = [2, 3].map(|id| cluster.scratch().join(format!("copy-{id}")));
    for (id, copy) in [2, 3].into_iter().zip(&copies) {
        hand_out(Path::new(&path(&cluster, &format!("replica-{id}"))), copy);
    }
    let genesis = path(&cluster, "genesis.toml");
    let found = quorate(["forensics", "--genesis", &genesis, copies[0].to_str().unwrap(), copies[1].to_str().unwrap()]);
    assert!(found.status == Some(0) && found.text().ends_with("convicted: replica 0, replica 1\n"), "{found:?}");

    // One of the two halves alone saw nothing wrong.
    let found = forensics(&cluster, &[2], &[]);
    assert_eq!(verdict(&found), (Some(1), json!("no-divergence"), json!([])), "{found:?}");
    assert!(found.json()["reason"].as_str().unwrap().contains("no slot is decided in two"), "{found:?}");
}

#[test]
fn a_cluster_in_which_nothing_diverged_convicts_nobody_and_wrong_folders_are_named() {
    let mut cluster = started();
    load(&cluster);
    let running = forensics(&cluster, &[2], &[]);
    assert!(running.status == Some(1) && running.stderr.contains("in use by process"), "{running:?}");
    cluster.stop_all();
    let found = forensics(&cluster, &[0, 1, 2, 3], &[]);
    assert_eq!(verdict(&found), (Some(1), json!("no-divergence"), json!([])), "{found:?}");
    assert!(found.json()["compared"].as_u64() >= Some(REQUESTS), "{found:?}");
    let twice = forensics(&cluster, &[2, 2], &[]);
    assert!(twice.status == Some(2) && twice.stderr.contains("named twice"), "{twice:?}");
    let nowhere = forensics(&cluster, &[7], &[]);
    assert!(nowhere.status == Some(1) && nowhere.stderr.contains("replica-7/replica.toml"), "{nowhere:?}");
    // Logs of another cluster prove nothing here.
    let other = found_elsewhere(&cluster);
    let foreign = quorate(["forensics", "--genesis", &other, &path(&cluster, "replica-2")]);
    assert!(foreign.status == Some(1) && foreign.stderr.contains("another cluster"), "{foreign:?}");
}

/// The genesis of another cluster.
fn found_elsewhere(cluster: &Cluster) -> String {
    let other = cluster.scratch().join("other");
    let founded = quorate(["init", "--replicas", "4", "--dir", other.to_str().unwrap()]);
    assert_eq!(founded.status, Some(0), "{founded:?}");
    other.join("genesis.toml").display().to_string()
}
