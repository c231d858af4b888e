//! Reads that nobody orders: asked of all, believed if a quorum answers alike. (PROTOCOL §8, fast reads)
//!
//! Equal results alone would not do. Replicas are at different slots: with a liar that repeats whatever fits, one that is
//! ahead and one that is behind could make up a quorum for a value that was overwritten in between and written again since,
//! and the next read find the one in between. So answers also tell since when the result is so, and must agree in that.

use alloc::vec::Vec;

use quorate_crypto::Digest;

use super::member_set::MemberSet;
use super::request::Submission;
use super::{Client, ClientOutput, Ticket};
use crate::application::READ_BYTES_MAX;
use crate::codec::{Blob, List};
use crate::message::ReadAnswer;
use crate::number::{ReplicaId, RequestNumber};
use crate::time::Time;

/// Reads under way; more are ordered.
const READS_MAX: usize = 1024;

/// A read that was sent to all.
#[derive(Debug, Clone)]
pub(super) struct PendingRead {
    ticket: Ticket,
    operation: Blob,
    submitted_at: Time,
    /// When it is ordered instead.
    pub(super) deadline: Time,
    /// The digest of each answer, with those who gave it: the one that completes a quorum brings the result itself. Bound:
    /// one a member, since each counts once.
    answers: Vec<(Digest, MemberSet)>,
    /// Who has answered, will not, or cannot be reached.
    settled: MemberSet,
}

impl PendingRead {
    /// Whether so many equal answers may still come together among `members` members.
    fn may_reach(&self, quorum: usize, members: usize) -> bool {
        let open = members - self.settled.len();
        let most = self.answers.iter().map(|(_, from)| from.len()).max().unwrap_or(0);
        most + open >= quorum
    }
}

impl Client {
    pub(super) fn on_read(&mut self, now: Time, ticket: Ticket, operation: Blob) {
        if !self.configuration.parameters().fast_reads || self.reads.len() >= READS_MAX {
            return self.order_read(ticket, operation, now);
        }
        let number = self.next_read;
        self.next_read = number.saturating_add(1);
        let read = PendingRead {
            ticket,
            operation: operation.clone(),
            submitted_at: now,
            deadline: now.after(self.patience.wait(0)),
            answers: Vec::new(),
            settled: self.links_down,
        };
        self.reads.insert(number, read);
        self.outputs.push_back(ClientOutput::Ask { number, operation });
        self.give_up_if_vain(number);
    }

    pub(super) fn on_read_answer(&mut self, from: ReplicaId, number: RequestNumber, answer: Option<ReadAnswer>) {
        let is_member = self.is_member(from);
        let quorum = self.configuration.quorum();
        let Some(read) = self.reads.get_mut(&number).filter(|read| is_member && !read.settled.contains(from)) else {
            self.statistics.ignored_replies += 1;
            return;
        };
        read.settled.insert(from);
        let answer = answer.filter(|answer| answer.reading.result.len() <= READ_BYTES_MAX);
        let Some(answer) = answer else { return self.give_up_if_vain(number) };
        let digest = answer.digest();
        let place = read.answers.iter().position(|(other, _)| *other == digest);
        let place = place.unwrap_or_else(|| {
            read.answers.push((digest, MemberSet::EMPTY));
            read.answers.len() - 1
        });
        let (_, equal) = &mut read.answers[place];
        equal.insert(from);
        if equal.len() < quorum {
            return self.give_up_if_vain(number);
        }
        let Some(PendingRead { ticket, submitted_at, .. }) = self.reads.remove(&number) else { return };
        let reading = answer.reading;
        self.statistics.fast_reads += 1;
        self.outputs.push_back(ClientOutput::Read { ticket, reading, submitted_at });
    }

    /// No answer of it comes any more: what it was asked, it was asked in vain.
    pub(super) fn on_reader_lost(&mut self, replica: ReplicaId) {
        let numbers: Vec<RequestNumber> = self.reads.keys().copied().collect();
        for number in numbers {
            if let Some(read) = self.reads.get_mut(&number) {
                read.settled.insert(replica);
            }
            self.give_up_if_vain(number);
        }
    }

    /// Has ordered what was not answered in time.
    pub(super) fn on_late_reads(&mut self, now: Time) {
        while let Some((number, _)) = self.reads.iter().find(|(_, read)| read.deadline <= now) {
            self.give_up(*number);
        }
    }

    fn give_up_if_vain(&mut self, number: RequestNumber) {
        let (quorum, members) = (self.configuration.quorum(), self.configuration.size());
        if self.reads.get(&number).is_some_and(|read| !read.may_reach(quorum, members)) {
            self.give_up(number);
        }
    }

    fn give_up(&mut self, number: RequestNumber) {
        if let Some(PendingRead { ticket, operation, submitted_at, .. }) = self.reads.remove(&number) {
            self.order_read(ticket, operation, submitted_at);
        }
    }

    fn order_read(&mut self, ticket: Ticket, operation: Blob, submitted_at: Time) {
        self.statistics.ordered_reads += 1;
        let operations = List::new(alloc::vec![operation]).expect("one is within the bound");
        self.on_submit(Submission { ticket, operations, submitted_at });
    }
}
