//! As a primary, proposes just before the others would lose patience. (Clement et al., Aardvark, NSDI 2009, section 5.3; Amir et
//! al., Prime, TDSC 2011; PROTOCOL §6, silence, deadline and slowness)
//!
//! It breaks a system that suspects only a primary that does nothing: the cluster goes on at a hundredth of its speed.
//! Correct backups see by copies of some requests how long those wait, and replace who lets them wait for longer than
//! ordering explains.

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Holds its proposals back; what a backup says as well, which slows nobody down.
#[derive(Debug)]
pub(super) struct Slow;

impl Strategy for Slow {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        if !matches!(message, Message::PrePrepare(_) | Message::Prepare(_) | Message::Commit(_)) {
            return Some(message);
        }
        body.send_later(body.just_tolerated(), to, message);
        None
    }
}
