//! UDP sockets and the settings of QUIC on them. The values were measured on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use zeroize::Zeroizing;

use crate::transport::identity::{UnusableKey, hmac};
use crate::transport::tls::TlsError;

/// What every path carries, in bytes of UDP payload: where packets start, and what they fall back to.
pub const MTU_MIN: u16 = 1200;
/// What packets may grow to by default: an Ethernet frame's worth.
pub const MTU_DEFAULT: u16 = 1452;
/// Above this, ten packets handed to the kernel at once are more than a datagram may hold, and are lost silently.
pub const MTU_MAX: u16 = 6500;
/// Least that this side says it takes: others may have found a larger MTU than is configured here.
const MTU_TAKEN_MIN: u16 = 1472;
/// What a round trip is taken for until one is measured: a first packet that meets nobody, as at a common start, is sent
/// again after three of these. QUIC's own guess makes that a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Buffers of a socket, in bytes. The kernel cuts them to its own limit (`net.core.rmem_max`).
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Length of a connection's id.
const CONNECTION_ID_BYTES: usize = 8;
/// Handshakes that wait to be looked at, and the bytes kept for each and for all.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES_EACH: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// The transport could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The packets' upper bound is out of range.
    #[error("an MTU of {mtu} is outside {MTU_MIN} to {MTU_MAX} bytes")]
    Mtu {
        /// The bound asked for, in bytes.
        mtu: u16,
    },
    /// A limit contradicts another.
    #[error("{what} is {value}, but has to be at least {value_min}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// What it is set to.
        value: usize,
        /// What the others demand.
        value_min: usize,
    },
    /// The members are not distinct, or the own id is not among them with the own key.
    #[error("the table of members is contradictory: {what}")]
    Members {
        /// What is wrong.
        what: &'static str,
    },
    /// The signing key does not work with TLS.
    #[error(transparent)]
    Key(#[from] UnusableKey),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket could not be opened.
    #[error("cannot listen on {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
}

/// Refuses a limit that is below what others demand.
pub(crate) fn at_least(what: &'static str, value: usize, value_min: usize) -> Result<(), StartError> {
    if value < value_min { Err(StartError::Limit { what, value, value_min }) } else { Ok(()) }
}

/// What differs between the endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) mtu_upper_bound: u16,
    /// Streams that the other side may open.
    pub(crate) streams: u32,
    /// Bytes that may be under way on one stream, on all, and unacknowledged from here.
    pub(crate) stream_window_bytes: u32,
    pub(crate) receive_window_bytes: u32,
    pub(crate) send_window_bytes: u32,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) idle: Duration,
}

/// The settings of connections.
pub(crate) fn transport_config(tuning: &Tuning) -> Result<Arc<TransportConfig>, StartError> {
    let mtu = tuning.mtu_upper_bound;
    if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
        return Err(StartError::Mtu { mtu });
    }
    let idle_millis = u32::try_from(tuning.idle.as_millis()).unwrap_or(u32::MAX);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(tuning.streams))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(tuning.stream_window_bytes))
        .receive_window(VarInt::from_u32(tuning.receive_window_bytes))
        .send_window(u64::from(tuning.send_window_bytes))
        // Without fairness QUIC stays with a stream until all that it holds of it is sent, whatever the priority of the
        // others: a vote would wait for megabytes of bulk.
        .send_fairness(true)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MTU_MIN)
        .min_mtu(MTU_MIN)
        .mtu_discovery_config(Some(discovery))
        .keep_alive_interval(tuning.keep_alive)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_millis))));
    Ok(Arc::new(transport))
}

/// The settings of an endpoint that is dialled.
pub(crate) fn server_config(
    tls: quinn::crypto::rustls::QuicServerConfig,
    transport: Arc<TransportConfig>,
) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_EACH)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    config
}

/// Opens the socket and starts QUIC on it, with the secret of its resets. Call it within a tokio runtime.
pub(crate) fn bind(
    listen: SocketAddr,
    reset_secret: Zeroizing<[u8; 32]>,
    mtu_upper_bound: u16,
    server: Option<ServerConfig>,
) -> Result<Endpoint, StartError> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_secret)));
    config.cid_generator(|| Box::new(RandomIds));
    if config.max_udp_payload_size(mtu_upper_bound.max(MTU_TAKEN_MIN)).is_err() {
        return Err(StartError::Mtu { mtu: mtu_upper_bound });
    }
    let opened = open_socket(listen).and_then(|socket| Endpoint::new(config, server, socket, Arc::new(TokioRuntime)));
    opened.map_err(|source| StartError::Socket { address: listen, source })
}

/// The same for who only dials. The secret is drawn anew: connections end with their process, and others that run under the same
/// key cannot be had to give its resets away.
pub(crate) fn dial_from(local: SocketAddr, mtu_upper_bound: u16) -> Result<Endpoint, StartError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())
        .map_err(|error| StartError::Socket { address: local, source: std::io::Error::other(error) })?;
    bind(local, secret, mtu_upper_bound, None)
}

fn open_socket(listen: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Ids of connections that carry no check of their own: QUIC's own kind is recognised only by the process that made it,
/// so that after a restart packets of older connections would be ignored instead of answered by a reset.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        // Where the operating system has no randomness, TLS finds none either: no handshake comes as far as this.
        let _is_filled = getrandom::fill(&mut bytes).is_ok();
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The key under which reset tokens are made.
struct ResetKey(Zeroizing<[u8; 32]>);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = hmac(self.0.as_slice(), data).unwrap_or_default();
        for (out, byte) in signature_out.iter_mut().zip(tag) {
            *out = byte;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = hmac(self.0.as_slice(), data).ok_or(CryptoError)?;
        let differences =
            tag.iter().zip(signature).fold(0, |differences, (ours, theirs)| differences | (ours ^ theirs));
        if signature.len() == tag.len() && differences == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use quorate_crypto::SigningKey;

    use super::*;
    use crate::transport::identity::Identity;

    fn tuning(mtu_upper_bound: u16) -> Tuning {
        Tuning {
            mtu_upper_bound,
            streams: 2,
            stream_window_bytes: 1 << 20,
            receive_window_bytes: 1 << 20,
            send_window_bytes: 1 << 20,
            keep_alive: None,
            idle: Duration::from_secs(1),
        }
    }

    #[test]
    fn an_mtu_that_would_lose_packets_silently_is_refused() {
        assert!(transport_config(&tuning(MTU_DEFAULT)).is_ok());
        assert!(transport_config(&tuning(MTU_MAX)).is_ok());
        assert!(matches!(transport_config(&tuning(MTU_MAX + 1)), Err(StartError::Mtu { mtu: 6501 })));
        assert!(matches!(transport_config(&tuning(MTU_MIN - 1)), Err(StartError::Mtu { mtu: 1199 })));
    }

    #[test]
    fn a_reset_token_verifies_under_its_key_alone() {
        let key = |seed| {
            let identity = Identity::new(&SigningKey::from_seed([seed; 32])).expect("the key is usable");
            ResetKey(identity.reset_secret(b"port").expect("the key is usable"))
        };
        let mut token = [0; 32];
        key(1).sign(b"connection", &mut token);
        assert!(key(1).verify(b"connection", &token).is_ok());
        assert!(key(2).verify(b"connection", &token).is_err());
        assert!(key(1).verify(b"connection", &token[..31]).is_err());
    }
}
