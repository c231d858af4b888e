//! QUIC without the manners of this transport: what an attacker dials and writes with. (Feature `lab`.)

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connecting, Connection, Endpoint, SendStream};
use quorate_crypto::{PublicKey, SigningKey};
use tokio::time::timeout;

use crate::transport::close::LinkError;
use crate::transport::dial::SERVER_NAME;
use crate::transport::endpoint::{MTU_DEFAULT, StartError, Tuning, dial_from, transport_config};
use crate::transport::frame::{StreamRole, hello};
use crate::transport::identity::Identity;
use crate::transport::refusals::Refusals;
use crate::transport::tls::{self, ALPN_CLIENT, ALPN_PEER, AcceptedKeys};

pub(crate) use crate::transport::frame::header;

/// Which of a replica's two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// That for replicas.
    Peer,
    /// That for clients.
    Client,
}

impl Face {
    /// The lanes that the other side expects to be opened.
    fn roles(self) -> &'static [StreamRole] {
        match self {
            Self::Peer => &[StreamRole::Votes, StreamRole::Bulk],
            Self::Client => &[StreamRole::Requests],
        }
    }

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peer => ALPN_PEER,
            Self::Client => ALPN_CLIENT,
        }
    }
}

/// A socket, and a key to dial with from there.
#[derive(Debug)]
pub(crate) struct Dialler {
    endpoint: Endpoint,
    config: ClientConfig,
    face: Face,
}

impl Dialler {
    /// Binds a socket at `local`, for dialling the holders of `expected`. Call it within a tokio runtime.
    pub(crate) fn new(
        local: SocketAddr,
        key: &SigningKey,
        face: Face,
        expected: BTreeSet<PublicKey>,
    ) -> Result<Self, StartError> {
        let (config, endpoint) = (client_config(key, face, expected)?, dial_from(local, MTU_DEFAULT)?);
        Ok(Self { endpoint, config, face })
    }

    /// One that dials from the same socket with another key.
    pub(crate) fn with_key(&self, key: &SigningKey, expected: BTreeSet<PublicKey>) -> Result<Self, StartError> {
        let config = client_config(key, self.face, expected)?;
        Ok(Self { endpoint: self.endpoint.clone(), config, face: self.face })
    }

    /// Begins a handshake.
    pub(crate) fn begin(&self, to: SocketAddr) -> Result<Connecting, LinkError> {
        let begun = self.endpoint.connect_with(self.config.clone(), to, SERVER_NAME);
        begun.map_err(|error| LinkError::Failed { text: error.to_string() })
    }

    /// Begins a handshake and finishes it.
    pub(crate) async fn dial(&self, to: SocketAddr, patience: Duration) -> Result<Connection, LinkError> {
        match timeout(patience, self.begin(to)?).await {
            Ok(connected) => Ok(connected?),
            Err(_elapsed) => Err(LinkError::TimedOut),
        }
    }

    /// Opens the streams that the other side waits for, each with its hello; the last one is that of the larger frames.
    pub(crate) async fn open(&self, connection: &Connection, cluster: &[u8; 32]) -> Result<Vec<SendStream>, LinkError> {
        let mut streams = Vec::new();
        for role in self.face.roles() {
            let mut stream = connection.open_uni().await?;
            stream.write_all(&hello(cluster, *role)).await?;
            streams.push(stream);
        }
        Ok(streams)
    }
}

fn client_config(key: &SigningKey, face: Face, expected: BTreeSet<PublicKey>) -> Result<ClientConfig, StartError> {
    let identity = Identity::new(key)?;
    let tls = tls::client_of(&identity, face.alpn(), AcceptedKeys::Listed(expected), &Arc::new(Refusals::default()))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport_config(&Tuning {
        mtu_upper_bound: MTU_DEFAULT,
        streams: 2,
        stream_window_bytes: 1 << 20,
        receive_window_bytes: 1 << 20,
        send_window_bytes: 1 << 20,
        keep_alive: Some(Duration::from_secs(1)),
        idle: Duration::from_secs(30),
    })?);
    Ok(config)
}
