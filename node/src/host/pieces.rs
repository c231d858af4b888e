//! Parts of a state that a standby puts together of the pieces in which they come: one piece fits a frame to a client.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use quorate_protocol::codec::ENCODED_BYTES_MAX;
use quorate_protocol::message::{ClientMessage, Piece, Want};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};

/// Parts that a member may be asked for at once: as many as the core asks one for. They come one after the other, since a member
/// answers one question of a client at a time.
const ASKED_MAX: usize = 4;

/// What is being put together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The parts that each member was asked for, the first of which comes. Bound: [`ASKED_MAX`] a member, one of them of at most
    /// [`ENCODED_BYTES_MAX`] bytes.
    asked: BTreeMap<ReplicaId, VecDeque<Asked>>,
    last: RequestNumber,
}

#[derive(Debug)]
struct Asked {
    number: RequestNumber,
    sequence: Sequence,
    want: Want,
    whole: BytesMut,
}

/// What a piece leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The part is whole: its encoding; and what to ask the same member for next.
    Whole(Bytes, Option<ClientMessage>),
    /// What to ask the same member for next.
    More(ClientMessage),
    /// Nothing: it was not asked for, or is none.
    Nothing,
}

impl Pieces {
    /// Asks a member for a part. Gives what to send it now; nothing if another part comes first. Who is asked for a part of
    /// another checkpoint, or for more than it may be, is not waited for with what it was asked before.
    pub(super) fn ask(&mut self, to: ReplicaId, sequence: Sequence, want: Want) -> Option<ClientMessage> {
        let number = self.next();
        let asked = self.asked.entry(to).or_default();
        if asked.len() >= ASKED_MAX || asked.front().is_some_and(|first| first.sequence != sequence) {
            asked.clear();
        }
        asked.push_back(Asked { number, sequence, want, whole: BytesMut::new() });
        (asked.len() == 1).then(|| asked[0].question())
    }

    /// A piece came, or the word that there is none.
    pub(super) fn take(&mut self, from: ReplicaId, number: RequestNumber, piece: Option<Piece>) -> Taken {
        let next = self.next();
        let Some(asked) = self.asked.get_mut(&from) else { return Taken::Nothing };
        let Some(first) = asked.front_mut().filter(|first| first.number == number) else { return Taken::Nothing };
        let piece = piece.filter(|Piece { length, bytes }| {
            let (length, held) = (usize::try_from(*length).unwrap_or(usize::MAX), first.whole.len() + bytes.len());
            // One without bytes would be asked for for ever.
            length <= ENCODED_BYTES_MAX && held <= length && !bytes.is_empty()
        });
        let Some(Piece { length, bytes }) = piece else {
            asked.pop_front();
            return asked.front().map_or(Taken::Nothing, |next| Taken::More(next.question()));
        };
        first.whole.extend_from_slice(&bytes);
        if first.whole.len() < usize::try_from(length).unwrap_or(usize::MAX) {
            first.number = next;
            return Taken::More(first.question());
        }
        let whole = asked.pop_front().map_or(Bytes::new(), |asked| asked.whole.freeze());
        Taken::Whole(whole, asked.front().map(Asked::question))
    }

    fn next(&mut self) -> RequestNumber {
        self.last = self.last.saturating_add(1);
        self.last
    }
}

impl Asked {
    fn question(&self) -> ClientMessage {
        let offset = u32::try_from(self.whole.len()).unwrap_or(u32::MAX);
        ClientMessage::Part { number: self.number, sequence: self.sequence, want: self.want.clone(), offset }
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::codec::Blob;

    use super::*;

    const FROM: ReplicaId = ReplicaId::new(2);

    fn ask(pieces: &mut Pieces) -> RequestNumber {
        number(&pieces.ask(FROM, Sequence::new(128), Want::Crown).expect("it is the first"))
    }

    fn number(question: &ClientMessage) -> RequestNumber {
        let ClientMessage::Part { number, .. } = question else { panic!("{question:?}") };
        *number
    }

    fn piece(length: u32, bytes: &[u8]) -> Piece {
        Piece { length, bytes: Blob::from(bytes) }
    }

    fn whole(bytes: &'static [u8]) -> Taken {
        Taken::Whole(Bytes::from_static(bytes), None)
    }

    #[test]
    fn pieces_are_asked_for_one_after_the_other_until_the_part_is_whole() {
        let mut pieces = Pieces::default();
        let first = ask(&mut pieces);
        let Taken::More(more) = pieces.take(FROM, first, Some(piece(5, b"abc"))) else { panic!("it is not whole") };
        let (sequence, want) = (Sequence::new(128), Want::Crown);
        assert_eq!(more, ClientMessage::Part { number: number(&more), sequence, want, offset: 3 });
        assert_eq!(pieces.take(FROM, first, Some(piece(5, b"de"))), Taken::Nothing, "that one is here");
        assert_eq!(pieces.take(FROM, number(&more), Some(piece(5, b"de"))), whole(b"abcde"));
        assert_eq!(pieces.take(FROM, number(&more), Some(piece(5, b"de"))), Taken::Nothing);
    }

    #[test]
    fn what_was_not_asked_for_or_cannot_be_a_piece_counts_for_nothing() {
        let largest = u32::try_from(ENCODED_BYTES_MAX).unwrap();
        for wrong in [Some(piece(2, b"abc")), Some(piece(largest + 1, b"abc")), Some(piece(5, b"")), None] {
            let mut pieces = Pieces::default();
            let asked = ask(&mut pieces);
            let of_another = pieces.take(ReplicaId::new(1), asked, Some(piece(3, b"abc")));
            assert_eq!(of_another, Taken::Nothing, "of somebody else");
            assert_eq!(pieces.take(FROM, asked, wrong), Taken::Nothing);
            let next = ask(&mut pieces);
            assert_eq!(pieces.take(FROM, asked, Some(piece(3, b"abc"))), Taken::Nothing);
            assert_eq!(pieces.take(FROM, next, Some(piece(3, b"abc"))), whole(b"abc"));
        }
    }

    #[test]
    fn parts_of_one_member_come_one_after_the_other() {
        let mut pieces = Pieces::default();
        let first = ask(&mut pieces);
        let sequence = Sequence::new(128);
        assert_eq!(pieces.ask(FROM, sequence, Want::Leaves { group: 1 }), None, "the first part comes");
        assert_eq!(pieces.ask(FROM, sequence, Want::Leaves { group: 2 }), None);
        let Taken::Whole(_, Some(second)) = pieces.take(FROM, first, Some(piece(1, b"a"))) else { panic!("whole") };
        assert!(
            matches!(&second, ClientMessage::Part { want: Want::Leaves { group: 1 }, offset: 0, .. }),
            "{second:?}"
        );
        let Taken::More(third) = pieces.take(FROM, number(&second), None) else { panic!("it has no such part") };
        assert!(matches!(&third, ClientMessage::Part { want: Want::Leaves { group: 2 }, .. }), "{third:?}");
        assert_eq!(pieces.take(FROM, number(&third), Some(piece(1, b"c"))), whole(b"c"));
    }

    #[test]
    fn who_is_asked_for_another_checkpoint_or_for_too_much_is_not_waited_for_with_the_rest() {
        let mut pieces = Pieces::default();
        let stale = ask(&mut pieces);
        let later = pieces.ask(FROM, Sequence::new(256), Want::Crown).expect("the other one is of no use");
        assert_eq!(pieces.take(FROM, stale, Some(piece(1, b"a"))), Taken::Nothing);
        for group in 1..4 {
            assert_eq!(pieces.ask(FROM, Sequence::new(256), Want::Leaves { group }), None);
        }
        assert!(
            pieces.ask(FROM, Sequence::new(256), Want::Leaves { group: 4 }).is_some(),
            "nobody waits for the first"
        );
        assert_eq!(pieces.take(FROM, number(&later), Some(piece(1, b"a"))), Taken::Nothing);
    }
}
