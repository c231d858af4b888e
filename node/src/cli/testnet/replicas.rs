//! The processes of a testnet: started together, watched, and stopped together.
//!
//! Each is in a process group of its own, so that Ctrl-C on the terminal reaches the supervisor alone, which then stops
//! them in order. Each asks the kernel to be ended with the thread that started it.

use std::fs::{File, OpenOptions};
use std::future::{Future as _, poll_fn};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use quorate_protocol::number::ReplicaId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::cli::signals::StopSignals;
use crate::error::Problem;

/// How long all replicas may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long replicas may take to stop before they are killed: longer than they give themselves.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long the kernel may take to end a process that closed its stdout or was killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Bytes at the end of a log among which its last lines are looked for.
const TAIL_BYTES: u64 = 4096;

/// Lines of a log that are shown.
const TAIL_LINES: usize = 6;

/// A replica that is to be started.
#[derive(Debug)]
pub(super) struct Launch {
    /// Which one.
    pub(super) id: ReplicaId,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// Options besides the folder.
    pub(super) options: Vec<String>,
}

/// The replicas that run. Dropping them kills them.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    id: ReplicaId,
    child: Child,
    /// What it says on stdout, until it is ready.
    said: Option<Lines<BufReader<ChildStdout>>>,
    log: Log,
}

/// What a replica writes to stderr goes to a file; an earlier run's part of it is not ours to show.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    start: u64,
}

/// A replica that ended, or did nothing, before it was ready.
#[derive(Debug)]
pub(super) struct Early {
    /// Which one.
    pub(super) id: ReplicaId,
    what: String,
    log: PathBuf,
    tail: Vec<String>,
}

impl Early {
    /// What the reader is told of it.
    pub(super) fn into_problem(self) -> Problem {
        let Self { id, what, log, tail } = self;
        let what = if tail.is_empty() {
            format!("replica {id} {what} and wrote nothing to {}", log.display())
        } else {
            format!("replica {id} {what}; the last it wrote to {}:\n    {}", log.display(), tail.join("\n    "))
        };
        Problem::failed(what, "mend what its log says; -v makes it say more, --dir keeps it")
    }
}

impl Replicas {
    /// Starts a replica and gives its process id.
    pub(super) fn launch(&mut self, launch: Launch) -> anyhow::Result<u32> {
        let Launch { id, folder, options } = launch;
        let path = folder.join("replica.log");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let start = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(&program);
        command.arg("replica").arg("--dir").arg(&folder);
        command.arg("--exit-with-parent").arg(std::process::id().to_string()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let process = child.id().unwrap_or_default();
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        self.running.push(Running { id, child, said, log: Log { path, start } });
        Ok(process)
    }

    /// Waits until every replica said that it is ready.
    pub(super) async fn all_ready(&mut self) -> Result<(), Early> {
        let limit = Instant::now() + READY_LIMIT;
        for running in &mut self.running {
            running.ready(limit).await?;
        }
        Ok(())
    }

    /// Reports every replica that ends. Gives the reason to end when none is left.
    pub(super) async fn watch(&mut self) -> Problem {
        while let Some((ended, status)) = self.next_end().await {
            ended.report(status);
        }
        Problem::failed("every replica has ended", "read their logs; with --dir they are kept")
    }

    /// Asks every replica to stop, waits, and kills those that don't, or all when a signal asks for haste. Reports those
    /// that had ended by themselves, or end otherwise than they were asked to.
    pub(super) async fn stop(&mut self, signals: &mut StopSignals) {
        self.report_ended();
        for running in &self.running {
            // One that ended by itself has no id any more; one that just ends can't be sent anything.
            if let Some(pid) = running.pid() {
                kill_process(pid, Signal::TERM).ok();
            }
        }
        tokio::select! {
            outcome = timeout(STOP_LIMIT, self.all_stopped()) => if outcome.is_err() {
                tracing::warn!("{} replicas did not stop within {} s: killed", self.running.len(), STOP_LIMIT.as_secs());
            },
            signal = signals.next() => tracing::warn!("{signal} again: replicas are killed"),
        }
        for running in &mut self.running {
            running.child.start_kill().ok();
        }
        if timeout(END_LIMIT, self.all_ended()).await.is_err() {
            tracing::error!("{} killed replicas are still there", self.running.len());
        }
    }

    /// Reports the replicas that have ended. The kernel is asked: the runtime may not have been told yet.
    fn report_ended(&mut self) {
        for position in (0..self.running.len()).rev() {
            let running = &mut self.running[position];
            // One that was waited for has no process any more, and its end is known.
            let is_known = running.pid().is_none();
            let Some(status) = running.child.try_wait().transpose() else { continue };
            let ended = self.running.swap_remove(position);
            if !is_known {
                ended.report(status);
            }
        }
    }

    /// Waits until all that were asked to stop have ended. One may have been about to end by itself.
    async fn all_stopped(&mut self) {
        while let Some((ended, status)) = self.next_end().await {
            if is_stop(&status) { ended.note(status) } else { ended.report(status) }
        }
    }

    async fn all_ended(&mut self) {
        while let Some((ended, status)) = self.next_end().await {
            ended.note(status);
        }
    }

    /// Waits for any replica's end; `None` when none runs.
    async fn next_end(&mut self) -> Option<(Running, io::Result<ExitStatus>)> {
        if self.running.is_empty() {
            return None;
        }
        let (position, status) = poll_fn(|context| {
            let ended = self.running.iter_mut().enumerate().find_map(|(position, running)| {
                match pin!(running.child.wait()).poll(context) {
                    Poll::Ready(status) => Some((position, status)),
                    Poll::Pending => None,
                }
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        Some((self.running.swap_remove(position), status))
    }
}

impl Running {
    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    async fn ready(&mut self, limit: Instant) -> Result<(), Early> {
        let Some(mut said) = self.said.take() else { return Ok(()) };
        loop {
            match timeout_at(limit, said.next_line()).await {
                Ok(Ok(Some(line))) if line == "ready" => break,
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => {
                    let status = timeout(END_LIMIT, self.child.wait()).await;
                    return Err(self.early(status.map_or_else(|_| "closed its stdout".to_owned(), describe)));
                }
                Err(_) => return Err(self.early(format!("was not ready after {} s", READY_LIMIT.as_secs()))),
            }
        }
        // A pipe that nobody reads would block the replica one day, and one that is closed would fail it.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        Ok(())
    }

    /// Says that it ended although nobody asked it to.
    fn report(&self, status: io::Result<ExitStatus>) {
        let (status, tail) = (describe(status), self.log.tail().join(" | "));
        tracing::error!(log = %self.log.path.display(), "replica {} {status}; its log ends: {tail}", self.id);
    }

    fn note(&self, status: io::Result<ExitStatus>) {
        tracing::debug!("replica {} {}", self.id, describe(status));
    }

    fn early(&self, what: String) -> Early {
        Early { id: self.id, what, log: self.log.path.clone(), tail: self.log.tail() }
    }
}

impl Log {
    /// The last lines of this run; none if they cannot be read.
    fn tail(&self) -> Vec<String> {
        tail(&self.path, self.start).unwrap_or_default()
    }
}

fn tail(path: &Path, start: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(start)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    Ok(lines.into_iter().rev().take(TAIL_LINES).rev().collect())
}

/// Whether a replica that was asked to stop ends like this: cleanly, or before it listened.
fn is_stop(status: &io::Result<ExitStatus>) -> bool {
    let is_terminated = |status: &ExitStatus| status.signal() == Some(Signal::TERM.as_raw());
    status.as_ref().is_ok_and(|status| status.success() || is_terminated(status))
}

fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("cannot be waited for: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    /// Longest that a process is waited for: tests share the machine.
    const LIMIT: Duration = Duration::from_mins(1);

    impl Replicas {
        /// Lets a shell play the next replica, until it did what it says beforehand.
        fn play(&mut self, script: &str, is_done: impl Fn(&str) -> bool) {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
            let child = command.spawn().unwrap();
            let (process, start) = (child.id().unwrap(), Instant::now());
            // Nothing is awaited here: the runtime is not told what becomes of the process.
            while !is_done(&fs::read_to_string(format!("/proc/{process}/status")).unwrap()) {
                assert!(start.elapsed() < LIMIT, "waited in vain for `{script}`");
                thread::yield_now();
            }
            let id = ReplicaId::new(u8::try_from(self.running.len()).unwrap());
            self.running.push(Running { id, child, said: None, log: Log { path: "none".into(), start: 0 } });
        }
    }

    fn is_asleep(status: &str) -> bool {
        status.starts_with("Name:\tsleep\n")
    }

    fn has_ended(status: &str) -> bool {
        status.contains("State:\tZ")
    }

    /// The kernel lists the signals with a handler as bits of a hexadecimal number, SIGHUP the lowest.
    fn handles_term(status: &str) -> bool {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 << 14 != 0)
    }

    /// What is logged as an error while `replicas` are stopped.
    fn errors_of_stop(act: impl FnOnce(&mut Replicas)) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Mutex::new(file.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_ansi(false);
        let _guard = tracing::subscriber::set_default(subscriber.with_writer(writer).finish());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut replicas = Replicas::default();
            act(&mut replicas);
            replicas.stop(&mut StopSignals::listen().unwrap()).await;
            assert!(replicas.running.is_empty());
        });
        fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn a_replica_that_had_ended_by_itself_is_reported_when_the_stop_comes_first() {
        let said = errors_of_stop(|replicas| {
            replicas.play("exec sleep 60", is_asleep);
            replicas.play("kill -9 $$", has_ended);
            replicas.play("exit 0", has_ended);
        });
        assert!(said.contains("replica 1 ended with signal: 9"), "{said}");
        assert!(said.contains("replica 2 ended with exit status: 0"), "{said}");
        assert!(!said.contains("replica 0"), "{said}");
    }

    #[test]
    fn a_replica_that_ends_otherwise_than_it_was_asked_to_is_reported() {
        let said = errors_of_stop(|replicas| {
            replicas.play("trap 'exit 3' TERM; while :; do sleep 0.01; done", handles_term);
        });
        assert!(said.contains("replica 0 ended with exit status: 3"), "{said}");
    }

    #[test]
    fn the_end_of_a_log_is_that_of_this_run_and_of_few_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.log");
        fs::write(&path, "earlier\none\ntwo\n").unwrap();
        assert_eq!(tail(&path, 8).unwrap(), ["one", "two"]);
        assert_eq!(tail(&path, 16).unwrap(), Vec::<String>::new());
        fs::write(&path, "line\n".repeat(10_000)).unwrap();
        assert_eq!(tail(&path, 0).unwrap(), ["line"; TAIL_LINES]);
    }
}
