//! The program under test, built once, and one run of it.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::wait_until;

/// Names a program to test instead of building one.
const PROGRAM_VARIABLE: &str = "QUORATE_BIN";

/// How the variables begin by which Cargo tells a test of its package.
const OF_A_PACKAGE: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"];

/// Longest that a run of the program may take.
const RUN_LIMIT: Duration = Duration::from_mins(2);

/// The program. The package of the tests is not the program's, so Cargo does not say where it is: it is built here, with
/// the profile and into the folder of the test that runs, as part of the workspace, most of which is built by then.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let given = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
        let program = given.unwrap_or_else(build);
        assert!(program.is_file(), "{} is no program; {PROGRAM_VARIABLE} can name one", program.display());
        program
    });
    &PROGRAM
}

/// Tests lie in `<target>/<profile>/deps`.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.ancestors().nth(2).expect("Cargo puts tests two folders deep into the target folder");
    let is_release = folder.file_name() == Some(OsStr::new("release"));
    let target = folder.parent().expect("the profile's folder lies in the target folder");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bin", "quorate", "--target-dir"]).arg(target);
    if is_release {
        cargo.arg("--release");
    }
    // What Cargo tells this test of its own package would have build scripts run again that look at such, and all that depends
    // on them built anew, now and at the next run of the tests.
    for (name, _) in std::env::vars_os() {
        if OF_A_PACKAGE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("Cargo runs tests, so it is there");
    assert!(status.success(), "the program does not build");
    folder.join("quorate")
}

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Stdout as text.
    ///
    /// # Panics
    /// If it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the program writes text unless it is told otherwise")
    }

    /// Stdout as one line of JSON.
    ///
    /// # Panics
    /// If it is something else.
    pub fn json(&self) -> Value {
        assert_eq!(self.text().lines().count(), 1, "not one line: {self:?}");
        serde_json::from_slice(&self.stdout).expect("it was asked for JSON")
    }

    /// Stdout as lines of JSON.
    ///
    /// # Panics
    /// If it is something else.
    pub fn json_lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("it was asked for JSON")).collect()
    }
}

/// Starts `quorate` with `arguments`; what it writes is the caller's to read.
///
/// # Panics
/// If the program cannot be started.
pub fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `quorate` with `arguments` to its end.
///
/// # Panics
/// If it cannot be started, or does not end within two minutes.
pub fn quorate<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Finished {
    finish(start(arguments).spawn().expect("the program starts"))
}

/// Reads what a process writes, and waits for its end.
fn finish(mut child: Child) -> Finished {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.as_mut().map(|pipe| pipe.read_to_end(&mut bytes));
        bytes
    });
    let err = thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.as_mut().map(|pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut ended = None;
    wait_until("the program to end", RUN_LIMIT, || {
        ended = child.try_wait().expect("a child can be waited for");
        ended.is_some()
    });
    let stdout = out.join().expect("reading a pipe does not panic");
    let stderr = err.join().expect("reading a pipe does not panic");
    Finished { status: ended.and_then(|status| status.code()), stdout, stderr }
}
