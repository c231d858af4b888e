//! The node of Quorate: everything around the protocol's core that touches sockets, disks, clocks and people.
//!
//! | file | holds |
//! | --- | --- |
//! | `configuration.rs` | the files of a cluster: genesis, replica, client, keys; and founding one |
//! | `host.rs` | one running replica |
//! | `recording.rs`, `replay.rs` | what its core was fed with, kept; and fed to another |
//! | `backup.rs` | a checkpoint in one file: taking it, checking it, restoring from it |
//! | `inspect.rs` | what stands in the folder of one that is stopped |
//! | `lab.rs` | a replica that plays attacks |
//! | `client.rs` | the client library |
//! | `bench.rs` | the load generator |
//! | `cli.rs` | the command line |
//! | `error.rs` | the report that a person reads when something failed |
//! | `fuzz.rs` | what reads bytes from outside, fed with any; built for tests and fuzzers alone |

pub mod backup;
pub mod bench;
mod certificates;
pub mod cli;
pub mod client;
pub mod configuration;
pub mod error;
pub mod forensics;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod host;
pub mod inspect;
#[cfg(feature = "lab")]
mod lab;
pub mod recording;
pub mod replay;
pub mod storage;
pub mod transport;
