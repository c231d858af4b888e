//! Standbys: machines beside the cluster that ask its members at the door for clients, execute what those decided, take
//! checkpoints, and have no vote. (PROTOCOL §11)
//!
//! Whatever concerns them is drawn from a stream of its own, and what they ask for changes nothing in a member: the members of
//! a seed do the same whether there are standbys or not.

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_protocol::message::{Fetch, Message, Status, from_frame, to_frame};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::time::Time;

use super::{Event, World};
use crate::checker::Invariant;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::host::{ApplicationMaker, Host, Standing};
use crate::marks::Mark;
use crate::random::{Random, Stream};
use crate::signature::{Holder, Notary, SharedSigner};
use crate::world::WorldOptions;

/// Bytes of batches in the answer to one question.
const ANSWER_BYTES: usize = 1 << 20;

/// How long a standby runs before it loses its power, and how long it is down: the shortest and the longest.
const UP: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(6)];
const DOWN: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(3)];

/// Answers of attackers that are kept, to be given again.
const OLD_ANSWERS_MAX: usize = 64;

/// What worlds know of their standbys, which are hosts after those of the members.
#[derive(Debug)]
pub(super) struct Standbys {
    pub(super) random: Random,
    /// Whether they lose their power now and then.
    stumble: bool,
    /// Those that took the place of their member.
    promoted: BTreeSet<ReplicaId>,
    /// What attackers told standbys. Bound: [`OLD_ANSWERS_MAX`].
    old_answers: Vec<Bytes>,
}

impl Standbys {
    /// Hosts and keys for the standbys of a world whose members are hosts already.
    pub(super) fn new(
        seed: u64,
        options: &WorldOptions,
        make_application: ApplicationMaker,
        (hosts, signers): (&mut Vec<Host>, &mut Vec<SharedSigner>),
        notary: &mut Notary,
    ) -> Self {
        let mut random = Random::new(seed, Stream::Standbys);
        let members = hosts.len();
        for member in ReplicaId::all(members).filter(|member| options.standbys >> member.index() & 1 == 1) {
            let place = hosts.len();
            let id = ReplicaId::new(u8::try_from(place).expect("there are two a member at most"));
            let clock = Clock::draw(options.clock, &mut random);
            // Not even the first record of a member's log is there.
            let mut disk = Disk::new(options.disk);
            disk.lose();
            let host = Host::new(id, clock, disk, make_application, options.part_entries_max);
            hosts.push(host.standing_by(member));
            signers.push(notary.key(Holder::Replica(place as u64)).1);
        }
        Self { random, stumble: true, promoted: BTreeSet::new(), old_answers: Vec::new() }
    }
}

impl World {
    /// Whether that is a member's number, and not a standby's.
    pub(super) fn is_member(&self, id: ReplicaId) -> bool {
        id.index() < self.configuration.size()
    }

    /// Those that took nobody's place.
    pub(crate) fn standbys(&self) -> Vec<ReplicaId> {
        let all = self.hosts[self.configuration.size()..].iter().map(|host| host.id);
        all.filter(|standby| !self.standbys.promoted.contains(standby)).collect()
    }

    /// The disk of the standby beside a replica takes the place of that replica's, which is down: nothing happens where there is
    /// no standby, or none any more. What the replica said and did not keep elsewhere is lost with its own disk.
    pub(crate) fn promote(&mut self, replica: ReplicaId) {
        let mut standbys = self.standbys().into_iter();
        let Some(standby) = standbys.find(|standby| self.hosts[standby.index()].stands_by() == Some(replica)) else {
            return;
        };
        if self.is_running(standby) {
            self.crash(standby);
        }
        self.standbys.promoted.insert(standby);
        self.note(|| format!("standby {standby} takes the place of {replica}"));
        let (members, standbys) = self.hosts.split_at_mut(self.configuration.size());
        let of_standby = &standbys[standby.index() - members.len()].disk;
        members[replica.index()].disk.take_over(of_standby);
        self.spotter.reach(Mark::StandbyPromoted);
    }

    /// Starts the standbys; they lose their power now and then from now on.
    ///
    /// # Panics
    /// If one does not start on an empty disk.
    pub(crate) fn start_standbys(&mut self) {
        for standby in self.standbys() {
            self.start(standby).expect("a standby starts on an empty disk");
            self.schedule_stumble(standby, UP);
        }
    }

    /// From now on the standbys stay up.
    pub(crate) fn mend_standbys(&mut self) {
        self.standbys.stumble = false;
        for standby in self.standbys() {
            if !self.is_running(standby) {
                self.start_standby_again(standby);
            }
        }
    }

    /// How far the standbys say that they came; none for one that is down.
    pub(crate) fn standings_of_standbys(&self) -> impl Iterator<Item = Option<Standing>> + '_ {
        self.standbys().into_iter().map(|standby| self.standing(standby))
    }

    fn start_standby_again(&mut self, standby: ReplicaId) {
        if let Err(reason) = self.start(standby) {
            self.report(Invariant::Contract, format!("standby {standby} does not start: {reason}"));
        }
    }

    fn schedule_stumble(&mut self, standby: ReplicaId, [shortest, longest]: [Duration; 2]) {
        let when = self.time.after(self.standbys.random.duration(shortest, longest));
        self.schedule(when, Event::Stumble { standby });
    }

    /// A standby loses its power, or gets it back: now and then with an empty disk.
    pub(super) fn on_stumble(&mut self, standby: ReplicaId) {
        if !self.standbys.stumble || self.standbys.promoted.contains(&standby) {
            return;
        }
        if self.is_running(standby) {
            self.crash(standby);
            self.schedule_stumble(standby, DOWN);
        } else {
            if self.standbys.random.below(4) == 0 {
                self.hosts[standby.index()].disk.lose();
            }
            self.start_standby_again(standby);
            self.schedule_stumble(standby, UP);
        }
    }

    /// When something that a standby says, or that is said to it, arrives; not at all, if it is lost.
    fn arrival_at_door(&mut self) -> Option<Time> {
        let link = self.network.options();
        let random = &mut self.standbys.random;
        let (delay, is_lost) = (random.delay(link.delay), random.happens(link.loss));
        (!is_lost).then(|| self.time.after(delay))
    }

    /// What a standby says goes to the members' doors, as far as its host lets it through: how far it is, and what it lacks.
    pub(super) fn ask_at_doors(
        &mut self,
        from: ReplicaId,
        receivers: impl Iterator<Item = ReplicaId>,
        message: &Message,
    ) {
        match message {
            Message::Status(_) | Message::Fetch(Fetch::Decided { .. } | Fetch::Part { .. }) => {}
            Message::PrePrepare(_)
            | Message::Prepare(_)
            | Message::Commit(_)
            | Message::Checkpoint(_)
            | Message::ViewChange(_)
            | Message::NewView(_) => {
                let what = crate::account::describe(message);
                return self.report(Invariant::Contract, format!("standby {from} votes: {what}"));
            }
            _ => return,
        }
        let Ok(frame) = to_frame(message) else { return };
        let member = self.hosts[from.index()].stands_by();
        for to in receivers.filter(|to| Some(*to) != member) {
            if let Some(when) = self.arrival_at_door() {
                self.schedule(when, Event::Asked { from, to, frame: frame.clone() });
            }
        }
    }

    /// A member answers a standby. One in the adversary's hands may say anything.
    pub(super) fn on_asked(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        let now = self.time;
        let host = &mut self.hosts[to.index()];
        let Some(subject) = &host.subject else { return };
        let answers = match from_frame::<Message>(frame) {
            Ok(Message::Status(said)) => subject.tell_standby(&said),
            Ok(Message::Fetch(Fetch::Decided { after })) => subject.decided_for_standby(after, ANSWER_BYTES),
            Ok(Message::Fetch(Fetch::Part { sequence, want })) => {
                host.lent_part(now, sequence, &want).map(Message::Part).into_iter().collect()
            }
            Ok(_) | Err(_) => return,
        };
        let is_faulty = self.checkers.is_faulty(to);
        for answer in answers {
            let told = if is_faulty { self.lie(answer) } else { to_frame(&answer).ok() };
            if let (Some(frame), Some(when)) = (told, self.arrival_at_door()) {
                self.schedule(when, Event::Told { from: to, to: from, frame });
            }
        }
    }

    /// What an attacker tells a standby: the truth, nothing, something old, noise, or that it is far ahead.
    fn lie(&mut self, answer: Message) -> Option<Bytes> {
        let random = &mut self.standbys.random;
        let choice = random.below(8);
        let answer = match answer {
            Message::Status(status) if choice == 0 => {
                let ahead = |sequence: Sequence| sequence.saturating_add(1_000);
                let (stable, executed) = (ahead(status.stable), ahead(status.executed));
                Message::Status(Status { stable, executed, decided_from: Sequence::ZERO, ..status })
            }
            other => other,
        };
        let frame = to_frame(&answer).ok()?;
        let place = random.index(frame.len());
        let old = random.index(self.standbys.old_answers.len());
        if self.standbys.old_answers.len() < OLD_ANSWERS_MAX {
            self.standbys.old_answers.push(frame.clone());
        }
        match choice {
            1 => None,
            2 => self.standbys.old_answers.get(old).cloned(),
            3 => {
                let mut bytes = frame.to_vec();
                *bytes.get_mut(place)? ^= 1 << (place % 8);
                Some(bytes.into())
            }
            _ => Some(frame),
        }
    }

    /// A member's answer reaches a standby.
    pub(super) fn on_told(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        let refused = self.counts.refused;
        self.receive(from, to, frame);
        if core::mem::replace(&mut self.counts.refused, refused) != refused {
            self.spotter.reach(Mark::StandbyToldLie);
        }
    }
}
