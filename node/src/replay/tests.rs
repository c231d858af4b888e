//! Recordings of a core that hears of its peers and of time, replayed, damaged and changed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use quorate_protocol::codec::List;
use quorate_protocol::message::{Message, Status};
use quorate_protocol::number::{Epoch, Incarnation, RecordNumber, ReplicaId, Sequence, View};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::recording::{Item, Role};
use quorate_protocol::replica::{Replica, Start};
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::verify::verify;
use quorate_protocol::{Input, Machine as _, Now};
use tempfile::TempDir;

use super::*;
use crate::configuration::network::{Network, Plan};
use crate::host::Zip215;
use crate::recording::file::{FRAME_HEADER_BYTES, HEADER_BYTES};
use crate::recording::{ReadError, Recorder, recorder};

struct Subject {
    files: ReplicaConfiguration,
    _root: TempDir,
}

fn subject() -> Subject {
    let root = tempfile::tempdir().unwrap();
    let network = Network::create(&root.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
    Subject { files: network.replicas().unwrap().remove(0), _root: root }
}

fn at(ms: u64) -> Now {
    let wall = WallTime::from_nanoseconds(1_700_000_000_000_000_000 + ms * 1_000_000);
    Now { monotonic: Time::from_nanoseconds(ms * 1_000_000), wall }
}

fn status() -> Message {
    Message::Status(Status {
        epoch: Epoch::ZERO,
        view: View::ZERO,
        entered: true,
        suspects: false,
        stable: Sequence::ZERO,
        executed: Sequence::ZERO,
        decided_from: Sequence::new(1),
        view_changes: 0,
        checkpoint_votes: 0,
        slots: List::empty(),
    })
}

impl Subject {
    fn folder(&self) -> PathBuf {
        self.files.data.join(FOLDER)
    }

    /// A start with a log of one record, and forty inputs: time passes, and a peer says how it is.
    fn record(&self, bytes_max: u64) -> PathBuf {
        let configuration = Arc::new(self.files.genesis.configuration().clone());
        let records = vec![(RecordNumber::new(1), Recovered::Whole(Record::Incarnation(Incarnation::ZERO)))];
        let start = Start {
            id: self.files.id,
            configuration: Arc::clone(&configuration),
            signer: Arc::new(self.files.key.clone()),
            checkpoint: None,
            records,
            first_record: RecordNumber::new(2),
            is_damaged: false,
            token: 7,
        };
        let options =
            recorder::Options { folder: self.folder(), identity: identity(&self.files), bytes_max, role: Role::Member };
        let mut recorder = Recorder::begin(&options, &start, at(0)).unwrap();
        let mut machine = Replica::start(start, at(0)).unwrap();
        let drain = |machine: &mut Replica, recorder: &mut Recorder| {
            while let Some(output) = machine.poll_output() {
                recorder.note_output(&output);
            }
        };
        drain(&mut machine, &mut recorder);
        for step in 1..=40 {
            let from = ReplicaId::new(1);
            let input = if step % 2 == 0 {
                Input::Wake
            } else {
                let message = verify(status(), from, &configuration, &mut Zip215::default()).unwrap();
                Input::Message { from, message }
            };
            recorder.note_input(at(40 * step), &input);
            machine.handle(at(40 * step), input);
            drain(&mut machine, &mut recorder);
        }
        recorder.end();
        file::list(&self.folder()).unwrap().pop().unwrap().path
    }

    fn replay(&self, options: &Options) -> anyhow::Result<(ReplayedStart, Vec<ShownStep>)> {
        let mut steps = Vec::new();
        let mut replayed = replay(&self.files, options, &mut |step| {
            steps.push(step);
            Ok(())
        })?;
        Ok((replayed.starts.pop().unwrap(), steps))
    }
}

/// All items of a recording.
fn items(path: &Path) -> Result<Vec<Item>, ReadError> {
    let mut reader = Reader::open(path)?;
    std::iter::from_fn(|| reader.next_item().transpose()).collect()
}

/// Writes a recording anew with other items.
fn rewrite(path: &Path, items: &[Item]) {
    let mut bytes = fs::read(path).unwrap()[..HEADER_BYTES].to_vec();
    for item in items {
        let start = bytes.len();
        bytes.extend([0; FRAME_HEADER_BYTES]);
        item.encode_into(&mut bytes).unwrap();
        let item = &bytes[start + FRAME_HEADER_BYTES..];
        let mut header =
            [u32::try_from(item.len()).unwrap().to_le_bytes(), crc32fast::hash(item).to_le_bytes()].concat();
        header.extend(crc32fast::hash(&header).to_le_bytes());
        bytes[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header);
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_was_recorded_comes_out_again() {
    let subject = subject();
    subject.record(1 << 20);
    let (replayed, _) = subject.replay(&Options::default()).unwrap();
    assert!(replayed.is_same(), "{replayed}");
    assert_eq!((replayed.start, replayed.inputs, replayed.ended), (1, 40, Ended::Stopped));
    assert!(replayed.outputs > 10, "the test has something to compare: {replayed}");
}

#[test]
fn inputs_are_shown_and_the_replay_ends_where_it_is_to() {
    let subject = subject();
    subject.record(1 << 20);
    let options = Options { show: Some(0..=2), until: Some(5), ..Options::default() };
    let (replayed, steps) = subject.replay(&options).unwrap();
    assert_eq!((replayed.inputs, replayed.ended), (5, Ended::Until));
    assert_eq!(steps.iter().map(|step| step.input).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((&*steps[0].what, &*steps[2].what), ("Start", "Wake"));
    assert!(steps[1].what.starts_with("Message { from: ReplicaId(1)"), "{}", steps[1].what);
}

#[test]
fn an_input_at_another_time_is_where_it_diverges() {
    let subject = subject();
    let path = subject.record(1 << 20);
    let mut items = items(&path).unwrap();
    let last = items.len() - 2;
    let Item::Input { now, .. } = &mut items[last] else { panic!("the last but one is an input") };
    now.monotonic += 10_000_000_000;
    rewrite(&path, &items);
    let (replayed, _) = subject.replay(&Options::default()).unwrap();
    let divergence = replayed.divergence.expect("ten seconds later more is due");
    assert_eq!((divergence.input, replayed.inputs), (40, 40));
    assert_ne!(divergence.recorded, divergence.replayed);
}

#[test]
fn no_flipped_byte_goes_unseen_and_where_it_is_is_said() {
    let subject = subject();
    let path = subject.record(1 << 20);
    let whole = fs::read(&path).unwrap();
    for byte in 0..whole.len() {
        let mut harmed = whole.clone();
        harmed[byte] ^= 0x10;
        fs::write(&path, harmed).unwrap();
        match items(&path) {
            Err(ReadError::NotARecording { .. }) if byte < HEADER_BYTES => {}
            Err(ReadError::Damaged { position, .. }) => {
                assert!(position <= byte as u64 && byte as u64 - position < 4096, "byte {byte}, said {position}");
            }
            other => panic!("byte {byte}: {other:?}"),
        }
    }
}

#[test]
fn wherever_a_file_ends_is_its_end() {
    let subject = subject();
    let path = subject.record(1 << 20);
    let whole = fs::read(&path).unwrap();
    let all = items(&path).unwrap().len();
    for length in HEADER_BYTES..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(items(&path).unwrap().len() < all, "{length}");
    }
    let (replayed, _) = subject.replay(&Options::default()).unwrap();
    assert!(replayed.is_same() && replayed.ended == Ended::Torn, "{replayed}");
    fs::write(&path, &whole[..HEADER_BYTES - 1]).unwrap();
    assert!(matches!(Reader::open(&path), Err(ReadError::NotARecording { .. })));
}

#[test]
fn a_recording_ends_at_its_limit_and_says_so() {
    let subject = subject();
    let path = subject.record(4 << 10);
    assert!(fs::metadata(&path).unwrap().len() <= 4 << 10);
    let (replayed, _) = subject.replay(&Options::default()).unwrap();
    assert!(replayed.is_same() && replayed.ended == Ended::Limit && replayed.inputs < 40, "{replayed}");
}

#[test]
fn earlier_starts_make_room_for_the_last() {
    let subject = subject();
    let bytes = fs::metadata(subject.record(1 << 20)).unwrap().len();
    subject.record(2 * bytes + 1200);
    subject.record(2 * bytes + 1200);
    let starts: Vec<u64> = file::list(&subject.folder()).unwrap().iter().map(|found| found.start).collect();
    assert_eq!(starts, [2, 3]);
}

/// Only a host that lies says that something was executed which it was not given.
#[test]
fn an_input_that_breaks_the_core_ends_the_replay_and_not_the_program() {
    let subject = subject();
    let path = subject.record(1 << 20);
    let mut all = items(&path).unwrap();
    let at = all.len() - 10;
    let Item::Input { event, .. } = &mut all[at] else { panic!("an input") };
    *event = quorate_protocol::recording::Event::Executed { sequence: Sequence::new(9) };
    rewrite(&path, &all);
    let (replayed, _) = subject.replay(&Options::default()).unwrap();
    assert!(replayed.divergence.is_some_and(|divergence| divergence.panicked.is_some()));
    rewrite(&path, &all[..=at]);
    let (replayed, _) = subject.replay(&Options::default()).unwrap();
    assert!(replayed.is_same() && replayed.panicked.is_some(), "it did so then, too");
}

#[test]
fn a_message_that_nobody_signed_is_refused() {
    let subject = subject();
    let path = subject.record(1 << 20);
    let mut all = items(&path).unwrap();
    let at = all.len() - 3;
    let Item::Input { event, .. } = &mut all[at] else { panic!("an input") };
    let vote = quorate_protocol::statement::Vote::sign(
        quorate_protocol::statement::Checkpoint {
            epoch: Epoch::ZERO,
            sequence: Sequence::new(128),
            root: quorate_crypto::Digest::ZERO,
        },
        ReplicaId::new(1),
        subject.files.genesis.configuration().cluster(),
        &subject.files.key,
    );
    let (from, message) = (ReplicaId::new(1), Message::Checkpoint(vote));
    *event = quorate_protocol::recording::Event::Message { from, epoch: Epoch::ZERO, message };
    rewrite(&path, &all);
    let error = format!("{:#}", subject.replay(&Options::default()).unwrap_err());
    assert!(error.contains("invalid signature") && error.contains("input 39"), "{error}");
}

#[test]
fn a_recording_of_another_replica_is_refused() {
    let (subject, other) = (subject(), subject());
    subject.record(1 << 20);
    let options = Options { recording: Some(subject.folder()), ..Options::default() };
    assert!(format!("{:#}", other.replay(&options).unwrap_err()).contains("another replica or cluster"));
}
