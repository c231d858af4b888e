//! The frame: how one record stands in a segment of the log (PROTOCOL §9). All numbers are little endian.
//!
//! ```text
//! frame                            at a multiple of 8 in the file
//!   front header    64 bytes
//!   head            head_length bytes, then zeros up to a multiple of 8
//!   body            body_length bytes, then zeros up to a multiple of 8
//!   back header     64 bytes, the front header again with another `copy`
//!   head            head_length bytes again, then zeros up to a multiple of 8
//!
//! header
//!    0   8  mark            drawn at random when the log is made, the same in all its segments, never sent to anyone
//!    8   8  ordinal         of the segment that the frame was written for
//!   16   8  number          of the record; numbers are consecutive
//!   24   8  synced_before   every record with a smaller number was durable when this frame was written
//!   32   8  position        of the frame's first byte in its file
//!   40   4  copy            1 front, 2 back
//!   44   4  head_length     at most 65 536
//!   48   4  body_length     at most 33 554 432
//!   52   4  head_checksum   CRC-32 (IEEE) of the head
//!   56   4  body_checksum   CRC-32 (IEEE) of the body
//!   60   4  checksum        CRC-32 (IEEE) of the 60 bytes above
//! ```
//!
//! Every frame that was written together with others, by one sync, follows the one before it at once; each such group
//! starts at a multiple of 4096, so that writing it never touches a block that holds something durable. What lies between
//! groups means nothing.
//!
//! A frame is live only if mark, ordinal and position are those of the place where it is found. Frames left over in a
//! recycled segment carry a smaller ordinal; a misdirected write carries another position; bytes that a client put into
//! a batch to be taken for a frame would have to name the mark, which nobody outside this process has seen.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use std::ops::Range;

/// Largest head of a record, in bytes.
pub const HEAD_BYTES_MAX: u32 = 64 << 10;

/// Largest body of a record, in bytes.
pub const BODY_BYTES_MAX: u32 = 32 << 20;

/// Length of a frame's header, in bytes. Of each of the two.
pub const HEADER_BYTES: usize = 64;

/// Parts of a frame start at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;

#[cfg_attr(not(test), expect(clippy::as_conversions, reason = "a constant knows no other conversion"))]
const HEADER_LENGTH: u64 = HEADER_BYTES as u64;

const _: () = assert!(HEADER_LENGTH.is_multiple_of(ALIGNMENT), "a header keeps what follows aligned");

const FRONT: u32 = 1;
const BACK: u32 = 2;

/// Which of the two headers of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Before the body.
    Front,
    /// After the body.
    Back,
}

/// A frame's header, without the side it stands on and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) mark: u64,
    pub(super) ordinal: u64,
    pub(super) number: u64,
    pub(super) synced_before: u64,
    pub(super) position: u64,
    pub(super) head_length: u32,
    pub(super) body_length: u32,
    pub(super) head_checksum: u32,
    pub(super) body_checksum: u32,
}

/// Where the parts of a frame stand in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) front_head: Range<u64>,
    pub(super) body: Range<u64>,
    pub(super) back: u64,
    pub(super) back_head: Range<u64>,
    pub(super) end: u64,
}

/// `bytes` rounded up to a multiple of `alignment`, a power of two. `None` if that is beyond 64 bits.
pub(super) fn align(bytes: u64, alignment: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(alignment)
}

/// Length of the frame of a record, in bytes.
#[cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "a few numbers of 32 bits fit 64"))]
pub(super) fn frame_bytes(head_length: u32, body_length: u32) -> u64 {
    let head = u64::from(head_length).next_multiple_of(ALIGNMENT);
    let body = u64::from(body_length).next_multiple_of(ALIGNMENT);
    2 * (HEADER_LENGTH + head) + body
}

impl FrameHeader {
    /// The 64 bytes of this header.
    pub(super) fn encode(&self, side: Side) -> [u8; HEADER_BYTES] {
        let copy = match side {
            Side::Front => FRONT,
            Side::Back => BACK,
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        for field in [self.mark, self.ordinal, self.number, self.synced_before, self.position] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for field in [copy, self.head_length, self.body_length, self.head_checksum, self.body_checksum] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("five fields of 8 and six of 4 bytes are 64")
    }

    /// Reads a header from the start of `bytes`; `None` unless its checksum fits and its lengths are within bounds.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Side, Self)> {
        let (covered, _) = bytes.split_at_checked(HEADER_BYTES - 4)?;
        let mut rest = bytes;
        let mut header = Self {
            mark: take_u64(&mut rest)?,
            ordinal: take_u64(&mut rest)?,
            number: take_u64(&mut rest)?,
            synced_before: take_u64(&mut rest)?,
            position: take_u64(&mut rest)?,
            head_length: 0,
            body_length: 0,
            head_checksum: 0,
            body_checksum: 0,
        };
        let copy = take_u32(&mut rest)?;
        header.head_length = take_u32(&mut rest)?;
        header.body_length = take_u32(&mut rest)?;
        header.head_checksum = take_u32(&mut rest)?;
        header.body_checksum = take_u32(&mut rest)?;
        if take_u32(&mut rest)? != crc32fast::hash(covered) {
            return None;
        }
        let side = match copy {
            FRONT => Side::Front,
            BACK => Side::Back,
            _ => return None,
        };
        (header.head_length <= HEAD_BYTES_MAX && header.body_length <= BODY_BYTES_MAX).then_some((side, header))
    }

    /// Where the parts of this frame stand; `None` if they would reach beyond 64 bits.
    pub(super) fn layout(&self) -> Option<Layout> {
        let head = u64::from(self.head_length);
        let front_head = self.position.checked_add(HEADER_LENGTH)?;
        let front_head = front_head..front_head.checked_add(head)?;
        let body = align(front_head.end, ALIGNMENT)?;
        let body = body..body.checked_add(u64::from(self.body_length))?;
        let back = align(body.end, ALIGNMENT)?;
        let back_head = back.checked_add(HEADER_LENGTH)?;
        let back_head = back_head..back_head.checked_add(head)?;
        let end = align(back_head.end, ALIGNMENT)?;
        Some(Layout { front_head, body, back, back_head, end })
    }
}

pub(crate) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*field))
}

pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (field, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            mark: 0x0102_0304_0506_0708,
            ordinal: 9,
            number: 10,
            synced_before: 8,
            position: 4096,
            head_length: 13,
            body_length: 100,
            head_checksum: 11,
            body_checksum: 12,
        }
    }

    #[test]
    fn a_header_is_what_the_format_says_byte_by_byte() {
        let mut expected = Vec::new();
        expected.extend([8, 7, 6, 5, 4, 3, 2, 1]);
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 16, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 13, 0, 0, 0, 100, 0, 0, 0]);
        expected.extend([11, 0, 0, 0, 12, 0, 0, 0]);
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(header().encode(Side::Back).as_slice(), expected);
        assert_eq!(FrameHeader::decode(&expected), Some((Side::Back, header())));
    }

    #[test]
    fn no_single_flipped_bit_of_a_header_goes_unseen() {
        let whole = header().encode(Side::Front);
        for bit in 0..whole.len() * 8 {
            let mut harmed = whole;
            harmed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&harmed), None, "bit {bit}");
        }
        assert_eq!(FrameHeader::decode(&whole[..63]), None);
    }

    #[test]
    fn lengths_beyond_their_bounds_are_refused_even_with_a_fitting_checksum() {
        for (head_length, body_length) in [(HEAD_BYTES_MAX + 1, 0), (0, BODY_BYTES_MAX + 1), (u32::MAX, u32::MAX)] {
            let header = FrameHeader { head_length, body_length, ..header() };
            assert_eq!(FrameHeader::decode(&header.encode(Side::Front)), None);
        }
        assert_eq!(FrameHeader { position: u64::MAX - 100, ..header() }.layout(), None);
    }

    #[test]
    fn a_layout_is_aligned_and_as_long_as_the_frame() {
        let layout = header().layout().unwrap();
        assert_eq!(layout.front_head, 4160..4173);
        assert_eq!(layout.body, 4176..4276);
        assert_eq!(layout.back, 4280);
        assert_eq!(layout.back_head, 4344..4357);
        assert_eq!(layout.end, 4360);
        assert_eq!(layout.end - 4096, frame_bytes(13, 100));
    }
}
