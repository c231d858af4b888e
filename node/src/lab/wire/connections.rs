//! Opens connections as a client, under keys that nobody knows, as many as it is let, and says nothing on them. (Malachite,
//! commit c54d10cc, limits for each address; PROTOCOL §12)
//!
//! It breaks a system that takes the first so many that come: a thousand connections cost their owner next to nothing,
//! and shut all clients out. Correct replicas bound them in total and for each source, and where all places are taken one
//! gives way that never asked for anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quinn::{Connection, SendStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::pace::Pace;
use super::{Ground, REST, SOURCES, Target, stranger};
use crate::configuration::key_file;
use crate::transport::bare::{Dialler, Face};

/// Connections that are held at each replica.
const EACH: usize = 2_000;

/// Handshakes a second, at most, with each replica.
const PER_SECOND: u32 = 200;

/// Keys that are used from each address: one alone would be in its own way.
const KEYS: usize = 32;

/// How long a replica may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let mut held = JoinSet::new();
    for place in 0..ground.targets.len() {
        let ground = Arc::clone(&ground);
        held.spawn(async move { hold(&ground, &ground.targets[place]).await });
    }
    while let Some(ended) = held.join_next().await {
        ended??;
    }
    Ok(())
}

/// Holds connections at one replica, and opens others where it closes some.
async fn hold(ground: &Arc<Ground>, target: &Target) -> anyhow::Result<()> {
    let address = target.address(Face::Client).await?;
    let mut strangers = Vec::new();
    for number in 0..SOURCES {
        let first = stranger(ground, address, number)?;
        for _key in 1..KEYS {
            let key = key_file::generate().context("drawing a key")?;
            strangers.push(Arc::new(first.with_key(&key, ground.keys())?));
        }
        strangers.push(Arc::new(first));
    }
    let mut pace = Pace::new("hold-connections", PER_SECOND);
    let mut held: Vec<Held> = Vec::new();
    let mut dialled = JoinSet::new();
    for round in 0_usize.. {
        pace.next().await;
        while let Some(Ok(connection)) = dialled.try_join_next() {
            held.extend(connection);
        }
        held.retain(|held| held.connection.close_reason().is_none());
        if held.len() + dialled.len() >= EACH {
            sleep(REST).await;
            continue;
        }
        dialled.spawn(open(Arc::clone(&strangers[round % strangers.len()]), address, ground.cluster));
    }
    Ok(())
}

/// A connection on which a hello was said, and nothing more.
struct Held {
    connection: Connection,
    /// One that is dropped is ended, which ends the connection.
    _streams: Vec<SendStream>,
}

async fn open(stranger: Arc<Dialler>, address: SocketAddr, cluster: [u8; 32]) -> Option<Held> {
    let connection = stranger.dial(address, PATIENCE).await.ok()?;
    let streams = stranger.open(&connection, &cluster).await.ok()?;
    Some(Held { connection, _streams: streams })
}
