//! A replica's disk: a write-ahead log and a store of checkpoints, both slow, both honest about what is durable, unless the log
//! is told to lie.
//!
//! What was written but not synced is lost in a crash, but for a part of it that chance decides. (PROTOCOL §1, §9)

pub mod checkpoints;
pub mod log;
pub mod staged;

use core::time::Duration;

use quorate_protocol::configuration::Configuration;

use crate::random::{Chance, Delay, Random};

pub use checkpoints::{CheckpointStore, State};
pub use log::Log;
pub use staged::Staged;

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// How long a sync of the log takes, however much it covers.
    pub sync: Delay,
    /// How long it takes to make a checkpoint durable.
    pub store: Delay,
    /// How often a crash tears the first record that was not synced, rather than losing it.
    pub torn: Chance,
    /// How many records a segment of the log holds: it is cut by whole segments. At least one.
    pub segment_records: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            sync: Delay::microseconds(50, 200),
            store: Delay::microseconds(500, 2_000),
            torn: Chance::percent(80),
            segment_records: 16,
        }
    }
}

/// A disk, which outlives the replicas that are started on it.
#[derive(Debug)]
pub struct Disk {
    /// The write-ahead log.
    pub log: Log,
    /// The checkpoints.
    pub checkpoints: CheckpointStore,
    /// What was fetched of a state that is not whole yet.
    pub staged: Staged,
    options: DiskOptions,
    is_stalled: bool,
    is_sync_failing: bool,
    /// What was durable when a copy was made.
    copy: Option<Box<(Log, CheckpointStore)>>,
}

/// How long a stalled disk makes everybody wait: for ever, as far as a simulation goes.
const STALLED: Duration = Duration::from_secs(1 << 30);

impl Disk {
    /// An empty disk.
    pub fn new(options: DiskOptions) -> Self {
        Self {
            log: Log::new(options.segment_records),
            checkpoints: CheckpointStore::default(),
            staged: Staged::default(),
            options,
            is_stalled: false,
            is_sync_failing: false,
            copy: None,
        }
    }

    /// All that was on it is gone, and its machine is down.
    pub fn lose(&mut self) {
        self.log = Log::gone(self.options.segment_records);
        self.checkpoints = CheckpointStore::default();
        self.staged = Staged::default();
    }

    /// Makes a copy of what is durable.
    pub fn keep(&mut self) {
        self.copy = Some(Box::new((self.log.durable(), self.checkpoints.durable_only())));
    }

    /// Puts the copy in the place of the disk, whose machine is down: whether there is one.
    pub fn roll_back(&mut self) -> bool {
        let Some((log, checkpoints)) = self.copy.as_deref() else { return false };
        self.log = log.durable();
        self.checkpoints = checkpoints.durable_only();
        true
    }

    /// What is durable on another disk takes the place of what is on this one, whose machine is down.
    pub fn take_over(&mut self, other: &Self) {
        self.log = other.log.durable();
        self.checkpoints = other.checkpoints.durable_only();
        self.staged = Staged::default();
    }

    /// Makes the disk as slow as `options` say; the size of segments stays.
    pub fn set_options(&mut self, options: DiskOptions) {
        self.options = options;
    }

    /// From now on no sync ends, until the disk is freed or the machine crashes.
    pub fn stall(&mut self) {
        self.is_stalled = true;
    }

    /// The next sync that ends fails.
    pub fn fail_sync(&mut self) {
        self.is_sync_failing = true;
    }

    /// From now on syncs of the log end at once with success, as from a cache that power does not outlast: a crash loses all
    /// that was synced since.
    pub fn lie_about_syncs(&mut self) {
        self.log.lie();
    }

    /// From now on the disk is as fast as others, no sync fails that was to, and syncs are what they say: what was said to be
    /// durable before is. A stall ends only with a crash.
    pub fn mend(&mut self) {
        self.options = DiskOptions::default();
        self.is_sync_failing = false;
        self.log.be_honest();
    }

    /// Whether the sync that ends now fails.
    pub(crate) fn take_failing_sync(&mut self) -> bool {
        core::mem::take(&mut self.is_sync_failing)
    }

    /// Whether no sync ends.
    pub const fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// How long the sync that begins now takes.
    pub fn sync_delay(&self, random: &mut Random) -> Duration {
        if self.is_stalled { STALLED } else { random.delay(self.options.sync) }
    }

    /// How long the checkpoint that is written from now on takes.
    pub fn store_delay(&self, random: &mut Random) -> Duration {
        if self.is_stalled { STALLED } else { random.delay(self.options.store) }
    }

    /// The machine loses power.
    pub fn crash(&mut self, random: &mut Random, configuration: &Configuration) {
        self.log.crash(self.options.torn, random, configuration);
        self.checkpoints.crash();
        self.staged.crash(random);
        self.is_stalled = false;
        self.is_sync_failing = false;
    }
}
