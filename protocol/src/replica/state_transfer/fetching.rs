//! What is fetched from whom: from the root down, several sources at once, each part checked on arrival. (PROTOCOL §9)
//!
//! A source does a few tasks at a time: first one the crown and the protocol's own entries, which the certificate vouches for,
//! then each a group of buckets that differs from what is here. A part that does not lead to what is above it is its source's
//! lie: it did the whole task alone. What a source does not do in time, another does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use quorate_crypto::Digest;
use quorate_crypto::merkle::{DEPTH_MAX, above};

use super::task::{GroupTask, HeadTask, Task, Verdict, WholeHead, bytes_of};
use crate::configuration::Configuration;
use crate::input::{StageReady, TransferLimits};
use crate::message::{Content, Entry, Part, Want};
use crate::number::ReplicaId;
use crate::output::StagedBucket;
use crate::replica::protocol_state::ProtocolState;
use crate::replica::state_root;
use crate::state::crown_level;
use crate::statement::Checkpoint;
use crate::time::Time;

/// What an entry takes in memory besides its bytes.
pub(super) const ENTRY_BYTES: u64 = 64;

/// Tasks that a source does at once: an answer is on its way while the next question is.
const LANES: usize = 4;

/// A part counts as this many bytes besides those of its entries: asking costs too.
const PART_BYTES: u64 = 256;

/// What is fetched of one checkpoint.
#[derive(Debug, Clone, Hash)]
pub(super) struct Fetching {
    /// The leaves of what is staged: of the state here, and of buckets that were fetched. 2^depth.
    have: Vec<Digest>,
    depth: u8,
    limits: TransferLimits,
    goal: Option<Goal>,
    /// How often a task was taken from its source because that, or an answer, took too long, by its group, or the head: links
    /// are as slow for the next checkpoint. Bound: the groups.
    handed_over: BTreeMap<Option<u16>, u32>,
    /// One a member.
    sources: Vec<Source>,
    /// [`LANES`] a member.
    lanes: Vec<Lane>,
    /// When the rate allows the next question.
    paced: Time,
    /// Questions in a row that nobody answered in time.
    late: usize,
}

/// What the certified root is made of.
#[derive(Debug, Clone, Hash)]
struct Goal {
    /// The crown.
    groups: Vec<Digest>,
    /// Groups that differ, and that nobody is at.
    open: BTreeSet<u16>,
    /// The protocol's part of the state, and its entries.
    state: ProtocolState,
    entries: Vec<Entry>,
}

/// How long a source may take for an answer, and for a task, as long as it answers: at first, and twice as long each time that
/// the task was handed over. On links on which a task takes longer than any answer may take, or one answer in a few is late, it
/// would be begun anew for ever otherwise.
#[derive(Debug, Clone, Copy)]
pub(in crate::replica) struct Patience {
    pub(super) first: Duration,
    pub(super) most: Duration,
}

impl Patience {
    fn after(self, handed_over: u32) -> Duration {
        let factor = 1_u32.checked_shl(handed_over).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most.max(self.first))
    }
}

/// What is known of a source.
#[derive(Debug, Clone, Copy, Hash, Default)]
struct Source {
    /// Whether it had the checkpoint since that is fetched. It hands it out for as long as it is asked, whatever it has by then.
    has_it: bool,
    conduct: Conduct,
}

/// How a source behaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Conduct {
    #[default]
    Good,
    /// Somebody else had to do what it was asked for.
    Late,
    Lied,
}

/// What a source does, beside other things.
#[derive(Debug, Clone, Hash, Default)]
struct Lane {
    task: Option<Task>,
    /// How long it took for the parts of it that are here. What is not asked of it yet does not count.
    taken: Duration,
    /// What it was asked, and when, as long as it did not answer.
    asked: Option<(Want, Time)>,
}

impl Lane {
    /// Whether parts of the task are here.
    const fn has_begun(&self) -> bool {
        !self.taken.is_zero()
    }
}

/// What a part led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was not asked for.
    Unasked,
    /// It is not what it says.
    Lie,
    /// These buckets are whole; or none yet.
    Buckets(Vec<StagedBucket>),
}

impl Fetching {
    /// From what is there, with so many members. `None` if those are not the leaves of a tree.
    pub(super) fn new(ready: StageReady, members: usize) -> Option<Self> {
        let StageReady { leaves: have, limits } = ready;
        let depth = u8::try_from(have.len().trailing_zeros()).ok()?;
        if !have.len().is_power_of_two() || depth > DEPTH_MAX {
            return None;
        }
        let (sources, lanes) = (vec![Source::default(); members], vec![Lane::default(); members * LANES]);
        let handed_over = BTreeMap::new();
        Some(Self { have, depth, limits, goal: None, handed_over, sources, lanes, paced: Time::ZERO, late: 0 })
    }

    /// Another checkpoint is fetched from now on. What was fetched stays, where it is the same there.
    pub(super) fn retarget(&mut self) {
        self.goal = None;
        self.late = 0;
        self.lanes.fill(Lane::default());
        self.sources.iter_mut().for_each(|source| source.has_it = false);
    }

    /// Whoever was late is asked again.
    fn forgive_late(&mut self) {
        let late = self.sources.iter_mut().filter(|source| source.conduct == Conduct::Late);
        late.for_each(|source| source.conduct = Conduct::Good);
    }

    /// Whoever was late or lied is asked again.
    pub(super) fn forgive(&mut self) {
        self.sources.iter_mut().for_each(|source| source.conduct = Conduct::Good);
    }

    /// These have the checkpoint now. Gives all who may be asked: who was late only if there is nobody else.
    pub(super) fn note_holders(&mut self, holders: &[ReplicaId]) -> Vec<ReplicaId> {
        for holder in holders {
            self.sources[holder.index()].has_it = true;
        }
        if !self.sources.iter().any(|source| source.has_it && source.conduct == Conduct::Good) {
            self.forgive_late();
        }
        let sources = (0..).map(ReplicaId::new).zip(&self.sources);
        sources.filter(|(_, source)| source.has_it).map(|(id, _)| id).collect()
    }

    /// Whether anybody had the checkpoint since it is fetched.
    pub(super) fn has_sources(&self) -> bool {
        self.sources.iter().any(|source| source.has_it)
    }

    /// Questions in a row that nobody answered in time.
    pub(super) const fn late(&self) -> usize {
        self.late
    }

    /// Whether anything of this checkpoint was fetched.
    pub(super) const fn has_begun(&self) -> bool {
        self.goal.is_some()
    }

    /// Takes away what was asked too long ago, and says of whom.
    pub(super) fn give_up_late(&mut self, now: Time, patience: Patience) -> Vec<ReplicaId> {
        let mut late = Vec::new();
        for index in 0..self.lanes.len() {
            if self.overdue(&self.lanes[index], patience).is_none_or(|at| now < at) {
                continue;
            }
            let has_begun = self.lanes[index].has_begun();
            let group = self.take_task(index).and_then(|task| task.group());
            if has_begun {
                self.note_handed_over(group);
            }
            self.reopen(group);
            let id = of_lane(index);
            if late.last() != Some(&id) {
                self.late += 1;
                self.sources[id.index()].conduct = Conduct::Late;
                late.push(id);
            }
        }
        late
    }

    /// When what a source was asked is late. Where it answered before, another would have to begin anew.
    fn overdue(&self, lane: &Lane, patience: Patience) -> Option<Time> {
        let (task, (_, at)) = lane.task.as_ref().zip(lane.asked.as_ref())?;
        let handed_over = if lane.has_begun() { self.times_handed_over(task) } else { 0 };
        Some(at.after(patience.after(handed_over)))
    }

    fn times_handed_over(&self, task: &Task) -> u32 {
        self.handed_over.get(&task.group()).copied().unwrap_or(0)
    }

    fn note_handed_over(&mut self, group: Option<u16>) {
        let times = self.handed_over.entry(group).or_default();
        *times = times.saturating_add(1);
    }

    /// When the next source is late, or may be asked more.
    pub(super) fn due(&self, patience: Patience) -> Option<Time> {
        let late = self.lanes.iter().filter_map(|lane| self.overdue(lane, patience));
        late.chain(self.has_work().then_some(self.paced)).min()
    }

    /// Whether there is anything that nobody is asked for.
    fn has_work(&self) -> bool {
        let goes_on = self.lanes.iter().any(|lane| lane.task.is_some() && lane.asked.is_none());
        goes_on || self.goal.as_ref().is_none_or(|goal| !goal.open.is_empty())
    }

    /// What to ask `id` now, if anything; and whose task that is, if somebody else was at it for too long. Who was late is not
    /// asked.
    pub(super) fn ask(&mut self, id: ReplicaId, now: Time, patience: Patience) -> Option<(Want, Option<ReplicaId>)> {
        if self.sources[id.index()].conduct != Conduct::Good || now < self.paced {
            return None;
        }
        let lanes = id.index() * LANES..(id.index() + 1) * LANES;
        let is_free = |lane: &usize| self.lanes[*lane].asked.is_none();
        // What was begun goes on before anything else is begun.
        let lane = lanes.filter(is_free).min_by_key(|lane| self.lanes[*lane].task.is_none())?;
        let mut replaced = None;
        if self.lanes[lane].task.is_none() {
            let task = if let Some(task) = self.next_task() {
                task
            } else {
                let (from, task) = self.overdue_task(id, now, patience)?;
                replaced = Some(from);
                task
            };
            (self.lanes[lane].task, self.lanes[lane].taken) = (Some(task), Duration::ZERO);
        }
        let want = self.lanes[lane].task.as_ref()?.want();
        self.lanes[lane].asked = Some((want.clone(), now));
        Some((want, replaced))
    }

    /// What nobody is at.
    fn next_task(&mut self) -> Option<Task> {
        let Some(goal) = &mut self.goal else {
            let is_at_it = self.lanes.iter().any(|lane| lane.task.is_some());
            return (!is_at_it).then(|| Task::Head(HeadTask::default()));
        };
        goal.open.pop_first().map(|group| Task::Group(GroupTask::new(group, goal.groups[usize::from(group)])))
    }

    /// What another source than `id` has been too long at, by most: there is nothing else to do, and it may hand out an entry
    /// now and then for ever.
    fn overdue_task(&mut self, id: ReplicaId, now: Time, patience: Patience) -> Option<(ReplicaId, Task)> {
        let over = |lane: &Lane| {
            let waited = lane.asked.as_ref().map_or(Duration::ZERO, |(_, at)| now.since(*at));
            let handed_over = self.times_handed_over(lane.task.as_ref()?);
            lane.taken.saturating_add(waited).checked_sub(patience.after(handed_over))
        };
        let others = self.lanes.iter().enumerate().filter(|(index, _)| of_lane(*index) != id);
        let overdue = others.filter_map(|(index, lane)| Some((over(lane)?, index)));
        let (_, index) = overdue.max_by_key(|(over, _)| *over)?;
        let from = of_lane(index);
        self.sources[from.index()].conduct = Conduct::Late;
        let task = self.take_task(index)?;
        self.note_handed_over(task.group());
        Some((from, task.again()))
    }

    fn take_task(&mut self, lane: usize) -> Option<Task> {
        self.lanes[lane].asked = None;
        self.lanes[lane].task.take()
    }

    /// Somebody else is to do it.
    fn reopen(&mut self, group: Option<u16>) {
        if let (Some(goal), Some(group)) = (&mut self.goal, group) {
            goal.open.insert(group);
        }
    }

    /// Takes a part of the state that `target` names.
    pub(super) fn take(
        &mut self,
        (from, part): (ReplicaId, Part),
        target: &Checkpoint,
        configuration: &Configuration,
        now: Time,
    ) -> Taken {
        let asked = |lane: &Lane| lane.asked.as_ref().filter(|(want, _)| *want == part.want).map(|(_, at)| *at);
        let mut lanes = from.index() * LANES..(from.index() + 1) * LANES;
        let found = lanes.find_map(|lane| Some((lane, asked(&self.lanes[lane])?)));
        let Some((lane, at)) = found.filter(|_| part.sequence == target.sequence) else { return Taken::Unasked };
        self.pace(now, &part.content);
        let Some(task) = self.take_task(lane) else { return Taken::Unasked };
        let group = task.group();
        match self.check(task, part.content, target, configuration) {
            Verdict::Lie => {
                self.reopen(group);
                self.leave_liar(from);
                Taken::Lie
            }
            Verdict::Right { next, buckets } => {
                self.late = 0;
                self.lanes[lane].task = next;
                self.lanes[lane].taken = self.lanes[lane].taken.saturating_add(now.since(at));
                for bucket in &buckets {
                    self.have[bucket.number as usize] = bucket.leaf;
                }
                Taken::Buckets(buckets)
            }
        }
    }

    /// Nothing more of this source is listened to.
    fn leave_liar(&mut self, liar: ReplicaId) {
        self.sources[liar.index()].conduct = Conduct::Lied;
        for lane in liar.index() * LANES..(liar.index() + 1) * LANES {
            let group = self.take_task(lane).and_then(|task| task.group());
            self.reopen(group);
        }
    }

    fn check(&mut self, task: Task, content: Content, target: &Checkpoint, configuration: &Configuration) -> Verdict {
        let bytes_max = self.limits.unchecked_bytes_max;
        match (task, content) {
            (Task::Head(task), Content::Crown(groups)) => task.take_crown(groups.into_vec(), self.depth),
            (Task::Head(task), Content::Protocol { entries, is_last }) => {
                match task.take_entries(entries.into_vec(), is_last, bytes_max) {
                    Ok(whole) => self.take_head(whole, target, configuration),
                    Err(verdict) => verdict,
                }
            }
            (Task::Group(task), Content::Leaves(leaves)) => {
                let first = usize::from(task.number()) << self.height();
                let have = &self.have[first..first + (1 << self.height())];
                task.take_leaves(leaves.into_vec(), have)
            }
            (Task::Group(task), Content::Buckets { entries, whole }) => {
                task.take_entries(entries.into_vec(), usize::from(whole), self.depth, bytes_max)
            }
            _ => Verdict::Lie,
        }
    }

    /// The crown and the protocol's own entries are what the certificate names, or not.
    fn take_head(&mut self, head: WholeHead, target: &Checkpoint, configuration: &Configuration) -> Verdict {
        let WholeHead { groups, entries } = head;
        let application = above(&groups).unwrap_or(Digest::ZERO);
        let state = ProtocolState::restore(configuration, application, &entries);
        let Some(state) = state.filter(|state| state_root(&state.root) == target.root) else { return Verdict::Lie };
        let have = self.have.chunks(1 << self.height()).map(above);
        let differ =
            |(group, (have, wanted)): (u16, (Option<Digest>, &Digest))| (have != Some(*wanted)).then_some(group);
        let open = (0..).zip(have.zip(&groups)).filter_map(differ).collect();
        self.goal = Some(Goal { groups, open, state, entries });
        Verdict::Right { next: None, buckets: Vec::new() }
    }

    const fn height(&self) -> u8 {
        self.depth - crown_level(self.depth)
    }

    fn pace(&mut self, now: Time, content: &Content) {
        let bytes = match content {
            Content::Protocol { entries, .. } | Content::Buckets { entries, .. } => bytes_of(entries),
            Content::Crown(_) | Content::Leaves(_) => 0,
        };
        let nanoseconds =
            u128::from(bytes + PART_BYTES) * 1_000_000_000 / u128::from(self.limits.bytes_per_second.max(1));
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        self.paced = self.paced.max(now).after(Duration::from_nanos(nanoseconds));
    }

    /// The protocol's part of the state, and its entries, once nothing is missing.
    pub(super) fn end(&mut self) -> Option<(ProtocolState, Vec<Entry>)> {
        let is_idle = self.lanes.iter().all(|lane| lane.task.is_none());
        let goal = self.goal.take_if(|goal| is_idle && goal.open.is_empty())?;
        Some((goal.state, goal.entries))
    }
}

/// Whose lane it is.
fn of_lane(index: usize) -> ReplicaId {
    ReplicaId::new(u8::try_from(index / LANES).expect("members are few"))
}
