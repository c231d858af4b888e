//! What a host drives: a machine, and the replica in it that the host asks for what it may check, tell and leave out.

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::replica::{Replica, Start};
use quorate_protocol::{Machine, Now};

use super::start_machine;
use crate::configuration::Role;

/// A machine that takes part in the protocol under one replica's key. Its host drives it like any other, and does not know
/// which it is.
pub(crate) trait Subject: Machine + Send {
    /// The replica in it: for accounts, and for the keys by which messages are checked.
    fn replica(&self) -> &Replica;

    /// Whether a message of a peer may still matter to it: what does not is dropped unchecked.
    fn is_wanted(&self, from: ReplicaId, message: &Message) -> bool {
        self.replica().is_wanted(from, message)
    }
}

impl Subject for Replica {
    fn replica(&self) -> &Replica {
        self
    }
}

/// Makes what the host drives out of what was durable. Called once the folder is locked.
///
/// # Errors
/// [`StartError`](quorate_protocol::replica::StartError), and whatever else keeps it from starting.
pub(crate) type MakeSubject = Box<dyn FnOnce(Start, Now) -> anyhow::Result<Box<dyn Subject>> + Send>;

/// A replica, as a rule: a member, or a standby.
pub(crate) fn replica(role: Role) -> MakeSubject {
    Box::new(move |start, now| Ok(Box::new(start_machine(role, start, now)?)))
}
