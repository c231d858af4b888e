//! Stories of whole clusters, as the people see them who run one: real processes, real files, real sockets.
//!
//! | file | tells of |
//! | --- | --- |
//! | `cli.rs` | what is said when something is asked or set up wrongly |
//! | `operations.rs` | every operation of the store |
//! | `reads.rs` | reads that nobody orders |
//! | `testnet.rs` | `quorate testnet` |
//! | `crash.rs` | replicas that are killed |
//! | `partition.rs` | networks that are cut |
//! | `byzantine.rs` | replicas that play attacks |
//! | `matrix.rs` | `quorate attacks --matrix` |
//! | `forensics.rs` | `quorate forensics` |
//! | `hostile.rs` | clients and strangers who keep to no rule |
//! | `transport.rs` | attacks below the messages |
//! | `members.rs` | strangers and abused keys at the port of members |
//! | `backup.rs` | backups, and replicas and clusters that are made of them |
//! | `long.rs` | what takes minutes, and is run by hand |
//! | `inspect.rs` | `quorate inspect` |
//! | `replay.rs` | `quorate replay` |
//! | `watch.rs` | `quorate kv watch` |
//! | `standby.rs` | standbys, and members whose place they take |
//! | `power.rs` | power that is cut, and disks that fail |
//! | `power_checkpoints.rs` | the checkpoint store alone, whose power is cut |
//! | `recovery.rs` | files that are damaged, and disks that are full |

// `cfg(test)` tells the lints that all of it is test: functions that several tests share, too.
#[cfg(test)]
mod backup;
#[cfg(test)]
mod byzantine;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod forensics;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod inspect;
#[cfg(test)]
mod long;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod members;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod partition;
#[cfg(test)]
mod power;
#[cfg(test)]
mod power_checkpoints;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod testnet;
#[cfg(test)]
mod transport;
#[cfg(test)]
mod watch;
