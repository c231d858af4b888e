//! Persist before send. (PROTOCOL §3, column "durable first")
//!
//! A message that carries this replica's vote enters only by [`Outbox::send_after`] and leaves only once its record is
//! durable. There is no other way to send one.

use alloc::collections::VecDeque;

use crate::message::Message;
use crate::number::RecordNumber;
use crate::output::Output;
use crate::record::Record;

/// Outputs that wait to be fetched, and votes that wait to be durable.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Outbox {
    /// Bound: emptied by the host after every input.
    ready: VecDeque<Output>,
    /// Votes with the record that each waits for, in ascending order. Bound: none is cast while the backlog is too large.
    waiting: VecDeque<(RecordNumber, Message)>,
    /// The number that the next record gets.
    next: RecordNumber,
    /// All records up to this one are durable.
    durable: RecordNumber,
    /// The batches in later records, by their bytes. Bound: as `waiting`.
    batches: VecDeque<(RecordNumber, usize)>,
    batch_bytes: usize,
}

/// What waits to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// So many records.
    pub(crate) records: u64,
    /// So many bytes of batches in them.
    pub(crate) bytes: usize,
}

impl Outbox {
    /// An outbox whose first record gets the number `next`, all before it being durable.
    pub(crate) fn new(next: RecordNumber) -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            next,
            durable: next.saturating_sub(1),
            batches: VecDeque::new(),
            batch_bytes: 0,
        }
    }

    /// Appends a record that no message waits for.
    pub(crate) fn append(&mut self, record: Record) -> RecordNumber {
        let number = self.next;
        self.next = number.next().expect("a log of 2^64 records is not written in any lifetime");
        if let Some(batch) = record.batch() {
            let bytes = batch.body().len();
            self.batches.push_back((number, bytes));
            self.batch_bytes += bytes;
        }
        self.ready.push_back(Output::Append { number, record });
        number
    }

    /// Appends `record` and sends `message` to all once it is durable.
    pub(crate) fn send_after(&mut self, record: Record, message: Message) -> RecordNumber {
        let number = self.append(record);
        self.waiting.push_back((number, message));
        number
    }

    /// Puts out something that carries no vote, or one that is durable already.
    pub(crate) fn push(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    /// Notes that all records up to `number` are durable.
    pub(crate) fn on_durable(&mut self, number: RecordNumber) {
        assert!(number < self.next, "the log reports durable what was never appended");
        self.durable = self.durable.max(number);
        while let Some((_, bytes)) = self.batches.pop_front_if(|(record, _)| *record <= number) {
            self.batch_bytes -= bytes;
        }
    }

    /// What was appended and is not durable.
    pub(crate) fn backlog(&self) -> Backlog {
        let records = self.next.value().saturating_sub(self.durable.value() + 1);
        Backlog { records, bytes: self.batch_bytes }
    }

    /// Whether the record `number` is durable.
    pub(crate) fn is_durable(&self, number: RecordNumber) -> bool {
        number <= self.durable
    }

    /// The votes that wait to be durable, the latest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Message> {
        self.waiting.iter().rev().map(|(_, message)| message)
    }

    /// The next vote whose record is durable: it is now to be broadcast and counted.
    pub(crate) fn release(&mut self) -> Option<Message> {
        if self.waiting.front()?.0 > self.durable {
            return None;
        }
        self.waiting.pop_front().map(|(_, message)| message)
    }

    /// The next output.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use quorate_crypto::{Digest, PublicKey, Signature};

    use super::*;
    use crate::batch::{Batch, ParsedRequest, Request, SignedRequest};
    use crate::codec::List;
    use crate::number::{Epoch, ReplicaId, RequestNumber, Sequence, Session, View};
    use crate::statement::{Prepare, Vote};
    use crate::time::WallTime;

    fn vote(sequence: u64) -> Vote<Prepare> {
        let digest = Digest::from_bytes([1; 32]);
        let statement = Prepare { epoch: Epoch::ZERO, view: View::ZERO, sequence: Sequence::new(sequence), digest };
        Vote { statement, voter: ReplicaId::new(0), signature: Signature::from_bytes([0; 64]) }
    }

    fn batch() -> Batch {
        let client = PublicKey::from_bytes([5; 32]).expect("neither weak nor beyond the prime");
        let (session, number) = (Session::NONE, RequestNumber::new(1));
        let request = Request { client, session, number, operations: List::empty() };
        let signed = SignedRequest { body: alloc::vec![0; 9].into(), signature: Signature::from_bytes([0; 64]) };
        Batch::new(WallTime::ZERO, alloc::vec![ParsedRequest::new(request, signed)])
    }

    #[test]
    fn a_vote_leaves_only_when_its_record_is_durable() {
        let mut outbox = Outbox::new(RecordNumber::new(5));
        let first = outbox.send_after(Record::Accepted(vote(1), None), Message::Prepare(vote(1)));
        let second = outbox.send_after(Record::Accepted(vote(2), None), Message::Prepare(vote(2)));
        assert_eq!((first, second), (RecordNumber::new(5), RecordNumber::new(6)));
        assert_eq!(outbox.release(), None);
        outbox.on_durable(first);
        assert_eq!(outbox.release(), Some(Message::Prepare(vote(1))));
        assert_eq!(outbox.release(), None);
        outbox.on_durable(second);
        assert_eq!(outbox.release(), Some(Message::Prepare(vote(2))));
    }

    #[test]
    fn the_backlog_is_what_was_appended_and_is_not_durable() {
        let mut outbox = Outbox::new(RecordNumber::new(5));
        assert_eq!(outbox.backlog(), Backlog { records: 0, bytes: 0 });
        let batch = batch();
        let bytes = batch.body().len();
        for sequence in 1..=3 {
            outbox.append(Record::Accepted(vote(sequence), Some(batch.clone())));
        }
        outbox.append(Record::Accepted(vote(4), None));
        for (durable, records, batches) in [(5, 3, 2), (6, 2, 1), (7, 1, 0), (8, 0, 0)] {
            outbox.on_durable(RecordNumber::new(durable));
            assert_eq!(outbox.backlog(), Backlog { records, bytes: batches * bytes });
        }
    }

    #[test]
    #[should_panic(expected = "never appended")]
    fn a_log_that_reports_the_future_durable_is_a_bug() {
        Outbox::new(RecordNumber::new(1)).on_durable(RecordNumber::new(1));
    }
}
