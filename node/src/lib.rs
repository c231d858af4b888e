//! The node of Quorate: everything around the protocol's core that touches sockets, disks, clocks and people.
//!
//! | file | holds |
//! | --- | --- |
//! | `configuration.rs` | the files of a cluster: genesis, replica, client, keys; and founding one |
//! | `host.rs` | one running replica |
//! | `client.rs` | the client library |
//! | `bench.rs` | the load generator |
//! | `cli.rs` | the command line |
//! | `error.rs` | the report that a person reads when something failed |

pub mod bench;
pub mod cli;
pub mod client;
pub mod configuration;
pub mod error;
pub mod host;
pub mod storage;
pub mod transport;
