//! Bulkheads between the threads of a replica on a machine that has less than it wants: votes and heartbeats go first.

/// How much less urgent than votes the application's thread is, and the one that makes its checkpoints durable: what they
/// are behind is bounded, and waits. The two are equal: a checkpoint that is late keeps slots in memory and the window full.
pub(super) const EXECUTION: i32 = 4;

/// The same of what only has to be done some time: merging the store's tables.
pub(super) const BACKGROUND: i32 = 10;

/// Makes the calling thread, and those that it starts, give way to others by so many steps of `nice`. Where the system
/// refuses, it stays as it is.
pub(super) fn give_way(steps: i32) {
    if let Err(error) = rustix::process::nice(steps) {
        tracing::debug!(%error, "the priority of a thread stays as it is");
    }
}
