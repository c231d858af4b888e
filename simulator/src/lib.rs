//! A whole cluster in one thread from one seed: network, disks, clocks, clients and checkers around the real core.
//!
//! | file | holds |
//! | --- | --- |
//! | `cluster.rs` | [`Cluster`]: the language of tests |
//! | `world.rs` | [`world::World`]: the queue of events, and a step |
//! | `network.rs` | [`network::Network`]: delay, loss, duplication, reordering, partitions, filters |
//! | `disk.rs` | [`disk::Disk`]: write-ahead log and checkpoints; what a crash leaves of them |
//! | `clock.rs` | [`clock::Clock`]: offset and drift of a machine's clocks |
//! | `host.rs` | what a machine does for the replica that runs on it; `parts.rs`: how it cuts a state into parts |
//! | `client.rs` | a client on its host: the real state machine, and tests' tickets |
//! | `signature.rs` | [`signature::Notary`]: ideal or real signatures |
//! | `random.rs` | [`random::Random`]: all chance, from one seed |
//! | `checker.rs`, `checker/` | [`checker::Checkers`]: the invariants of PROTOCOL §2, a file each |
//! | `marks.rs`, `spotter.rs` | [`marks::Mark`]: what a run came to, and who sees it |
//! | `costs.rs` | [`costs::table`]: what an operation costs, in messages, bytes, signatures and syncs |
//! | `statement.rs` | what a replica signed, reduced to what may not be said twice |
//! | `adversary.rs`, `adversary/` | a machine in a replica's place, and its attacks, by name or as a script |
//! | `twins.rs`, `twins/` | two copies of one replica, parted in every way: every scenario of three rounds |
//! | `model.rs`, `model/` | the model check (feature `model`): every order of events of a small cluster |
//! | `scenario.rs`, `scenario/` | [`scenario::Scenario`]: a run as data; `play.rs`: plays it |
//! | `pattern.rs`, `span.rs` | which messages are meant; lengths of time |
//! | `campaign.rs`, `shrink.rs` | scenarios from seeds; a failing one made smaller |
//! | `trace.rs` | a run as a page |
//! | `history.rs`, `porcupine.rs` | whether what clients saw is linearizable: by its places; by a search, with a feature |
//! | `ledger.rs` | [`ledger::Ledger`]: the simplest application that can tell right from wrong |

pub mod adversary;
pub mod campaign;
pub mod checker;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod costs;
pub mod disk;
pub mod history;
pub mod host;
pub mod ledger;
pub mod marks;
#[cfg(feature = "model")]
pub mod model;
pub mod network;
pub mod play;
pub mod random;
pub mod scenario;
pub mod shrink;
pub mod signature;
pub mod statement;
pub mod trace;
pub mod twins;
pub mod world;

mod account;
#[cfg(test)]
mod fabricate;
mod fingerprint;
mod parts;
pub mod pattern;
#[cfg(feature = "porcupine")]
pub mod porcupine;
pub mod span;
mod spotter;
mod staging;
mod subject;

pub use client::Ticket;
pub use cluster::{Cluster, ClusterBuilder, Failure, Trouble};
