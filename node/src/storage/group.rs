//! A group: the frames that one write and one sync make durable.

use std::io::IoSlice;

use bytes::Bytes;

use super::frame::{ALIGNMENT, FrameHeader, Side};
use super::queue::Append;

/// Bodies up to this length are copied to stand in one slice with the headers around them.
const COPIED_BODY_BYTES_MAX: usize = 4096;

/// What one write consists of. Bounded by what the queue holds.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Headers, heads and small bodies, one after the other.
    small: Vec<u8>,
    /// Large bodies, each with the length of `small` at which it is to be inserted.
    large: Vec<(usize, Bytes)>,
    pub(super) bytes: u64,
}

impl Group {
    pub(super) fn clear(&mut self) {
        self.small.clear();
        self.large.clear();
        self.bytes = 0;
    }

    pub(super) fn push(&mut self, part: &[u8]) {
        self.small.extend_from_slice(part);
        self.bytes += part.len() as u64;
    }

    pub(super) fn push_frame(&mut self, header: &FrameHeader, append: &Append) {
        self.push(&header.encode(Side::Front));
        self.push(&append.head);
        self.pad();
        if append.body.len() <= COPIED_BODY_BYTES_MAX {
            self.push(&append.body);
        } else {
            self.large.push((self.small.len(), append.body.clone()));
            self.bytes += append.body.len() as u64;
        }
        self.pad();
        self.push(&header.encode(Side::Back));
        self.push(&append.head);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.is_multiple_of(ALIGNMENT) {
            self.push(&[0]);
        }
    }

    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.large.len() + 1);
        let mut start = 0;
        for (end, body) in &self.large {
            slices.push(IoSlice::new(&self.small[start..*end]));
            slices.push(IoSlice::new(body));
            start = *end;
        }
        slices.push(IoSlice::new(&self.small[start..]));
        slices
    }
}
