//! The laboratory: a replica that plays attacks over real sockets, under its real key, in its real folder. (Feature `lab`.)
//!
//! | file | holds |
//! | --- | --- |
//! | `strategy.rs` | what to play, as it is written on a command line |
//! | `attacker.rs` | the machine that the host drives in the replica's place |
//! | `recorder.rs` | what a replica signs, written down |
//! | `wire.rs` | attacks below the messages: floods, slow streams, forged addresses |
//! | `door.rs` | the socket by which attacks are started and stopped while it runs |

pub(crate) mod attacker;
pub(crate) mod door;
pub(crate) mod recorder;
pub(crate) mod strategy;
pub(crate) mod wire;
