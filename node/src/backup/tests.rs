//! Files with any byte changed, sources that lie, and folders that are not to be overwritten.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use quorate_crypto::{Digest, SigningKey};
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::{Blob, List, encode};
use quorate_protocol::configuration::{Member, Parameters};
use quorate_protocol::message::{Content, Entry, Part, Piece, StableState, StateRoot, Want};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence};
use quorate_protocol::replica::{ProtocolSummary, founding_entries, state_root};
use quorate_protocol::state::{DEPTH, Index, bucket_of, crown_level, place_of};
use quorate_protocol::statement::{Checkpoint, Vote};
use quorate_protocol::time::WallTime;
use tempfile::TempDir;

use super::restore::verify;
use super::take::{Source, take_from};
use super::*;
use crate::client::ClientError;

/// The checkpoint of all these tests.
const SEQUENCE: Sequence = Sequence::new(128);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn genesis(created: u8) -> Genesis {
    let member = |seed: u8| Member {
        key: key(seed).public_key(),
        peer_address: format!("127.0.0.1:{}", 4100 + 2 * u16::from(seed)),
        client_address: format!("127.0.0.1:{}", 4101 + 2 * u16::from(seed)),
    };
    Genesis::new(Digest::from_bytes([created; 32]), (0..4).map(member).collect(), Parameters::default()).unwrap()
}

fn entry(key: &str, value: &str) -> Entry {
    Entry { key: key.as_bytes().into(), value: value.as_bytes().into() }
}

/// A state that a quorum of the cluster vouches for.
#[derive(Clone)]
struct State {
    genesis: Genesis,
    protocol: Vec<Entry>,
    application: Vec<Entry>,
    stable: StableState,
}

impl State {
    fn new() -> Self {
        let genesis = genesis(7);
        let mut application: Vec<Entry> = (0..40).map(|number| entry(&format!("key {number:02}"), "value")).collect();
        application.sort_by_key(|entry| (place_of(&entry.key), entry.key.clone()));
        let configuration = genesis.configuration();
        let protocol = founding_entries(configuration, WallTime::from_nanoseconds(77));
        let mut index = Index::new(DEPTH);
        for Entry { key, value } in &application {
            index.add(key, value);
        }
        let digest = ProtocolSummary::of(configuration, &protocol).unwrap().digest;
        let root = StateRoot { application: index.finish(), protocol: digest };
        let certificate = certificate(&genesis, &root, &[0, 2, 3]);
        Self { protocol, application, stable: StableState { certificate, root }, genesis }
    }

    fn header(&self) -> Header {
        let StableState { certificate, root } = self.stable.clone();
        Header::new(self.genesis.clone(), certificate, root).unwrap()
    }
}

fn certificate(genesis: &Genesis, root: &StateRoot, voters: &[u8]) -> StableCertificate {
    let statement = Checkpoint { epoch: Epoch::ZERO, sequence: SEQUENCE, root: state_root(root) };
    let sign = |voter: &u8| Vote::sign(statement, ReplicaId::new(*voter), genesis.cluster(), &key(*voter));
    let votes: Vec<_> = voters.iter().map(sign).collect();
    StableCertificate::collect(statement, votes.iter(), voters.len()).unwrap()
}

/// How a replica answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Honest,
    Silent,
    /// Without a stable checkpoint.
    New,
    /// With too few votes.
    ForgedCertificate,
    /// With the roots of another state.
    OtherRoots,
    /// With one value changed.
    ChangedValue,
    /// Without the last entry.
    LeftOut,
    /// With keys out of order.
    Disordered,
    /// With the same part for ever.
    Endless,
    /// With a piece of a few bytes at a time.
    Dawdling,
    /// With bytes that are no part.
    Garbled,
    /// Without the checkpoint that it offered.
    Gone,
}

/// Replicas that answer so.
struct Replicas {
    state: State,
    manners: Vec<Manner>,
    asked: Cell<u64>,
}

impl Replicas {
    /// The buckets of a group in two parts, if there are entries enough.
    fn part(&self, manner: Manner, want: Want) -> Part {
        let State { protocol, mut application, stable, .. } = self.state.clone();
        match manner {
            Manner::ChangedValue => application[3].value = Blob::from(&b"valve"[..]),
            Manner::LeftOut => drop(application.pop()),
            Manner::Disordered => application.reverse(),
            _ => {}
        }
        let content = match &want {
            Want::Protocol { .. } => Content::Protocol { entries: List::new(protocol).unwrap(), is_last: true },
            Want::Crown => {
                let mut index = Index::new(DEPTH);
                self.state.application.iter().for_each(|entry| index.add(&entry.key, &entry.value));
                assert!(index.finish() == stable.root.application || manner == Manner::OtherRoots);
                Content::Crown(List::new(index.row(crown_level(DEPTH))).unwrap())
            }
            Want::Buckets { group, buckets, after } => {
                let bucket = |entry: &Entry| bucket_of(&entry.key, DEPTH);
                let of = |number: u32| {
                    buckets.iter().position(|place| {
                        u32::from(*group) << (DEPTH - crown_level(DEPTH)) | u32::from(*place) == number
                    })
                };
                let place = |entry: &Entry| (place_of(&entry.key), entry.key.clone());
                let from = after.as_ref().map(|after| (place_of(after), after.clone()));
                let is_wanted = |entry: &Entry| {
                    of(bucket(entry)).is_some() && from.as_ref().is_none_or(|from| place(entry) > *from)
                };
                let mut found: Vec<Entry> = application.into_iter().filter(|entry| is_wanted(entry)).collect();
                let mut whole = buckets.len();
                if manner == Manner::Endless {
                    (found, whole) = (vec![self.state.application[0].clone()], 0);
                } else if manner != Manner::Disordered && found.len() > 1 {
                    found.truncate(1);
                    whole = of(bucket(&found[0])).unwrap();
                }
                Content::Buckets { entries: List::new(found).unwrap(), whole: u16::try_from(whole).unwrap() }
            }
            Want::Leaves { .. } => panic!("a backup asks for no leaves"),
        };
        Part { sequence: SEQUENCE, want, content }
    }
}

impl Source for Replicas {
    async fn reached(&self) -> Vec<ReplicaId> {
        ReplicaId::all(self.manners.len()).collect()
    }

    async fn checkpoint(&self, replica: ReplicaId, _: Duration) -> Result<Option<Option<StableState>>, ClientError> {
        let mut stable = self.state.stable.clone();
        match self.manners[replica.index()] {
            Manner::Silent => return Ok(None),
            Manner::New => return Ok(Some(None)),
            Manner::ForgedCertificate => {
                stable.certificate = certificate(&self.state.genesis, &stable.root, &[1, 2]);
            }
            Manner::OtherRoots => stable.root.application = Digest::ZERO,
            _ => {}
        }
        Ok(Some(Some(stable)))
    }

    async fn piece(
        &self,
        replica: ReplicaId,
        (_, want, offset): (Sequence, Want, u32),
        _: Duration,
    ) -> Result<Option<Option<Piece>>, ClientError> {
        self.asked.set(self.asked.get() + 1);
        let manner = self.manners[replica.index()];
        if manner == Manner::Gone {
            return Ok(Some(None));
        }
        let bytes = encode(&self.part(manner, want)).unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        let rest = bytes.slice(offset as usize..);
        let bytes = match manner {
            Manner::Dawdling => rest.slice(..8),
            Manner::Garbled => vec![0xff; rest.len()].into(),
            _ => rest,
        };
        Ok(Some(Some(Piece { length, bytes: bytes.into() })))
    }
}

/// What came of a backup from replicas that answer so, and who was said to be of no use.
async fn taken(folder: &TempDir, manners: &[Manner]) -> (Result<Taken, TakeError>, Vec<(u8, String)>) {
    let state = State::new();
    let genesis = state.genesis.clone();
    let replicas = Replicas { state, manners: manners.to_vec(), asked: Cell::new(0) };
    let options = Options { out: folder.path().join("backup"), patience: Duration::from_secs(1), bytes_max: 1 << 20 };
    let mut replaced = Vec::new();
    let mut tell = |progress| {
        if let Progress::Replaced { source, reason } = progress {
            replaced.push((source.value(), reason));
        }
    };
    let outcome = take_from(&replicas, &genesis, &options, &mut tell).await;
    assert!(replicas.asked.get() < 1_000, "a source without end is asked for ever");
    (outcome, replaced)
}

/// A backup in a folder of its own.
async fn whole() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = taken(&folder, &[Manner::Honest]).await.0.unwrap().content.file;
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_an_honest_replica_hands_out_is_a_backup_that_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (taken, replaced) = taken(&folder, &[Manner::Honest]).await;
    let Taken { content, source } = taken.unwrap();
    let state = State::new();
    assert_eq!((source, content.sequence, content.entries, content.epoch), (0, 128, 40, 0));
    assert_eq!(
        (content.time_ns, content.state_root.clone()),
        (77, state.stable.certificate.statement.root.to_string())
    );
    assert_eq!(replaced, []);
    assert_eq!(names(folder.path()), ["backup"]);
    let file = fs::metadata(&content.file).unwrap();
    assert_eq!((file.mode() & 0o777, file.len()), (0o600, content.bytes));
    assert_eq!(verify(&content.file, Some(&state.genesis)).unwrap(), content);
    let mut reader = Reader::begin(fs::File::open(&content.file).unwrap(), &content.file).unwrap();
    assert_eq!(*reader.header(), state.header());
    let mut entries = [Vec::new(), Vec::new()];
    while let Some((map, found)) = reader.next_chunk().unwrap() {
        entries[usize::from(map == crate::storage::checkpoint::Map::Application)].extend(found);
    }
    assert_eq!(entries, [state.protocol, state.application]);
}

#[tokio::test]
async fn a_replica_that_lies_is_named_and_the_next_one_is_asked() {
    for (manner, expected) in [
        (Manner::Silent, "does not answer"),
        (Manner::New, "no stable checkpoint"),
        (Manner::ForgedCertificate, "certificate is not valid"),
        (Manner::OtherRoots, "of another state"),
        (Manner::ChangedValue, "not the state that the cluster vouched for"),
        (Manner::LeftOut, "not the state that the cluster vouched for"),
        (Manner::Disordered, "not in order"),
        (Manner::Endless, "not in order"),
        (Manner::Dawdling, "too little at a time"),
        (Manner::Garbled, "a part is none"),
        (Manner::Gone, "no more"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, replaced) = taken(&folder, &[manner, Manner::Honest]).await;
        let content = outcome.unwrap();
        assert_eq!(content.source, 1, "{manner:?}");
        let [(0, reason)] = &replaced[..] else { panic!("{manner:?}: {replaced:?}") };
        assert!(reason.contains(expected), "{manner:?}: {reason}");
        verify(&content.content.file, None).expect("nothing of the first is in it");
        let folder = tempfile::tempdir().unwrap();
        let (outcome, _) = taken(&folder, &[manner]).await;
        let error = outcome.expect_err("there is nobody else");
        assert!(error.mend().is_some(), "{error}");
        assert_eq!(names(folder.path()), Vec::<String>::new(), "{manner:?} leaves nothing behind");
    }
}

#[tokio::test]
async fn a_state_beyond_what_it_may_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::new();
    let mut check = check::Check::new(state.header(), 40 * 64);
    let refused = check.admit(crate::storage::checkpoint::Map::Application, &state.application);
    assert_eq!(refused, Err(InvalidState::TooLarge { bytes_max: 40 * 64 }));
    drop(folder);
}

#[tokio::test]
async fn a_file_that_exists_is_not_overwritten_and_neither_is_one_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    fs::write(&path, "mine").unwrap();
    let (outcome, _) = taken(&folder, &[Manner::Honest]).await;
    assert!(matches!(outcome, Err(TakeError::Exists { .. })), "{outcome:?}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_file(&path).unwrap();
    let partial = folder.path().join("backup.partial");
    let other = fs::File::create(&partial).unwrap();
    other.lock().unwrap();
    let (outcome, _) = taken(&folder, &[Manner::Honest]).await;
    assert!(matches!(outcome, Err(TakeError::Busy { .. })), "{outcome:?}");
    assert!(partial.exists());
    drop(other);
    taken(&folder, &[Manner::Honest]).await.0.expect("what a crash left behind is written anew");
    assert_eq!(names(folder.path()), ["backup"]);
}

#[tokio::test]
async fn no_byte_of_a_backup_can_be_changed_left_out_or_added() {
    let (folder, path) = whole().await;
    let bytes = fs::read(&path).unwrap();
    let changed = folder.path().join("changed");
    let refused = |bytes: &[u8], what: String| {
        fs::write(&changed, bytes).unwrap();
        let error = verify(&changed, None).expect_err(&what);
        assert!(error.mend().is_some(), "{what}: {error}");
    };
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1 << (at % 8);
        refused(&other, format!("byte {at} is changed"));
    }
    for length in 0..bytes.len() {
        refused(&bytes[..length], format!("cut off after {length} bytes"));
    }
    refused(&[&bytes[..], &[0]].concat(), "a byte more".to_owned());
    assert!(verify(&path, None).is_ok());
}

/// Checksums tell of damage; what is believed is the certificate.
#[tokio::test]
async fn a_file_that_is_whole_but_of_another_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forged");
    let state = State::new();
    let write = |protocol: &[Entry], application: &[Entry]| {
        let mut writer = writer::Writer::begin(Vec::new(), &state.header()).unwrap();
        for (map, entries) in [
            (crate::storage::checkpoint::Map::Protocol, protocol),
            (crate::storage::checkpoint::Map::Application, application),
        ] {
            writer.chunk(map, List::new(entries.to_vec()).unwrap()).unwrap();
        }
        fs::write(&path, writer.end().unwrap().0).unwrap();
        verify(&path, None)
    };
    assert!(write(&state.protocol, &state.application).is_ok());
    let mut more = state.application.clone();
    more.push(entry("key 99", "mine"));
    more.sort_by_key(|entry| (place_of(&entry.key), entry.key.clone()));
    let other_time = founding_entries(state.genesis.configuration(), WallTime::from_nanoseconds(78));
    for (protocol, application, expected) in [
        (&state.protocol, &more, InvalidState::Root),
        (&other_time, &state.application, InvalidState::Root),
        (&Vec::new(), &state.application, InvalidState::Protocol),
    ] {
        match write(protocol, application) {
            Err(RestoreError::State { source, .. }) => assert_eq!(source, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_backup_of_another_cluster_is_refused() {
    let (_folder, path) = whole().await;
    let refused = verify(&path, Some(&genesis(8)));
    assert!(matches!(refused, Err(RestoreError::OtherCluster { .. })), "{refused:?}");
}
