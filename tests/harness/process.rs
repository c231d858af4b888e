//! One replica's process: started, waited for, signalled, and killed at the latest when this is dropped.
//!
//! The kernel ends a replica with the thread that started it, so clusters stay on the thread of their test.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::program::start;
use crate::wait_until;

/// Longest that a replica may take until it is ready.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// Longest that a replica may take to end when it was asked to, or was killed.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Lines of its log that are shown when a test fails.
const TAIL_LINES: usize = 20;

/// A replica that runs.
#[derive(Debug)]
pub struct ReplicaProcess {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl ReplicaProcess {
    /// Starts the replica of `folder`, with more options; what it logs is appended to `replica.log` there.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn launch(folder: &Path, options: &[String]) -> Self {
        let log = folder.join("replica.log");
        let stderr: File =
            OpenOptions::new().create(true).append(true).open(&log).expect("the replica's folder can be written to");
        let parent = std::process::id().to_string();
        let mut command = start(["replica", "--exit-with-parent", &parent, "--dir"]);
        let mut child = command.arg(folder).args(options).stderr(stderr).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = channel();
        // Reads on when nobody listens any more: a full pipe would hold the replica up.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines, log }
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// If it ends before, says something else, or nothing in time.
    pub fn wait_ready(&mut self) {
        match self.lines.recv_timeout(READY_LIMIT) {
            Ok(line) => assert_eq!(line, "ready"),
            Err(RecvTimeoutError::Timeout) => assert_eq!("not ready in time", "", "{}", self.log_tail()),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait();
                assert_eq!(format!("ended with {status}"), "", "{}", self.log_tail());
            }
        }
    }

    /// Whether it has just said that it is ready. Does not wait.
    pub fn is_ready(&self) -> bool {
        self.lines.try_recv().is_ok_and(|line| line == "ready")
    }

    /// The process's number.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Sends it a signal; no effect on one that has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).ok();
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.wait();
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("a replica to end", END_LIMIT, || {
            ended = self.child.try_wait().expect("a child can be waited for");
            ended.is_some()
        });
        ended.expect("it was waited for")
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for ReplicaProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The last lines of a log.
pub(crate) fn log_tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Whether a process runs: one that ended and was not waited for does not.
pub fn runs(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !state.contains(") Z ")
}
