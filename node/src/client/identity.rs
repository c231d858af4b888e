//! Which key to use: that of the client's folder, or one derived from it.
//!
//! One client at a time uses a key, for a second one takes the session from the first (PROTOCOL §4.1). So whoever uses the
//! folder's key locks its file; who finds it locked uses a key derived for its own process instead, if any key may.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_crypto::SigningKey;
use quorate_protocol::configuration::ClientPolicy;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::configuration::{ClientConfiguration, FileError};

/// What derived keys are derived under. A new use of the key gets a text of its own.
const LABEL: &[u8] = b"quorate client: derived key, version 1";

/// From one look at a lock to the next.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// A client's key, with what keeps others on this machine from using it.
#[derive(Debug)]
pub struct Identity {
    /// The cluster and the key.
    pub configuration: ClientConfiguration,
    /// Locked as long as this lives.
    _lock: Option<File>,
}

impl Identity {
    /// Takes the key of a client's folder or, if that is in use, derives one for this process. Where the configuration lists
    /// the clients it waits for the key, for at most `patience`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn take(folder: &Path, patience: Duration) -> Result<Self, FileError> {
        let mut configuration = ClientConfiguration::load(folder)?;
        let policy = &configuration.genesis.configuration().parameters().clients;
        // Without a lock the key is used as it is: whoever can't lock a file of his own is alone with it most of the time.
        let Ok(file) = File::open(folder) else { return Ok(Self { configuration, _lock: None }) };
        let is_locked = match policy {
            ClientPolicy::Any => file.try_lock().is_ok(),
            ClientPolicy::Listed(_) => {
                lock_within(&file, patience).ok_or_else(|| FileError::InUse { path: folder.to_owned() })?
            }
        };
        if !is_locked && *policy == ClientPolicy::Any {
            configuration.key = derive_key(&configuration.key, "process", std::process::id().into());
        }
        Ok(Self { configuration, _lock: is_locked.then_some(file) })
    }
}

/// Whether the file is locked now, or cannot be; `None` if another process kept it locked for so long.
fn lock_within(file: &File, patience: Duration) -> Option<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(true),
            Err(TryLockError::Error(_)) => return Some(false),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
        }
    }
}

/// The key that follows from `key` for one `purpose` and `index`: the same each time, and without the key nobody finds it.
pub fn derive_key(key: &SigningKey, purpose: &str, index: u64) -> SigningKey {
    // A key has a form in PKCS#8; if it had none, the empty one would still derive different keys for different uses.
    let secret = key.to_pkcs8_der().unwrap_or_default();
    let mut hasher = Sha256::new();
    for part in [LABEL, &secret, purpose.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(index.to_le_bytes());
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(hasher.finalize().into());
    SigningKey::from_seed(*seed)
}

#[cfg(test)]
mod tests {
    use quorate_protocol::codec::List;
    use quorate_protocol::configuration::Parameters;

    use super::*;
    use crate::configuration::network::{Network, Plan};

    #[test]
    fn a_derived_key_is_the_same_each_time_and_another_for_each_use() {
        let (one, two) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
        let derived = |key, purpose, index| derive_key(key, purpose, index).public_key();
        assert_eq!(derived(&one, "bench", 7), derived(&one, "bench", 7));
        let others =
            [derived(&two, "bench", 7), derived(&one, "process", 7), derived(&one, "bench", 8), one.public_key()];
        assert!(others.iter().all(|other| *other != derived(&one, "bench", 7)));
    }

    #[test]
    fn two_clients_of_one_folder_have_different_keys() {
        let root = tempfile::tempdir().unwrap();
        let network = Network::create(&root.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let first = Identity::take(&network.client_folder(), Duration::ZERO).unwrap();
        let second = Identity::take(&network.client_folder(), Duration::ZERO).unwrap();
        let key = |identity: &Identity| identity.configuration.key.public_key();
        assert_ne!(key(&first), key(&second));
        let its_key = key(&first);
        drop(first);
        assert_eq!(key(&Identity::take(&network.client_folder(), Duration::ZERO).unwrap()), its_key);
    }

    #[test]
    fn who_has_no_other_key_waits_for_the_one_in_use_and_not_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let parameters = Parameters { clients: ClientPolicy::Listed(List::empty()), ..Parameters::default() };
        let plan = Plan { parameters, ..Plan::on_loopback(4, 4100) };
        let network = Network::create(&root.path().join("net"), plan).unwrap();
        let take = || Identity::take(&network.client_folder(), Duration::from_millis(100));
        let first = take().unwrap();
        assert!(matches!(take(), Err(FileError::InUse { .. })));
        drop(first);
        take().unwrap();
    }
}
