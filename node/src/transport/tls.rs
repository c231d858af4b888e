//! TLS under QUIC: version 1.3 only, raw Ed25519 keys on both sides, pinned; no certificate authority, no resumption, no
//! data before the handshake is finished.
//!
//! A handshake with a key that is not accepted fails before any stream exists. The version of the transport and the role
//! of the endpoint are named by ALPN, so that a client that dials a peer's port learns so.

use std::collections::BTreeSet;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quorate_crypto::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme};

use crate::transport::identity::{Identity, decode};
use crate::transport::refusals::{ConnectionRefusal, Refusals};

/// ALPN between replicas; ends in [`crate::transport::TRANSPORT_VERSION`].
pub const ALPN_PEER: &[u8] = b"quorate-peer/1";
/// ALPN between clients and replicas; ends in [`crate::transport::TRANSPORT_VERSION`].
pub const ALPN_CLIENT: &[u8] = b"quorate-client/1";

/// Whose connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptedKeys {
    /// Any Ed25519 key that is not weak.
    Any,
    /// These keys; as many as the configuration names.
    Listed(BTreeSet<PublicKey>),
}

impl AcceptedKeys {
    fn accepts(&self, key: &PublicKey) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(keys) => keys.contains(key),
        }
    }
}

/// Why a key is refused, in words that the other side gets to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum KeyRefused {
    #[error("this is no raw Ed25519 key, or a weak one")]
    Invalid,
    #[error("this key is not the one that is expected here")]
    Unknown,
}

/// Checks the other side's raw key against those that are accepted, and its signature by ring.
#[derive(Debug)]
struct KeyVerifier {
    accepted: AcceptedKeys,
    refusals: Arc<Refusals>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn refuse_key(&self, certificate: &CertificateDer<'_>) -> Option<KeyRefused> {
        let Some(key) = decode(certificate) else {
            self.refusals.count(ConnectionRefusal::InvalidKey);
            return Some(KeyRefused::Invalid);
        };
        if !self.accepted.accepts(&key) {
            self.refusals.count(ConnectionRefusal::UnknownKey);
            return Some(KeyRefused::Unknown);
        }
        None
    }

    fn check_key(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match self.refuse_key(certificate) {
            None => Ok(()),
            Some(refused) => Err(OtherError(Arc::new(refused)).into()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// ring, with the suites of TLS 1.3 in the order in which they are wanted.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
}

fn verifier(provider: &CryptoProvider, accepted: AcceptedKeys, refusals: &Arc<Refusals>) -> Arc<KeyVerifier> {
    let algorithms = provider.signature_verification_algorithms;
    Arc::new(KeyVerifier { accepted, refusals: Arc::clone(refusals), algorithms })
}

/// TLS of an endpoint that is dialled.
pub(crate) fn server(
    identity: &Identity,
    alpn: &[u8],
    accepted: AcceptedKeys,
    refusals: &Arc<Refusals>,
) -> Result<QuicServerConfig, TlsError> {
    let provider = provider();
    let verifier = verifier(&provider, accepted, refusals);
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified())));
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok(QuicServerConfig::try_from(tls)?)
}

/// TLS of who dials the holder of `expected`, and nobody else.
pub(crate) fn client(
    identity: &Identity,
    alpn: &[u8],
    expected: PublicKey,
    refusals: &Arc<Refusals>,
) -> Result<QuicClientConfig, TlsError> {
    client_of(identity, alpn, AcceptedKeys::Listed(BTreeSet::from([expected])), refusals)
}

/// TLS of who dials any holder of one of these keys.
pub(crate) fn client_of(
    identity: &Identity,
    alpn: &[u8],
    accepted: AcceptedKeys,
    refusals: &Arc<Refusals>,
) -> Result<QuicClientConfig, TlsError> {
    let provider = provider();
    let verifier = verifier(&provider, accepted, refusals);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified())));
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    tls.enable_sni = false;
    Ok(QuicClientConfig::try_from(tls)?)
}

/// The provider lacks what this file asks of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// TLS 1.3 is missing.
    #[error("TLS 1.3 with the suites wanted is not available")]
    Version(#[from] Error),
    /// The suite of QUIC's first packets is missing.
    #[error("the cipher suite that QUIC starts with is not available")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::TRANSPORT_VERSION;

    #[test]
    fn alpn_names_the_version_of_the_transport_and_tells_the_roles_apart() {
        let ending = format!("/{TRANSPORT_VERSION}");
        assert!(ALPN_PEER.ends_with(ending.as_bytes()) && ALPN_CLIENT.ends_with(ending.as_bytes()));
        assert_ne!(ALPN_PEER, ALPN_CLIENT);
    }

    #[test]
    fn aes_128_is_wanted_first() {
        assert_eq!(provider().cipher_suites.first(), Some(&cipher_suite::TLS13_AES_128_GCM_SHA256));
    }
}
