//! Sends frames that are no messages, as a replica and as clients, at 16 MB a second each: by turns one of the largest size that
//! holds noise, and thousands of small ones that begin as a message does. (`CometBFT`, issue 5324, proposals of any size, and
//! ASA-2025-003, messages that made a node panic; RFC 9000, section 21.9; PROTOCOL §4)
//!
//! It breaks a system that trusts a length, that lets what one member sends stand before what others do, or keeps what it
//! could not read. Correct replicas read each sender within a budget of its own, and close the connection of a client at
//! its first frame that is no message, that of a replica after some.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::SendStream;
use quorate_protocol::message::{ClientMessage, to_frame};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::pace::TELL;
use super::{Ground, REST, Target, member, stranger};
use crate::transport::bare::{Dialler, Face, header};

/// Bytes a second, at most, to each replica and as each sender.
const BYTES_PER_SECOND: f64 = 16e6;

/// Connections as a client, at each replica.
const CLIENTS: u8 = 4;

/// Largest frames that are taken of a replica, beside votes, and of a client with the default size of requests.
const FRAME_BYTES: (usize, usize) = (16 << 20, 320 << 10);

/// Small frames that are sent at once, and the longest of them.
const PACK: usize = 8_192;
const PACK_FRAME_BYTES: usize = 128;

/// How long a replica may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is written at once.
#[derive(Debug, Clone)]
struct Portion {
    bytes: Bytes,
    frames: u64,
}

/// What is sent, and how much of it was.
struct Flood {
    ground: Arc<Ground>,
    as_replica: [Portion; 2],
    as_client: [Portion; 2],
    frames_sent: AtomicU64,
}

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let pack = pack()?;
    let flood = Arc::new(Flood {
        as_replica: [pack.clone(), large(FRAME_BYTES.0)?],
        as_client: [pack, large(FRAME_BYTES.1)?],
        frames_sent: AtomicU64::new(0),
        ground,
    });
    let mut flooding = JoinSet::new();
    for place in 0..flood.ground.targets.len() {
        let one = Arc::clone(&flood);
        flooding.spawn(async move { one.as_replica(&one.ground.targets[place]).await });
        for number in 0..CLIENTS {
            let one = Arc::clone(&flood);
            flooding.spawn(async move { one.as_client(&one.ground.targets[place], number).await });
        }
    }
    loop {
        tokio::select! {
            ended = flooding.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(()),
            },
            () = sleep(TELL) => {
                let sent = flood.frames_sent.load(Ordering::Relaxed);
                tracing::info!(attack = "flood-frames", sent, "an attack goes on");
            }
        }
    }
}

/// One frame of noise.
fn large(bytes: usize) -> anyhow::Result<Portion> {
    let mut frame = BytesMut::zeroed(bytes);
    getrandom::fill(&mut frame).context("drawing noise")?;
    Ok(Portion { bytes: [&header(bytes)[..], &frame].concat().into(), frames: 1 })
}

/// Many small ones: of the version that is spoken, of every kind of message, and noise behind that.
fn pack() -> anyhow::Result<Portion> {
    let version = to_frame(&ClientMessage::Status).context("encoding a message")?[0];
    let mut bytes = BytesMut::new();
    let mut noise = [0; PACK_FRAME_BYTES];
    for kind in (0..=u8::MAX).cycle().take(PACK) {
        getrandom::fill(&mut noise).context("drawing noise")?;
        let length = 3 + usize::from(noise[2]) % (PACK_FRAME_BYTES - 2);
        (noise[0], noise[1]) = (version, kind % 32);
        bytes.put_slice(&header(length));
        bytes.put_slice(&noise[..length]);
    }
    Ok(Portion { bytes: bytes.freeze(), frames: PACK as u64 })
}

impl Flood {
    /// Under the replica's own key, where it is the one that dials.
    async fn as_replica(&self, target: &Target) -> anyhow::Result<()> {
        if target.id < self.ground.id {
            return Ok(());
        }
        let dialler = member(&self.ground, target, target.address(Face::Peer).await?)?;
        self.flood(&dialler, target, Face::Peer, &self.as_replica).await
    }

    async fn as_client(&self, target: &Target, number: u8) -> anyhow::Result<()> {
        let dialler = stranger(&self.ground, target.address(Face::Client).await?, number)?;
        self.flood(&dialler, target, Face::Client, &self.as_client).await
    }

    /// A connection for each portion in turn.
    async fn flood(&self, dialler: &Dialler, target: &Target, face: Face, portions: &[Portion]) -> anyhow::Result<()> {
        let address = target.address(face).await?;
        for portion in portions.iter().cycle() {
            if let Ok(connection) = dialler.dial(address, PATIENCE).await
                && let Ok(mut streams) = dialler.open(&connection, &self.ground.cluster).await
                && let Some(stream) = streams.last_mut()
            {
                self.pour(stream, portion).await;
            }
            sleep(REST).await;
        }
        Ok(())
    }

    /// Until the other side has had enough.
    async fn pour(&self, stream: &mut SendStream, portion: &Portion) {
        let mut due = Instant::now();
        while stream.write_chunk(portion.bytes.clone()).await.is_ok() {
            self.frames_sent.fetch_add(portion.frames, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "a length is far below 2^52")]
            let bytes = portion.bytes.len() as f64;
            due += Duration::from_secs_f64(bytes / BYTES_PER_SECOND);
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::message::{Message, from_frame};

    use super::*;

    #[test]
    fn a_pack_is_of_frames_that_are_cut_where_they_say_and_hold_hardly_a_message() {
        let pack = pack().expect("there is noise");
        let (mut rest, mut frames, mut messages) = (pack.bytes, 0, 0);
        while !rest.is_empty() {
            let head = rest.split_to(4);
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let frame = rest.split_to(usize::try_from(length).expect("it is small"));
            frames += 1;
            messages += u32::from(from_frame::<ClientMessage>(&frame).is_ok() || from_frame::<Message>(&frame).is_ok());
        }
        assert_eq!(frames, pack.frames);
        assert!(messages < 100, "{messages}");
    }
}
