//! The harness of the end-to-end tests: clusters of real processes on the loopback, load on them, and what goes wrong
//! with them. The tests talk to the program as people and scripts do, by its command line (and, for load, its client
//! library), and to its ports as strangers do.
//!
//! | file | holds |
//! | --- | --- |
//! | `program.rs` | the program under test, built once, and one run of it |
//! | `cluster.rs` | a cluster: started, killed, stopped, paused, asked, and gone when it is dropped |
//! | `process.rs` | one replica's process |
//! | `ports.rs` | ports that no other cluster of any test takes |
//! | `relay.rs` | the network between replicas, where a test cuts it |
//! | `load.rs` | writers in the background that remember what was acknowledged |
//! | `status.rs` | what `quorate status --json` says |
//! | `store.rs` | the store by the client library |
//! | `stranger.rs` | somebody who speaks QUIC to a replica and keeps to no rule above it |
//! | `impostor.rs` | somebody with a replica's key and address who keeps to no rule above the transport |
//! | `damage.rs` | rot in files |
//! | `disk.rs` | a disk so small that it gets full |
//! | `power.rs` | a disk on which power fails, and syncs and writes |
//! | `signed.rs` | what replicas recorded of what they signed, and whether it is on their disks |
//! | `draw.rs` | numbers that follow from a seed |
//! | `wait.rs` | waiting for a condition, with a bound |
//!
//! At most two clusters run at a time, whatever the number of test threads: see [`Turn`].

mod cluster;
pub mod damage;
mod disk;
mod draw;
mod impostor;
mod load;
mod ports;
mod power;
mod process;
mod program;
mod relay;
mod signed;
mod status;
mod store;
mod stranger;
mod wait;

use std::io::{self, Write as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub use cluster::{Builder, Cluster};
pub use disk::SmallDisk;
pub use draw::Draw;
pub use impostor::Impostor;
pub use load::{Load, Written};
pub use power::{Forgotten, PowerDisk, Which};
pub use process::{ReplicaProcess, runs};
pub use program::{Finished, program, quorate, start};
pub use relay::Passage;
pub use signed::Signed;
pub use status::{Link, ReplicaStatus, Scrub, Status};
pub use store::Store;
pub use stranger::{Farewell, Stranger};
pub use wait::{LIMIT, wait_until};

/// Clusters and testnets that run at a time: a story waits half of its time, and more than two would starve each other.
const TURNS: usize = 2;

/// The right to use the processors.
#[derive(Debug)]
pub struct Turn {
    _taken: (),
}

/// How many have a turn, and who waits for one.
static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    /// Waits until there are fewer than two other clusters of this process.
    pub fn take() -> Self {
        let mut taken = GIVEN_BACK.wait_while(taken(), |taken| *taken >= TURNS).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self { _taken: () }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *taken() -= 1;
        GIVEN_BACK.notify_one();
    }
}

fn taken() -> MutexGuard<'static, usize> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what a reader of the test's output should know: a measured value, or why a test is skipped.
pub fn say(text: &str) {
    writeln!(io::stderr().lock(), "      {text}").ok();
}
