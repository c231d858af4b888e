//! Changes one field of what it says by a little, or into what it was before, and signs it again. (Winter et al., Randomized
//! Testing of Byzantine Fault Tolerant Algorithms, OOPSLA 2023: small-scope mutations find more than random bytes; commonware,
//! consensus/fuzz/src/strategy.rs; PROTOCOL §4.3, §7.1, §7.4)
//!
//! It breaks a system that checks a field loosely: off by one slot, one view, one vote. Correct replicas refuse what is
//! out of form, count what is not as one member's word, and keep what contradicts itself as proof.

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{Blob, List, decode};
use quorate_protocol::message::{
    Content, Fetch, Message, NewView, Part, PrePrepare, Progress, Statements, Status, ViewChange, Want,
};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::statement::{Checkpoint, Prepare};
use quorate_protocol::time::WallTime;

use super::{Body, Strategy};

/// Changes one message in three.
#[derive(Debug)]
pub(super) struct Mutate;

/// How many messages in a million are changed.
const CHANGED: u32 = 330_000;

fn near(body: &mut Body, number: u64) -> u64 {
    match body.dice.below(4) {
        0 => number.saturating_add(1),
        1 => number.saturating_sub(1),
        2 => number.saturating_add(body.configuration().parameters().window),
        _ => number.saturating_sub(body.configuration().parameters().checkpoint_interval),
    }
}

fn near_view(body: &mut Body, view: View) -> View {
    View::new(near(body, view.value()))
}

fn near_slot(body: &mut Body, sequence: Sequence) -> Sequence {
    Sequence::new(near(body, sequence.value()))
}

/// A digest that was said before, or that of the empty batch.
fn old_digest(body: &mut Body) -> Digest {
    let said: Vec<Digest> = body.seen.prepares.iter().map(|vote| vote.statement.digest).collect();
    body.dice.choose(&said).copied().unwrap_or_else(|| Batch::empty().digest())
}

fn prepare(body: &mut Body, statement: Prepare) -> Prepare {
    match body.dice.below(3) {
        0 => Prepare { view: near_view(body, statement.view), ..statement },
        1 => Prepare { sequence: near_slot(body, statement.sequence), ..statement },
        _ => Prepare { digest: old_digest(body), ..statement },
    }
}

fn proposal(body: &mut Body, proposal: &PrePrepare) -> Option<Message> {
    let Prepare { view, sequence, .. } = proposal.vote.statement;
    let batch = body.batch_of(proposal)?;
    let (mut stamp, mut requests) = (batch.stamp().nanoseconds(), batch.requests().to_vec());
    match body.dice.below(4) {
        0 => stamp = stamp.saturating_add(3_600_000_000_000),
        1 => requests.extend(batch.requests().last().cloned()),
        2 => drop(requests.pop()),
        _ => {
            let statement = prepare(body, proposal.vote.statement);
            let batch = proposal.batch.clone();
            return Some(Message::PrePrepare(PrePrepare { vote: body.sign(statement), batch }));
        }
    }
    let is_empty = requests.is_empty();
    let other = if is_empty { Batch::empty() } else { Batch::new(WallTime::from_nanoseconds(stamp), requests) };
    let vote = body.prepare(view, sequence, other.digest());
    Some(Message::PrePrepare(PrePrepare { vote, batch: other.body().clone().into() }))
}

fn view_change(body: &mut Body, mut content: ViewChange) -> Option<Message> {
    let (mut prepared, mut cast) = (content.prepared.to_vec(), content.cast.to_vec());
    match body.dice.below(6) {
        0 => content.view = near_view(body, content.view),
        1 => content.stable = body.seen.stable.front().cloned(),
        2 => drop(prepared.pop()),
        3 => cast.last_mut()?.digest = old_digest(body),
        4 => {
            let certificate = prepared.last_mut()?;
            certificate.statement = prepare(body, certificate.statement);
        }
        _ => {
            let old: Vec<_> = body.seen.certificates.iter().cloned().collect();
            let older = body.dice.choose(&old)?.clone();
            prepared.retain(|certificate| certificate.statement.sequence != older.statement.sequence);
            prepared.push(older);
            prepared.sort_by_key(|certificate| certificate.statement.sequence);
        }
    }
    let content = ViewChange { prepared: List::new(prepared)?, cast: List::new(cast)?, ..content };
    body.sign_view_change(&content).map(Message::ViewChange)
}

fn new_view(body: &mut Body, mut content: NewView) -> Option<Message> {
    let (mut proposals, mut named) = (content.proposals.to_vec(), content.view_changes.to_vec());
    match body.dice.below(5) {
        0 => content.view = near_view(body, content.view),
        1 => drop(proposals.pop()),
        2 => proposals.last_mut()?.digest = old_digest(body),
        3 => proposals.last_mut()?.sequence = near_slot(body, body.stable()),
        _ => named.last_mut()?.digest = old_digest(body),
    }
    let content = NewView { proposals: List::new(proposals)?, view_changes: List::new(named)?, ..content };
    body.sign_new_view(&content).map(Message::NewView)
}

fn status(body: &mut Body, mut status: Status) -> Status {
    match body.dice.below(9) {
        0 => status.view = near_view(body, status.view),
        1 => status.entered = !status.entered,
        2 => status.suspects = !status.suspects,
        3 => status.stable = near_slot(body, status.stable),
        4 => status.executed = near_slot(body, status.executed),
        5 => status.decided_from = near_slot(body, status.decided_from),
        6 => status.view_changes = !status.view_changes,
        7 => status.checkpoint_votes = !status.checkpoint_votes,
        _ => status.slots = List::new(vec![Progress::CommittedWithoutBatch; 3]).unwrap_or_else(List::empty),
    }
    status
}

fn fetch(body: &mut Body, fetch: Fetch) -> Fetch {
    match fetch {
        Fetch::Batch { sequence, digest } => Fetch::Batch { sequence: near_slot(body, sequence), digest },
        Fetch::Decided { after } => Fetch::Decided { after: near_slot(body, after) },
        Fetch::ViewChange { .. } => Fetch::ViewChange { digest: old_digest(body) },
        Fetch::NewView { view } => Fetch::NewView { view: near_view(body, view) },
        Fetch::Statements { token } => Fetch::Statements { token: token ^ 1 },
        Fetch::Part { sequence, want } => Fetch::Part { sequence, want: wanted(want) },
    }
}

/// What comes after what is asked for.
fn wanted(want: Want) -> Want {
    match want {
        Want::Crown => Want::Leaves { group: u16::MAX },
        Want::Leaves { group } => Want::Leaves { group: group.wrapping_add(1) },
        Want::Protocol { .. } => Want::Protocol { after: Some(Blob::from(vec![0xff])) },
        Want::Buckets { group, buckets, .. } => Want::Buckets { group, buckets, after: Some(Blob::from(vec![0xff])) },
    }
}

/// One too few, and said to be all.
fn content(content: Content) -> Content {
    match content {
        Content::Crown(groups) => Content::Crown(without_last(groups)),
        Content::Leaves(leaves) => Content::Leaves(without_last(leaves)),
        Content::Protocol { entries, .. } => Content::Protocol { entries: without_last(entries), is_last: true },
        Content::Buckets { entries, whole } => {
            Content::Buckets { entries: without_last(entries), whole: whole.saturating_add(1) }
        }
    }
}

fn without_last<T, const MAX: usize>(list: List<T, MAX>) -> List<T, MAX> {
    let mut elements = list.into_vec();
    elements.pop();
    List::new(elements).unwrap_or(List::empty())
}

fn mutated(body: &mut Body, message: &Message) -> Option<Message> {
    Some(match message {
        Message::PrePrepare(pre_prepare) => return proposal(body, pre_prepare),
        Message::Prepare(vote) => {
            let statement = prepare(body, vote.statement);
            Message::Prepare(body.sign(statement))
        }
        Message::Commit(vote) => {
            let Prepare { view, sequence, digest, .. } = prepare(body, of_commit(vote.statement));
            Message::Commit(body.commit(view, sequence, digest))
        }
        Message::Checkpoint(vote) => {
            let Checkpoint { sequence, root, .. } = vote.statement;
            let is_slot = body.dice.below(2) == 0;
            let root = if is_slot { root } else { old_digest(body) };
            let sequence = if is_slot { near_slot(body, sequence) } else { sequence };
            Message::Checkpoint(body.checkpoint(sequence, root))
        }
        Message::ViewChange(signed) => return view_change(body, decode(signed.body.bytes()).ok()?),
        Message::NewView(signed) => return new_view(body, decode(signed.body.bytes()).ok()?),
        Message::Status(said) => Message::Status(status(body, said.clone())),
        Message::Fetch(asked) => Message::Fetch(fetch(body, asked.clone())),
        Message::Stable(certificate) => {
            let mut certificate = certificate.clone();
            certificate.statement.sequence = near_slot(body, certificate.statement.sequence);
            Message::Stable(certificate)
        }
        Message::Decided(decided) => {
            let mut decided = decided.clone();
            decided.certificate.statement.sequence = near_slot(body, decided.certificate.statement.sequence);
            Message::Decided(decided)
        }
        Message::Batch(fetched) => {
            let mut fetched = fetched.clone();
            fetched.sequence = near_slot(body, fetched.sequence);
            Message::Batch(fetched)
        }
        Message::Part(part) => Message::Part(Part { content: content(part.content.clone()), ..part.clone() }),
        // What it does not tell cannot be missed.
        Message::Statements(told) => Message::Statements(Statements { prepares: List::empty(), ..told.clone() }),
        Message::Conflict(vote) => {
            let mut vote = *vote;
            vote.statement.sequence = near_slot(body, vote.statement.sequence);
            Message::Conflict(vote)
        }
        Message::Request(_) => return None,
    })
}

const fn of_commit(commit: quorate_protocol::statement::Commit) -> Prepare {
    Prepare { epoch: commit.epoch, view: commit.view, sequence: commit.sequence, digest: commit.digest }
}

impl Strategy for Mutate {
    fn outgoing(&mut self, body: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        if !body.dice.happens(CHANGED) {
            return Some(message);
        }
        Some(mutated(body, &message).unwrap_or(message))
    }
}
