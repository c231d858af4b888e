//! Dials somebody, and again when the link is gone: with exponential, jittered waits.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint};
use tokio::time::{Instant, sleep, timeout};

use crate::transport::address::look_up;
use crate::transport::backoff::{Backoff, jitter};
use crate::transport::close::LinkError;
use crate::transport::link::{Link, LinkEvents};

/// What TLS is told as the name of the other side. It is never sent nor checked: the key is.
pub(crate) const SERVER_NAME: &str = "replica.invalid";

/// Whom to dial, and how. The configuration pins the key.
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: ClientConfig,
    /// `host:port`, looked up before each dial.
    pub(crate) address: String,
}

impl Target {
    async fn dial(&self, patience: Duration) -> Result<Connection, LinkError> {
        // It ends by itself: the name service has deadlines of its own.
        let address = look_up(&self.address).await;
        let address =
            address.map_err(|error| LinkError::LookUp { address: self.address.clone(), text: error.to_string() })?;
        let connecting = self.endpoint.connect_with(self.config.clone(), address, SERVER_NAME);
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
    let mut is_name_lost = false;
    loop {
        link.state.on_connecting();
        match target.dial(link.deadlines.handshake).await {
            Ok(connection) => {
                is_name_lost = false;
                let began = Instant::now();
                let why = link.run(&connection).await;
                backoff.on_link_ended(began.elapsed(), &why);
            }
            Err(error) => {
                let is_lost = matches!(error, LinkError::LookUp { .. });
                if is_lost && !is_name_lost {
                    tracing::warn!(%error, "a replica cannot be dialled until the name service knows it");
                }
                is_name_lost = is_lost;
                tracing::debug!(address = %target.address, %error, "dialling failed");
                link.state.on_down(error);
            }
        }
        sleep(backoff.next_wait(jitter())).await;
    }
}
