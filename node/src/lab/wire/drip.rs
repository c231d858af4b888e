//! Begins frames of the largest size, as a replica and as clients, and goes on with a byte a second. (RFC 9000,
//! section 21.6: Slowloris; PROTOCOL §4)
//!
//! It breaks a system that sets room aside for what was announced, or waits for it as long as anything comes: memory is
//! taken, and a reader for each. Correct replicas take room only as bytes arrive, within a budget for each sender, and
//! close a connection whose frame is not whole in ten seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Ground, REST, Target, member, stranger};
use crate::transport::bare::{Dialler, Face, header};

/// From one byte to the next.
const DRIP: Duration = Duration::from_secs(1);

/// Connections as a client, at each replica.
const CLIENTS: u8 = 16;

/// Largest frames that are taken: of votes, of what else replicas send, and of a client with the default size of requests.
const FRAMES: ([u32; 2], [u32; 1]) = ([64 << 10, 16 << 20], [320 << 10]);

/// How long a replica may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let mut dripping = JoinSet::new();
    for place in 0..ground.targets.len() {
        let one = Arc::clone(&ground);
        dripping.spawn(async move { as_replica(&one, &one.targets[place]).await });
        for number in 0..CLIENTS {
            let one = Arc::clone(&ground);
            dripping.spawn(async move { as_client(&one, &one.targets[place], number).await });
        }
    }
    while let Some(ended) = dripping.join_next().await {
        ended??;
    }
    Ok(())
}

/// Under the replica's own key, where it is the one that dials.
async fn as_replica(ground: &Ground, target: &Target) -> anyhow::Result<()> {
    if target.id < ground.id {
        return Ok(());
    }
    let dialler = member(ground, target, target.address(Face::Peer).await?)?;
    drip(&dialler, ground, target, Face::Peer, &FRAMES.0).await
}

async fn as_client(ground: &Ground, target: &Target, number: u8) -> anyhow::Result<()> {
    let dialler = stranger(ground, target.address(Face::Client).await?, number)?;
    drip(&dialler, ground, target, Face::Client, &FRAMES.1).await
}

async fn drip(dialler: &Dialler, ground: &Ground, target: &Target, face: Face, frames: &[u32]) -> anyhow::Result<()> {
    let address = target.address(face).await?;
    loop {
        if let Ok(connection) = dialler.dial(address, PATIENCE).await
            && let Ok(mut streams) = dialler.open(&connection, &ground.cluster).await
        {
            let mut is_open = true;
            for (stream, bytes) in streams.iter_mut().zip(frames) {
                is_open &= stream.write_all(&header(usize::try_from(*bytes)?)).await.is_ok();
            }
            while is_open && connection.close_reason().is_none() {
                sleep(DRIP).await;
                for stream in &mut streams {
                    is_open &= stream.write_all(&[0]).await.is_ok();
                }
            }
            if let Some(reason) = connection.close_reason() {
                tracing::info!(%address, %reason, "a dripping connection was ended");
            }
        }
        sleep(REST).await;
    }
}
