//! Four replicas on a network that loses nothing but what a test cuts off, and the text of what they do.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::decode;
use quorate_protocol::message::{Fetch, Message, NewView, Outcome, Status, ViewChange};
use quorate_protocol::output::Notice;
use quorate_protocol::record::Record;
use quorate_protocol::verify::{Invalid, verify};
use quorate_protocol::{Input, Output};

use crate::support::subject::Subject;
use crate::support::{Group, StandInVerifier, client, replica, view};

/// A message under way.
struct Sent {
    from: u8,
    to: u8,
    message: Message,
}

/// The replicas, what is under way between them, and the text so far.
pub(crate) struct Cluster {
    name: &'static str,
    group: Group,
    replicas: Vec<Subject>,
    under_way: VecDeque<Sent>,
    /// Replicas that are stopped.
    crashed: BTreeSet<u8>,
    /// Replicas whose messages, to them and from them, are lost.
    cut_off: BTreeSet<u8>,
    text: String,
    /// Digests in the order in which they were first met.
    batches: Vec<Digest>,
    roots: Vec<Digest>,
}

impl Cluster {
    pub(crate) fn new(name: &'static str) -> Self {
        let group = Group::of_four();
        let replicas = (0..4).map(|id| Subject::new(&group, id)).collect();
        Self {
            name,
            group,
            replicas,
            under_way: VecDeque::new(),
            crashed: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            text: String::new(),
            batches: vec![],
            roots: vec![],
        }
    }

    /// Client `index` sends its opening to one replica.
    pub(crate) fn ask(&mut self, to: u8, index: u8, what: &str) {
        self.heading(what);
        let request = self.group.opening(client(index), 1);
        self.line(&format!("client {index} -> {to}: Request opening 1"));
        let outputs = self.replicas[usize::from(to)].ask(request);
        self.carry_out(to, outputs);
    }

    /// Delivers, syncs and executes until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            self.deliver();
            let mut is_quiet = true;
            for id in self.alive() {
                let outputs = self.replicas[usize::from(id)].sync();
                is_quiet &= outputs.is_empty();
                self.carry_out(id, outputs);
                is_quiet &= !self.work(id);
            }
            if is_quiet && self.under_way.is_empty() {
                return;
            }
        }
    }

    /// Executes one slot, or takes one checkpoint, if either waits.
    fn work(&mut self, id: u8) -> bool {
        let subject = &mut self.replicas[usize::from(id)];
        let outputs = if !subject.executions.is_empty() {
            subject.execute()
        } else if !subject.checkpoints.is_empty() {
            let mut outputs = subject.take_checkpoint();
            outputs.extend(subject.checkpoint_durable());
            outputs
        } else {
            return false;
        };
        self.carry_out(id, outputs);
        true
    }

    /// What one replica appended becomes durable.
    pub(crate) fn sync_only(&mut self, id: u8) {
        let outputs = self.replicas[usize::from(id)].sync();
        self.carry_out(id, outputs);
    }

    /// Delivers what is under way, and what is said in answer, in order.
    pub(crate) fn deliver(&mut self) {
        while let Some(Sent { from, to, message }) = self.under_way.pop_front() {
            let is_lost = [from, to].iter().any(|id| self.crashed.contains(id) || self.cut_off.contains(id));
            if is_lost {
                continue;
            }
            let input = match verify(message, replica(from), &self.group.0, &mut StandInVerifier) {
                Ok(message) => Input::Message { from: replica(from), message },
                Err(Invalid::Misbehaviour(evidence)) => Input::Misbehaviour(evidence),
                Err(error) => unreachable!("replica {from} said something invalid: {error}"),
            };
            let outputs = self.replicas[usize::from(to)].step(input);
            self.carry_out(to, outputs);
        }
    }

    pub(crate) fn crash(&mut self, id: u8) {
        self.line(&format!("{id} crashes"));
        self.crashed.insert(id);
    }

    pub(crate) fn cut_off(&mut self, id: u8) {
        self.line(&format!("{id} is cut off"));
        self.cut_off.insert(id);
    }

    pub(crate) fn reconnect(&mut self, id: u8) {
        self.line(&format!("{id} is connected again"));
        self.cut_off.remove(&id);
    }

    /// The primary of view 0 says two things of slot 2.
    pub(crate) fn misbehave(&mut self, what: &str) {
        self.heading(what);
        for (to, index) in [(1, 7), (2, 7), (1, 8), (2, 8)] {
            let batch = self.group.batch(index);
            let message = self.group.pre_prepare(0, 0, 2, &batch);
            let text = self.describe(&message);
            self.line(&format!("0 -> {to}: {text}"));
            self.under_way.push_back(Sent { from: 0, to, message });
        }
    }

    /// Time passes, a heartbeat at a time.
    pub(crate) fn pass(&mut self, milliseconds: u64, what: &str) {
        self.heading(what);
        for _ in 0..milliseconds / 100 {
            self.heartbeat();
        }
    }

    /// The same, until all that run are in view `number`.
    pub(crate) fn pass_until_view(&mut self, number: u64, what: &str) {
        self.heading(what);
        for _ in 0..100 {
            self.heartbeat();
            let mut running = self.alive().into_iter().map(|id| &self.replicas[usize::from(id)].replica);
            let is_in_view = |replica: &quorate_protocol::replica::Replica| {
                replica.view() == view(number) && replica.mode() == quorate_protocol::replica::Mode::Normal
            };
            if running.all(is_in_view) {
                return;
            }
        }
        unreachable!("view {number} did not begin");
    }

    fn heartbeat(&mut self) {
        let at = self.replicas.iter().map(|subject| subject.now_ms).max().expect("four replicas") + 100;
        self.line(&format!("+100 ms: {} ms", at - crate::support::START_MS));
        for id in self.alive() {
            let subject = &mut self.replicas[usize::from(id)];
            subject.now_ms = at;
            subject.status = None;
            let outputs = subject.step(Input::Wake);
            let status = subject.status.clone();
            self.carry_out(id, outputs);
            if let Some(status) = status {
                self.send_to_all(id, &Message::Status(status));
            }
        }
        for id in self.crashed.clone() {
            self.replicas[usize::from(id)].now_ms = at;
        }
        self.settle();
    }

    /// Compares the text with the file, or rewrites the file.
    pub(crate) fn finish(mut self) {
        self.settle();
        let states: Vec<String> = self.replicas.iter().map(state).collect();
        self.heading("in the end");
        for state in states {
            self.line(&state);
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let path = folder.join(format!("{}.txt", self.name));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &self.text).expect("the transcript can be written");
        }
        let expected = std::fs::read_to_string(&path).expect("the transcript is there; UPDATE=1 writes it");
        let difference = self.text.lines().zip(expected.lines()).position(|(now, then)| now != then);
        let line = difference.unwrap_or_else(|| expected.lines().count()) + 1;
        assert!(self.text == expected, "{}.txt differs from line {line}; UPDATE=1 rewrites it", self.name);
    }

    fn alive(&self) -> Vec<u8> {
        (0..4).filter(|id| !self.crashed.contains(id)).collect()
    }

    fn heading(&mut self, what: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        write!(self.text, "{gap}# {what}\n----\n").expect("text grows");
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("text grows");
    }

    fn send_to_all(&mut self, from: u8, message: &Message) {
        let others = (0..4).filter(|to| *to != from);
        self.under_way.extend(others.map(|to| Sent { from, to, message: message.clone() }));
    }

    fn carry_out(&mut self, id: u8, outputs: Vec<Output>) {
        for output in outputs {
            let text = match &output {
                Output::Append { record, .. } => format!("{id} records {}", self.describe_record(record)),
                Output::BeginSegment => format!("{id} begins a segment of its log"),
                Output::Cut { before } => format!("{id} cuts its log below record {before}"),
                Output::Send { to, message } => format!("{id} -> {to}: {}", self.describe(message)),
                Output::Broadcast(message) => format!("{id} -> all: {}", self.describe(message)),
                Output::Execute(execution) => format!("{id} executes slot {}", execution.sequence),
                Output::TakeCheckpoint { sequence, .. } => format!("{id} takes a checkpoint at slot {sequence}"),
                Output::CheckpointStable { certificate, .. } => {
                    format!("{id} keeps its stable checkpoint at slot {}", certificate.statement.sequence)
                }
                Output::Reply(reply) => {
                    format!("{id} -> client: Reply {} {}", reply.number, describe_outcome(&reply.outcome))
                }
                Output::Busy { number, .. } => format!("{id} -> client: Busy {number}"),
                Output::Evidence(evidence) => format!("{id} keeps a proof against {}", evidence.accused()),
                Output::Notice(notice) => format!("{id} says: {}", describe_notice(*notice)),
                Output::SendPart { to, sequence, .. } => format!("{id} -> {to}: Part of slot {sequence}"),
                Output::StageBegin { .. }
                | Output::StageBuckets(_)
                | Output::StageEnd { .. }
                | Output::StageInstall => {
                    format!("{id} stages a state")
                }
            };
            self.line(&text);
            match output {
                Output::Send { to, message } => self.under_way.push_back(Sent { from: id, to: to.value(), message }),
                Output::Broadcast(message) => self.send_to_all(id, &message),
                _ => {}
            }
        }
    }

    fn batch(&mut self, digest: Digest) -> String {
        if digest == Batch::empty().digest() {
            return String::from("empty");
        }
        let index = place(&mut self.batches, digest);
        char::from(b'A' + u8::try_from(index).expect("few batches")).to_string()
    }

    fn root(&mut self, digest: Digest) -> String {
        format!("r{}", place(&mut self.roots, digest) + 1)
    }

    fn describe(&mut self, message: &Message) -> String {
        match message {
            Message::Request(_) => String::from("Request"),
            Message::PrePrepare(pre_prepare) => format!("PrePrepare {}", self.prepare(&pre_prepare.vote.statement)),
            Message::Prepare(vote) => format!("Prepare {}", self.prepare(&vote.statement)),
            Message::Commit(vote) => format!("Commit {}", self.commit(&vote.statement)),
            Message::Checkpoint(vote) => {
                format!("Checkpoint slot {} {}", vote.statement.sequence, self.root(vote.statement.root))
            }
            Message::Stable(certificate) => self.stable(certificate),
            Message::ViewChange(signed) => {
                let content: ViewChange = decode(signed.body.bytes()).expect("its own encoding");
                self.view_change(&content)
            }
            Message::NewView(signed) => {
                let content: NewView = decode(signed.body.bytes()).expect("its own encoding");
                self.new_view(&content)
            }
            Message::Status(status) => describe_status(status),
            Message::Fetch(fetch) => self.fetch(fetch),
            Message::Batch(fetched) => format!("Batch slot {}", fetched.sequence),
            Message::Decided(decided) => format!("Decided {}", self.commit(&decided.certificate.statement)),
            Message::Part(part) => format!("Part of slot {}", part.sequence),
            Message::Statements(_) => String::from("Statements"),
            Message::Conflict(vote) => format!("Conflict {}", self.prepare(&vote.statement)),
        }
    }

    fn prepare(&mut self, statement: &quorate_protocol::statement::Prepare) -> String {
        format!("view {} slot {} {}", statement.view, statement.sequence, self.batch(statement.digest))
    }

    fn commit(&mut self, statement: &quorate_protocol::statement::Commit) -> String {
        format!("view {} slot {} {}", statement.view, statement.sequence, self.batch(statement.digest))
    }

    fn stable(&mut self, certificate: &quorate_protocol::certificate::StableCertificate) -> String {
        let voters: Vec<String> = certificate.votes.iter().map(|vote| vote.voter.to_string()).collect();
        let root = self.root(certificate.statement.root);
        format!("Stable slot {} {root} by {}", certificate.statement.sequence, voters.join(" "))
    }

    fn view_change(&mut self, content: &ViewChange) -> String {
        let prepared: Vec<String> =
            content.prepared.iter().map(|certificate| self.prepare(&certificate.statement)).collect();
        let cast: Vec<String> = content
            .cast
            .iter()
            .map(|cast| format!("view {} slot {} {}", cast.view, cast.sequence, self.batch(cast.digest)))
            .collect();
        let (prepared, cast) = (prepared.join(", "), cast.join(", "));
        let stable = content.stable_sequence();
        format!(
            "ViewChange of {} for view {}, stable {stable}, prepared [{prepared}], voted [{cast}]",
            content.replica, content.view
        )
    }

    fn new_view(&mut self, content: &NewView) -> String {
        let named: Vec<String> = content.view_changes.iter().map(|named| named.replica.to_string()).collect();
        let proposals: Vec<String> = content
            .proposals
            .iter()
            .map(|proposal| format!("slot {} {}", proposal.sequence, self.batch(proposal.digest)))
            .collect();
        format!("NewView {} by {}, proposes [{}]", content.view, named.join(" "), proposals.join(", "))
    }

    fn fetch(&mut self, fetch: &Fetch) -> String {
        match fetch {
            Fetch::Batch { sequence, digest } => format!("Fetch batch {} of slot {sequence}", self.batch(*digest)),
            Fetch::Decided { after } => format!("Fetch decided after slot {after}"),
            Fetch::ViewChange { .. } => String::from("Fetch view change"),
            Fetch::NewView { view } => format!("Fetch new view {view}"),
            Fetch::Part { sequence, .. } => format!("Fetch part of slot {sequence}"),
            Fetch::Statements { .. } => String::from("Fetch statements"),
        }
    }

    fn describe_record(&mut self, record: &Record) -> String {
        match record {
            Record::Accepted(vote, batch) => {
                let with = if batch.is_some() { "with its batch" } else { "without its batch" };
                format!("Accepted {} {with}", self.prepare(&vote.statement))
            }
            Record::Prepared(certificate, _) => format!("Prepared {}", self.prepare(&certificate.statement)),
            Record::Committed(certificate) => format!("Committed {}", self.commit(&certificate.statement)),
            Record::Learned(certificate, _) => format!("Learned {}", self.commit(&certificate.statement)),
            Record::Stable(certificate) => self.stable(certificate),
            Record::ViewChange(_, view, _) => format!("ViewChange for view {view}"),
            Record::NewView(_, view, _) => format!("NewView {view}"),
            Record::Epoch(membership, stable) => format!("Epoch {}, {}", membership.epoch(), self.stable(stable)),
            Record::Incarnation(incarnation) => format!("Incarnation {incarnation}"),
            Record::Batch(_, sequence, _) => format!("Batch of slot {sequence}"),
        }
    }
}

fn place(known: &mut Vec<Digest>, digest: Digest) -> usize {
    known.iter().position(|other| *other == digest).unwrap_or_else(|| {
        known.push(digest);
        known.len() - 1
    })
}

fn describe_status(status: &Status) -> String {
    format!("Status view {} executed {}", status.view, status.executed)
}

fn describe_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Executed { sequence, index, .. } => format!("executed at {sequence}.{index}"),
        Outcome::Opened { session } => format!("opened session {session}"),
        Outcome::Evicted => String::from("evicted"),
        Outcome::Forgotten => String::from("forgotten"),
        Outcome::Superseded { opening } => format!("superseded by opening {opening}"),
    }
}

fn describe_notice(notice: Notice) -> String {
    match notice {
        Notice::ViewWanted { view, reason } => format!("wants view {view}: {reason:?}"),
        Notice::ViewEntered { view } => format!("entered view {view}"),
        Notice::Stable { sequence } => format!("slot {sequence} is stable"),
        other => format!("{other:?}"),
    }
}

fn state(subject: &Subject) -> String {
    let replica = &subject.replica;
    let (id, view, stable, executed) = (replica.id(), replica.view(), replica.stable(), replica.executed());
    format!("{id}: view {view}, stable {stable}, executed {executed}, {} slots in the log", replica.log_length())
}
