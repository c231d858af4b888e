//! What the core asks of the log and the log's queue has no room for yet: appends, cuts and beginnings of segments in the one
//! order in which they were asked for.

use std::collections::VecDeque;

use quorate_protocol::number::RecordNumber;
use quorate_protocol::record::Record;

use crate::storage::log::{Error, Log};

/// On its way to the log.
#[derive(Debug)]
enum Waiting {
    Append { number: RecordNumber, head: bytes::Bytes, body: bytes::Bytes, is_awaited: bool },
    BeginSegment,
    Cut { before: RecordNumber },
}

/// Appends and cuts that wait.
///
/// A cut waits behind the records that were appended before it: what it gives back they have to say again first. One that
/// overtook them would leave a crash without the view and the watermark that bind this replica. (PROTOCOL §5)
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bound: what the core has outstanding, a few records for each slot of the window, and a cut for each checkpoint.
    waiting: VecDeque<Waiting>,
}

impl Backlog {
    pub(super) fn append(&mut self, number: RecordNumber, record: &Record) {
        let is_awaited = record.is_awaited();
        let record = record.encode();
        self.waiting.push_back(Waiting::Append { number, head: record.head, body: record.body, is_awaited });
    }

    pub(super) fn begin_segment(&mut self) {
        self.waiting.push_back(Waiting::BeginSegment);
    }

    pub(super) fn cut(&mut self, before: RecordNumber) {
        self.waiting.push_back(Waiting::Cut { before });
    }

    /// Hands over as far as the queue has room. What has none stays: it was accepted, and is not lost.
    ///
    /// A log that has stopped takes nothing more, and says itself why: that is what the host ends with.
    ///
    /// # Errors
    /// Something is not a record that can follow.
    pub(super) fn hand_over(&mut self, log: &Log) -> Result<(), Error> {
        while let Some(first) = self.waiting.front() {
            let handed = match first {
                Waiting::Append { number, head, body, is_awaited: true } => {
                    log.append(number.value(), head.clone(), body.clone())
                }
                Waiting::Append { number, head, body, is_awaited: false } => {
                    log.append_at_leisure(number.value(), head.clone(), body.clone())
                }
                Waiting::BeginSegment => log.begin_segment(),
                Waiting::Cut { before } => log.cut(before.value()),
            };
            match handed {
                Err(Error::QueueFull | Error::Stopped) => break,
                handed => handed?,
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use quorate_crypto::Digest;
    use quorate_protocol::certificate::StableCertificate;
    use quorate_protocol::codec::List;
    use quorate_protocol::number::{Epoch, Sequence};
    use quorate_protocol::statement::Checkpoint;

    use super::*;
    use crate::storage::log::{Event, Identity, Options};

    /// Longest wait for anything.
    const PATIENCE: Duration = Duration::from_mins(1);

    fn record() -> Record {
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(128), root: Digest::ZERO };
        Record::Stable(StableCertificate { statement, votes: List::empty() })
    }

    #[test]
    fn a_cut_never_overtakes_the_records_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: [3; 32], replica: 0 };
        let options = Options { queue_records_max: 1, ..Options::new(folder.path().join("log"), identity) };
        let (events, said) = mpsc::channel();
        let (go_on, is_to_go_on) = mpsc::channel::<()>();
        let on_event = Box::new(move |event| {
            events.send(event).unwrap();
            is_to_go_on.recv().ok();
        });
        let (log, _) = Log::open(&options, &mut |_| (), on_event).unwrap();
        let number = RecordNumber::new;
        let mut backlog = Backlog::default();
        backlog.append(number(1), &record());
        backlog.hand_over(&log).unwrap();
        // The log's thread waits: of what follows, its queue has room for one record.
        assert!(matches!(said.recv_timeout(PATIENCE), Ok(Event::Durable(1))));
        backlog.append(number(2), &record());
        backlog.append(number(3), &record());
        backlog.cut(number(3));
        let mut heard = Vec::new();
        while heard.len() < 3 {
            backlog.hand_over(&log).unwrap();
            go_on.send(()).unwrap();
            heard.push(match said.recv_timeout(PATIENCE).unwrap() {
                Event::Durable(2) => "2",
                Event::Durable(3) => "3",
                Event::Cut(3) => "cut",
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(heard, ["2", "3", "cut"]);
        drop(go_on);
        log.close().unwrap();
    }

    #[test]
    fn what_failed_is_heard_from_the_log_and_not_from_who_hands_it_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let options = Options::new(path.clone(), Identity { cluster: [3; 32], replica: 0 });
        let (events, said) = mpsc::channel();
        let on_event = Box::new(move |event| events.send(event).unwrap());
        let (log, _) = Log::open(&options, &mut |_| (), on_event).unwrap();
        // The log's own thread may be about to make a file there.
        while path.exists() {
            std::fs::remove_dir_all(&path).ok();
        }
        let mut backlog = Backlog::default();
        backlog.append(RecordNumber::new(1), &record());
        backlog.hand_over(&log).unwrap();
        let heard = said.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(heard, Event::Failed(Error::Io { .. })), "{heard:?}");
        backlog.append(RecordNumber::new(2), &record());
        assert!(matches!(log.cut(1), Err(Error::Stopped)));
        backlog.hand_over(&log).unwrap();
    }
}
