//! What a world is made of, and what is counted in it.

use core::time::Duration;

use crate::clock::ClockOptions;
use crate::disk::DiskOptions;
use crate::network::LinkOptions;
use crate::random::{Chance, Delay};

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub struct WorldOptions {
    /// The links.
    pub link: LinkOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// The clocks.
    pub clock: ClockOptions,
    /// How long the application takes for a slot, a checkpoint or a state that is transferred.
    pub work: Delay,
    /// Most entries in a part of a transferred state.
    pub part_entries_max: usize,
    /// Whether hosts ask a replica if a message may still matter, and drop it unchecked if not.
    pub drops_unwanted: bool,
    /// How many messages of attackers arrive with a byte changed.
    pub garbled: Chance,
    /// Clients, each with a key of its own.
    pub clients: usize,
    /// Bit i: there is a standby beside member i.
    pub standbys: u32,
    /// Entries of the state that the cluster begins with; none, for the empty one.
    pub founded: u32,
    /// How long a call may take at most once nothing goes wrong any more.
    pub answer_bound: Duration,
    /// Whether all that happens is kept, to draw a page from.
    pub is_traced: bool,
    /// How many of the latest happenings an account lists; zero spares writing them down.
    pub history: usize,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            link: LinkOptions::default(),
            disk: DiskOptions::default(),
            clock: ClockOptions::default(),
            work: Delay::microseconds(20, 100),
            part_entries_max: 16,
            drops_unwanted: false,
            garbled: Chance::NEVER,
            clients: 4,
            standbys: 0,
            founded: 0,
            answer_bound: Duration::from_mins(1),
            is_traced: false,
            history: 0,
        }
    }
}

/// What has happened so far, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorldCounts {
    /// Steps.
    pub steps: u64,
    /// Messages between replicas, and between clients and replicas, that arrived and were handled.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Slots executed, over all replicas.
    pub executed: u64,
    /// Messages that arrived and were found invalid.
    pub refused: u64,
    /// Crashes.
    pub crashes: u64,
    /// Views entered, over all correct replicas.
    pub views_entered: u64,
    /// The highest view that a correct replica entered.
    pub highest_view: u64,
    /// States transferred.
    pub transfers: u64,
}
