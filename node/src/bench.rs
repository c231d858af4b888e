//! The load generator: many clients that keep a cluster busy, and what they saw.
//!
//! | file | holds |
//! | --- | --- |
//! | `bench/options.rs` | what load to drive |
//! | `bench/workload.rs` | which operations, on which keys, with which values |
//! | `bench/pace.rs` | when a request is due: at once, or at a rate |
//! | `bench/generator.rs` | one task a connection that submits and takes answers |
//! | `bench/run.rs` | the parts put together, from the first link to the report |
//! | `bench/measure.rs` | what is counted while it runs |
//! | `bench/history.rs` | every call and answer as a line of JSON |
//! | `bench/progress.rs` | what is shown while it runs |
//! | `bench/report.rs` | what is shown in the end |
//!
//! Each client is a key of its own with a session of its own; a connection carries many. In a closed loop a client has
//! `window` requests outstanding and sends the next when one is answered. With a rate the loop is open: requests are due at
//! fixed times whatever the cluster does, and a latency counts from when its request was due, so that a stall is seen by
//! all who would have come meanwhile.

mod generator;
mod history;
mod measure;
mod options;
mod pace;
mod progress;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod workload;

pub use self::options::{Extent, Load, LoadError, Options, Share, ShareError, WARM_UP_DEFAULT};
pub use self::report::{LatencyMs, Report};
pub use self::run::{Error, run};
