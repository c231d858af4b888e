//! A testnet's processes and files: all there when it says so, all gone when it ended, however it ended.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest that any condition is waited for: tests share the machine.
const LIMIT: Duration = Duration::from_mins(1);

/// A testnet whose temporary folder is made in a folder of the test's own.
struct Testnet {
    child: Child,
    stdout: BufReader<ChildStdout>,
    temporary: TempDir,
}

impl Testnet {
    fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("there is a place for temporary folders");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["testnet", "--json"]).args(arguments).env("TMPDIR", temporary.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, stdout, temporary }
    }

    /// The one line that it prints when it is ready.
    fn ready(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("stdout is text");
        let ready = serde_json::from_str(&line);
        assert!(ready.is_ok(), "{line:?} {:?}", self.end());
        ready.expect("it was just seen to be JSON")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the testnet runs");
    }

    /// Waits for the end; gives the exit status and what it wrote to stderr.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        wait_until("the testnet to end", || self.child.try_wait().is_ok_and(|status| status.is_some()));
        let mut stderr = self.child.stderr.take().expect("stderr is a pipe, read once");
        stderr.read_to_string(&mut said).expect("stderr is text");
        (self.child.wait().expect("it ended").code(), said)
    }

    fn assert_left_nothing(&self) {
        let left = fs::read_dir(self.temporary.path()).expect("the folder is there");
        assert_eq!(left.count(), 0);
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn pids(ready: &Value) -> Vec<Pid> {
    let replicas = ready["replicas"].as_array().expect("replicas are a list");
    let number = |replica: &Value| replica["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = |replica| number(replica).and_then(Pid::from_raw).expect("a pid is a number above zero");
    replicas.iter().map(pid).collect()
}

fn runs(pid: Pid) -> bool {
    // One that ended but was not waited for yet is still listed.
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !state.contains(") Z ")
}

#[test]
fn a_testnet_leaves_no_process_and_no_folder_when_it_is_stopped() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut testnet = Testnet::start(&["--replicas", "4"]);
        let ready = testnet.ready();
        let pids = pids(&ready);
        assert_eq!(pids.len(), 4);
        assert!(pids.iter().all(|pid| runs(*pid)));
        assert!(Path::new(ready["dir"].as_str().unwrap()).join("client/client.toml").exists());
        testnet.signal(signal);
        assert_eq!(testnet.end().0, Some(0));
        assert!(!pids.into_iter().any(runs));
        testnet.assert_left_nothing();
    }
}

#[test]
fn replicas_end_with_a_testnet_that_is_killed() {
    let mut testnet = Testnet::start(&[]);
    let pids = pids(&testnet.ready());
    testnet.signal(Signal::KILL);
    wait_until("the replicas to end", || !pids.iter().any(|pid| runs(*pid)));
}

#[test]
fn a_replica_that_ends_is_reported_and_the_others_go_on() {
    let mut testnet = Testnet::start(&[]);
    let pids = pids(&testnet.ready());
    kill_process(pids[1], Signal::KILL).unwrap();
    wait_until("the replica to end", || !runs(pids[1]));
    assert!(runs(pids[0]) && runs(pids[2]) && runs(pids[3]));
    testnet.signal(Signal::TERM);
    let (status, said) = testnet.end();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("replica 1 ended with signal: 9"), "{said}");
    testnet.assert_left_nothing();
}

#[test]
fn a_replica_that_does_not_stop_is_killed() {
    let mut testnet = Testnet::start(&[]);
    let pids = pids(&testnet.ready());
    kill_process(pids[2], Signal::STOP).unwrap();
    testnet.signal(Signal::TERM);
    // The second one asks for haste.
    wait_until("the other replicas to end", || !runs(pids[0]));
    testnet.signal(Signal::TERM);
    assert_eq!(testnet.end().0, Some(0));
    assert!(!pids.into_iter().any(runs));
    testnet.assert_left_nothing();
}

#[test]
fn a_testnet_that_cannot_start_leaves_nothing_and_shows_why() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net").into_os_string().into_string().unwrap();
    let mut first = Testnet::start(&["--dir", &net]);
    let pids = pids(&first.ready());
    // Its addresses are those of the first, which runs.
    let mut second = Testnet::start(&["--dir", &net]);
    let (status, said) = second.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("mend: "), "{said}");
    second.assert_left_nothing();
    assert!(pids.iter().all(|pid| runs(*pid)));
    first.signal(Signal::TERM);
    assert_eq!(first.end().0, Some(0));
}

#[test]
fn a_testnet_in_a_folder_of_its_own_is_started_again_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net").into_os_string().into_string().unwrap();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let mut testnet = Testnet::start(&["--dir", &net]);
        let ready = testnet.ready();
        assert_eq!(ready["dir"], *net);
        addresses.push(ready["replicas"].as_array().unwrap().iter().map(|row| row["peer"].clone()).collect::<Vec<_>>());
        testnet.signal(Signal::TERM);
        assert_eq!(testnet.end().0, Some(0));
    }
    assert_eq!(addresses[0], addresses[1]);
    let mut other = Testnet::start(&["--dir", &net, "--replicas", "7"]);
    assert_eq!(other.end().0, Some(2));
}
