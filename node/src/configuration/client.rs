//! `client.toml`: what a client needs: the genesis of its cluster and its own key.

use std::path::{Path, PathBuf};

use quorate_crypto::SigningKey;
use serde::Deserialize;

use super::document::Document;
use super::file_error::FileError;
use super::genesis::Genesis;
use super::key_file;
use super::network::client_folder;

/// The file's name in the client's folder.
pub(super) const FILE: &str = "client.toml";

/// The text of the file.
pub(super) const TEXT: &str = "\
# A client of the cluster: which one, and whose requests. Paths are relative to this folder.

genesis = \"genesis.toml\"
key = \"client.key\"
";

/// Everything that a client starts with.
#[derive(Debug)]
pub struct ClientConfiguration {
    /// The cluster that it talks to.
    pub genesis: Genesis,
    /// Its private key: it signs its requests.
    pub key: SigningKey,
}

impl ClientConfiguration {
    /// Reads and checks `client.toml` in `folder`, and the genesis and the key that it names. Of the folder of a whole
    /// cluster, as `quorate init` makes it, takes the one of its client.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong in which file and how to mend it.
    pub fn load(folder: &Path) -> Result<Self, FileError> {
        let of_cluster = client_folder(folder);
        let is_cluster = !folder.join(FILE).exists() && of_cluster.join(FILE).exists();
        let folder = if is_cluster { &of_cluster } else { folder };
        let file: ClientFile = Document::read(&folder.join(FILE))?.parse()?;
        Ok(Self { genesis: Genesis::load(&folder.join(&file.genesis))?, key: key_file::load(&folder.join(&file.key))? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    genesis: PathBuf,
    key: PathBuf,
}
