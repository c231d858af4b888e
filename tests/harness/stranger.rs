//! Somebody who speaks QUIC to a replica and keeps to no rule above it. What goes over the wire is spelled out here
//! again, from the documentation, and not taken from the program.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ApplicationClose, ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use quorate_crypto::SigningKey;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::store::runtime;

/// Longest that the other side's reaction is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands before the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410 §4).
const KEY_INFO_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// How the other side took leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// Its application's code; `None` if QUIC or TLS ended the connection.
    pub code: Option<u64>,
    /// Why, in its words.
    pub text: String,
}

/// A connection to one replica.
#[derive(Debug)]
pub struct Stranger {
    connection: Connection,
    stream: Option<SendStream>,
    replies: Option<RecvStream>,
    _endpoint: Endpoint,
    runtime: Runtime,
}

impl Stranger {
    /// Dials with a key, under a protocol's name, from a host of its own; whoever answers will do.
    ///
    /// # Errors
    /// The other side refused before the handshake was done.
    ///
    /// # Panics
    /// If nothing answers at all.
    pub fn dial(address: SocketAddr, protocol: &[u8], key: &SigningKey) -> Result<Self, Farewell> {
        let runtime = runtime();
        let config = config(protocol, key);
        let dialled = runtime.block_on(async {
            let endpoint = Endpoint::client((own_host(), 0).into()).expect("the loopback has a port to spare");
            let connecting = endpoint.connect_with(config, address, "replica.invalid").expect("the address is fine");
            let connected = timeout(PATIENCE, connecting).await.expect("the replica answers a handshake");
            connected.map(|connection| (endpoint, connection)).map_err(|error| Farewell::new(&error))
        });
        let (endpoint, connection) = dialled?;
        Ok(Self { connection, stream: None, replies: None, _endpoint: endpoint, runtime })
    }

    /// Writes bytes to the one stream of this connection, which is opened by them. Gives whether the connection was still
    /// open; whether the other side takes them is seen by what it does next.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let Self { connection, stream, runtime, .. } = self;
        runtime.block_on(async {
            if stream.is_none() {
                *stream = timeout(PATIENCE, connection.open_uni()).await.ok().and_then(Result::ok);
            }
            match stream {
                Some(stream) => stream.write_all(bytes).await.is_ok(),
                None => false,
            }
        })
    }

    /// Sends a frame: its length in four bytes, the lowest first, and the payload.
    pub fn send_frame(&mut self, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).expect("a test sends no frame of 4 GiB");
        self.send(&[&length.to_le_bytes(), payload].concat())
    }

    /// Says the hello of a lane: magic, version, cluster, lane.
    pub fn send_hello(&mut self, version: u16, cluster: &[u8; 32], lane: u8) -> bool {
        self.send_frame(&[&b"QUOR"[..], &version.to_le_bytes(), cluster, &[lane]].concat())
    }

    /// Ends the stream.
    pub fn finish(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.finish().ok();
        }
        // Whoever ends a stream still delivers it: the stream is kept until the connection goes.
    }

    /// The next frame from the other side, its hello included; `None` if it sends none in time.
    pub fn receive_frame(&mut self) -> Option<Vec<u8>> {
        let Self { connection, replies, runtime, .. } = self;
        let receiving = async {
            if replies.is_none() {
                *replies = connection.accept_uni().await.ok();
            }
            let replies = replies.as_mut()?;
            let mut length = [0; 4];
            replies.read_exact(&mut length).await.ok()?;
            let mut payload = vec![0; usize::try_from(u32::from_le_bytes(length)).ok()?];
            replies.read_exact(&mut payload).await.ok()?;
            Some(payload)
        };
        runtime.block_on(async { timeout(PATIENCE, receiving).await }).ok().flatten()
    }

    /// Whether the connection is still open.
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Waits until the other side ends the connection; gives its reason.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn farewell(&self) -> Farewell {
        let closed = self.runtime.block_on(async { timeout(PATIENCE, self.connection.closed()).await });
        Farewell::new(&closed.expect("the other side ends the connection"))
    }
}

impl Farewell {
    fn new(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason }) => {
                Self { code: Some(error_code.into_inner()), text: String::from_utf8_lossy(reason).into_owned() }
            }
            other => Self { code: None, text: other.to_string() },
        }
    }
}

/// TLS with a raw key, and no demands on the other side's.
/// An address of this machine that no stranger before dialled from: on Linux all that begin with 127 are its own.
fn own_host() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    if cfg!(target_os = "linux") { Ipv4Addr::new(127, 1, high, low) } else { Ipv4Addr::LOCALHOST }
}

fn config(protocol: &[u8], key: &SigningKey) -> ClientConfig {
    let der = key.to_pkcs8_der().expect("a key has a form in PKCS#8");
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice())).expect("ring knows Ed25519");
    let info = [&KEY_INFO_PREFIX[..], key.public_key().as_bytes()].concat();
    let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(info)], signer));
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
    tls.alpn_protocols = vec![protocol.to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("ring has the suite that QUIC starts with")))
}

/// Takes whoever answers.
#[derive(Debug)]
struct AnyKey;

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
