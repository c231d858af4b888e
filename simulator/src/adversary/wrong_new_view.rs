//! As the primary of a new view, proposes what does not follow from the view changes that it names. (Castro and Liskov, OSDI
//! 1999, section 4.4: backups do the same computation; PROTOCOL §7.4)
//!
//! It breaks a system that believes the new primary: what was decided is dropped or replaced. Correct replicas recompute
//! the proposals, enter only if they agree, and ask for the next view when no valid new view comes in time. (PROTOCOL
//! §7.2)

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Message, NewView, Proposal};
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Each replica is told something else that is wrong, and another thing each time.
#[derive(Debug, Default)]
pub(super) struct WrongNewView {
    told: u64,
}

/// Ways to be wrong.
const WAYS: u64 = 7;

fn digest_but_for(digest: Digest) -> Digest {
    let empty = Batch::empty().digest();
    if digest == empty { Digest::from_bytes([4; 32]) } else { empty }
}

/// `content`, wrong in the given way.
fn wrong(body: &Body, content: &NewView, way: u64) -> Option<NewView> {
    let (mut proposals, mut named) = (content.proposals.to_vec(), content.view_changes.to_vec());
    let after = proposals.last().map_or_else(|| body.stable(), |last| last.sequence).saturating_add(1);
    match way {
        // What may be decided is replaced, dropped at the end, or at the start.
        0 if !proposals.is_empty() => proposals.last_mut()?.digest = digest_but_for(proposals.last()?.digest),
        1 if !proposals.is_empty() => drop(proposals.pop()),
        2 if !proposals.is_empty() => drop(proposals.remove(0)),
        // Two slots are exchanged.
        3 if proposals.len() > 1 => {
            let last = proposals.len() - 1;
            let first = proposals[0].digest;
            proposals[0].digest = proposals[last].digest;
            proposals[last].digest = first;
        }
        // It rests on too few, or on somebody's word twice.
        4 => drop(named.pop()),
        5 => named[0] = *named.last()?,
        // Something that nobody prepared is added.
        _ => proposals.push(Proposal { sequence: after, digest: Batch::empty().digest() }),
    }
    Some(NewView { view_changes: List::new(named)?, proposals: List::new(proposals)?, ..content.clone() })
}

impl Strategy for WrongNewView {
    fn outgoing(&mut self, body: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        let Message::NewView(signed) = &message else { return Some(message) };
        let content: NewView = decode(signed.body.bytes()).ok()?;
        if body.configuration().primary(content.view) != body.id() {
            return Some(message);
        }
        self.told = self.told.wrapping_add(1);
        let wrong = wrong(body, &content, self.told % WAYS)?;
        body.sign_new_view(&wrong).map(Message::NewView)
    }
}
