//! The PBFT replica and client as pure state machines.
//!
//! Where each section of docs/PROTOCOL.md is:
//!
//! | section | files |
//! | --- | --- |
//! | §1 model, quorums | `configuration.rs`, `number.rs` |
//! | §3 statements, votes, certificates | `statement.rs`, `certificate.rs`, `quorum.rs`, `verify.rs`, `evidence.rs`; messages: `message.rs`, `codec.rs`; durable first: `outbox.rs`, `record.rs` |
//! | §4 normal case | `batch.rs`, `queue.rs`, `slot.rs`, `sessions.rs`; `replica/`: `request.rs`, `pre_prepare.rs`, `prepare.rs`, `unshown.rs`, `commit.rs`, `execution.rs` |
//! | §5 checkpoints and the log | `replica/checkpoint.rs`, `log.rs`, `state.rs` |
//! | §6 suspecting the primary | `replica/`: `suspicion.rs`, `pace.rs`, `turns.rs`; `timers.rs` |
//! | §7 view change | `replica/view_change.rs`, `replica/new_view.rs` |
//! | §8 reads | `state/proof.rs`, `replica/reads.rs`, `client/reads.rs` |
//! | §9 omission, lag, recovery, loss of votes | `replica/`: `status.rs`, `retransmission.rs`, `state_transfer.rs`, `recovery.rs`, `participation.rs`, `rewriting.rs`, `room.rs`, `wanted.rs`; `rotation.rs` |
//! | §11 epochs | `membership.rs`, `replica/epoch.rs`, `replica/standby.rs` |
//! | §12 clients | `client.rs` and `client/`, `sessions.rs` |
//! | §14 parameters | `configuration.rs` |
//! | §15 forensics | `forensics.rs`, `evidence.rs` |
//!
//! The application is a trait, `application.rs`; the one that ships is `kv.rs`.
//!
//! # Where this is not the PBFT of Castro and Liskov (OSDI 1999), and why
//!
//! - *Signatures, no MACs.* A certificate convinces anyone who has the genesis, today and later, and a view change rests
//!   on certificates alone. (§3)
//! - *The pre-prepare is the primary's own prepare*, sent with the batch: a prepared certificate is q equal `Prepare`
//!   votes, not a pre-prepare and 2f of others. One kind of statement less, and no message with two signatures. (§3)
//! - *Any n from four on*, with q = (n + f) / 2 + 1, not only n = 3f + 1. (§1)
//! - *Persist before send.* The paper's replicas hold in memory what they said, so one that starts again is faulty. Here
//!   every vote is durable before it is said, and counts for its own replica only then: a crash is no fault. (§3)
//! - *Batches*, filled while others are in flight, with a stamp by which all operations see one time. (§4.2)
//! - *Sessions* instead of one time stamp a client: many requests of a client in flight, each executed once. An opening
//!   that comes after a higher one is superseded and told so, since a client's clock may go back. (§4.1)
//! - *A request without effect stays in the order.* Duplicates are skipped at execution, by everyone alike, and never
//!   refused in a proposal: what a backup accepts must not depend on what it has executed. (§4.3)
//! - *A replica decides by commits of any one view*, its own or not, prepared or not. (§4.5)
//! - *Checkpoints are voted for when they are durable*, and the low watermark follows the certificate, not the replica's
//!   own execution. (§5; docs/decisions/0002)
//! - *A suspicion is said first.* A backup of the paper leaves its view when its timer runs out. Here it says so in its
//!   status and goes on voting until w members suspect the primary or have left: one that left alone could not come back
//!   to a view that the others find nothing wrong with, and they would lack its vote. (§6)
//! - *A member that is stranded* in a higher view all the same is fetched by a view change, after a long time. (§6)
//! - *More reasons to suspect* than a request that waits: silence, a crash, proof, and slowness, which backups measure by
//!   requests that clients show them too. Time-outs grow to a cap of seconds only. (§6; docs/decisions/0012)
//! - *Turns are passed over*: who leaves a view passes over primaries that it gave up a while ago. (§6; docs/decisions/0013)
//! - *What the primary does not show is fetched from voters*, and backups that voted for different batches show each other
//!   what the primary signed. (§4.3)
//! - *View changes carry the votes cast, too*: nothing rests on them yet; the fast path will. (§7.1)
//! - *A new view names its view changes by digest*, takes exactly q of exactly its view, and everyone fetches what is
//!   missing. It is kept and shown by whoever entered, so its primary need not live on. (§7.3, §7.4)
//! - *Null requests are the empty batch*, one constant. (§7.3)
//! - *Status messages* at each heartbeat are acknowledgement, failure detector and request for retransmission. (§9)
//! - *A state is fetched from any number of replicas at once*, where the paper has one send and the others digests of it. If
//!   nobody can read the stable state any more, a later checkpoint with w equal votes will do: one of them is of a correct
//!   replica, so its root is right. (§9)
//! - *Votes that are lost end an epoch.* A replica of the paper that loses its disk is faulty for good, or recovers
//!   proactively with new keys. Here it asks what it has said, says nothing more if its log lacks any of that, and an ordered
//!   `Rejoin` begins an epoch in which nothing that it said before counts. (§9, §11)
//! - *No tentative execution*: a slot executes when it is decided. (§4.5)
//! - *Reads that nobody orders are answered alike only if they are so since the same slot.* The paper compares results alone,
//!   and a value that comes back makes time go back: docs/decisions/0007. They are answered in the epoch in which one votes,
//!   and after a start not before one is known to be up to date. (§8)
#![no_std]
// What is new must meet every match before it compiles.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

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
pub mod forensics;
pub mod input;
pub mod kv;
mod log;
pub mod membership;
pub mod message;
pub mod number;
mod outbox;
pub mod output;
mod queue;
mod quorum;
pub mod record;
pub mod recording;
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
