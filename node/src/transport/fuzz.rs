//! The first bytes of a connection's other side, fed with any. (`fuzz.rs`)

use bytes::Bytes;

use super::close::Violation;
use super::frame::{FRAME_HEADER_BYTES, FrameDecoder, StreamRole, hello, read_hello};
use super::identity;

const CLUSTER: [u8; 32] = [9; 32];

/// The key that the other side shows, and how it opens a stream.
pub(crate) fn greeting(bytes: &[u8]) {
    if let Some(key) = identity::decode(bytes) {
        assert_eq!(identity::encode(&key), bytes, "a key has one encoding");
    }
    if let Ok(lane) = read_hello(Bytes::copy_from_slice(bytes), &CLUSTER) {
        let hello = hello(&CLUSTER, StreamRole::Votes).slice(FRAME_HEADER_BYTES..);
        let (rest, last) = bytes.split_at(bytes.len() - 1);
        assert_eq!((rest, last), (&hello[..hello.len() - 1], &[lane][..]), "a hello has one encoding");
    }
}

/// A stream: however it is cut into chunks, its frames are the same, none longer than the bound, and so is where it breaks it.
pub(crate) fn frames(bytes: &[u8]) {
    let Some(([bound, chunk], wire)) = bytes.split_first_chunk() else { return };
    let bound = u32::from(*bound) + 1;
    let whole = cut(wire, wire.len().max(1), bound);
    assert_eq!(cut(wire, usize::from(*chunk) + 1, bound), whole);
    let (frames, _) = whole;
    assert!(frames.iter().all(|frame| (1..=bound as usize).contains(&frame.len())), "{frames:?}");
    let taken: usize = frames.iter().map(|frame| FRAME_HEADER_BYTES + frame.len()).sum();
    assert!(taken <= wire.len());
}

fn cut(wire: &[u8], chunk_bytes: usize, frame_bytes_max: u32) -> (Vec<Bytes>, Option<Violation>) {
    let mut decoder = FrameDecoder::new(frame_bytes_max);
    let mut frames = Vec::new();
    for chunk in wire.chunks(chunk_bytes) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.length() {
                Err(violation) => return (frames, Some(violation)),
                Ok(None) => break,
                Ok(Some(_)) => {}
            }
            let Some(frame) = decoder.frame() else { break };
            frames.push(frame);
        }
    }
    (frames, None)
}
