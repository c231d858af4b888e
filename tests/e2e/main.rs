//! Stories of whole clusters, as the people see them who run one: real processes, real files, real sockets.
//!
//! | file | tells of |
//! | --- | --- |
//! | `cli.rs` | what is said when something is asked or set up wrongly |
//! | `operations.rs` | every operation of the store |
//! | `testnet.rs` | `quorate testnet` |
//! | `crash.rs` | replicas that are killed |
//! | `partition.rs` | networks that are cut |
//! | `hostile.rs` | clients and strangers who keep to no rule |
//! | `recovery.rs` | files that are damaged, and disks that are full |

mod cli;
mod crash;
mod hostile;
mod operations;
mod partition;
mod recovery;
mod testnet;
