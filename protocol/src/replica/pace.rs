//! How soon a primary proposes what it is asked for, as a backup sees it. (PROTOCOL §6, slowness; Clement et al., Aardvark, NSDI 2009,
//! section 4.3; Amir et al., Prime, TDSC 2011)
//!
//! Clients give a backup copies of some requests, which the primary cannot tell from others. How long those wait for their
//! proposal, against how long the replicas then take to order and execute it, tells a primary that takes its time from one
//! that has much to do: with more load, or on slower links, both grow. And what those who were primary lately achieved, f + 1
//! of them at least, nobody has to undercut by far: if all are alike, replacing one gains nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Mode, Replica};
use crate::batch::Batch;
use crate::number::{ReplicaId, Sequence};
use crate::output::Suspicion;
use crate::queue::Copied;
use crate::time::Time;

/// A request may wait for its proposal this many times as long as it then takes to execute. A correct primary lets it wait for
/// about one slot that is under way, behind full batches for a pipeline of them; a backup adds the checks of its own.
const WAIT_FACTOR: u32 = 8;

/// And for this part of the ordering deadline's parameter in any case: a disk or a processor that is busy elsewhere takes as
/// long now and then.
const WAIT_FLOOR_PART: u32 = 4;

/// And this many times as long as under others.
const OTHERS_FACTOR: u32 = 2;

/// Slots with copies in them that it takes to judge a primary.
const SLOTS_MIN: u32 = 4;

/// A primary is slow that was so for this many times the ordering deadline's parameter: with a burst of requests, the first of
/// them wait for a while.
const PERSISTENCE_FACTOR: u32 = 4;

/// What somebody achieved as primary counts for so long.
const REMEMBERED: Duration = Duration::from_mins(1);

/// The latest slot counts for one part in this many, or as much as each before while they are fewer.
const WAIT_SMOOTHING: u32 = 16;
const ORDERING_SMOOTHING: u32 = 8;

/// What is measured of the way of requests.
#[derive(Debug, Clone, Hash)]
pub(super) struct Pace {
    /// From the acceptance of a proposal, and of all before it, to its execution, smoothed.
    ordering: Duration,
    /// The proposals of slots in flight. Bound: two windows.
    accepted: BTreeMap<Sequence, Accepted>,
    /// When the last of the proposals of executed slots was accepted, and when a slot was executed that others handed out.
    accepted_all: Time,
    handed_out: Time,
    /// From the arrival of a copy to the proposal with its request, and to all before it, under this primary, smoothed.
    wait: Duration,
    /// What was tolerated meanwhile, smoothed alike: after a burst both fall together.
    tolerated: Duration,
    /// Slots that it was measured in.
    slots: u32,
    /// Since when it has been longer than is tolerated, and in how many slots it was measured by then.
    slow_since: Option<(Time, u32)>,
    /// The same under others when they were primary last, and until when. Bound: one a member.
    of_members: Vec<Option<(Duration, Time)>>,
}

/// A proposal that was accepted.
#[derive(Debug, Clone, Copy, Hash)]
struct Accepted {
    at: Time,
    /// How long its requests of which there were copies had waited by then, together, and how many there were.
    waited: Duration,
    copies: u32,
}

impl Pace {
    pub(super) fn new(members: usize) -> Self {
        Self {
            ordering: Duration::ZERO,
            accepted: BTreeMap::new(),
            accepted_all: Time::ZERO,
            handed_out: Time::ZERO,
            wait: Duration::ZERO,
            tolerated: Duration::ZERO,
            slots: 0,
            slow_since: None,
            of_members: (0..members).map(|_| None).collect(),
        }
    }

    /// A slot executed: gives how long its requests waited for their proposal, on average, if that was measured. A slot does not
    /// execute before those below it, so that its proposal is worth nothing before theirs: what it waits for them is not the time
    /// that ordering takes, but one more that the primary let it wait. So does a request of which a copy came after its proposal,
    /// at one of the moments `late`, and before theirs.
    fn take_executed(&mut self, sequence: Sequence, late: &[Time], now: Time) -> Option<Duration> {
        let proposal = self.accepted.remove(&sequence);
        self.accepted = self.accepted.split_off(&sequence);
        let Some(Accepted { at, waited, copies }) = proposal else {
            // Whoever was away fetches what it missed: nobody is blamed for that, and ordering took no longer.
            self.handed_out = now;
            return None;
        };
        self.accepted_all = self.accepted_all.max(at);
        let since = self.accepted_all.max(self.handed_out);
        self.ordering = smoothed(self.ordering, now.since(since), ORDERING_SMOOTHING);
        let waited = waited.saturating_add(self.accepted_all.since(at).saturating_mul(copies));
        let late = late.iter().map(|arrived| self.accepted_all.since(*arrived)).filter(|wait| !wait.is_zero());
        let (waited, copies) =
            late.fold((waited, copies), |(total, count), wait| (total.saturating_add(wait), count + 1));
        waited.checked_div(copies)
    }

    /// A view with this primary ended.
    pub(super) fn note_end_of(&mut self, primary: ReplicaId, now: Time) {
        if let Some(wait) = self.wait_under_primary() {
            self.of_members[primary.index()] = Some((wait, now));
        }
        self.wait = Duration::ZERO;
        self.tolerated = Duration::ZERO;
        self.slots = 0;
        self.slow_since = None;
        self.accepted.clear();
    }

    /// How long requests wait under this primary, once that can be told.
    fn wait_under_primary(&self) -> Option<Duration> {
        (self.slots >= SLOTS_MIN).then_some(self.wait)
    }

    /// What at least one correct member did not undercut lately: the longest wait but those of f others.
    fn wait_under_others(&self, but: ReplicaId, weak_quorum: usize, now: Time) -> Option<Duration> {
        let of_others = self.of_members.iter().enumerate().filter(|(index, _)| *index != but.index());
        let lately = of_others.filter_map(|(_, measured)| measured.filter(|(_, at)| now.since(*at) < REMEMBERED));
        let mut waits: Vec<Duration> = lately.map(|(wait, _)| wait).collect();
        waits.sort_unstable();
        waits.into_iter().rev().nth(weak_quorum - 1)
    }
}

fn smoothed(before: Duration, measured: Duration, smoothing: u32) -> Duration {
    (before * (smoothing - 1) + measured) / smoothing
}

impl Replica {
    /// How long a request may wait for its proposal, on average.
    fn tolerated_wait(&self) -> Duration {
        let pace = &self.suspicion.pace;
        let floor = self.parameters().ordering_deadline() / WAIT_FLOOR_PART;
        let by_ordering = self.ordering().saturating_mul(WAIT_FACTOR).max(floor);
        let others = pace.wait_under_others(self.primary(), self.configuration.weak_quorum(), self.now.monotonic);
        others.map_or(by_ordering, |others| by_ordering.max(others.saturating_mul(OTHERS_FACTOR)))
    }

    /// How long slots take from their proposal to their execution.
    pub(super) const fn ordering(&self) -> Duration {
        self.suspicion.pace.ordering
    }

    /// How long a copy is kept quiet about: the primary is given its request after that, should it lack it.
    pub(super) fn held_for(&self) -> Duration {
        self.tolerated_wait() / 2
    }

    /// The longest latency by which the ordering deadline adapts.
    pub(super) fn latency_max(&self) -> Duration {
        self.tolerated_wait().saturating_add(self.ordering())
    }

    /// Whether the primary has let requests wait for longer than is tolerated for some time.
    pub(super) fn is_primary_slow(&self) -> bool {
        let persistence = self.parameters().ordering_deadline() * PERSISTENCE_FACTOR;
        let pace = &self.suspicion.pace;
        // A verdict of one bad moment is none, however long nothing is measured after it.
        let persists = |(since, slots)| {
            self.now.monotonic.since(since) >= persistence && pace.slots.saturating_sub(slots) >= SLOTS_MIN
        };
        pace.slow_since.is_some_and(persists)
    }

    /// This replica accepts the primary's proposal of a slot.
    pub(super) fn note_pace_of_proposal(&mut self, sequence: Sequence, batch: &Batch) {
        let (mut waited, mut copies) = (Duration::ZERO, 0);
        for copy in self.take_copies(batch) {
            waited = waited.saturating_add(self.wait_of(copy));
            copies += 1;
        }
        let proposal = Accepted { at: self.now.monotonic, waited, copies };
        self.suspicion.pace.accepted.insert(sequence, proposal);
    }

    /// What is seen by the copies of what is in a batch.
    fn take_copies(&mut self, batch: &Batch) -> Vec<Copied> {
        let requests = if self.queue.len() == 0 { &[] } else { batch.requests() };
        requests.iter().filter_map(|request| self.queue.take_copy(&request.request.id())).collect()
    }

    /// A slot executed.
    pub(super) fn note_pace_of_execution(&mut self, sequence: Sequence) {
        let now = self.now.monotonic;
        // A primary accepts nothing, and learns nothing of itself.
        let is_measured = self.suspicion.pace.accepted.contains_key(&sequence);
        let batch = self.log.decided(sequence).filter(|_| is_measured).map(|(_, batch)| batch.clone());
        let late = batch.map_or(Vec::new(), |batch| self.take_copies(&batch));
        let late: Vec<Time> = late.into_iter().map(|copy| copy.arrived).collect();
        let Some(waited) = self.suspicion.pace.take_executed(sequence, &late, now) else { return };
        let tolerated = self.tolerated_wait();
        let pace = &mut self.suspicion.pace;
        pace.slots = pace.slots.saturating_add(1);
        let smoothing = WAIT_SMOOTHING.min(pace.slots);
        pace.wait = smoothed(pace.wait, waited, smoothing);
        pace.tolerated = smoothed(pace.tolerated, tolerated, smoothing);
        let tolerated = tolerated.max(pace.tolerated);
        let is_slow = pace.wait_under_primary().is_some_and(|wait| wait > tolerated);
        let since = self.suspicion.pace.slow_since.filter(|_| is_slow);
        let slots = self.suspicion.pace.slots;
        self.suspicion.pace.slow_since = since.or_else(|| is_slow.then_some((now, slots)));
    }

    /// After an execution: what it showed of the primary may be reason enough.
    pub(super) fn suspect_if_slow(&mut self) {
        if self.mode == Mode::Normal && self.is_primary_slow() {
            self.suspect(Suspicion::Slowness);
        }
    }

    /// How long the primary let a request wait of which there was a copy. If it had to be given the request once more, the time
    /// from then on counts, or a client that never gave it to the primary would put the blame on that one.
    fn wait_of(&self, copy: Copied) -> Duration {
        let now = self.now.monotonic;
        match copy.passed_on {
            None => now.since(copy.arrived),
            Some(at) => now.since(at).max(at.since(copy.arrived)),
        }
    }

    /// How long requests wait for their proposal under this primary, and how long slots take then: as far as is known.
    pub fn pace(&self) -> (Option<Duration>, Duration) {
        (self.suspicion.pace.wait_under_primary(), self.ordering())
    }
}
