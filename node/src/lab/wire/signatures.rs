//! Calls as clients, under keys that nobody knows, with requests whose signatures are not theirs, thousands on each connection,
//! and calls again as soon as it is closed. (Clement et al., Aardvark, NSDI 2009, section 5.1: clients that are not listened to
//! any more; PROTOCOL §12)
//!
//! It breaks a system that checks signatures one after the other where everything else waits, and that lets a client
//! begin anew as often as it likes: what costs the sender nothing takes a verification each. Correct replicas check
//! requests in batches beside their work, end the connection at the first bad one and forget what it still said, and keep
//! its host out for a while, longer each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::SendStream;
use quorate_crypto::{Digest, SigningKey};
use quorate_protocol::batch::Request;
use quorate_protocol::codec::List;
use quorate_protocol::configuration::ClusterId;
use quorate_protocol::message::{ClientMessage, to_frame};
use quorate_protocol::number::{RequestNumber, Session};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::pace::TELL;
use super::{Ground, SOURCES, Target, source};
use crate::configuration::key_file;
use crate::transport::bare::{Dialler, Face, header};

/// Requests that are sent at once.
const PACK: u64 = 1_000;

/// A call from the same host to the same replica begins no sooner after the one before.
const BETWEEN: Duration = Duration::from_millis(10);

/// How long a replica may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let sent = Arc::new(AtomicU64::new(0));
    let mut calling = JoinSet::new();
    for place in 0..ground.targets.len() {
        for number in 0..SOURCES {
            let (ground, sent) = (Arc::clone(&ground), Arc::clone(&sent));
            calling.spawn(async move { call(&ground, &ground.targets[place], number, &sent).await });
        }
    }
    loop {
        tokio::select! {
            ended = calling.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(()),
            },
            () = sleep(TELL) => {
                let sent = sent.load(Ordering::Relaxed);
                tracing::info!(attack = "flood-signatures", sent, "an attack goes on");
            }
        }
    }
}

/// Requests of that key, none of which it signed, as one client sends them.
fn pack(key: &SigningKey) -> anyhow::Result<Bytes> {
    let elsewhere = ClusterId::new(Digest::ZERO);
    let mut bytes = BytesMut::new();
    for number in 1..=PACK {
        let request = Request {
            client: key.public_key(),
            session: Session::NONE,
            number: RequestNumber::new(number),
            operations: List::new(Vec::new()).context("an empty list is none too long")?,
        };
        let request = request.sign(&elsewhere, key).context("encoding a request")?;
        let frame = to_frame(&ClientMessage::Request(request)).context("encoding a message")?;
        bytes.put_slice(&header(frame.len()));
        bytes.put_slice(&frame);
    }
    Ok(bytes.freeze())
}

/// One call after the other, from one host.
async fn call(ground: &Ground, target: &Target, number: u8, sent: &AtomicU64) -> anyhow::Result<()> {
    let address = target.address(Face::Client).await?;
    let key = key_file::generate().context("drawing a key")?;
    let dialler = Dialler::new(source(address, number), &key, Face::Client, ground.keys())?;
    let pack = pack(&key)?;
    loop {
        let next = Instant::now() + BETWEEN;
        if let Ok(connection) = dialler.dial(address, PATIENCE).await
            && let Ok(mut streams) = dialler.open(&connection, &ground.cluster).await
            && let Some(stream) = streams.last_mut()
        {
            pour(stream, &pack, sent).await;
        }
        sleep_until(next).await;
    }
}

/// Until the other side has had enough.
async fn pour(stream: &mut SendStream, pack: &Bytes, sent: &AtomicU64) {
    while stream.write_chunk(pack.clone()).await.is_ok() {
        sent.fetch_add(PACK, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use quorate_crypto::verify;
    use quorate_protocol::batch::ParsedRequest;
    use quorate_protocol::codec::decode;
    use quorate_protocol::message::from_frame;

    use super::*;

    #[test]
    fn a_pack_is_of_whole_requests_that_are_signed_for_another_cluster() {
        let key = SigningKey::from_seed([1; 32]);
        let cluster = ClusterId::new(Digest::from_bytes([2; 32]));
        let mut rest = pack(&key).expect("it is made");
        let mut count = 0;
        while !rest.is_empty() {
            let head = rest.split_to(4);
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let frame = rest.split_to(usize::try_from(length).expect("it is small"));
            let Ok(ClientMessage::Request(signed)) = from_frame(&frame) else { panic!("a request") };
            let request = decode(signed.body.bytes()).expect("its body");
            let item = ParsedRequest::new(request, signed).signature_item(&cluster);
            assert_eq!(item.key, key.public_key());
            verify(&item.key, &item.digest, &item.signature).expect_err("it is not signed for this cluster");
            count += 1;
        }
        assert_eq!(count, PACK);
    }
}
