//! Parts of a state that a standby puts together of the pieces in which they come: one piece fits a frame to a client.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use quorate_protocol::codec::{Blob, ENCODED_BYTES_MAX};
use quorate_protocol::message::{ClientMessage, Piece};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};

/// What is being put together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The part that each member was asked for last. Bound: one a member, of [`ENCODED_BYTES_MAX`] bytes.
    asked: BTreeMap<ReplicaId, Asked>,
    last: RequestNumber,
}

#[derive(Debug)]
struct Asked {
    number: RequestNumber,
    sequence: Sequence,
    cursor: Blob,
    whole: BytesMut,
}

/// What a piece leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The part is whole: its encoding.
    Whole(Bytes),
    /// What to ask the same member for next.
    More(ClientMessage),
    /// Nothing: it was not asked for, or is none.
    Nothing,
}

impl Pieces {
    /// Asks a member for a part; what it was asked for before counts no more. Gives what to send it.
    pub(super) fn ask(&mut self, to: ReplicaId, sequence: Sequence, cursor: Blob) -> ClientMessage {
        let asked = Asked { number: self.next(), sequence, cursor, whole: BytesMut::new() };
        let question = asked.question();
        self.asked.insert(to, asked);
        question
    }

    /// A piece came, or the word that there is none.
    pub(super) fn take(&mut self, from: ReplicaId, number: RequestNumber, piece: Option<Piece>) -> Taken {
        let Some(mut asked) = self.asked.remove(&from) else { return Taken::Nothing };
        if asked.number != number {
            self.asked.insert(from, asked);
            return Taken::Nothing;
        }
        let Some(Piece { length, bytes }) = piece else { return Taken::Nothing };
        let (length, held) = (usize::try_from(length).unwrap_or(usize::MAX), asked.whole.len() + bytes.len());
        // One without bytes would be asked for for ever.
        if length > ENCODED_BYTES_MAX || held > length || bytes.is_empty() {
            return Taken::Nothing;
        }
        asked.whole.extend_from_slice(&bytes);
        if held == length {
            return Taken::Whole(asked.whole.freeze());
        }
        asked.number = self.next();
        let question = asked.question();
        self.asked.insert(from, asked);
        Taken::More(question)
    }

    fn next(&mut self) -> RequestNumber {
        self.last = self.last.saturating_add(1);
        self.last
    }
}

impl Asked {
    fn question(&self) -> ClientMessage {
        let offset = u32::try_from(self.whole.len()).unwrap_or(u32::MAX);
        ClientMessage::Part { number: self.number, sequence: self.sequence, cursor: self.cursor.clone(), offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: ReplicaId = ReplicaId::new(2);

    fn ask(pieces: &mut Pieces) -> RequestNumber {
        number(&pieces.ask(FROM, Sequence::new(128), Blob::from(&b"cursor"[..])))
    }

    fn number(question: &ClientMessage) -> RequestNumber {
        let ClientMessage::Part { number, .. } = question else { panic!("{question:?}") };
        *number
    }

    fn piece(length: u32, bytes: &[u8]) -> Piece {
        Piece { length, bytes: Blob::from(bytes) }
    }

    #[test]
    fn pieces_are_asked_for_one_after_the_other_until_the_part_is_whole() {
        let mut pieces = Pieces::default();
        let first = ask(&mut pieces);
        let Taken::More(more) = pieces.take(FROM, first, Some(piece(5, b"abc"))) else { panic!("it is not whole") };
        let (sequence, cursor) = (Sequence::new(128), Blob::from(&b"cursor"[..]));
        assert_eq!(more, ClientMessage::Part { number: number(&more), sequence, cursor, offset: 3 });
        assert_eq!(pieces.take(FROM, first, Some(piece(5, b"de"))), Taken::Nothing, "that one is here");
        assert_eq!(pieces.take(FROM, number(&more), Some(piece(5, b"de"))), Taken::Whole(Bytes::from_static(b"abcde")));
        assert_eq!(pieces.take(FROM, number(&more), Some(piece(5, b"de"))), Taken::Nothing);
    }

    #[test]
    fn what_was_not_asked_for_or_cannot_be_a_piece_counts_for_nothing() {
        let largest = u32::try_from(ENCODED_BYTES_MAX).unwrap();
        for wrong in [Some(piece(2, b"abc")), Some(piece(largest + 1, b"abc")), Some(piece(5, b"")), None] {
            let mut pieces = Pieces::default();
            let asked = ask(&mut pieces);
            assert_eq!(
                pieces.take(ReplicaId::new(1), asked, Some(piece(3, b"abc"))),
                Taken::Nothing,
                "of somebody else"
            );
            assert_eq!(pieces.take(FROM, asked, wrong), Taken::Nothing);
        }
        let mut pieces = Pieces::default();
        let (old, new) = (ask(&mut pieces), ask(&mut pieces));
        assert_eq!(pieces.take(FROM, old, Some(piece(3, b"abc"))), Taken::Nothing);
        assert_eq!(pieces.take(FROM, new, Some(piece(3, b"abc"))), Taken::Whole(Bytes::from_static(b"abc")));
    }
}
