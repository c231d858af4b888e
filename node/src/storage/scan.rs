//! Reading one segment back: every live frame in it, whole or damaged (PROTOCOL §9).
//!
//! The next frame is looked for where one ends. If there is none, every multiple of 8 is tried, without skipping the rest
//! of a block, until a front or a back header of this segment is found; a back header leads to its frame. When none is
//! found up to the end of the file, what lies there is the tail: never written, or never synced.

use std::ops::Range;

use super::frame::{ALIGNMENT, FrameHeader, HEADER_BYTES, Layout, Side};
use super::segment::BLOCK_BYTES;

/// What a frame has to say of itself to be live in a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) mark: u64,
    pub(super) ordinal: u64,
}

/// A frame of which at least one header is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundFrame {
    pub(super) number: u64,
    pub(super) synced_before: u64,
    /// The whole frame in the segment.
    pub(super) place: Range<usize>,
    /// A copy of the head that fits its checksum.
    pub(super) head: Option<Range<usize>>,
    /// Whether anything of the two copies of head and header is damaged.
    pub(super) head_damaged: bool,
    /// The body, if it fits its checksum.
    pub(super) body: Option<Range<usize>>,
}

/// Calls `on_frame` for every live frame of the segment `bytes`, in order, and returns where the last one ends (the
/// place of the first frame if there is none).
pub(super) fn scan(bytes: &[u8], place: Place, mut on_frame: impl FnMut(FoundFrame)) -> usize {
    let scanner = Scanner { bytes, place };
    let mut end = BLOCK_BYTES;
    while let Some((header, layout)) = scanner.next(end) {
        end = layout.end;
        if let Some(frame) = scanner.read(&header, &layout) {
            on_frame(frame);
        }
    }
    usize::try_from(end).map_or(bytes.len(), |end| end.min(bytes.len()))
}

/// The mark of the frame that stands first in the segment `bytes`, if it is whole: for a log none of whose segments has a
/// readable header.
pub(super) fn first_mark(bytes: &[u8], ordinal: u64) -> Option<u64> {
    let first = bytes.get(usize::try_from(BLOCK_BYTES).ok()?..)?;
    let (side, header) = FrameHeader::decode(first)?;
    let live = side == Side::Front && header.ordinal == ordinal && header.position == BLOCK_BYTES;
    live.then_some(header.mark)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    place: Place,
}

impl Scanner<'_> {
    /// The first live frame at or after `end`, a multiple of 8.
    fn next(&self, end: u64) -> Option<(FrameHeader, Layout)> {
        self.front_at(end).or_else(|| self.search(end))
    }

    fn search(&self, from: u64) -> Option<(FrameHeader, Layout)> {
        let mark = self.place.mark.to_le_bytes();
        let ordinal = self.place.ordinal.to_le_bytes();
        let rest = self.bytes.get(usize::try_from(from).ok()?..)?;
        let mut position = from;
        for words in rest.windows(16).step_by(8) {
            if words.starts_with(&mark) && words.ends_with(&ordinal) {
                let found = self.front_at(position).or_else(|| self.back_at(position, from));
                if found.is_some() {
                    return found;
                }
            }
            position = position.checked_add(ALIGNMENT)?;
        }
        None
    }

    fn header_at(&self, position: u64) -> Option<(Side, FrameHeader, Layout)> {
        let (side, header) = FrameHeader::decode(self.bytes.get(usize::try_from(position).ok()?..)?)?;
        let layout = header.layout()?;
        let live = header.mark == self.place.mark && header.ordinal == self.place.ordinal;
        let within = layout.end <= self.bytes.len() as u64;
        (live && within).then_some((side, header, layout))
    }

    fn front_at(&self, position: u64) -> Option<(FrameHeader, Layout)> {
        let (side, header, layout) = self.header_at(position)?;
        (side == Side::Front && header.position == position).then_some((header, layout))
    }

    /// A frame whose front header is damaged; it may not begin before `from`, where the frame before it ends.
    fn back_at(&self, position: u64, from: u64) -> Option<(FrameHeader, Layout)> {
        let (side, header, layout) = self.header_at(position)?;
        (side == Side::Back && layout.back == position && header.position >= from).then_some((header, layout))
    }

    fn read(&self, header: &FrameHeader, layout: &Layout) -> Option<FoundFrame> {
        let front_header = self.front_at(header.position).is_some_and(|(front, _)| front == *header);
        let back_header =
            self.header_at(layout.back).is_some_and(|(side, back, _)| side == Side::Back && back == *header);
        let front = self.checked(&layout.front_head, header.head_checksum);
        let back = self.checked(&layout.back_head, header.head_checksum);
        let head_damaged = !front_header || !back_header || front.is_none() || back.is_none();
        let start = usize::try_from(header.position).ok()?;
        let end = usize::try_from(layout.end).ok()?;
        Some(FoundFrame {
            number: header.number,
            synced_before: header.synced_before,
            place: start..end,
            head: front.or(back),
            head_damaged,
            body: self.checked(&layout.body, header.body_checksum),
        })
    }

    fn checked(&self, range: &Range<u64>, checksum: u32) -> Option<Range<usize>> {
        let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
        let part = self.bytes.get(range.clone())?;
        (crc32fast::hash(part) == checksum).then_some(range)
    }
}

const _: () = assert!(HEADER_BYTES >= 16, "a search compares the first 16 bytes of a header");

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { mark: 77, ordinal: 4 };

    /// Appends a frame at the end of `segment`.
    fn put(segment: &mut Vec<u8>, number: u64, head: &[u8], body: &[u8]) -> Layout {
        let header = FrameHeader {
            mark: PLACE.mark,
            ordinal: PLACE.ordinal,
            number,
            synced_before: 0,
            position: segment.len() as u64,
            head_length: u32::try_from(head.len()).unwrap(),
            body_length: u32::try_from(body.len()).unwrap(),
            head_checksum: crc32fast::hash(head),
            body_checksum: crc32fast::hash(body),
        };
        let front = header.encode(Side::Front);
        let back = header.encode(Side::Back);
        for part in [front.as_slice(), head, body, back.as_slice(), head] {
            segment.extend_from_slice(part);
            segment.resize(segment.len().next_multiple_of(8), 0);
        }
        header.layout().unwrap()
    }

    fn three_frames() -> (Vec<u8>, Vec<Layout>) {
        let mut segment = vec![0; 4096];
        let mut layouts = vec![put(&mut segment, 1, b"one", &[1; 5000])];
        segment.resize(segment.len().next_multiple_of(4096), 0xee);
        layouts.push(put(&mut segment, 2, b"two", &[2; 100]));
        layouts.push(put(&mut segment, 3, b"three", b""));
        segment.resize(64 << 10, 0xdd);
        (segment, layouts)
    }

    fn found(segment: &[u8]) -> (Vec<(u64, bool, bool, bool)>, usize) {
        let mut found = Vec::new();
        let end = scan(segment, PLACE, |frame| {
            found.push((frame.number, frame.head.is_some(), frame.head_damaged, frame.body.is_some()));
        });
        (found, end)
    }

    fn at(position: u64) -> usize {
        usize::try_from(position).unwrap()
    }

    #[test]
    fn whole_frames_are_found_and_the_tail_is_not() {
        let (segment, layouts) = three_frames();
        let whole = vec![(1, true, false, true), (2, true, false, true), (3, true, false, true)];
        assert_eq!(found(&segment), (whole, at(layouts[2].end)));
        assert_eq!(found(&segment[..4096]), (vec![], 4096));
        assert_eq!(found(&[]), (vec![], 0));
    }

    #[test]
    fn each_damage_is_classified_and_what_follows_is_found() {
        let (segment, layouts) = three_frames();
        let second = &layouts[1];
        let front = second.front_head.start - 64;
        let cases: [(&[u64], _); 7] = [
            (&[front], Some((true, true, true))),
            (&[second.front_head.start], Some((true, true, true))),
            (&[second.back], Some((true, true, true))),
            (&[second.back_head.start], Some((true, true, true))),
            (&[second.body.start], Some((true, false, false))),
            (&[second.front_head.start, second.back_head.start], Some((false, true, true))),
            (&[front, second.back], None),
        ];
        for (harm, expected) in cases {
            let mut harmed = segment.clone();
            for position in harm {
                harmed[at(*position)] ^= 4;
            }
            let mut wanted = vec![(1, true, false, true)];
            wanted.extend(expected.map(|(head, damaged, body)| (2, head, damaged, body)));
            wanted.push((3, true, false, true));
            assert_eq!(found(&harmed), (wanted, at(layouts[2].end)), "{harm:?}");
        }
    }

    #[test]
    fn a_frame_with_only_a_back_header_is_found_before_the_next_group() {
        let mut segment = vec![0; 4096];
        put(&mut segment, 1, b"one", b"");
        let start = segment.len();
        put(&mut segment, 2, b"two", b"");
        segment.resize(8192, 0);
        put(&mut segment, 3, b"three", b"");
        segment[start] ^= 1;
        assert_eq!(found(&segment).0, [(1, true, false, true), (2, true, true, true), (3, true, false, true)]);
    }

    #[test]
    fn the_last_frame_is_found_by_its_back_header_alone() {
        let (mut segment, layouts) = three_frames();
        let start = at(layouts[1].end);
        segment[start..at(layouts[2].back)].fill(0);
        let (frames, end) = found(&segment);
        assert_eq!(frames[2], (3, true, true, true));
        assert_eq!(end, at(layouts[2].end));
    }

    #[test]
    fn frames_of_another_ordinal_mark_or_position_are_not_live() {
        let (segment, layouts) = three_frames();
        let count = |place| {
            let mut count = 0;
            scan(&segment, place, |_| count += 1);
            count
        };
        assert_eq!(count(PLACE), 3);
        assert_eq!(count(Place { ordinal: 5, ..PLACE }), 0);
        assert_eq!(count(Place { mark: 78, ..PLACE }), 0);
        let mut moved = vec![0; 8192];
        moved.extend_from_slice(&segment[at(layouts[0].front_head.start) - 64..]);
        assert_eq!(found(&moved).0, []);
    }

    #[test]
    fn a_frame_inside_a_body_is_never_taken_for_a_record() {
        let mut forged = vec![0; 4096];
        put(&mut forged, 9, b"forged", b"");
        let mut segment = vec![0; 4096];
        // The forger knows everything but the mark; an old frame of this log in a batch knows no other position.
        let body = forged[4096..].to_vec();
        let layout = put(&mut segment, 1, b"one", &body);
        put(&mut segment, 2, b"two", b"");
        segment[4096] ^= 1;
        segment[at(layout.back)] ^= 1;
        assert_eq!(found(&segment).0, [(2, true, false, true)]);
    }
}
