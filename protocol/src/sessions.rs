//! Exactly once: which numbers of which sessions executed, and what came of them. (PROTOCOL §4.1, §12)
//!
//! The table is part of the replicated state. It changes at two moments, both in the order of slots: when a slot is given
//! to execution ([`Sessions::admit`]) and when its results are back ([`Sessions::complete`]). What is admitted never
//! depends on results, so that several slots may be in execution; at a checkpoint none is.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use quorate_crypto::{Digest, PublicKey};

use crate::application::Change;
use crate::batch::Request;
use crate::codec::{BorrowDecode, Encode, Frame, List, decode, encode};
use crate::configuration::Parameters;
use crate::message::{Entry, Outcome};
use crate::number::{RequestNumber, Sequence, Session};
use crate::state::StateMap;

/// Depth of the tree over the table: 4,096 buckets.
const TREE_DEPTH: u8 = 12;

/// Most requests that a session may have outstanding, and replies that it keeps.
pub(crate) const OUTSTANDING_MAX: usize = 64;

/// Bytes of results that one session keeps, at most; the oldest are forgotten first.
const SESSION_REPLY_BYTES_MAX: u64 = 1 << 20;

/// The most that the table holds, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Requests that a session may have outstanding.
    pub(crate) outstanding: u64,
    /// Sessions.
    pub(crate) sessions: usize,
    /// Bytes of results over all sessions.
    pub(crate) reply_bytes: u64,
}

impl Bounds {
    /// Those that `parameters` set.
    pub(crate) fn of(parameters: &Parameters) -> Self {
        Self {
            outstanding: parameters.outstanding_max.into(),
            sessions: parameters.sessions_max as usize,
            reply_bytes: parameters.reply_cache_bytes_max,
        }
    }
}

/// What is to become of a request in a slot. (PROTOCOL §4.3: skipped at execution, by everyone alike)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It executes.
    Execute,
    /// It is answered without executing.
    Answer(Outcome),
    /// It is skipped: the same request is in execution, or its number is outside the window.
    Skip,
}

/// What is known of a request before it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It may execute.
    Open,
    /// It is in execution.
    InExecution,
    /// It executed, or can be answered as if.
    Answer(Outcome),
    /// Its number lies outside the window.
    OutsideWindow,
    /// It is an opening below this one, which executed.
    Superseded(RequestNumber),
    /// Its session is not in the table, though this replica executed the slot in the session's name.
    NoSession,
    /// Its session is named after a slot that this replica has not executed.
    SessionAhead,
}

/// One client's session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entered {
    session: Session,
    opening: RequestNumber,
    /// The highest number that executed.
    highest: RequestNumber,
    /// The slot and place of its last execution: the session that executed least recently gives way.
    last: (Sequence, u32),
    /// Numbers executed within the window below `highest`, with their replies; `None` while in execution.
    /// Bound: the window.
    replies: BTreeMap<RequestNumber, Option<Outcome>>,
    reply_bytes: u64,
}

/// A session as the state keeps it.
#[derive(Debug, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
struct Stored {
    session: Session,
    opening: RequestNumber,
    highest: RequestNumber,
    last: (Sequence, u32),
    replies: List<(RequestNumber, Outcome), OUTSTANDING_MAX>,
}

/// A reply whose results are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kept {
    client: PublicKey,
    session: Session,
    number: RequestNumber,
    bytes: u64,
}

/// The session table.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Sessions {
    bounds: Bounds,
    /// Bound: that of sessions.
    by_client: BTreeMap<PublicKey, Entered>,
    /// The sessions in the order in which they last executed. Bound: as above.
    by_recency: BTreeMap<(Sequence, u32), PublicKey>,
    /// Replies with results in the order in which they executed. Bound: that of bytes, and one a number in a window.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// Clients whose sessions changed since the last checkpoint. Bound: as many as executed in one interval.
    changed: BTreeSet<PublicKey>,
    /// The table as of the last checkpoint, under its root.
    stored: StateMap,
}

impl Sessions {
    /// An empty table.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            by_client: BTreeMap::new(),
            by_recency: BTreeMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            changed: BTreeSet::new(),
            stored: StateMap::new(TREE_DEPTH),
        }
    }

    /// The table that `entries`, in ascending order of their keys, hold; `None` if they are no table.
    pub(crate) fn restore(bounds: Bounds, entries: &[Entry]) -> Option<Self> {
        let mut table = Self::new(bounds);
        table.stored.restore(&mut entries.iter().cloned()).ok()?;
        let mut kept = Vec::new();
        for entry in entries {
            let client = PublicKey::from_bytes(entry.key.as_ref().try_into().ok()?).ok()?;
            let stored: Stored = decode(entry.value.bytes()).ok()?;
            let replies = stored.replies.into_vec();
            kept.extend(replies.iter().filter_map(|(number, outcome)| keep(client, stored.session, *number, outcome)));
            let entered = Entered {
                session: stored.session,
                opening: stored.opening,
                highest: stored.highest,
                last: stored.last,
                reply_bytes: replies.iter().map(|(_, outcome)| result_bytes(outcome)).sum(),
                replies: replies.into_iter().map(|(number, outcome)| (number, Some(outcome))).collect(),
            };
            table.by_recency.insert(entered.last, client);
            table.by_client.insert(client, entered);
        }
        kept.sort_by_key(|(place, _)| *place);
        table.kept_bytes = kept.iter().map(|(_, kept)| kept.bytes).sum();
        table.kept = kept.into_iter().map(|(_, kept)| kept).collect();
        let is_consistent = table.by_recency.len() == table.by_client.len();
        is_consistent.then_some(table)
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// What is known of `request`, all slots up to `executed` being reflected here.
    pub(crate) fn lookup(&self, request: &Request, executed: Sequence) -> Lookup {
        let entered = self.by_client.get(&request.client);
        if request.is_opening() {
            return match entered {
                Some(entered) if entered.opening == request.number => {
                    Lookup::Answer(Outcome::Opened { session: entered.session })
                }
                Some(entered) if entered.opening > request.number => Lookup::Superseded(entered.opening),
                Some(_) | None => Lookup::Open,
            };
        }
        let Some(entered) = entered.filter(|entered| entered.session == request.session) else {
            let is_ahead = request.session.sequence > executed;
            return if is_ahead { Lookup::SessionAhead } else { Lookup::NoSession };
        };
        match entered.replies.get(&request.number) {
            Some(Some(outcome)) => Lookup::Answer(outcome.clone()),
            Some(None) => Lookup::InExecution,
            None if entered.is_forgotten(request.number, self.bounds) => Lookup::Answer(Outcome::Forgotten),
            None if entered.is_within_window(request.number, self.bounds) => Lookup::Open,
            None => Lookup::OutsideWindow,
        }
    }

    /// Decides what becomes of `request`, at place `index` of slot `sequence`, and marks it as executed if it executes.
    pub(crate) fn admit(&mut self, request: &Request, sequence: Sequence, index: u32) -> Admission {
        match self.lookup(request, sequence) {
            Lookup::Open if request.is_opening() => self.open(request, sequence, index),
            Lookup::Open => self.mark(request, sequence, index),
            Lookup::Answer(outcome) => Admission::Answer(outcome),
            Lookup::InExecution | Lookup::OutsideWindow | Lookup::Superseded(_) => Admission::Skip,
            // A session that is named after a later slot is none that the client was given.
            Lookup::NoSession | Lookup::SessionAhead => Admission::Answer(Outcome::Evicted),
        }
    }

    fn mark(&mut self, request: &Request, sequence: Sequence, index: u32) -> Admission {
        let entered = self.by_client.get_mut(&request.client).expect("an open number lies in a session's window");
        entered.replies.insert(request.number, None);
        entered.highest = entered.highest.max(request.number);
        self.by_recency.remove(&entered.last);
        entered.last = (sequence, index);
        self.by_recency.insert(entered.last, request.client);
        self.changed.insert(request.client);
        Admission::Execute
    }

    /// Keeps the outcome of a request that was admitted, in the order of execution.
    pub(crate) fn complete(&mut self, client: PublicKey, session: Session, number: RequestNumber, outcome: Outcome) {
        let entered = self.by_client.get_mut(&client).filter(|entered| entered.session == session);
        let kept = keep(client, session, number, &outcome).map(|(_, kept)| kept);
        if let Some(entered) = entered {
            let window_start = entered.highest.saturating_sub(self.bounds.outstanding);
            if number > window_start {
                entered.reply_bytes += result_bytes(&outcome);
                entered.replies.insert(number, Some(outcome));
            }
            entered.drop_below_window(self.bounds);
        }
        // Counted even if the session is gone: what is forgotten must not depend on when later slots are admitted.
        if let Some(kept) = kept {
            self.kept_bytes += kept.bytes;
            self.kept.push_back(kept);
        }
        while self.kept_bytes > self.bounds.reply_bytes {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.bytes;
            self.forget(&oldest);
        }
    }

    /// The root of the table and what changed in it since the last checkpoint. None is in execution.
    pub(crate) fn checkpoint(&mut self) -> (Digest, Vec<Change>) {
        for client in core::mem::take(&mut self.changed) {
            match self.by_client.get_mut(&client) {
                Some(entered) => {
                    // Here and not earlier: between checkpoints the window may be ahead of the results.
                    entered.forget_beyond(SESSION_REPLY_BYTES_MAX);
                    self.stored.insert(client.as_bytes(), &entered.encode());
                }
                None => {
                    self.stored.remove(client.as_bytes());
                }
            }
        }
        let by_client = &self.by_client;
        let is_alive = |kept: &Kept| {
            let entered = by_client.get(&kept.client).filter(|entered| entered.session == kept.session);
            entered.is_some_and(|entered| entered.holds_results(kept.number))
        };
        self.kept.retain(is_alive);
        self.kept_bytes = self.kept.iter().map(|kept| kept.bytes).sum();
        let image = self.stored.checkpoint();
        (image.root, image.changes)
    }

    /// The root as of the last checkpoint.
    pub(crate) const fn root(&self) -> Digest {
        self.stored.root()
    }

    fn open(&mut self, request: &Request, sequence: Sequence, index: u32) -> Admission {
        if let Some(replaced) = self.by_client.get(&request.client) {
            self.by_recency.remove(&replaced.last);
        }
        let session = Session { sequence, index };
        let entered = Entered {
            session,
            opening: request.number,
            highest: RequestNumber::ZERO,
            last: (sequence, index),
            replies: BTreeMap::new(),
            reply_bytes: 0,
        };
        self.by_client.insert(request.client, entered);
        self.by_recency.insert((sequence, index), request.client);
        self.changed.insert(request.client);
        self.evict_beyond_bound();
        Admission::Answer(Outcome::Opened { session })
    }

    fn evict_beyond_bound(&mut self) {
        while self.by_client.len() > self.bounds.sessions {
            let (_, client) = self.by_recency.pop_first().expect("each session stands in the order of recency");
            self.by_client.remove(&client);
            self.changed.insert(client);
        }
    }

    fn forget(&mut self, kept: &Kept) {
        let entered = self.by_client.get_mut(&kept.client).filter(|entered| entered.session == kept.session);
        if let Some(entered) = entered
            && entered.holds_results(kept.number)
        {
            entered.replies.insert(kept.number, Some(Outcome::Forgotten));
            entered.reply_bytes -= kept.bytes;
            self.changed.insert(kept.client);
        }
    }
}

impl Entered {
    /// `highest - outstanding < number <= highest + outstanding`: a client with at most that many requests outstanding
    /// never needs another.
    fn is_within_window(&self, number: RequestNumber, bounds: Bounds) -> bool {
        number != RequestNumber::ZERO
            && number.saturating_add(bounds.outstanding) > self.highest
            && number <= self.highest.saturating_add(bounds.outstanding)
    }

    /// Whether the number lies below the window: it executed, or its client gave it up.
    fn is_forgotten(&self, number: RequestNumber, bounds: Bounds) -> bool {
        number.saturating_add(bounds.outstanding) <= self.highest
    }

    fn holds_results(&self, number: RequestNumber) -> bool {
        matches!(self.replies.get(&number), Some(Some(Outcome::Executed { .. })))
    }

    fn drop_below_window(&mut self, bounds: Bounds) {
        let start = self.highest.saturating_sub(bounds.outstanding);
        while let Some(entry) = self.replies.first_entry() {
            if *entry.key() > start {
                break;
            }
            let outcome = entry.remove();
            self.reply_bytes -= outcome.as_ref().map_or(0, result_bytes);
        }
    }

    fn forget_beyond(&mut self, bytes_max: u64) {
        let mut excess = self.reply_bytes.saturating_sub(bytes_max);
        for outcome in self.replies.values_mut().flatten() {
            if excess == 0 {
                break;
            }
            let bytes = result_bytes(outcome);
            if bytes > 0 {
                *outcome = Outcome::Forgotten;
                self.reply_bytes -= bytes;
                excess = excess.saturating_sub(bytes);
            }
        }
    }

    fn encode(&self) -> Bytes {
        let completed = |(number, outcome): (&RequestNumber, &Option<Outcome>)| {
            let outcome = outcome.clone().expect("at a checkpoint nothing is in execution");
            (*number, outcome)
        };
        let replies = List::new(self.replies.iter().map(completed).collect()).expect("a window holds at most 64");
        let stored =
            Stored { session: self.session, opening: self.opening, highest: self.highest, last: self.last, replies };
        encode(&stored).expect("the results of a session are bounded")
    }
}

/// Bytes of results: what counts against the bounds.
fn result_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Executed { results, .. } => results.iter().map(|result| result.len() as u64 + 16).sum(),
        Outcome::Opened { .. } | Outcome::Evicted | Outcome::Forgotten | Outcome::Superseded { .. } => 0,
    }
}

fn keep(
    client: PublicKey,
    session: Session,
    number: RequestNumber,
    outcome: &Outcome,
) -> Option<((Sequence, u32), Kept)> {
    match outcome {
        Outcome::Executed { sequence, index, .. } => {
            Some(((*sequence, *index), Kept { client, session, number, bytes: result_bytes(outcome) }))
        }
        Outcome::Opened { .. } | Outcome::Evicted | Outcome::Forgotten | Outcome::Superseded { .. } => None,
    }
}

#[cfg(test)]
mod tests;
