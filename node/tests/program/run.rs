//! Runs of the program: to the end, or watched meanwhile, each bounded in time.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest that any condition is waited for: tests share the machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// From one look at a condition to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Runs the program in `folder` to its end.
pub(crate) fn quorate(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate")).args(arguments).current_dir(folder).output().unwrap()
}

/// What the program wrote, as text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What the program wrote, which is one line of JSON.
pub(crate) fn json(output: &Output) -> Value {
    assert_eq!(text(&output.stdout).matches('\n').count(), 1, "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A run of the program in a folder of its own, in which its temporary files are, too. Dropped, it is killed.
pub(crate) struct Run {
    child: Child,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    folder: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status; `None` if a signal ended it.
    pub(crate) status: Option<i32>,
    /// The lines that it wrote to stdout and that were not taken before.
    pub(crate) stdout: Vec<String>,
    /// All that it wrote to stderr.
    pub(crate) stderr: String,
}

impl Run {
    /// Starts the program.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(arguments).current_dir(folder.path()).env("TMPDIR", folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, stdout) = channel();
        each_line(child.stdout.take().unwrap(), move |line| drop(sender.send(line)));
        let stderr = Arc::<Mutex<String>>::default();
        let said = Arc::clone(&stderr);
        let reader = each_line(child.stderr.take().unwrap(), move |line| {
            said.lock().unwrap().extend([line.as_str(), "\n"]);
        });
        Self { child, stdout, stderr, reader: Some(reader), folder }
    }

    /// The folder that it works in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits for the next line on stdout, which is JSON.
    pub(crate) fn line(&mut self) -> Value {
        let Ok(line) = self.stdout.recv_timeout(LIMIT) else { panic!("no line: {:?}", self.end()) };
        serde_json::from_str(&line).unwrap()
    }

    /// Waits until stderr holds `text`.
    pub(crate) fn wait_until_said(&self, text: &str) {
        wait_until(text, || self.stderr.lock().unwrap().contains(text));
    }

    /// Processes whose command line names the folder: the replicas of a testnet with a temporary folder.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let folder = self.folder().to_str().unwrap();
        let names_folder = |pid: &Pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(folder)
        };
        let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let pids = names.filter_map(|name| name.parse().ok()).filter_map(Pid::from_raw);
        pids.filter(names_folder).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub(crate) fn end(&mut self) -> Ended {
        wait_until("the program to end", || self.has_ended());
        self.reader.take().unwrap().join().unwrap();
        let stderr = self.stderr.lock().unwrap().clone();
        Ended { status: self.child.wait().unwrap().code(), stdout: self.stdout.iter().collect(), stderr }
    }

    pub(crate) fn assert_left_nothing(&self) {
        assert_eq!(self.processes(), []);
        assert_eq!(names(self.folder()), [""; 0]);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads on a thread of its own: a full pipe would hold the program up.
fn each_line(pipe: impl Read + Send + 'static, mut act: impl FnMut(String) + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).for_each(&mut act))
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Whether a process runs.
pub(crate) fn runs(pid: Pid) -> bool {
    // One that ended but was not waited for yet is still listed.
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !state.contains(") Z ")
}

/// What is in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
