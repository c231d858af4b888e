//! From what a core is given to the items that say so.

use quorate_crypto::Digest;

use super::{CHUNK_MAX, Digests, Event, Item, Role};
use crate::codec::{Blob, List};
use crate::input::{Input, StageReady};
use crate::message::{Decided, Entry, FetchedBatch, Message, PrePrepare, Statements};
use crate::replica::Start;
use crate::time::Now;
use crate::verify::{Payload, Spoken};

/// From how many bytes on a part of a list is a frame.
const CHUNK_BYTES: usize = 1 << 20;

/// Puts the items of a start as `role` at `now`, in order.
///
/// # Errors
/// That of `put`.
pub fn start<E>(start: &Start, role: Role, now: Now, mut put: impl FnMut(Item) -> Result<(), E>) -> Result<(), E> {
    for (number, recovered) in &start.records {
        let (head, body) = recovered.encode();
        put(Item::Record { number: *number, head: head.into(), body: body.map(Blob::from) })?;
    }
    if let Some(checkpoint) = &start.checkpoint {
        put_entries(&checkpoint.protocol, &mut put)?;
    }
    put(Item::Start {
        id: start.id,
        checkpoint: start.checkpoint.as_ref().map(|checkpoint| (checkpoint.sequence, checkpoint.application_root)),
        first_record: start.first_record,
        is_damaged: start.is_damaged,
        token: start.token,
        now: now.into(),
        role,
    })
}

/// Puts the items of an input at `now`, in order; `outputs` are of those that came since the one before.
///
/// # Errors
/// That of `put`.
pub fn input<E>(
    outputs: Digests,
    now: Now,
    input: &Input,
    mut put: impl FnMut(Item) -> Result<(), E>,
) -> Result<(), E> {
    let event = match input {
        Input::Message { from, message } => {
            Event::Message { from: *from, epoch: message.epoch(), message: to_message(message) }
        }
        Input::Request(request) => Event::Request { epoch: request.epoch(), request: request.signed.clone() },
        Input::Copy(request) => Event::Copy { epoch: request.epoch(), request: request.signed.clone() },
        Input::Misbehaviour(evidence) => Event::Misbehaviour((**evidence).clone()),
        Input::Wake => Event::Wake,
        Input::Durable(number) => Event::Durable(*number),
        Input::Executed { sequence, results } => {
            put_chunks(results, |results| results.iter().map(|result| result.len()).sum(), Item::Results, &mut put)?;
            Event::Executed { sequence: *sequence }
        }
        Input::CheckpointTaken { sequence, application_root } => {
            Event::CheckpointTaken { sequence: *sequence, application_root: *application_root }
        }
        Input::CheckpointDurable { sequence } => Event::CheckpointDurable { sequence: *sequence },
        Input::StageReady(StageReady { leaves, limits }) => {
            put_chunks(leaves, |_| size_of::<Digest>(), Item::Leaves, &mut put)?;
            Event::StageReady(*limits)
        }
        Input::StateStaged { sequence, application_root } => {
            Event::StateStaged { sequence: *sequence, application_root: *application_root }
        }
        Input::StateInstalled { sequence } => Event::StateInstalled { sequence: *sequence },
        Input::StateDamaged => Event::StateDamaged,
        Input::LogFull => Event::LogFull,
        Input::LogHasRoom => Event::LogHasRoom,
        Input::LogDamaged => Event::LogDamaged,
    };
    put(Item::Input { outputs, now: now.into(), event })
}

fn put_entries<E>(entries: &[Entry], put: &mut impl FnMut(Item) -> Result<(), E>) -> Result<(), E> {
    put_chunks(entries, |entry| entry.key.len() + entry.value.len(), Item::Entries, put)
}

/// Puts a list in parts of about [`CHUNK_BYTES`].
fn put_chunks<T: Clone, E>(
    elements: &[T],
    bytes_of: impl Fn(&T) -> usize,
    item: impl Fn(List<T, CHUNK_MAX>) -> Item,
    put: &mut impl FnMut(Item) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = elements;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |element: &&T| {
            bytes += bytes_of(element);
            bytes <= CHUNK_BYTES
        };
        // One that is larger than a part alone is a part of its own.
        let count = rest.iter().take(CHUNK_MAX).take_while(fits).count().max(1);
        let (part, others) = rest.split_at(count);
        put(item(List::new(part.to_vec()).expect("no more than a part holds")))?;
        rest = others;
    }
    Ok(())
}

/// The message that was checked.
fn to_message(payload: &Payload) -> Message {
    match payload {
        Payload::Request(request) => Message::Request(request.signed.clone()),
        Payload::PrePrepare(vote, batch) => {
            Message::PrePrepare(PrePrepare { vote: *vote, batch: batch.body().clone().into() })
        }
        Payload::Prepare(vote) => Message::Prepare(*vote),
        Payload::Commit(vote) => Message::Commit(*vote),
        Payload::Checkpoint(vote) => Message::Checkpoint(*vote),
        Payload::Stable(certificate) => Message::Stable(certificate.clone()),
        Payload::ViewChange(view_change) => Message::ViewChange(view_change.signed.clone()),
        Payload::NewView(new_view) => Message::NewView(new_view.signed.clone()),
        Payload::Status(status) => Message::Status(status.clone()),
        Payload::Fetch(fetch) => Message::Fetch(fetch.clone()),
        Payload::Batch(sequence, batch) => {
            Message::Batch(FetchedBatch { sequence: *sequence, batch: batch.body().clone().into() })
        }
        Payload::Decided(certificate, batch) => {
            Message::Decided(Decided { certificate: certificate.clone(), batch: batch.body().clone().into() })
        }
        Payload::Statements(spoken) => Message::Statements(to_statements(spoken)),
        Payload::Part(part) => Message::Part(part.clone()),
        Payload::Conflict(vote) => Message::Conflict(*vote),
    }
}

fn to_statements(spoken: &Spoken) -> Statements {
    let (view_change, new_view) = spoken.signed.clone();
    Statements {
        token: spoken.token,
        epoch: spoken.epoch,
        prepares: list(&spoken.prepares),
        commits: list(&spoken.commits),
        checkpoints: list(&spoken.checkpoints),
        view_change,
        new_view,
        reached: spoken.reached,
    }
}

fn list<T: Clone, const MAX: usize>(elements: &[T]) -> List<T, MAX> {
    List::new(elements.to_vec()).expect("it came out of such a list")
}
