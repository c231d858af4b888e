//! What happened, told to a person.

use quorate_protocol::codec::Blob;
use quorate_protocol::message::{Content, Fetch, Message, Outcome, ReplicaMessage, Want};

use crate::statement::{new_view, view_change};

/// A message in a few words.
pub(crate) fn describe(message: &Message) -> String {
    match message {
        Message::Request(_) => String::from("Request"),
        Message::PrePrepare(proposal) => {
            let vote = proposal.vote.statement;
            format!("PrePrepare {} in view {}: {:.8}", vote.sequence, vote.view, vote.digest)
        }
        Message::Prepare(vote) => {
            let vote = vote.statement;
            format!("Prepare {} in view {}: {:.8}", vote.sequence, vote.view, vote.digest)
        }
        Message::Commit(vote) => {
            let vote = vote.statement;
            format!("Commit {} in view {}: {:.8}", vote.sequence, vote.view, vote.digest)
        }
        Message::Checkpoint(vote) => format!("Checkpoint {}", vote.statement.sequence),
        Message::Stable(certificate) => format!("Stable {}", certificate.statement.sequence),
        Message::ViewChange(signed) => match view_change(signed) {
            Some(content) => format!(
                "ViewChange of {} to {}: stable {}, {} prepared, {} cast",
                content.replica,
                content.view,
                content.stable_sequence(),
                content.prepared.len(),
                content.cast.len()
            ),
            None => String::from("ViewChange that cannot be read"),
        },
        Message::NewView(signed) => match new_view(signed) {
            Some(content) => {
                let rests_on: Vec<usize> = content.view_changes.iter().map(|named| named.replica.index()).collect();
                let slots: Vec<u64> = content.proposals.iter().map(|proposal| proposal.sequence.value()).collect();
                format!("NewView {} on {rests_on:?}: slots {slots:?}", content.view)
            }
            None => String::from("NewView that cannot be read"),
        },
        Message::Status(status) => format!(
            "Status: view {}{}, stable {}, executed {}, {:?}",
            status.view,
            if status.entered { "" } else { " wanted" },
            status.stable,
            status.executed,
            status.slots
        ),
        Message::Fetch(fetch) => match fetch {
            Fetch::Batch { sequence, digest } => format!("Fetch batch of {sequence}: {digest:.8}"),
            Fetch::Decided { after } => format!("Fetch decided after {after}"),
            Fetch::ViewChange { digest } => format!("Fetch view change {digest:.8}"),
            Fetch::NewView { view } => format!("Fetch new view {view}"),
            Fetch::Statements { .. } => String::from("Fetch statements of its own"),
            Fetch::Part { sequence, want } => format!("Fetch of {sequence}: {}", wanted(want)),
        },
        Message::Conflict(vote) => format!(
            "Conflict: replica {} signed {:.8} in slot {}",
            vote.voter, vote.statement.digest, vote.statement.sequence
        ),
        Message::Batch(fetched) => format!("Batch of {}", fetched.sequence),
        Message::Decided(decided) => format!("Decided {}", decided.certificate.statement.sequence),
        Message::Statements(said) => format!(
            "Statements of the receiver: {} prepares, {} commits, {} checkpoints{}{}",
            said.prepares.len(),
            said.commits.len(),
            said.checkpoints.len(),
            if said.view_change.is_some() { ", a view change" } else { "" },
            if said.new_view.is_some() { ", a new view" } else { "" }
        ),
        Message::Part(part) => {
            let content = match &part.content {
                Content::Crown(digests) => format!("{} groups", digests.len()),
                Content::Leaves(digests) => format!("{} leaves", digests.len()),
                Content::Protocol { entries, is_last } => {
                    format!("{} entries{}", entries.len(), if *is_last { ", the last" } else { "" })
                }
                Content::Buckets { entries, whole } => format!("{} entries, {whole} buckets whole", entries.len()),
            };
            format!("Part of {}: {}: {content}", part.sequence, wanted(&part.want))
        }
    }
}

/// A part of a state that is asked for, in a few words.
fn wanted(want: &Want) -> String {
    let beyond = |after: &Option<Blob>| if after.is_some() { ", further" } else { "" };
    match want {
        Want::Crown => String::from("crown"),
        Want::Protocol { after } => format!("the protocol's own entries{}", beyond(after)),
        Want::Leaves { group } => format!("leaves of group {group}"),
        Want::Buckets { group, buckets, after } => {
            format!("{} buckets of group {group}{}", buckets.len(), beyond(after))
        }
    }
}

/// A replica's answer to a client: the slot that it is about, and a few words.
pub(crate) fn describe_answer(message: &ReplicaMessage) -> (Option<u64>, String) {
    match message {
        ReplicaMessage::Reply(reply) => match &reply.outcome {
            Outcome::Executed { sequence, index, .. } => {
                (Some(sequence.value()), format!("request {} executed as {sequence}.{index}", reply.number))
            }
            other => (None, format!("request {}: {other:?}", reply.number)),
        },
        ReplicaMessage::Busy { number, .. } => (None, format!("request {number}: busy")),
        ReplicaMessage::Refused { number, .. } => (None, format!("request {number}: refused")),
        ReplicaMessage::Status(_) => (None, "status".to_owned()),
        ReplicaMessage::Standby(_) => (None, "for a standby".to_owned()),
        ReplicaMessage::Read { number, answer: None, .. } => (None, format!("read {number}: may not tell")),
        ReplicaMessage::Read { number, answer: Some(answer), .. } => {
            (None, format!("read {number}: as it was since slot {}", answer.reading.since))
        }
        ReplicaMessage::Proved { number, .. } => (None, format!("question {number}: proved")),
        ReplicaMessage::Checkpoint { number, .. } => (None, format!("question {number}: a checkpoint")),
        ReplicaMessage::Part { number, .. } => (None, format!("question {number}: a part")),
    }
}
