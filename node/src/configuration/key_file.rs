//! Private keys on disk: PKCS#8 as PEM, of mode 0600, refused where others could read them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use quorate_crypto::SigningKey;
use zeroize::Zeroizing;

use super::file_error::FileError;
use super::folder::write_new;

/// Largest key file that is read, in bytes; one of ours has 119.
const BYTES_MAX: usize = 4096;

/// The permission bits of a private key: its owner reads and writes it.
const MODE: u32 = 0o600;

/// The permission bits that nobody but the owner may hold.
const MODE_OTHERS: u32 = 0o077;

/// Draws a key from the system's randomness.
///
/// # Errors
/// [`FileError::Randomness`] if the system has none.
pub fn generate() -> Result<SigningKey, FileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|source| FileError::Randomness { source })?;
    Ok(SigningKey::from_seed(*seed))
}

/// Writes `key` to a new file of mode 0600 and syncs it.
///
/// # Errors
/// [`FileError::Exists`] if there is a file at `path`; [`FileError::Io`] if it cannot be written.
pub fn create(path: &Path, key: &SigningKey) -> Result<(), FileError> {
    let pem = key.to_pkcs8_pem().map_err(|source| FileError::PrivateKey { path: path.to_owned(), source })?;
    write_new(path, pem.as_bytes(), MODE)
}

/// Reads the key at `path`.
///
/// # Errors
/// [`FileError::KeyMode`] if its group or others can use the file, [`FileError::PrivateKey`] if it holds no key,
/// [`FileError::TooLarge`] or [`FileError::Io`].
pub fn load(path: &Path) -> Result<SigningKey, FileError> {
    let mut file = File::open(path).map_err(FileError::io("open", path))?;
    let mode = file.metadata().map_err(FileError::io("look at", path))?.mode() & 0o7777;
    if mode & MODE_OTHERS != 0 {
        return Err(FileError::KeyMode { path: path.to_owned(), mode });
    }
    // Read into one buffer that does not move, so that no copy of the key stays behind in freed memory.
    let mut buffer = Zeroizing::new([0; BYTES_MAX]);
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(FileError::io("read", path))? {
            0 => return parse(path, buffer.get(..length).unwrap_or_default()),
            count => length += count,
        }
    }
    Err(FileError::TooLarge { path: path.to_owned(), bytes_max: BYTES_MAX as u64 - 1 })
}

fn parse(path: &Path, bytes: &[u8]) -> Result<SigningKey, FileError> {
    // Bytes that are no text are no key either: the empty text has the same error.
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    SigningKey::from_pkcs8_pem(text).map_err(|source| FileError::PrivateKey { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_read_back_from_a_file_that_only_its_owner_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.key");
        let key = generate().unwrap();
        create(&path, &key).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(load(&path).unwrap().public_key(), key.public_key());
    }

    #[test]
    fn a_key_that_others_can_use_is_refused_with_the_way_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.key");
        create(&path, &generate().unwrap()).unwrap();
        for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, FileError::KeyMode { mode: found, .. } if found == mode), "{error}");
            assert!(error.mend().unwrap().starts_with(&format!("chmod 600 {}", path.display())));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(load(&path).is_ok());
    }

    #[test]
    fn an_existing_key_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.key");
        let key = generate().unwrap();
        create(&path, &key).unwrap();
        assert!(matches!(create(&path, &generate().unwrap()), Err(FileError::Exists { .. })));
        assert_eq!(load(&path).unwrap().public_key(), key.public_key());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica.key");
        for content in [&b""[..], b"\xff", b"-----BEGIN PRIVATE KEY-----\n", &[b'x'; BYTES_MAX - 1]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(load(&path), Err(FileError::PrivateKey { .. })));
        }
        fs::write(&path, [b'x'; BYTES_MAX]).unwrap();
        assert!(matches!(load(&path), Err(FileError::TooLarge { .. })));
        assert!(matches!(load(folder.path()), Err(FileError::KeyMode { .. } | FileError::Io { .. })));
        assert!(matches!(load(&folder.path().join("none")), Err(FileError::Io { action: "open", .. })));
    }
}
