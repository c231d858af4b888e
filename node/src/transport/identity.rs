//! Keys as TLS sees them: raw Ed25519 public keys (RFC 7250), no certificates (PROTOCOL §4: the channel authenticates).
//!
//! A raw public key travels as a `SubjectPublicKeyInfo`, which for Ed25519 is a constant prefix and the 32 bytes of the
//! key; it has one encoding, so reading one is a comparison.

use std::fmt;
use std::sync::Arc;

use quorate_crypto::{PublicKey, SigningKey};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// What stands before the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410 §4).
const KEY_INFO_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What secrets of stateless resets are derived under. A new use of the key gets a text of its own.
const RESET_LABEL: &[u8] = b"quorate transport: stateless reset, version 2";

/// The own signing key cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("the signing key cannot be used for TLS")]
pub struct UnusableKey;

/// The own key in the form TLS takes, and the secrets that follow from it.
pub(crate) struct Identity {
    public_key: PublicKey,
    certified: Arc<CertifiedKey>,
    reset_secret: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Prepares a key for TLS.
    pub(crate) fn new(key: &SigningKey) -> Result<Self, UnusableKey> {
        let public_key = key.public_key();
        let der = key.to_pkcs8_der().map_err(|_error| UnusableKey)?;
        let reset_secret = derive(&der, RESET_LABEL)?;
        let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice())).map_err(|_error| UnusableKey)?;
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(encode(&public_key))], signer));
        Ok(Self { public_key, certified, reset_secret })
    }

    /// The key pair for handshakes.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// A secret that is the same after each restart: with it a restarted process tells the others at once that their
    /// connections are gone, where they would otherwise wait for the idle time-out.
    ///
    /// Each port has its own, named by the protocol that is spoken there. With one for both, whoever sees a packet to one port
    /// could have the other answer with what ends that connection. (RFC 9000 §21.11)
    pub(crate) fn reset_secret(&self, alpn: &[u8]) -> Result<Zeroizing<[u8; 32]>, UnusableKey> {
        hmac(self.reset_secret.as_slice(), alpn).map(Zeroizing::new).ok_or(UnusableKey)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// HMAC-SHA256 of a label under the private key file. The file is 48 bytes, below the block that HMAC takes.
fn derive(der: &[u8], label: &[u8]) -> Result<Zeroizing<[u8; 32]>, UnusableKey> {
    if der.len() > OkmBlock::MAX_LEN {
        return Err(UnusableKey);
    }
    hmac(der, label).map(Zeroizing::new).ok_or(UnusableKey)
}

/// HMAC-SHA256 by the provider's own implementation. `None` if that gave no 32 bytes. The key has at most 64 bytes.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    let tag = suite.hkdf_provider.hmac_sign(&OkmBlock::new(key), message);
    tag.as_ref().try_into().ok()
}

/// A key as a `SubjectPublicKeyInfo`.
pub(crate) fn encode(key: &PublicKey) -> Vec<u8> {
    let mut info = KEY_INFO_PREFIX.to_vec();
    info.extend_from_slice(key.as_bytes());
    info
}

/// Reads a `SubjectPublicKeyInfo`. `None` if it is not Ed25519, not canonical, weak, or no point of the curve.
pub(crate) fn decode(info: &[u8]) -> Option<PublicKey> {
    let bytes: [u8; 32] = info.strip_prefix(KEY_INFO_PREFIX.as_slice())?.try_into().ok()?;
    let key = PublicKey::from_bytes(bytes).ok()?;
    key.is_on_curve().then_some(key)
}

/// The key that the other side of an established connection proved to hold.
pub(crate) fn of_peer(connection: &quinn::Connection) -> Option<PublicKey> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    decode(certificates.first()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_encoding() {
        let key = SigningKey::from_seed([7; 32]).public_key();
        assert_eq!(decode(&encode(&key)), Some(key));
    }

    #[test]
    fn a_key_info_of_another_length_algorithm_or_of_a_weak_key_is_refused() {
        let info = encode(&SigningKey::from_seed([7; 32]).public_key());
        assert_eq!(decode(&info[..43]), None);
        assert_eq!(decode(&[info.as_slice(), &[0]].concat()), None);
        let mut other_algorithm = info;
        other_algorithm[8] = 0x71;
        assert_eq!(decode(&other_algorithm), None);
        let mut weak = KEY_INFO_PREFIX.to_vec();
        weak.extend_from_slice(&[0; 32]);
        assert_eq!(decode(&weak), None);
    }

    #[test]
    fn bytes_that_are_no_point_of_the_curve_are_refused() {
        let refused = (2..=255_u8).filter(|last| {
            let mut bytes = [0x11; 32];
            bytes[0] = *last;
            let info = [KEY_INFO_PREFIX.as_slice(), &bytes].concat();
            decode(&info).is_none()
        });
        assert!(refused.count() > 50);
    }

    #[test]
    fn the_reset_secret_is_the_same_after_a_restart_and_differs_between_keys_and_ports() {
        let secret = |seed, port: &str| {
            let identity = Identity::new(&SigningKey::from_seed([seed; 32])).expect("the key is usable");
            *identity.reset_secret(port.as_bytes()).expect("the key is usable")
        };
        assert_eq!(secret(1, "peers"), secret(1, "peers"));
        assert_ne!(secret(1, "peers"), secret(2, "peers"));
        assert_ne!(secret(1, "peers"), secret(1, "clients"));
    }
}
