//! What is dropped before its signatures are checked. (PROTOCOL §4)

use super::Replica;
use crate::message::{Message, PrePrepare};
use crate::number::{ReplicaId, Session};
use crate::slot::Slot;
use crate::statement::{Prepare, Vote};

impl Replica {
    /// Whether a message of `from` may still matter: what does not can be dropped before its signatures are checked.
    pub fn is_wanted(&self, from: ReplicaId, message: &Message) -> bool {
        // What another epoch's keys would have to check.
        if message.epoch().is_some_and(|epoch| epoch != self.configuration.epoch()) {
            return false;
        }
        match message {
            Message::Prepare(vote) => {
                let slot = self.log.slot(vote.statement.sequence);
                self.log.is_within_watermarks(vote.statement.sequence)
                    && slot.is_none_or(|slot| {
                        let is_known =
                            slot.prepares.of(vote.voter).is_some_and(|held| held.statement == vote.statement);
                        !is_known
                            && slot.prepared_view().is_none_or(|view| view < vote.statement.view)
                            && !self.is_prepared_but_for_own(slot, &vote.statement)
                    })
            }
            Message::PrePrepare(PrePrepare { vote, .. }) => {
                let slot = self.log.slot(vote.statement.sequence);
                slot.is_none_or(|slot| !is_proposal_known(slot, vote))
            }
            Message::Commit(vote) => {
                self.is_tracked(vote.statement.sequence)
                    && self.log.slot(vote.statement.sequence).is_none_or(|slot| slot.committed.is_none())
            }
            Message::Checkpoint(vote) => vote.statement.sequence > self.log.low(),
            Message::Stable(certificate) => certificate.statement.sequence > self.log.low(),
            Message::Decided(decided) => decided.certificate.statement.sequence > self.execution.issued,
            // Clients that lose patience give a request to all backups, and each passes it on.
            Message::Request(signed) => signed.claimed_id().is_some_and(|id| {
                let is_own = || self.configuration.member(from).is_some_and(|member| member.key == id.client);
                !self.queue.contains(&id) && (self.is_primary() || (id.session == Session::REJOIN && is_own()))
            }),
            // What claims nothing is left to the check, so that it is known who sends such.
            Message::ViewChange(signed) => signed.claimed().is_none_or(|(replica, _, view)| {
                self.refuse_claimed_view_change(replica, view).is_none() || self.is_view_change_awaited(signed)
            }),
            Message::NewView(signed) => {
                signed.claimed().is_none_or(|(_, view)| self.refuse_claimed_new_view(from, view).is_none())
            }
            Message::Conflict(vote) => self.held_against(vote).is_some(),
            Message::Statements(said) => self.is_account_wanted(from, said.token),
            Message::Status(_) | Message::Fetch(_) | Message::Batch(_) | Message::Part(_) => true,
        }
    }

    /// Whether all that the prepared certificate lacks is this replica's own vote, on its way to the disk. Another one's vote
    /// would not help: the certificate is made durable behind the own vote.
    fn is_prepared_but_for_own(&self, slot: &Slot, statement: &Prepare) -> bool {
        let is_cast = |message: &Message| {
            matches!(message, Message::Prepare(own) | Message::PrePrepare(PrePrepare { vote: own, .. })
                if own.statement == *statement)
        };
        slot.prepares.count(statement) + 1 >= self.configuration.quorum() && self.outbox.waiting().any(is_cast)
    }
}

/// Whether this replica voted for what `vote` proposes, and holds that vote: with its batch every signature of a client would be
/// checked once more, for nothing.
fn is_proposal_known(slot: &Slot, vote: &Vote<Prepare>) -> bool {
    let is_of_it = |known: Option<&Vote<Prepare>>| known.is_some_and(|known| known.statement == vote.statement);
    is_of_it(slot.cast.as_ref()) && is_of_it(slot.prepares.of(vote.voter))
}
