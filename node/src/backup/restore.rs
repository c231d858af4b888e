//! From a file back to a state: checked to its last byte, and put into a replica's folder whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quorate_protocol::configuration::InitialState;
use quorate_protocol::message::Entry;
use quorate_protocol::number::Sequence;
use quorate_protocol::replica::founding_entries;

use super::check::{Check, Checked, InvalidState};
use super::reader::{FormatError, Reader};
use super::take::content;
use super::{Content, Header};
use crate::configuration::{FileError, FolderStaging, Genesis, ReplicaConfiguration, STATE};
use crate::storage::checkpoint::{self, CheckpointStore, Map};

/// Bytes that are read from the file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The permission bits of a replica's data.
const MODE: u32 = 0o700;

/// Why nothing was restored. Then the replica's folder is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not a whole backup.
    #[error("{}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The file is whole, but what is in it is not what its cluster vouched for.
    #[error("{}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidState,
    },
    /// The backup is of another cluster than expected.
    #[error("{} is a backup of cluster {found}, not of {expected}", path.display())]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Its cluster, in hexadecimal digits.
        found: String,
        /// The one that was expected.
        expected: String,
    },
    /// Another backup stands there than before.
    #[error("{} was replaced while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The replica has data already.
    #[error("{} is not empty: a replica's data is not overwritten", path.display())]
    HasData {
        /// The folder.
        path: PathBuf,
    },
    /// The replica's folder cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store of checkpoints cannot be written.
    #[error("cannot write the state")]
    Store(#[from] checkpoint::Error),
    /// A call to the system failed.
    #[error("cannot look at {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl RestoreError {
    /// What the reader can do about it, where that is known.
    pub fn mend(&self) -> Option<String> {
        match self {
            Self::Format { source: FormatError::Magic | FormatError::Version(_), .. } => {
                Some("name a file that `quorate backup` made, of this version".to_owned())
            }
            Self::Format { source: FormatError::Io(_), .. } | Self::Open { .. } | Self::Store(_) | Self::Io { .. } => {
                None
            }
            Self::Format { .. } | Self::State { .. } => {
                Some("take another copy of it, or another backup: nothing of this one is used".to_owned())
            }
            Self::Changed { .. } => Some("run it again, with a copy that nobody writes to".to_owned()),
            Self::OtherCluster { .. } => Some("name a backup and a folder of the same cluster".to_owned()),
            Self::HasData { path } => Some(format!(
                "if what is in there is lost or of no use, stop the replica and move {} away; it then votes again in the \
                 next epoch",
                path.display()
            )),
            Self::File(error) => error.mend(),
        }
    }
}

/// Checks a backup to its last byte, and, if a genesis is given, that it is of that cluster.
///
/// # Errors
/// [`RestoreError`].
pub fn verify(path: &Path, genesis: Option<&Genesis>) -> Result<Content, RestoreError> {
    let mut reader = open(path, genesis)?;
    let checked = read(path, &mut reader, |_, _| Ok(()))?;
    Ok(content(path, reader.header(), checked, reader.bytes()))
}

/// Makes the data of a replica that has none, of a backup of its cluster. All of it is checked before any of it is in its
/// place; a crash on the way leaves a replica without data. It has no log, and so no votes: at its start it notices that.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(path: &Path, files: &ReplicaConfiguration) -> Result<Content, RestoreError> {
    let data = &files.data;
    refuse_data(data)?;
    let mut reader = open(path, Some(&files.genesis))?;
    let staging = FolderStaging::begin(data)?;
    let private = fs::set_permissions(staging.path(), Permissions::from_mode(MODE));
    private.map_err(|source| RestoreError::Io { path: staging.path().to_owned(), source })?;
    let sequence = reader.header().certificate().statement.sequence.value();
    let checked = put(path, &mut reader, &staging.path().join(STATE), sequence)?;
    staging.finish()?;
    Ok(content(path, reader.header(), checked, reader.bytes()))
}

/// The state that a new cluster begins with which is founded from a backup: all of the application's, and the time. Sessions
/// stay behind, since what clients signed for the other cluster counts for nothing in the new one.
///
/// # Errors
/// [`RestoreError`]: the backup is not whole.
pub fn initial_state(path: &Path) -> Result<(InitialState, Content), RestoreError> {
    let mut reader = open(path, None)?;
    let checked = read(path, &mut reader, |_, _| Ok(()))?;
    let application = reader.header().root().application;
    let state = InitialState { application, time: checked.protocol.time };
    Ok((state, content(path, reader.header(), checked, reader.bytes())))
}

/// Puts that state into the folder `state` of a replica of the new cluster, where nothing stands yet.
///
/// # Errors
/// [`RestoreError`]: the backup is not whole, or another one than when [`initial_state`] looked at it.
pub fn found(path: &Path, state: &Path, genesis: &Genesis) -> Result<(), RestoreError> {
    let Some(initial) = genesis.configuration().initial_state() else { return Ok(()) };
    let mut reader = open(path, None)?;
    let mut store = CheckpointStore::open(state)?;
    let mut reception = store.receive()?;
    let own = founding_entries(genesis.configuration(), initial.time);
    reception.put(Map::Protocol, stored(own))?;
    let checked = read(path, &mut reader, |map, entries| match map {
        Map::Protocol => Ok(()),
        Map::Application => reception.put(map, stored(entries)),
    })?;
    let found = InitialState { application: reader.header().root().application, time: checked.protocol.time };
    if found != *initial {
        return Err(RestoreError::Changed { path: path.to_owned() });
    }
    store.install(reception, Sequence::ZERO.value(), &[])?;
    Ok(())
}

/// Makes the store of checkpoints in `folder`, which is not there yet, of what is in a backup, as that of `sequence`. It is
/// durable when this returns, and all of it was checked.
fn put(
    path: &Path,
    reader: &mut Reader<BufReader<File>>,
    folder: &Path,
    sequence: u64,
) -> Result<Checked, RestoreError> {
    let mut store = CheckpointStore::open(folder)?;
    let mut reception = store.receive()?;
    let checked = read(path, reader, |map, entries| reception.put(map, stored(entries)))?;
    store.install(reception, sequence, &[])?;
    Ok(checked)
}

fn stored(entries: Vec<Entry>) -> Vec<checkpoint::Entry> {
    entries.into_iter().map(|Entry { key, value }| (key.into_bytes(), value.into_bytes())).collect()
}

fn open(path: &Path, genesis: Option<&Genesis>) -> Result<Reader<BufReader<File>>, RestoreError> {
    let file = File::open(path).map_err(|source| RestoreError::Open { path: path.to_owned(), source })?;
    let reader = Reader::begin(BufReader::with_capacity(BUFFER_BYTES, file), path).map_err(format(path))?;
    let Header { genesis: found, .. } = reader.header();
    match genesis.filter(|genesis| *genesis != found) {
        Some(expected) => Err(RestoreError::OtherCluster {
            path: path.to_owned(),
            found: found.cluster().digest().to_string(),
            expected: expected.cluster().digest().to_string(),
        }),
        None => Ok(reader),
    }
}

/// Reads a backup to its end and checks it, and gives its entries to `each` on the way, where they are not to be believed
/// before this returns.
fn read(
    path: &Path,
    reader: &mut Reader<BufReader<File>>,
    mut each: impl FnMut(Map, Vec<Entry>) -> Result<(), checkpoint::Error>,
) -> Result<Checked, RestoreError> {
    let state = |source| RestoreError::State { path: path.to_owned(), source };
    // Bound: the file's own length.
    let mut check = Check::new(reader.header().clone(), u64::MAX);
    while let Some((map, entries)) = reader.next_chunk().map_err(format(path))? {
        check.admit(map, &entries).map_err(state)?;
        each(map, entries)?;
    }
    check.finish().map_err(state)
}

fn format(path: &Path) -> impl Fn(FormatError) -> RestoreError {
    move |source| RestoreError::Format { path: path.to_owned(), source }
}

fn refuse_data(data: &Path) -> Result<(), RestoreError> {
    match fs::read_dir(data).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(RestoreError::HasData { path: data.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RestoreError::Io { path: data.to_owned(), source }),
    }
}
