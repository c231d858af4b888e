//! `quorate forensics`: two of four replicas have the others decide differently, and the logs convict exactly those two.
//! (PROTOCOL §15)

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;

use quorate_tests::{Finished, LIMIT, Turn, quorate, start, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Requests that are made, fewer than slots from one checkpoint to the next: no log is cut.
const REQUESTS: u64 = 40;

/// A testnet whose replicas 0 and 1 may play, in a folder that stays.
struct Testnet {
    process: Option<Child>,
    root: TempDir,
    _turn: Turn,
}

impl Testnet {
    fn start() -> Self {
        let turn = Turn::take();
        let root = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
        let net = root.path().join("net").display().to_string();
        let malicious = ["--malicious", "0=none", "--malicious", "1=none"];
        let mut process = start(["testnet", "--json", "--dir", &net].into_iter().chain(malicious)).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"replicas\""), "{line}");
        Self { process: Some(process), root, _turn: turn }
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join("net").join(name).display().to_string()
    }

    /// Makes requests; replicas 2 and 3 have executed something after them.
    fn load(&self) {
        let (client, requests) = (self.path("client"), REQUESTS.to_string());
        let before = self.executed();
        let measured =
            quorate(["bench", "--net", &client, "--clients", "1", "--window", "1", "--requests", &requests, "--json"]);
        assert_eq!(measured.status, Some(0), "{measured:?}");
        wait_until("both others to execute", LIMIT, || {
            let after = self.executed();
            after.iter().zip(&before).all(|(after, before)| *after >= before + 5)
        });
    }

    /// How far replicas 2 and 3 are; one that stopped, since it lost an invariant, was far enough.
    fn executed(&self) -> Vec<u64> {
        let status = quorate(["status", "--net", &self.path("client"), "--json"]).json();
        let row = |id: usize| status["replicas"][id]["executed"].as_u64().unwrap_or(u64::MAX);
        vec![row(2), row(3)]
    }

    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
        wait_until("the testnet to end", LIMIT, || process.try_wait().unwrap().is_some());
    }

    /// What is found in the folders of these replicas.
    fn forensics(&self, replicas: &[u8], more: &[&str]) -> Finished {
        let folders: Vec<String> = replicas.iter().map(|id| self.path(&format!("replica-{id}"))).collect();
        let genesis = self.path("genesis.toml");
        let arguments = ["forensics", "--json", "--genesis", &genesis].into_iter().chain(more.iter().copied());
        quorate(arguments.chain(folders.iter().map(String::as_str)))
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        self.stop();
    }
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
    let mut testnet = Testnet::start();
    let told = quorate(["attack", "start", "0=fork", "1=fork", "--dir", &testnet.path("")]);
    assert_eq!(told.status, Some(0), "{told:?}");
    testnet.load();
    testnet.stop();

    let proofs = testnet.root.path().join("proofs");
    let found = testnet.forensics(&[2, 3], &["--proofs", proofs.to_str().unwrap()]);
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
            &testnet.path("genesis.toml"),
            "--json",
        ]);
        assert_eq!(proof.status, Some(0), "{proof:?}");
        convicted.push(proof.json()["replica"].as_u64().unwrap());
    }
    convicted.sort_unstable();
    convicted.dedup();
    assert_eq!(convicted, [0, 1]);

    // The attackers' own folders change nothing, and copies without keys will do.
    assert_eq!(verdict(&testnet.forensics(&[0, 1, 2, 3], &[])), (Some(0), json!("convicted"), json!([0, 1])));
    let copies = [2, 3].map(|id| testnet.root.path().join(format!("copy-{id}")));
    for (id, copy) in [2, 3].into_iter().zip(&copies) {
        hand_out(Path::new(&testnet.path(&format!("replica-{id}"))), copy);
    }
    let genesis = testnet.path("genesis.toml");
    let found = quorate(["forensics", "--genesis", &genesis, copies[0].to_str().unwrap(), copies[1].to_str().unwrap()]);
    assert!(found.status == Some(0) && found.text().ends_with("convicted: replica 0, replica 1\n"), "{found:?}");

    // One of the two halves alone saw nothing wrong.
    let found = testnet.forensics(&[2], &[]);
    assert_eq!(verdict(&found), (Some(1), json!("no-divergence"), json!([])), "{found:?}");
    assert!(found.json()["reason"].as_str().unwrap().contains("no slot is decided in two"), "{found:?}");
}

#[test]
fn a_cluster_in_which_nothing_diverged_convicts_nobody_and_wrong_folders_are_named() {
    let mut testnet = Testnet::start();
    testnet.load();
    let running = testnet.forensics(&[2], &[]);
    assert!(running.status == Some(1) && running.stderr.contains("in use by process"), "{running:?}");
    testnet.stop();
    let found = testnet.forensics(&[0, 1, 2, 3], &[]);
    assert_eq!(verdict(&found), (Some(1), json!("no-divergence"), json!([])), "{found:?}");
    assert!(found.json()["compared"].as_u64() >= Some(REQUESTS), "{found:?}");
    let twice = testnet.forensics(&[2, 2], &[]);
    assert!(twice.status == Some(2) && twice.stderr.contains("named twice"), "{twice:?}");
    let nowhere = testnet.forensics(&[7], &[]);
    assert!(nowhere.status == Some(1) && nowhere.stderr.contains("replica-7/replica.toml"), "{nowhere:?}");
    // Logs of another cluster prove nothing here.
    let other = Testnet::found_elsewhere(&testnet);
    let foreign = quorate(["forensics", "--genesis", &other, &testnet.path("replica-2")]);
    assert!(foreign.status == Some(1) && foreign.stderr.contains("another cluster"), "{foreign:?}");
}

impl Testnet {
    /// The genesis of another cluster.
    fn found_elsewhere(&self) -> String {
        let other = self.root.path().join("other");
        let founded = quorate(["init", "--replicas", "4", "--dir", other.to_str().unwrap()]);
        assert_eq!(founded.status, Some(0), "{founded:?}");
        other.join("genesis.toml").display().to_string()
    }
}
