//! From the words of a script to signed messages. What cannot be said (a batch that nobody proposed, a new view on view
//! changes that are not known) is not.

use std::collections::BTreeMap;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::certificate::{Certificate, PreparedCertificate, VoteSignature};
use quorate_protocol::codec::List;
use quorate_protocol::configuration::WINDOW_MAX;
use quorate_protocol::message::{
    Cast, Entry, Fetch, Message, NamedViewChange, NewView, PrePrepare, Proposal, Status, ViewChange, Want,
};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::statement::Prepare;
use quorate_protocol::time::WallTime;

use super::Cue;
use super::known::{Known, NamedContent};
use super::speech::{
    Ballot, BatchName, Beginning, Boast, Leaving, Lie, Number, Prepared, Proposals, Root, Saying, State, Told, Wanted,
};
use crate::adversary::{Body, forged_state};

/// A digest that nothing has.
const UNKNOWN: Digest = Digest::from_bytes([0xEE; 32]);

/// Requests that a batch of the latest requests holds.
const REQUESTS_MAX: usize = 16;

/// The message that `saying` stands for.
pub(super) fn message(body: &Body, known: &Known, cue: &Cue, saying: &Saying) -> Option<Message> {
    let voice = Voice { body, known, cue };
    match saying {
        Saying::PrePrepare(ballot) => voice.pre_prepare(ballot),
        Saying::Prepare(ballot) => {
            let (view, slot) = voice.place(ballot);
            Some(Message::Prepare(body.prepare(view, slot, voice.digest(ballot.batch, view, slot)?)))
        }
        Saying::Commit(ballot) => {
            let (view, slot) = voice.place(ballot);
            Some(Message::Commit(body.commit(view, slot, voice.digest(ballot.batch, view, slot)?)))
        }
        Saying::Checkpoint(state) => voice.checkpoint(state),
        Saying::ViewChange(leaving) => voice.view_change(leaving),
        Saying::NewView(beginning) => voice.new_view(beginning),
        Saying::Status(boast) => Some(voice.status(boast)),
        Saying::Fetch(wanted) => voice.fetch(*wanted).map(Message::Fetch),
        Saying::Part(lie) => voice.part(lie),
    }
}

struct Voice<'a> {
    body: &'a Body,
    known: &'a Known,
    cue: &'a Cue,
}

impl Voice<'_> {
    fn view(&self, number: Option<Number>) -> View {
        let base = self.cue.view.unwrap_or_else(|| self.body.view().value());
        View::new(number.map_or(base, |number| number.relative_to(base)))
    }

    fn slot(&self, number: Option<Number>) -> Sequence {
        let base = self.cue.slot.unwrap_or_else(|| self.body.executed().saturating_add(1).value());
        Sequence::new(number.map_or(base, |number| number.relative_to(base)))
    }

    fn place(&self, ballot: &Ballot) -> (View, Sequence) {
        (self.view(ballot.view), self.slot(ballot.slot))
    }

    fn proposed(&self, view: View, slot: Sequence) -> Option<Batch> {
        let of_cue = self.cue.batch.as_ref().or_else(|| self.known.batch_of(self.cue.digest.as_ref()?));
        of_cue.or_else(|| self.known.batch(view, slot)).cloned()
    }

    fn batch(&self, name: BatchName, view: View, slot: Sequence) -> Option<Batch> {
        match name {
            BatchName::Proposed | BatchName::Unknown => self.proposed(view, slot),
            BatchName::Empty => Some(Batch::empty()),
            BatchName::Reordered => {
                let batch = self.proposed(view, slot).filter(|batch| batch.requests().len() > 1)?;
                Some(Batch::new(batch.stamp(), batch.requests().iter().rev().cloned().collect()))
            }
            BatchName::Restamped => {
                let batch = self.proposed(view, slot).filter(|batch| !batch.is_empty())?;
                let stamp = WallTime::from_nanoseconds(batch.stamp().nanoseconds().saturating_add(1));
                Some(Batch::new(stamp, batch.requests().to_vec()))
            }
            BatchName::Requests => {
                let seen = &self.body.seen.requests;
                let latest: Vec<_> = seen.iter().skip(seen.len().saturating_sub(REQUESTS_MAX)).cloned().collect();
                (!latest.is_empty()).then(|| Batch::new(self.body.now().wall, latest))
            }
        }
    }

    fn digest(&self, name: BatchName, view: View, slot: Sequence) -> Option<Digest> {
        match name {
            BatchName::Unknown => Some(UNKNOWN),
            BatchName::Proposed if self.cue.digest.is_some() => self.cue.digest,
            _ => self.batch(name, view, slot).map(|batch| batch.digest()),
        }
    }

    fn pre_prepare(&self, ballot: &Ballot) -> Option<Message> {
        let (view, slot) = self.place(ballot);
        let batch = self.batch(ballot.batch, view, slot)?;
        let digest = if ballot.batch == BatchName::Unknown { UNKNOWN } else { batch.digest() };
        let vote = self.body.prepare(view, slot, digest);
        Some(Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() }))
    }

    fn checkpoint(&self, state: &State) -> Option<Message> {
        let root = match state.root {
            Root::Unknown => UNKNOWN,
            Root::Heard => self.cue.root?,
        };
        Some(Message::Checkpoint(self.body.checkpoint(self.slot(state.slot), root)))
    }

    fn view_change(&self, leaving: &Leaving) -> Option<Message> {
        let view = self.view(leaving.view);
        let stable = self.body.seen.stable.back().cloned().filter(|_| leaving.stable == Told::Known);
        let above = stable.as_ref().map_or(Sequence::ZERO, |certificate| certificate.statement.sequence);
        let cast = match leaving.cast {
            Told::None => Vec::new(),
            Told::Known => {
                let cast = self.known.cast(view, above).into_iter();
                cast.map(|(sequence, (view, digest))| Cast { sequence, view, digest }).collect()
            }
        };
        let content = ViewChange {
            epoch: self.body.epoch(),
            view,
            replica: self.body.id(),
            stable,
            prepared: List::new(self.prepared(leaving.prepared, view, above))?,
            cast: List::new(cast)?,
        };
        self.body.sign_view_change(&content).map(Message::ViewChange)
    }

    /// For each slot one certificate, in order.
    fn prepared(&self, which: Prepared, view: View, above: Sequence) -> Vec<PreparedCertificate> {
        let all = match which {
            Prepared::None => Vec::new(),
            Prepared::Known => Known::certificates(self.body, view, above),
            Prepared::OfView(of) => {
                let all = Known::certificates(self.body, view, above).into_iter();
                all.filter(|certificate| certificate.statement.view.value() == of).collect()
            }
            Prepared::Forged => {
                self.known.cast(view, above).into_keys().filter_map(|slot| self.forged(view, slot)).collect()
            }
        };
        let mut highest: BTreeMap<Sequence, PreparedCertificate> = BTreeMap::new();
        for certificate in all {
            let found = highest.entry(certificate.statement.sequence).or_insert_with(|| certificate.clone());
            if certificate.statement.view > found.statement.view {
                *found = certificate;
            }
        }
        highest.into_values().take(WINDOW_MAX).collect()
    }

    fn forged(&self, view: View, sequence: Sequence) -> Option<PreparedCertificate> {
        let view = View::new(view.value().checked_sub(1)?);
        let statement = Prepare { epoch: self.body.epoch(), view, sequence, digest: Batch::empty().digest() };
        let signature = self.body.sign(statement).signature;
        let voters = self.body.configuration().replicas().take(self.body.configuration().quorum());
        let votes = voters.map(|voter| VoteSignature { voter, signature }).collect();
        Some(Certificate { statement, votes: List::new(votes)? })
    }

    fn new_view(&self, beginning: &Beginning) -> Option<Message> {
        let view = self.view(beginning.view);
        let known = self.known.view_changes(self.body, view);
        let rests_on: Vec<(ReplicaId, NamedContent)> = if beginning.rests_on.is_empty() {
            known.into_iter().take(self.body.configuration().quorum()).collect()
        } else {
            let is_meant = |id: &ReplicaId| beginning.rests_on.contains(&id.value());
            known.into_iter().filter(|(id, _)| is_meant(id)).collect()
        };
        let named = rests_on.iter().map(|(id, of)| NamedViewChange { replica: *id, digest: of.digest }).collect();
        let content = NewView {
            epoch: self.body.epoch(),
            view,
            view_changes: List::new(named)?,
            proposals: List::new(proposals(&rests_on, beginning.proposals))?,
        };
        self.body.sign_new_view(&content).map(Message::NewView)
    }

    fn status(&self, boast: &Boast) -> Message {
        let number = |number: Option<Number>, own: Sequence| {
            number.map_or(own, |number| Sequence::new(number.relative_to(own.value())))
        };
        let executed = number(boast.executed, self.body.executed());
        Message::Status(Status {
            epoch: self.body.epoch(),
            view: self.view(boast.view),
            entered: boast.entered.unwrap_or(true),
            suspects: boast.suspects,
            stable: number(boast.stable, self.body.stable()),
            executed,
            decided_from: Sequence::new(1),
            view_changes: 0,
            checkpoint_votes: 0,
            slots: List::empty(),
        })
    }

    fn fetch(&self, wanted: Wanted) -> Option<Fetch> {
        Some(match wanted {
            Wanted::Batch(name) => {
                let (view, sequence) = (self.view(None), self.slot(None));
                Fetch::Batch { sequence, digest: self.digest(name, view, sequence)? }
            }
            Wanted::Decided(after) => Fetch::Decided { after: self.slot(Some(after)) },
            Wanted::NewView(view) => Fetch::NewView { view: self.view(Some(view)) },
            Wanted::Part(slot) => Fetch::Part { sequence: self.slot(Some(slot)), want: Want::Crown },
        })
    }

    fn part(&self, lie: &Lie) -> Option<Message> {
        let (sequence, want) = self.cue.part.clone()?;
        let entry = Entry { key: lie.key.as_bytes().into(), value: lie.value.as_bytes().into() };
        Some(Message::Part(forged_state::part(self.body, sequence, &[entry], &want)?))
    }
}

/// What a new view on `view_changes` proposes: what is right by PROTOCOL §7.3, or what is wrong with it.
fn proposals(view_changes: &[(ReplicaId, NamedContent)], which: Proposals) -> Vec<Proposal> {
    let contents = || view_changes.iter().map(|(_, of)| &of.content);
    let min = contents().map(ViewChange::stable_sequence).max().unwrap_or(Sequence::ZERO);
    let mut found: BTreeMap<Sequence, Prepare> = BTreeMap::new();
    for statement in contents().flat_map(|content| content.prepared.iter()).map(|certificate| certificate.statement) {
        let chosen = found.entry(statement.sequence).or_insert(statement);
        let is_better = match which {
            Proposals::Lowest => statement.view < chosen.view,
            Proposals::Right | Proposals::Empty | Proposals::None => statement.view > chosen.view,
        };
        if is_better {
            *chosen = statement;
        }
    }
    let max = found.last_key_value().map_or(min, |(slot, _)| *slot);
    let slots = (min.value().saturating_add(1)..=max.value()).take(WINDOW_MAX).map(Sequence::new);
    let proposal = |sequence: Sequence| {
        let right = found.get(&sequence).filter(|_| which != Proposals::Empty);
        Proposal { sequence, digest: right.map_or_else(|| Batch::empty().digest(), |statement| statement.digest) }
    };
    if which == Proposals::None { Vec::new() } else { slots.map(proposal).collect() }
}
