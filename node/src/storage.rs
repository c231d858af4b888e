//! What a replica keeps on its disk: the write-ahead log and the checkpoint store (PROTOCOL §5, §9).
//!
//! - [`lock`]: one process a folder.
//! - [`log`]: the write-ahead log: append, group commit, cut. Its parts: [`frame`] and [`segment`] are the format, byte by
//!   byte; `scan` reads one segment back, `recovery` a whole folder, `missing` accounts for what is not there; [`reading`]
//!   looks after what is durable while the log is written; `writer` is
//!   the thread that takes from the `queue` and writes and syncs a `group`, `supply` the one that prepares segments
//!   ahead; `disk` is the seam at which tests let writes and syncs fail.
//! - [`checkpoint`]: the state at the latest checkpoint, in an embedded store.
//!
//! Records are opaque here: what a vote is, the protocol knows. Nothing in this module is `async`; the host talks to the
//! log's thread through a bounded queue and hears from it through a callback.

pub mod checkpoint;
mod disk;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group;
pub mod lock;
pub mod log;
mod missing;
mod queue;
pub mod reading;
mod recovery;
mod scan;
pub mod segment;
mod supply;
mod writer;

pub use checkpoint::CheckpointStore;
pub use lock::FolderLock;
pub use log::Log;

#[cfg(test)]
mod log_tests;
