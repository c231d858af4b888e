//! A disk so small that it gets full. Needs the right to mount.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is written at once to fill it.
const CHUNK: [u8; 4096] = [7; 4096];

/// A file system in memory, gone on drop.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of `bytes` at `path`, which is made.
    ///
    /// # Errors
    /// Why this machine does not do that for us.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let options = format!("size={bytes},mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "quorate-test"]).arg(path).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            Ok(Self { path: path.to_owned() })
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
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

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.path).status().ok();
    }
}
