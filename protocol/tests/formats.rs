//! The bytes on the wire and on disk: golden files, one encoding a value, and nothing from outside that panics.
//! (docs/formats.md)
//!
//! `UPDATE=1 cargo test -p quorate-protocol --test formats` rewrites the golden files: a decision of its own, with a new
//! version of the format.

#[path = "formats/samples.rs"]
mod samples;
#[expect(dead_code, reason = "the support of several tests, of which each uses a part")]
mod support;

use std::fmt::Debug;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_protocol::Input;
use quorate_protocol::codec::{BorrowDecode, Encode, Frame, List};
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{ClientMessage, Message, ReplicaMessage, VERSION, from_frame, to_frame};
use quorate_protocol::record::{EncodedRecord, Record, Recovered};
use quorate_protocol::recording::{Configurations, Item, Items, Step, input};
use quorate_protocol::time::Now;
use quorate_protocol::verify::verify;

use samples::Entropy;
use support::{Group, StandInVerifier};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format!("{name}.bin"))
}

/// Compares `bytes` with the golden file `name`, or rewrites it.
fn assert_golden(name: &str, bytes: &[u8]) {
    let path = golden(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, bytes).expect("the golden files can be written");
    }
    let expected = std::fs::read(&path).unwrap_or_default();
    assert!(expected == bytes, "{name}.bin differs: a change of format needs a new version");
}

fn assert_golden_frame<T>(name: &str, value: &T)
where
    T: Encode + PartialEq + Debug + for<'a> BorrowDecode<'a, Frame>,
{
    let frame = to_frame(value).expect("a sample is short");
    assert_golden(name, &frame);
    let read = Bytes::from(std::fs::read(golden(name)).expect("just read"));
    assert_eq!(from_frame::<T>(&read).as_ref(), Ok(value), "{name}");
}

#[test]
fn messages_between_replicas_have_the_bytes_of_their_golden_files() {
    let samples = samples::messages();
    for (name, message) in &samples {
        assert_golden_frame(&format!("message-{name}"), message);
    }
    for variant in 0..14_u32 {
        let is_there = samples.iter().any(|(_, message)| variant_of(message) == variant);
        assert!(is_there, "no sample of variant {variant}");
    }
}

fn variant_of(message: &Message) -> u32 {
    let frame = to_frame(message).expect("a sample is short");
    u32::from_le_bytes(frame[1..5].try_into().expect("four bytes"))
}

#[test]
fn messages_of_clients_and_to_them_have_the_bytes_of_their_golden_files() {
    for (name, message) in samples::client_messages() {
        assert_golden_frame(&format!("client-{name}"), &message);
    }
    for (name, message) in samples::replica_messages() {
        assert_golden_frame(&format!("replica-{name}"), &message);
    }
}

#[test]
fn evidence_has_the_bytes_of_its_golden_files_and_is_a_proof() {
    let configuration = Group::of_four().0;
    for (name, evidence) in samples::evidence() {
        assert_golden_frame(&format!("evidence-{name}"), &evidence);
        assert!(evidence.is_proof(&configuration, &mut StandInVerifier), "{name}");
    }
}

#[test]
fn records_have_the_bytes_of_their_golden_files() {
    let configuration = Group::of_four().0;
    for (name, record) in samples::records() {
        let EncodedRecord { head, body } = record.encode();
        assert_golden(&format!("record-{name}.head"), &head);
        assert_golden(&format!("record-{name}.body"), &body);
        let whole = Recovered::decode(&head, Some(&body), &configuration);
        assert_eq!(whole, Ok(Recovered::Whole(record)), "{name}");
        assert_eq!(whole.expect("just compared").encode(), (head, Some(body)), "{name}");
    }
}

#[test]
fn items_of_recordings_have_the_bytes_of_their_golden_files() {
    for (name, item) in samples::items() {
        let mut bytes = Vec::new();
        item.encode_into(&mut bytes).expect("a sample is short");
        assert_golden(&format!("recording-{name}"), &bytes);
        assert_eq!(Item::decode(&bytes.into()), Ok(item), "{name}");
    }
}

/// What a core was given comes back from the items that say so, checked again.
#[test]
fn every_input_comes_back_from_its_items() {
    let configuration = std::sync::Arc::new(Group::of_four().0);
    let configurations = Configurations::new(&configuration);
    let said_by = |message: &Message, from| {
        let message = verify(message.clone(), from, &configuration, &mut StandInVerifier).ok()?;
        Some(Input::Message { from, message })
    };
    let members = configuration.replicas();
    let verified = samples::messages()
        .into_iter()
        .filter_map(|(_, message)| members.clone().find_map(|from| said_by(&message, from)));
    let messages: Vec<Input> = verified.collect();
    let kind = |input: &Input| match input {
        Input::Message { message, .. } => Some(std::mem::discriminant(&**message)),
        _ => None,
    };
    let kinds: std::collections::HashSet<_> = messages.iter().filter_map(kind).collect();
    assert_eq!(kinds.len(), 15, "a message of every kind is valid");
    let inputs = messages.into_iter().chain(samples::inputs(&configuration));
    for given in inputs {
        let mut items = Items::default();
        let mut steps = Vec::new();
        let mut put = |item: Item| {
            let mut bytes = Vec::new();
            item.encode_into(&mut bytes)?;
            steps.extend(items.take(Item::decode(&bytes.into())?).expect("in order"));
            Ok::<(), quorate_protocol::codec::CodecError>(())
        };
        input(List::empty(), Now::default(), &given, &mut put).expect("short");
        let Some(Step::Input { input, .. }) = steps.pop() else { panic!("an input") };
        assert!(steps.is_empty());
        assert_eq!(input.check(&configurations, &mut StandInVerifier).as_ref(), Ok(&given));
    }
}

/// PROTOCOL §9: "a vote of which either copy is whole counts as cast"
#[test]
fn a_record_whose_body_is_lost_still_says_what_was_signed() {
    let configuration = Group::of_four().0;
    for (name, record) in samples::records() {
        let expected = match record.clone() {
            Record::Accepted(vote, Some(_)) => Recovered::AcceptedWithoutBatch(vote),
            Record::Learned(certificate, _) => Recovered::LearnedWithoutBatch(certificate),
            Record::ViewChange(epoch, view, _) => Recovered::ViewChangeLost(epoch, view),
            Record::NewView(epoch, view, _) => Recovered::NewViewLost(epoch, view),
            Record::Batch(epoch, sequence, _) => Recovered::BatchLost(epoch, sequence),
            whole => Recovered::Whole(whole),
        };
        let found = Recovered::decode(&record.encode().head, None, &configuration);
        assert_eq!(found.as_ref(), Ok(&expected), "{name}");
        assert_eq!(expected.encode().0, record.encode().head, "{name}");
    }
}

#[test]
fn a_frame_of_another_version_is_refused_before_anything_in_it_is_read() {
    for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
        assert!(from_frame::<Message>(&Bytes::from(vec![version])).is_err());
    }
    assert!(from_frame::<Message>(&Bytes::new()).is_err());
}

/// What is decoded at all encodes to the bytes that it was decoded from.
fn assert_one_encoding<T: Encode + for<'a> BorrowDecode<'a, Frame>>(frame: &Bytes) {
    if let Ok(value) = from_frame::<T>(frame) {
        assert_eq!(to_frame(&value).expect("it was shorter than the bound").as_ref(), &frame[..]);
    }
}

fn assert_one_encoding_of_any(frame: &Bytes) {
    assert_one_encoding::<Message>(frame);
    assert_one_encoding::<ClientMessage>(frame);
    assert_one_encoding::<ReplicaMessage>(frame);
    assert_one_encoding::<Evidence>(frame);
    assert_one_encoding::<Item>(frame);
}

/// Comes back whole, and no part of it or addition to it means anything.
fn assert_exact<T>(value: &T)
where
    T: Encode + PartialEq + Debug + for<'a> BorrowDecode<'a, Frame>,
{
    let frame = to_frame(value).expect("short");
    assert_eq!(from_frame::<T>(&frame).as_ref(), Ok(value));
    for length in 0..frame.len() {
        assert!(from_frame::<T>(&frame.slice(..length)).is_err(), "{length} of {} bytes", frame.len());
    }
    let mut longer = frame.to_vec();
    longer.push(0);
    assert!(from_frame::<T>(&longer.into()).is_err());
}

/// All frames of samples.
fn frames() -> Vec<Bytes> {
    let messages = samples::messages().into_iter().map(|(_, message)| to_frame(&message));
    let from_clients = samples::client_messages().into_iter().map(|(_, message)| to_frame(&message));
    let to_clients = samples::replica_messages().into_iter().map(|(_, message)| to_frame(&message));
    let evidence = samples::evidence().into_iter().map(|(_, evidence)| to_frame(&evidence));
    let items = samples::items().into_iter().map(|(_, item)| to_frame(&item));
    let messages = messages.chain(evidence).chain(items);
    messages.chain(from_clients).chain(to_clients).map(|frame| frame.expect("short")).collect()
}

/// A count or length that promises more than there is costs nothing.
#[test]
fn the_largest_count_at_any_place_is_refused_or_means_something_else() {
    for frame in frames() {
        for place in 1..frame.len().saturating_sub(3) {
            let mut bytes = frame.to_vec();
            bytes[place..place + 4].copy_from_slice(&[0xff; 4]);
            assert_one_encoding_of_any(&bytes.into());
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else_is(entropy in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_exact(&Entropy::new(&entropy).message());
        assert_exact(&Entropy::new(&entropy).client_message());
        assert_exact(&Entropy::new(&entropy).replica_message());
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_give_a_second_encoding(
        sample in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..4),
    ) {
        let frames = frames();
        let mut bytes = sample.get(&frames).to_vec();
        for (place, flip) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
        }
        assert_one_encoding_of_any(&bytes.into());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        variant in 0_u8..16,
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..400),
    ) {
        let mut frame = vec![VERSION, variant, 0, 0, 0];
        frame.extend(bytes);
        assert_one_encoding_of_any(&frame.into());
    }

    #[test]
    fn damaged_records_never_panic(
        sample in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
        in_head in any::<bool>(),
    ) {
        let records = samples::records();
        let EncodedRecord { head, body } = sample.get(&records).1.encode();
        let (mut head, mut body) = (head.to_vec(), body.to_vec());
        let damaged = if in_head { &mut head } else { &mut body };
        if !damaged.is_empty() {
            let place = place.index(damaged.len());
            damaged[place] ^= flip;
        }
        let configuration = Group::of_four().0;
        let (head, body) = (Bytes::from(head), Bytes::from(body));
        if let Ok(Recovered::Whole(record)) = Recovered::decode(&head, Some(&body), &configuration) {
            let again = record.encode();
            prop_assert_eq!(again.head, head);
            // A head alone tells which records have no body: theirs is not looked at.
            prop_assert!(again.body == body || again.body.is_empty());
        }
    }
}

/// The page that describes the formats names each golden file, with its length.
#[test]
fn every_golden_file_stands_in_the_document_with_its_length() {
    let document = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/formats.md");
    let document = std::fs::read_to_string(document).expect("the document is part of the repository");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    for file in std::fs::read_dir(folder).expect("the golden files are there") {
        let path = file.expect("a file").path();
        let bytes = std::fs::metadata(&path).expect("a file").len();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let name = path.file_name().expect("a file has a name").display().to_string();
        assert!(bytes == 0 || document.contains(&format!("| `{name}` | {bytes} |")), "`{name}` | {bytes} |");
    }
}
