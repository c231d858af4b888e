//! [`FileError`]: what can be wrong with a file of a cluster, where, and how to mend it.

use std::io;
use std::path::{Path, PathBuf};

use quorate_crypto::KeyError;

use crate::storage::log;

/// Why a file or folder of a cluster cannot be used or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A call to the system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done: a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is too large to be what it should be.
    #[error("{}: larger than {bytes_max} bytes, so not what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes that are read.
        bytes_max: u64,
    },
    /// The first record of a replica's log could not be written.
    #[error("cannot begin the log of a replica")]
    Log {
        /// What the log said.
        #[source]
        source: log::Error,
    },
    /// The file as a whole, or a line of it, is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: Box<str>,
        /// How to mend it.
        mend: Box<str>,
    },
    /// The value of a key is wrong.
    #[error("{}:{line}: key `{key}` is {value}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with the tables that it is in; members count from 0.
        key: Box<str>,
        /// The value as it stands there.
        value: Box<str>,
        /// What is wrong with it.
        problem: Box<str>,
        /// How to mend it.
        mend: Box<str>,
    },
    /// Others than the owner can read a private key.
    #[error("{}: mode {mode:04o}: others than its owner can use this private key", path.display())]
    KeyMode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file holds no private key.
    #[error("{}: not a private key file", path.display())]
    PrivateKey {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// Something stands already where a cluster is to be founded.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// What stands there.
        path: PathBuf,
    },
    /// Another process uses the key of a client's folder, and no other key is taken by the cluster.
    #[error("the key of {} is in use by another process, and the cluster takes listed keys alone", path.display())]
    InUse {
        /// The client's folder.
        path: PathBuf,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness for a new key")]
    Randomness {
        /// What it said.
        #[source]
        source: getrandom::Error,
    },
    /// The cluster as planned is not a configuration.
    #[error("this is no cluster")]
    Plan {
        /// The relation that does not hold.
        #[source]
        source: quorate_protocol::configuration::ConfigurationError,
    },
}

impl FileError {
    /// For `map_err`: `action`, a verb, failed on `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// What the reader can do about it, where more is known than what the system said.
    pub fn mend(&self) -> Option<String> {
        match self {
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("check the path {}; `quorate init` makes all files of a new cluster", path.display()))
            }
            Self::Io { .. } | Self::Randomness { .. } | Self::Log { .. } => None,
            Self::TooLarge { .. } => Some("check that the path is the right one".to_owned()),
            Self::Content { mend, .. } | Self::Key { mend, .. } => Some(mend.to_string()),
            Self::KeyMode { path, .. } => {
                Some(format!("chmod 600 {}; if somebody may have read it, found a new cluster", path.display()))
            }
            Self::PrivateKey { .. } => {
                Some("restore the file: it holds one Ed25519 key in PKCS#8, as PEM, not encrypted".to_owned())
            }
            Self::Exists { .. } => Some("choose another folder with --dir, or move this one away".to_owned()),
            Self::InUse { .. } => {
                Some("end that process, or use the folder of another key that the genesis lists".to_owned())
            }
            Self::Plan { .. } => Some("change the number of replicas, or what is given with --parameter".to_owned()),
        }
    }
}
