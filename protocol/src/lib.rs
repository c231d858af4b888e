//! The PBFT replica and client as pure state machines.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod application;
pub mod batch;
pub mod certificate;
pub mod client;
pub mod codec;
pub mod configuration;
pub mod evidence;
pub mod input;
pub mod kv;
mod log;
pub mod message;
pub mod number;
mod outbox;
pub mod output;
mod queue;
mod quorum;
pub mod record;
pub mod refusal;
pub mod replica;
mod rotation;
mod sessions;
mod slot;
pub mod state;
pub mod statement;
pub mod time;
mod timers;
pub mod verify;

pub use input::Input;
pub use output::Output;
pub use time::Now;

/// A correct replica, or an adversary that looks like one: driven by its host, which owns clocks, disks and sockets.
pub trait Machine {
    /// The only place where state changes.
    fn handle(&mut self, now: Now, input: Input);
    /// What is to be done, in order; drained after every [`Machine::handle`].
    fn poll_output(&mut self) -> Option<Output>;
    /// When to come back with [`Input::Wake`] if nothing else happens before.
    fn next_deadline(&self) -> Option<time::Time>;
}
