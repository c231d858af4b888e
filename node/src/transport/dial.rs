//! Dials somebody, and again when the link is gone: with exponential, jittered waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint};
use tokio::time::{Instant, sleep, timeout};

use crate::transport::backoff::{Backoff, jitter};
use crate::transport::close::LinkError;
use crate::transport::link::{Link, LinkEvents};

/// What TLS is told as the name of the other side. It is never sent nor checked: the key is.
const SERVER_NAME: &str = "replica.invalid";

/// Whom to dial, and how. The configuration pins the key.
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: ClientConfig,
    pub(crate) address: SocketAddr,
}

impl Target {
    async fn dial(&self, patience: Duration) -> Result<Connection, LinkError> {
        let connecting = self.endpoint.connect_with(self.config.clone(), self.address, SERVER_NAME);
        let connecting = connecting.map_err(|error| LinkError::Failed { text: error.to_string() })?;
        match timeout(patience, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_elapsed) => Err(LinkError::TimedOut),
        }
    }
}

/// Keeps the link up for as long as the task is let live.
pub(crate) async fn keep_connected<E: LinkEvents>(link: Arc<Link<E>>, target: Target) {
    let mut backoff = Backoff::default();
    loop {
        link.state.on_connecting();
        match target.dial(link.deadlines.handshake).await {
            Ok(connection) => {
                let began = Instant::now();
                let why = link.run(&connection).await;
                backoff.on_link_ended(began.elapsed(), &why);
            }
            Err(error) => {
                tracing::debug!(address = %target.address, %error, "dialling failed");
                link.state.on_down(error);
            }
        }
        sleep(backoff.next_wait(jitter())).await;
    }
}
