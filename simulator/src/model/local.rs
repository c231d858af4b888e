//! One correct replica of the model: the real core with what it said and wrote, and what a stimulus makes of it.
//!
//! A local step depends on the replica and the stimulus alone, so it is computed once and remembered: a state of the whole
//! cluster is three pointers, and most of its successors are looked up.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_crypto::Digest;
use quorate_protocol::input::Input;
use quorate_protocol::message::{Fetch, Message, Status};
use quorate_protocol::number::{RecordNumber, ReplicaId, Sequence, View};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::{Mode, Replica, Start};
use quorate_protocol::statement::{Commit, Prepare};
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::verify::{Payload, Verified};
use quorate_protocol::{Machine, Now, Output};

use super::letter::{Letter, print_of};
use super::setting::Setting;
use crate::adversary::start_voting;
use crate::checker::{Amnesia, Checker, NewViews, Observation, Quorums, ViewChanges, show_in};
use crate::disk::{Disk, DiskOptions};
use crate::play::reason;
use crate::statement::new_view;

/// When everything begins; far enough from zero that nothing is due at once.
const START: Time = Time::from_nanoseconds(1_000_000_000_000);

/// No stamp of a batch depends on when it was proposed: two values stay two.
const WALL: WallTime = WallTime::from_nanoseconds(1_800_000_000_000_000_000);

/// Deadlines that may pass before a replica that hears nobody leaves its view.
const HOPS_MAX: u32 = 8;

/// What a replica did that the properties ask for, ever.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct History {
    /// Batches that it voted for.
    pub(super) accepted: BTreeSet<(View, Sequence, Digest)>,
    /// Certificates that it held.
    pub(super) prepared: BTreeSet<(View, Sequence, Digest)>,
    /// Commits that it said.
    pub(super) commits: BTreeSet<(View, Sequence, Digest)>,
    /// What it learned to be decided.
    pub(super) decided: BTreeSet<(View, Sequence, Digest)>,
    /// What the new views proposed by which it entered its views.
    pub(super) entered: BTreeMap<View, Vec<(Sequence, Digest)>>,
    /// What it must not have done, in words.
    pub(super) trouble: Option<String>,
}

/// A correct replica, with all that it ever said.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) replica: Replica,
    pub(super) history: Arc<History>,
    /// In the order of their prints.
    pub(super) letters: Vec<Arc<Letter>>,
    /// What it wrote down, all of it durable, and what it said, in this order.
    did: Vec<Arc<Output>>,
    now: Time,
    print: u64,
}

/// Something that happens to one replica.
#[derive(Debug, Clone)]
pub(super) enum Stimulus {
    /// Letters reach it, one after the other.
    Letters(Vec<Arc<Letter>>),
    /// Time passes until it gives up its view, while the faulty replica agrees with it; these, who ask for the view that it
    /// asks for, were heard before.
    TimeOut(Vec<Arc<Letter>>),
    /// It loses all that is not durable, and starts again.
    Restart,
}

/// What a stimulus makes of a replica, if it then writes something down.
type Outcome = Option<Arc<Local>>;

/// Local steps that were taken before.
#[derive(Debug)]
pub(super) struct Steps {
    /// By replica and stimulus.
    outcomes: Vec<Mutex<HashMap<(u64, u64), Outcome>>>,
    /// Replicas that many steps lead to are kept once.
    locals: Vec<Mutex<HashMap<u64, Arc<Local>>>>,
}

const SHARDS: usize = 64;

/// Where a key's step or replica is kept.
fn shard_of(key: u64) -> usize {
    usize::try_from(key % SHARDS as u64).unwrap_or(0)
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            outcomes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            locals: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Steps {
    /// What `stimulus` makes of `local`.
    pub(super) fn step(&self, setting: &Setting, local: &Local, stimulus: &Stimulus) -> Outcome {
        let key = (local.print, stimulus.print());
        let shard = &self.outcomes[shard_of(key.0 ^ key.1)];
        if let Some(known) = lock(shard).get(&key) {
            return known.clone();
        }
        let outcome = local.after(setting, stimulus).map(|after| self.shared(after));
        lock(shard).entry(key).or_insert(outcome).clone()
    }

    fn shared(&self, local: Local) -> Arc<Local> {
        let shard = &self.locals[shard_of(local.print)];
        Arc::clone(lock(shard).entry(local.print).or_insert_with(|| Arc::new(local)))
    }

    /// How many there are, and how many replicas they lead to.
    pub(super) fn counts(&self) -> (u64, u64) {
        let outcomes = self.outcomes.iter().map(|shard| lock(shard).len() as u64).sum();
        (outcomes, self.locals.iter().map(|shard| lock(shard).len() as u64).sum())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prints_of(letters: &[Arc<Letter>]) -> Vec<u64> {
    letters.iter().map(|letter| letter.print()).collect()
}

impl Stimulus {
    pub(super) fn print(&self) -> u64 {
        match self {
            Self::Letters(letters) => print_of(&(0, prints_of(letters))),
            Self::TimeOut(letters) => print_of(&(1, prints_of(letters))),
            Self::Restart => print_of(&2),
        }
    }

    /// For a person.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Letters(letters) => {
                letters.iter().map(|letter| letter.text.as_str()).collect::<Vec<_>>().join(", then ")
            }
            Self::TimeOut(_) => "its time runs out".to_owned(),
            Self::Restart => "it crashes and starts again".to_owned(),
        }
    }
}

/// A replica while something happens to it.
struct Work<'a> {
    setting: &'a Setting,
    replica: Replica,
    history: Arc<History>,
    letters: Vec<Arc<Letter>>,
    did: Vec<Arc<Output>>,
    now: Time,
    has_told: bool,
}

impl Local {
    /// A replica of a new cluster to which the clients have told all their requests.
    pub(super) fn new(setting: &Setting, id: ReplicaId) -> Self {
        let replica = start(setting, id, &[], START);
        let mut work = Work {
            setting,
            replica,
            history: Arc::default(),
            letters: Vec::new(),
            did: Vec::new(),
            now: START,
            has_told: false,
        };
        work.drain();
        work.hear_all();
        for request in setting.known_requests() {
            work.feed(Input::Request(request.clone()));
        }
        work.finish()
    }

    pub(super) const fn print(&self) -> u64 {
        self.print
    }

    /// The view that it is in or asks for.
    pub(super) fn wanted(&self) -> View {
        wanted(&self.replica)
    }

    /// What a stimulus makes of it.
    fn after(&self, setting: &Setting, stimulus: &Stimulus) -> Option<Self> {
        let mut work = Work {
            setting,
            replica: self.replica.clone(),
            history: self.history.clone(),
            letters: self.letters.clone(),
            did: self.did.clone(),
            now: self.now,
            has_told: false,
        };
        let done = catch_unwind(AssertUnwindSafe(|| match stimulus {
            Stimulus::Letters(letters) => letters.iter().for_each(|letter| work.hear(letter)),
            Stimulus::TimeOut(letters) => work.time_out(letters),
            Stimulus::Restart => work.restart(),
        }));
        if let Err(panic) = done {
            // What is left of the replica may be anything: the state before stands, with what became of it.
            let mut history = self.history.clone();
            Arc::make_mut(&mut history).trouble = Some(format!("it stops: {}", reason(&*panic)));
            work = Work {
                setting,
                replica: self.replica.clone(),
                history,
                letters: self.letters.clone(),
                did: self.did.clone(),
                now: self.now,
                has_told: true,
            };
        }
        if !work.has_told {
            return None;
        }
        work.judge();
        let after = work.finish();
        (after.print != self.print).then_some(after)
    }
}

fn wanted(replica: &Replica) -> View {
    match replica.mode() {
        Mode::Normal => replica.view(),
        Mode::ViewChange { to } => to,
    }
}

fn start(setting: &Setting, id: ReplicaId, did: &[Arc<Output>], now: Time) -> Replica {
    let records = did.iter().filter_map(|output| match &**output {
        Output::Append { number, record } => Some((*number, Recovered::Whole(record.clone()))),
        _ => None,
    });
    let records: Vec<_> = records.collect();
    let first_record = records.last().and_then(|(number, _)| number.next()).unwrap_or(RecordNumber::new(1));
    let start = Start {
        id,
        configuration: Arc::clone(&setting.configuration),
        signer: Arc::clone(&setting.signers[id.index()]),
        checkpoint: None,
        records,
        first_record,
        is_damaged: false,
        token: 1,
    };
    start_voting(start, Now { monotonic: now, wall: WALL }).expect("a replica starts on what it wrote itself")
}

impl Work<'_> {
    fn feed(&mut self, input: Input) {
        self.replica.handle(Now { monotonic: self.now, wall: WALL }, input);
        self.drain();
    }

    /// Does what the replica asks for: all is durable and executed at once, and no checkpoint is ever taken.
    fn drain(&mut self) {
        let mut durable = None;
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Append { number, record } => {
                    self.write(&record);
                    self.did.push(Arc::new(Output::Append { number, record }));
                    durable = Some(number);
                }
                Output::Broadcast(message) => self.say(message),
                Output::Execute(execution) => {
                    assert!(execution.requests.is_empty(), "the model's requests open sessions, without operations");
                    self.feed(Input::Executed { sequence: execution.sequence, results: Vec::new() });
                }
                Output::Evidence(evidence) if evidence.accused() != self.setting.faulty => {
                    let accused = evidence.accused();
                    self.history_mut().trouble = Some(format!("it accuses {accused}, which is correct"));
                }
                _ => {}
            }
        }
        if let Some(number) = durable {
            self.feed(Input::Durable(number));
        }
    }

    fn history_mut(&mut self) -> &mut History {
        Arc::make_mut(&mut self.history)
    }

    /// Asks the checkers of the campaigns about all that this replica ever did: what it says once it does not deny, what it
    /// left it left, and it enters a view by what follows from a quorum.
    fn judge(&mut self) {
        let quorums = Quorums::of(self.setting.configuration.size());
        let window = self.setting.configuration.parameters().window;
        let (mut amnesia, mut view_changes) = (Amnesia::default(), ViewChanges::new(window));
        let mut new_views = NewViews::new(quorums);
        let checkers: [&mut dyn Checker; 3] = [&mut amnesia, &mut view_changes, &mut new_views];
        let (replica, disk) = (self.replica.id(), Disk::new(DiskOptions::default()));
        for checker in checkers {
            let mut observe = |output: &Arc<Output>| {
                let observation = Observation::Did { replica, output, disk: &disk };
                show_in(quorums.members as u64, &mut *checker, &observation).err()
            };
            if let Some(wrong) = self.did.iter().find_map(&mut observe) {
                self.history_mut().trouble = Some(wrong);
                return;
            }
        }
    }

    fn write(&mut self, record: &Record) {
        self.has_told = true;
        match record {
            Record::Prepared(certificate, commit) => {
                let statement = certificate.statement;
                self.history_mut().prepared.insert((statement.view, statement.sequence, statement.digest));
                self.history_mut().commits.insert(place(&commit.statement));
            }
            Record::Committed(certificate) | Record::Learned(certificate, _) => {
                self.history_mut().decided.insert(place(&certificate.statement));
            }
            Record::NewView(_, view, written) => {
                let content = new_view(&written.new_view).expect("a replica enters by a new view that it has read");
                let proposals = content.proposals.iter().map(|proposal| (proposal.sequence, proposal.digest));
                self.history_mut().entered.insert(*view, proposals.collect());
            }
            Record::Accepted(vote, _) => {
                let Prepare { view, sequence, digest, .. } = vote.statement;
                self.history_mut().accepted.insert((view, sequence, digest));
            }
            Record::Stable(_)
            | Record::ViewChange(..)
            | Record::Epoch(..)
            | Record::Incarnation(_)
            | Record::Batch(..) => {}
        }
    }

    /// Says something to all. What only keeps others up to date is left out: nothing that was said is lost for good.
    fn say(&mut self, message: Message) {
        if matches!(message, Message::Status(_) | Message::Checkpoint(_)) {
            return;
        }
        let from = self.replica.id();
        let rests_on = match &message {
            Message::NewView(signed) => self.setting.named_by(&self.did, signed),
            _ => Vec::new(),
        };
        self.did.push(Arc::new(Output::Broadcast(message.clone())));
        let letter = self.setting.letter(from, message, rests_on).expect("what a correct replica says is valid");
        if self.letters.iter().all(|known| known.print() != letter.print()) {
            let at = self.letters.partition_point(|known| known.print() < letter.print());
            self.letters.insert(at, letter);
        }
    }

    fn hear(&mut self, letter: &Letter) {
        self.feed(Input::Message { from: letter.from, message: letter.payload.clone() });
    }

    /// Everyone was heard of just now: that somebody was heard of earlier makes no two states.
    fn hear_all(&mut self) {
        let own = self.replica.id();
        for from in self.setting.configuration.replicas().filter(|from| *from != own) {
            self.feed(Input::Message { from, message: self.setting.nothing.clone() });
        }
    }

    /// Time passes until the replica leaves its view, or finds no reason to. The faulty replica says that it suspects the
    /// primary, too, and asks for whatever view the replica asks for.
    fn time_out(&mut self, letters: &[Arc<Letter>]) {
        for letter in letters {
            self.hear(letter);
        }
        let before = wanted(&self.replica);
        let (faulty, is_in_view) = (self.setting.faulty, self.replica.mode() == Mode::Normal);
        if !is_in_view
            && self.setting.configuration.primary(before) != self.replica.id()
            && let Some(letter) = self.setting.empty_view_change(before)
        {
            self.hear(&letter);
        }
        let message = self.setting.status(before, is_in_view);
        self.feed(Input::Message { from: faulty, message });
        for _ in 0..HOPS_MAX {
            if wanted(&self.replica) != before {
                break;
            }
            let Some(deadline) = self.replica.next_deadline() else { break };
            self.now = self.now.max(deadline);
            self.feed(Input::Wake);
        }
        self.hear_all();
    }

    fn restart(&mut self) {
        self.now = self.now.after(Duration::from_secs(1));
        self.replica = start(self.setting, self.replica.id(), &self.did, self.now);
        self.has_told = true;
        self.drain();
        self.hear_all();
    }

    fn finish(self) -> Local {
        let Self { setting, replica, history, letters, did, now, .. } = self;
        // What is durable matters only to a replica that starts again.
        let durable: BTreeSet<u64> =
            if setting.restarts > 0 { did.iter().map(print_of).collect() } else { BTreeSet::new() };
        let print = print_of(&(&replica, &history, prints_of(&letters), durable));
        Local { replica, history, letters, did, now, print }
    }
}

fn place(commit: &Commit) -> (View, Sequence, Digest) {
    (commit.view, commit.sequence, commit.digest)
}

/// A status that says nothing but that its sender suspects the primary of `view`.
pub(super) fn suspicion(setting: &Setting, view: View, entered: bool) -> Message {
    Message::Status(Status {
        epoch: setting.configuration.epoch(),
        view,
        entered,
        suspects: true,
        stable: Sequence::ZERO,
        executed: Sequence::ZERO,
        decided_from: Sequence::new(1),
        view_changes: 0,
        checkpoint_votes: 0,
        slots: quorate_protocol::codec::List::empty(),
    })
}

/// A question that nobody can answer.
pub(super) const fn nothing() -> Message {
    Message::Fetch(Fetch::NewView { view: View::new(u64::MAX) })
}

/// Something checked, as the core takes it.
pub(super) type Checked = Verified<Payload>;
