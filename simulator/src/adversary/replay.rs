//! Says again what others said: their proposals, votes, view changes and new views, and what clients asked for. (RFC 8446, section
//! 8, on replay; PROTOCOL §3, §4)
//!
//! It breaks a system that takes a message for new because it comes again, or for the sender's own: requests run twice,
//! and votes count for who repeats them. Correct replicas execute a number once, count a vote by its voter, take votes
//! only from who cast them, and refuse what belongs to another view, slot or epoch.

use core::time::Duration;

use quorate_protocol::message::{Message, PrePrepare};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Repeats something of each kind, to somebody, again and again.
#[derive(Debug, Default)]
pub(super) struct Replay {
    last: Option<Time>,
}

const INTERVAL: Duration = Duration::from_millis(10);

/// One of each kind that it remembers, old ones as likely as new ones.
fn old(body: &mut Body) -> Vec<Message> {
    let mut draw = |count: usize| usize::try_from(body.dice.below(count as u64)).unwrap_or(0);
    let seen = &body.seen;
    let request = seen.requests.get(draw(seen.requests.len())).map(|request| Message::Request(request.signed.clone()));
    let proposal = seen
        .proposals
        .get(draw(seen.proposals.len()))
        .map(|(vote, batch)| Message::PrePrepare(PrePrepare { vote: *vote, batch: batch.body().clone().into() }));
    let prepare = seen.prepares.get(draw(seen.prepares.len())).map(|vote| Message::Prepare(*vote));
    let commit = seen.commits.get(draw(seen.commits.len())).map(|vote| Message::Commit(*vote));
    let asked = seen.view_changes.get(draw(seen.view_changes.len()));
    let asked = asked.map(|view_change| Message::ViewChange(view_change.signed.clone()));
    let begun = seen.new_views.get(draw(seen.new_views.len()));
    let begun = begun.map(|new_view| Message::NewView(new_view.signed.clone()));
    let stable = seen.stable.get(draw(seen.stable.len())).map(|certificate| Message::Stable(certificate.clone()));
    [request, proposal, prepare, commit, asked, begun, stable].into_iter().flatten().collect()
}

impl Strategy for Replay {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        // Its own words later once more, when they are about something that is over.
        if !matches!(message, Message::Part(_) | Message::Batch(_)) && body.dice.below(4) == 0 {
            let delay = Duration::from_millis(1 + body.dice.below(2_000));
            body.send_later(delay, to, message.clone());
        }
        Some(message)
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, INTERVAL) {
            return;
        }
        let others: Vec<ReplicaId> = body.others().collect();
        let Some(to) = body.dice.choose(&others).copied() else { return };
        for message in old(body) {
            body.send(to, message);
        }
    }

    fn deadline(&self, _: &Body) -> Option<Time> {
        self.last.map(|last| last.after(INTERVAL))
    }
}
