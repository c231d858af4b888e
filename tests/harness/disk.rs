//! A disk so small that it gets full. Needs the right to mount.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::say;

/// What is written at once to fill it.
const CHUNK: [u8; 4096] = [7; 4096];

/// A file system in memory, gone on drop.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of `bytes` at `path`, which is made. `None` where this machine does not do that for us: the story
    /// cannot be told then, which is counted and said.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn mount(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(path).expect("the folder can be made");
        let options = format!("size={bytes},mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "quorate-test"]).arg(path).output();
        let refused = match output {
            Ok(output) if output.status.success() => return Some(Self { path: path.to_owned() }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        };
        say_skipped("the right to mount", &refused);
        None
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// If the file that does so cannot be made.
    pub fn fill(&self) {
        let file = OpenOptions::new().create(true).append(true).open(self.ballast());
        let mut file = file.expect("an entry in a folder takes no room");
        while file.write_all(&CHUNK).is_ok() {}
    }

    /// Makes room again.
    ///
    /// # Panics
    /// If there is nothing to remove.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it was filled before");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

/// Says that a story cannot be told on this machine, and how many were not.
pub(crate) fn say_skipped(needed: &str, refused: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // A test's thread has its name.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    say(&format!("SKIPPED, NOT TESTED ({count} so far): {test} needs {needed}: {refused}"));
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.path).status().ok();
    }
}
