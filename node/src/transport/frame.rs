//! Frames on a stream: a length of four bytes, the lowest first, and that many bytes. The first frame of each stream is
//! a hello. Pure: bytes in, frames out.
//!
//! A length is checked against the lane's bound before anything is allocated for it; zero is refused.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::transport::close::Violation;

/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 4;
/// Version of the framing, the hello and the lanes; also named by ALPN.
pub const TRANSPORT_VERSION: u16 = 1;
/// First bytes of a hello.
const HELLO_MAGIC: [u8; 4] = *b"QUOR";
/// Bytes of a hello's payload: magic, version, cluster, lane.
const HELLO_BYTES: usize = 4 + 2 + 32 + 1;
/// Longest hello that is taken: later versions may append to it, so that they can be told which version is spoken here.
pub(crate) const HELLO_BYTES_MAX: u32 = 256;

/// What a stream is for. The number is its byte in the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamRole {
    Votes = 0,
    Bulk = 1,
    Requests = 2,
    Replies = 3,
}

/// A header and its frame's length, as they stand on the wire. Frames are bounded long before `u32` ends.
pub(crate) fn header(payload_bytes: usize) -> [u8; FRAME_HEADER_BYTES] {
    u32::try_from(payload_bytes).expect("the queue refused frames above the bound of the lane").to_le_bytes()
}

/// The hello that opens a stream, with its header.
pub(crate) fn hello(cluster: &[u8; 32], role: StreamRole) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + HELLO_BYTES);
    frame.put_slice(&header(HELLO_BYTES));
    frame.put_slice(&HELLO_MAGIC);
    frame.put_u16_le(TRANSPORT_VERSION);
    frame.put_slice(cluster);
    frame.put_u8(lane(role));
    frame.freeze()
}

#[cfg_attr(not(test), expect(clippy::as_conversions, reason = "the discriminants are the bytes on the wire"))]
const fn lane(role: StreamRole) -> u8 {
    role as u8
}

/// Reads a hello's payload; gives the byte that names the lane.
pub(crate) fn read_hello(mut payload: Bytes, cluster: &[u8; 32]) -> Result<u8, Violation> {
    if payload.len() < HELLO_BYTES || !payload.starts_with(&HELLO_MAGIC) {
        return Err(Violation::NoHello);
    }
    payload.advance(HELLO_MAGIC.len());
    let theirs = payload.get_u16_le();
    if theirs != TRANSPORT_VERSION {
        return Err(Violation::WrongVersion { theirs, ours: TRANSPORT_VERSION });
    }
    if payload.split_to(cluster.len()) != cluster.as_slice() {
        return Err(Violation::WrongCluster);
    }
    if payload.len() > 1 {
        return Err(Violation::NoHello);
    }
    Ok(payload.get_u8())
}

/// Cuts a stream of chunks into frames.
///
/// Chunks wait here only until the frame they belong to was taken, and the caller adds some only when none is complete:
/// so what is held is one frame and one read.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    frame_bytes_max: u32,
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    /// Length of the frame whose header was read.
    length: Option<u32>,
    /// What is assembled of it.
    assembled: BytesMut,
}

impl FrameDecoder {
    /// Takes frames of at most so many bytes.
    pub(crate) fn new(frame_bytes_max: u32) -> Self {
        Self { frame_bytes_max, chunks: VecDeque::new(), chunk_bytes: 0, length: None, assembled: BytesMut::new() }
    }

    /// From the next header on, another bound holds.
    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Adds what was read.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunk_bytes = self.chunk_bytes.saturating_add(chunk.len());
            self.chunks.push_back(chunk);
        }
    }

    /// Whether part of a frame, be it of its header, has arrived and the rest has not.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.length.is_some() || self.chunk_bytes > 0
    }

    /// Length of the next frame's payload, as soon as its header is here. Allocates nothing.
    pub(crate) fn length(&mut self) -> Result<Option<u32>, Violation> {
        if self.length.is_some() {
            return Ok(self.length);
        }
        if self.chunk_bytes < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        self.take_into(&mut header.as_mut_slice(), FRAME_HEADER_BYTES);
        let length = u32::from_le_bytes(header);
        if length == 0 {
            return Err(Violation::FrameEmpty);
        }
        if length > self.frame_bytes_max {
            return Err(Violation::FrameTooLarge { bytes: length, bytes_max: self.frame_bytes_max });
        }
        self.length = Some(length);
        Ok(self.length)
    }

    /// The frame whose length was given, as soon as it is whole.
    ///
    /// It is copied out of the chunks, also where it lies within one: a chunk is a slice of a buffer of up to 64 KiB
    /// that the socket filled, and a small frame that someone keeps would keep all of that.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.length?).expect("32 bits fit into a usize");
        if self.assembled.capacity() == 0 {
            self.assembled = BytesMut::with_capacity(length);
        }
        let mut assembled = std::mem::take(&mut self.assembled);
        let missing = length.saturating_sub(assembled.len());
        self.take_into(&mut assembled, missing);
        if assembled.len() < length {
            self.assembled = assembled;
            return None;
        }
        self.length = None;
        Some(assembled.freeze())
    }

    /// Moves up to so many bytes from the chunks.
    fn take_into(&mut self, target: &mut impl bytes::BufMut, bytes_max: usize) {
        let mut missing = bytes_max;
        while missing > 0
            && let Some(chunk) = self.chunks.front_mut()
        {
            let part = chunk.len().min(missing);
            target.put(chunk.split_to(part));
            missing = missing.saturating_sub(part);
            self.chunk_bytes = self.chunk_bytes.saturating_sub(part);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: [u8; 32] = [9; 32];

    fn wire(payloads: &[&[u8]]) -> Vec<u8> {
        payloads.iter().flat_map(|payload| [header(payload.len()).as_slice(), payload].concat()).collect()
    }

    fn decode(bytes: &[u8], chunk_bytes: usize, frame_bytes_max: u32) -> Result<Vec<Bytes>, Violation> {
        let mut decoder = FrameDecoder::new(frame_bytes_max);
        let mut frames = Vec::new();
        for chunk in bytes.chunks(chunk_bytes) {
            decoder.push(Bytes::copy_from_slice(chunk));
            while decoder.length()?.is_some() {
                let Some(frame) = decoder.frame() else { break };
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let payloads: [&[u8]; 4] = [b"a", b"some votes", &[7; 300], b"z"];
        for chunk_bytes in 1..400 {
            assert_eq!(decode(&wire(&payloads), chunk_bytes, 300).expect("within bounds"), payloads);
        }
    }

    #[test]
    fn a_length_above_the_bound_is_refused_before_its_payload_is_awaited() {
        let refused = decode(&301_u32.to_le_bytes(), 4, 300);
        assert_eq!(refused, Err(Violation::FrameTooLarge { bytes: 301, bytes_max: 300 }));
        let refused = decode(&u32::MAX.to_le_bytes(), 1, 300);
        assert_eq!(refused, Err(Violation::FrameTooLarge { bytes: u32::MAX, bytes_max: 300 }));
    }

    #[test]
    fn an_empty_frame_is_refused() {
        assert_eq!(decode(&[0; 4], 4, 300), Err(Violation::FrameEmpty));
    }

    #[test]
    fn nothing_is_allocated_for_a_header_alone() {
        let mut decoder = FrameDecoder::new(1 << 24);
        decoder.push(Bytes::copy_from_slice(&(1_u32 << 24).to_le_bytes()));
        assert_eq!(decoder.length(), Ok(Some(1 << 24)));
        assert_eq!(decoder.assembled.capacity(), 0);
        assert!(decoder.is_within_frame());
    }

    #[test]
    fn a_hello_is_read_back_and_anything_else_is_not_one() {
        let payload = hello(&CLUSTER, StreamRole::Bulk).slice(FRAME_HEADER_BYTES..);
        assert_eq!(read_hello(payload.clone(), &CLUSTER), Ok(1));
        assert_eq!(read_hello(payload.clone(), &[8; 32]), Err(Violation::WrongCluster));
        assert_eq!(read_hello(payload.slice(1..), &CLUSTER), Err(Violation::NoHello));
        assert_eq!(read_hello([&payload[..], &[0]].concat().into(), &CLUSTER), Err(Violation::NoHello));
        assert_eq!(read_hello(Bytes::from_static(&[0; 39]), &CLUSTER), Err(Violation::NoHello));
    }

    #[test]
    fn a_longer_hello_of_a_later_version_is_told_which_version_is_spoken() {
        let mut later = hello(&CLUSTER, StreamRole::Bulk).slice(FRAME_HEADER_BYTES..).to_vec();
        later[4] = 2;
        later.extend_from_slice(&[0; 50]);
        assert_eq!(read_hello(later.into(), &CLUSTER), Err(Violation::WrongVersion { theirs: 2, ours: 1 }));
    }
}
