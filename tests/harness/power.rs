//! A disk on which power fails: a file system, held in memory, that knows of every byte and name whether it was synced. At a
//! power cut it forgets what was not, or keeps a part of it, as a seed says; syncs and writes can be made to fail, too.
//!
//! It is mounted by way of FUSE, so it sees whatever a process does to its files by whichever call. What it cannot follow it
//! refuses: files are opened past the page cache, which leaves no shared mappings that can be written to. Needs the right to
//! mount.
//!
//! | file | holds |
//! | --- | --- |
//! | `content.rs` | the bytes of a file |
//! | `file.rs` | a file, and what of it is not synced |
//! | `tree.rs` | files, folders and names, and which of those are not synced |
//! | `mount.rs` | the calls of the system |

mod content;
mod file;
mod mount;
mod tree;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fuser::BackgroundSession;
use rustix::io::Errno;

pub use self::file::Forgotten;
use self::tree::{Number, Tree};
use crate::disk::say_skipped;
use crate::draw::Draw;

/// Something that a process does to what is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write(Number),
    Length(Number),
    Name(Number),
    Sync(Number),
    SyncFolder(Number),
}

impl Operation {
    const fn about(self) -> Number {
        let (Self::Write(number)
        | Self::Length(number)
        | Self::Name(number)
        | Self::Sync(number)
        | Self::SyncFolder(number)) = self;
        number
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Write(_) => "write to",
            Self::Length(_) => "set the length of",
            Self::Name(_) => "change a name in",
            Self::Sync(_) | Self::SyncFolder(_) => "sync",
        }
    }
}

/// Which operations count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All that change something, and syncs.
    All,
    /// Changes of names, and syncs of folders.
    Names,
    /// Writes.
    Writes,
    /// Syncs of files.
    Syncs,
    /// Syncs of folders.
    SyncsOfFolders,
}

impl Which {
    const fn counts(self, operation: Operation) -> bool {
        match self {
            Self::All => true,
            Self::Names => matches!(operation, Operation::Name(_) | Operation::SyncFolder(_)),
            Self::Writes => matches!(operation, Operation::Write(_)),
            Self::Syncs => matches!(operation, Operation::Sync(_)),
            Self::SyncsOfFolders => matches!(operation, Operation::SyncFolder(_)),
        }
    }
}

/// What waits for an operation.
struct Trap {
    which: Which,
    /// Operations that pass before it.
    left: u64,
    then: Then,
}

enum Then {
    /// Power fails.
    Cut,
    /// The operation fails, and so do all that follow, if the disk is broken for good.
    Fail { for_good: bool, tell: Box<dyn FnOnce() + Send> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Whoever asks for something gets no answer.
    Cut,
    /// Whoever asks for something is told that there is no disk.
    Off,
}

struct State {
    tree: Tree,
    power: Power,
    trap: Option<Trap>,
    /// What failed first since the disk was switched on.
    failed: Option<String>,
    is_broken: bool,
    draw: Draw,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the tree, as long as there is power.
    fn look<T>(&self, look: impl FnOnce(&mut Tree) -> Result<T, Errno>) -> Result<T, Errno> {
        look(&mut self.powered()?.tree)
    }

    fn powered(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.lock();
        while state.power == Power::Cut {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.power == Power::Off { Err(Errno::IO) } else { Ok(state) }
    }

    /// Does something to the tree, unless power or the disk fails.
    fn change<T>(&self, operation: Operation, change: impl FnOnce(&mut Tree) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.powered()?;
        let State { tree, trap, failed, is_broken, draw, .. } = &mut *state;
        let sprung = trap.take_if(|trap| {
            let counts = trap.which.counts(operation);
            let is_sprung = counts && trap.left == 0;
            trap.left -= u64::from(counts && !is_sprung);
            is_sprung
        });
        match sprung.map(|trap| trap.then) {
            None if *is_broken => Err(Errno::IO),
            None => change(tree),
            Some(Then::Fail { for_good, tell }) => {
                *is_broken = for_good;
                *failed = Some(format!("{} {}", operation.verb(), tree.path_of(operation.about())));
                if let Operation::Sync(number) = operation {
                    tree.file(number)?.fail_sync(draw);
                }
                tell();
                Err(Errno::IO)
            }
            Some(Then::Cut) => {
                // What was under way has reached the cache, or the disk, in part; a sync has done nothing yet.
                if !matches!(operation, Operation::Sync(_) | Operation::SyncFolder(_)) {
                    change(tree).map(drop)?;
                }
                state.power = Power::Cut;
                drop(state);
                self.powered().and(Err(Errno::IO))
            }
        }
    }

    fn set_power(&self, power: Power) {
        self.lock().power = power;
        self.changed.notify_all();
    }
}

/// Ends a mount when the process that serves it is gone: one that is killed while it uses its own disk would wait for its own
/// answer for ever.
const GUARD: &str = r#"
while grep -qs '^State:[[:space:]]*[DIRSTt]' "/proc/$1/status"; do sleep 1; done
umount -f "$2" || umount -l "$2"
"#;

/// The process that does so.
struct Guard(Child);

impl Guard {
    fn of(path: &Path) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard", &std::process::id().to_string()]).arg(path);
        // Whoever ends the test and all that it started is to leave this one alone.
        command.process_group(0);
        // And whoever waits for the test's output to end is not to wait for it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A disk on which power fails, mounted until it is dropped.
pub struct PowerDisk {
    path: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    _guard: Guard,
}

impl std::fmt::Debug for PowerDisk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PowerDisk").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PowerDisk {
    /// Mounts one at the folder `path`, with all that stood there before, durable. `None` where this machine does not do
    /// that for us: the story cannot be told then, which is counted and said.
    ///
    /// # Panics
    /// If the folder is not there, or cannot be moved or copied.
    pub fn mount(path: &Path) -> Option<Self> {
        let before = path.with_extension("before");
        fs::rename(path, &before).expect("the folder can be moved");
        fs::create_dir(path).expect("the folder can be made");
        let state = State {
            tree: Tree::new(),
            power: Power::On,
            trap: None,
            failed: None,
            is_broken: false,
            draw: Draw::of(0),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        match mount::mount(path, &shared).and_then(|session| Ok((session, Guard::of(path)?))) {
            Ok((session, guard)) => {
                let disk = Self { path: path.to_owned(), shared, session: Some(session), _guard: guard };
                copy(&before, path).expect("a new disk takes all");
                disk.shared.lock().tree.sync();
                Some(disk)
            }
            Err(error) => {
                say_skipped("FUSE, and the right to mount", &error.to_string());
                None
            }
        }
    }

    /// Has power fail at an operation: after so many others that count.
    pub fn cut_after(&self, which: Which, operations: u64) {
        self.shared.lock().trap = Some(Trap { which, left: operations, then: Then::Cut });
    }

    /// Has power fail now, unless it has failed before.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.trap = None;
        state.power = Power::Cut;
    }

    /// Whether power has failed.
    pub fn is_cut(&self) -> bool {
        self.shared.lock().power == Power::Cut
    }

    /// After a cut, and when the process is killed: the disk forgets what was not synced, as the seed says. Whoever still
    /// waits for an answer is told that there is no disk, until it is switched on.
    ///
    /// # Panics
    /// If power has not failed.
    pub fn forget(&self, seed: u64) -> Forgotten {
        let mut state = self.shared.lock();
        assert!(state.power == Power::Cut, "what is forgotten follows from a cut");
        let forgotten = state.tree.forget(&mut Draw::of(seed));
        drop(state);
        self.shared.set_power(Power::Off);
        forgotten
    }

    /// Power is back, and the disk in order.
    pub fn switch_on(&self) {
        let mut state = self.shared.lock();
        (state.trap, state.failed, state.is_broken) = (None, None, false);
        drop(state);
        self.shared.set_power(Power::On);
    }

    /// The disk is gone: whoever asks for something, and whoever waits, is told so.
    pub fn switch_off(&self) {
        self.shared.set_power(Power::Off);
    }

    /// Has an operation fail, after so many others that count; and all that follow, if the disk is then broken for good.
    /// `tell` is called before the process hears of it. What a failed sync loses follows from the seed.
    pub fn fail_after(
        &self,
        which: Which,
        operations: u64,
        for_good: bool,
        seed: u64,
        tell: impl FnOnce() + Send + 'static,
    ) {
        let mut state = self.shared.lock();
        state.draw = Draw::of(seed);
        state.trap = Some(Trap { which, left: operations, then: Then::Fail { for_good, tell: Box::new(tell) } });
    }

    /// What failed.
    pub fn failed(&self) -> Option<String> {
        self.shared.lock().failed.clone()
    }

    /// How many changes are not synced.
    pub fn unsynced(&self) -> usize {
        self.shared.lock().tree.unsynced()
    }

    fn unmount(&mut self) -> io::Result<()> {
        // Whoever waits would hold the end up.
        self.switch_off();
        self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join)
    }
}

/// Copies all that stands in a folder into another.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir(&copied)?;
            copy(&path, &copied)?;
        } else {
            fs::copy(&path, &copied)?;
        }
    }
    Ok(())
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // A process that has not ended yet has something open.
            Command::new("umount").arg("--lazy").arg(&self.path).status().ok();
        }
    }
}

#[cfg(test)]
mod tests;
