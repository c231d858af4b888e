//! The program as people and scripts run it: what it prints, how it ends, and what it leaves behind.
//!
//! | file | tells of |
//! | --- | --- |
//! | `run.rs` | how tests run it |
//! | `command_line.rs` | exit status, stdout, stderr and files of commands that end by themselves |
//! | `init.rs` | `quorate init`, interrupted |
//! | `testnet.rs` | the processes and files of `quorate testnet` |
//! | `cluster.rs` | what is asked of a cluster that runs |
//!
//! The harness of the end-to-end tests uses this package, so it cannot be used here.

// `cfg(test)` tells the lints that all of it is test: functions that several tests share, too.
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod init;
#[cfg(test)]
mod run;
#[cfg(test)]
mod testnet;
