//! What stands in a file: bytes, most of which are often zeros that nobody wrote.

use std::collections::BTreeMap;

/// Bytes that are kept together.
const PAGE_BYTES: usize = 4096;

type Page = Box<[u8; PAGE_BYTES]>;

/// Bytes with a length. What was never written is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    length: u64,
    /// Pages that hold something else than zeros, or did.
    pages: BTreeMap<u64, Page>,
}

impl Content {
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Some bytes from `position` on, whether the file is that long or not.
    pub(super) fn stretch(&self, position: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for piece in pieces(position, count) {
            if let Some(page) = self.pages.get(&piece.page) {
                bytes[piece.at..piece.at + piece.count].copy_from_slice(&page[piece.begin..piece.begin + piece.count]);
            }
        }
        bytes
    }

    /// As many bytes from `position` on as a reader gets.
    pub(super) fn read(&self, position: u64, count: usize) -> Vec<u8> {
        let left = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
        self.stretch(position, count.min(left))
    }

    /// Puts bytes somewhere and leaves the length as it is.
    pub(super) fn put(&mut self, position: u64, bytes: &[u8]) {
        for piece in pieces(position, bytes.len()) {
            let part = &bytes[piece.at..piece.at + piece.count];
            if part.iter().all(|byte| *byte == 0) && !self.pages.contains_key(&piece.page) {
                continue;
            }
            let page = self.pages.entry(piece.page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[piece.begin..piece.begin + piece.count].copy_from_slice(part);
        }
    }

    /// Sets the length. What is cut off is gone: should the file get longer again, zeros stand there.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            let whole = length.div_ceil(PAGE_BYTES as u64);
            self.pages.split_off(&whole);
            let begin = usize::try_from(length % PAGE_BYTES as u64).expect("a page fits into memory");
            if let Some(page) = self.pages.get_mut(&(length / PAGE_BYTES as u64)).filter(|_| begin > 0) {
                page[begin..].fill(0);
            }
        }
        self.length = length;
    }
}

/// A part of a stretch that lies in one page.
struct Piece {
    page: u64,
    /// Where in the page.
    begin: usize,
    /// Where in the stretch.
    at: usize,
    count: usize,
}

fn pieces(position: u64, count: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = position + at as u64;
        let begin = usize::try_from(here % PAGE_BYTES as u64).expect("a page fits into memory");
        let piece = Piece { page: here / PAGE_BYTES as u64, begin, at, count: (PAGE_BYTES - begin).min(count - at) };
        at += piece.count;
        (piece.count > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_over_borders_of_pages_is_read_and_the_rest_is_zero() {
        let mut content = Content::default();
        let bytes: Vec<u8> = (0..9_000_u32).map(|number| number.to_le_bytes()[0] | 1).collect();
        content.put(4_000, &bytes);
        content.set_length(13_100);
        let whole = content.read(0, 20_000);
        assert_eq!((whole.len(), &whole[4_000..13_000], whole[3_999], whole[13_000]), (13_100, &bytes[..], 0, 0));
        assert!(content.read(14_000, 5).is_empty());
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.put(0, &[7; 10_000]);
        content.set_length(10_000);
        content.set_length(5_000);
        content.set_length(10_000);
        let expected: Vec<u8> = [vec![7; 5_000], vec![0; 5_000]].concat();
        assert_eq!(content.read(0, 10_000), expected);
    }
}
