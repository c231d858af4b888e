//! What may be made of a state that comes in parts, from a peer or for a backup: they are in order and bounded.
//!
//! The core asks one source for part after part until it says that there is no more. A source that lies might go on for
//! ever: with keys that it sent already, or with ever new ones. Its part that does so is the last that is staged, its next
//! one is cut, and the core, told that this is no state, turns to another source. (PROTOCOL §9)

use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Entry, Part};

/// What an entry takes in memory besides its bytes.
const ENTRY_BYTES: u64 = 64;

const _: () = assert!(size_of::<Entry>() as u64 <= ENTRY_BYTES, "an entry costs no more than it is charged for");

/// Where a part begins: one of the two maps, and the last key of it that was sent.
pub(crate) mod cursor {
    use super::{Blob, Entry};

    /// The protocol's own entries, which come first.
    pub(crate) const PROTOCOL: u8 = b'p';

    /// The application's entries.
    pub(crate) const APPLICATION: u8 = b'a';

    /// The place after the last of `entries`; `None` if there are none.
    pub(crate) fn after(map: u8, entries: &[Entry]) -> Option<Blob> {
        let key = &entries.last()?.key;
        let mut cursor = Vec::with_capacity(key.len() + 1);
        cursor.push(map);
        cursor.extend_from_slice(key);
        Some(cursor.into())
    }
}

/// Why what was sent is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A key is not greater than the one before.
    #[error("its keys do not ascend")]
    Order,
    /// It takes more than this machine gives it.
    #[error("it takes more than {bytes_max} bytes, the limit `state_bytes_max`")]
    Bytes { bytes_max: u64 },
}

/// How far the state that is being transferred has come.
#[derive(Debug)]
pub(crate) struct Staging {
    bytes_max: u64,
    bytes: u64,
    /// The last key of each map.
    protocol: Option<Blob>,
    application: Option<Blob>,
    is_refused: bool,
}

impl Staging {
    /// Nothing is transferred yet. A state may take `bytes_max` bytes, [`ENTRY_BYTES`] counted for each entry.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, protocol: None, application: None, is_refused: false }
    }

    /// Another state is transferred from now on.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.bytes_max);
    }

    /// Whether the state is refused already: nothing more of it is staged.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Takes the entries of the next part into account.
    ///
    /// # Errors
    /// [`Refused`]: the state is none, and these entries are not to be staged.
    pub(crate) fn admit(&mut self, protocol: &[Entry], application: &[Entry]) -> Result<(), Refused> {
        let outcome = self.refuse_entries(protocol, application);
        self.is_refused |= outcome.is_err();
        outcome
    }

    fn refuse_entries(&mut self, protocol: &[Entry], application: &[Entry]) -> Result<(), Refused> {
        for (last, entries) in [(&mut self.protocol, protocol), (&mut self.application, application)] {
            for entry in entries {
                if last.as_ref().is_some_and(|last| *last >= entry.key) {
                    return Err(Refused::Order);
                }
                self.bytes += (entry.key.len() + entry.value.len()) as u64 + ENTRY_BYTES;
                if self.bytes > self.bytes_max {
                    return Err(Refused::Bytes { bytes_max: self.bytes_max });
                }
                *last = Some(entry.key.clone());
            }
        }
        Ok(())
    }

    /// Cuts a part that belongs to a refused state, leads elsewhere than to where its entries end, or holds keys that are
    /// longer than any: what follows those could not be asked for. It then brings nothing and is the last, so that the core
    /// finds that its source lied.
    pub(super) fn cut(&self, part: &mut Part) {
        if self.is_refused || is_astray(part) {
            (part.protocol, part.application, part.next) = (List::empty(), List::empty(), None);
        }
    }
}

/// Whether a part leads elsewhere than to where its entries end, or holds keys that are longer than any.
pub(crate) fn is_astray(part: &Part) -> bool {
    let end = cursor::after(cursor::APPLICATION, &part.application)
        .or_else(|| cursor::after(cursor::PROTOCOL, &part.protocol));
    (part.next.is_some() && part.next != end) || !part.is_within_bounds()
}

#[cfg(test)]
mod tests {
    use quorate_protocol::message::ENTRY_KEY_BYTES_MAX;
    use quorate_protocol::number::Sequence;

    use super::*;

    fn entry(key: &str, value_bytes: usize) -> Entry {
        Entry { key: key.as_bytes().into(), value: vec![7; value_bytes].into() }
    }

    fn entries(keys: &[&str]) -> Vec<Entry> {
        keys.iter().map(|key| entry(key, 1)).collect()
    }

    fn part(protocol: &[&str], application: &[&str], next: Option<&str>) -> Part {
        Part {
            sequence: Sequence::new(128),
            cursor: Blob::EMPTY,
            protocol: List::new(entries(protocol)).unwrap(),
            application: List::new(entries(application)).unwrap(),
            next: next.map(|next| next.as_bytes().into()),
        }
    }

    fn cut(staging: &Staging, mut part: Part) -> Part {
        staging.cut(&mut part);
        part
    }

    #[test]
    fn keys_ascend_over_all_parts_of_each_map() {
        let mut staging = Staging::new(1 << 20);
        assert_eq!(staging.admit(&entries(&["s", "t"]), &[]), Ok(()));
        assert_eq!(staging.admit(&[], &entries(&["a", "b"])), Ok(()), "each map has an order of its own");
        for wrong in [["c", "c"], ["b", "c"], ["a", "z"]] {
            let mut staging = Staging::new(1 << 20);
            assert_eq!(staging.admit(&[], &entries(&["a", "b"])), Ok(()));
            assert_eq!(staging.admit(&[], &entries(&wrong)), Err(Refused::Order), "{wrong:?}");
            assert!(staging.is_refused());
        }
        assert_eq!(staging.admit(&entries(&["t"]), &[]), Err(Refused::Order));
    }

    #[test]
    fn a_state_takes_no_more_than_it_may() {
        let mut staging = Staging::new(2 * (ENTRY_BYTES + 101));
        assert_eq!(staging.admit(&[entry("a", 100)], &[]), Ok(()));
        assert_eq!(staging.admit(&[], &[entry("b", 100)]), Ok(()));
        let refused = Refused::Bytes { bytes_max: 2 * (ENTRY_BYTES + 101) };
        assert_eq!(staging.admit(&[], &[entry("c", 0)]), Err(refused));
        assert!(staging.is_refused());
        staging.begin();
        assert!(!staging.is_refused());
        assert_eq!(staging.admit(&[], &[entry("a", 100)]), Ok(()), "another state begins with nothing");
    }

    #[test]
    fn the_part_after_a_refused_one_ends_the_transfer() {
        let mut staging = Staging::new(1 << 20);
        let next = part(&[], &["a", "b"], Some("ab"));
        assert_eq!(cut(&staging, next.clone()), next);
        assert_eq!(staging.admit(&[], &entries(&["b", "a"])), Err(Refused::Order));
        assert_eq!(cut(&staging, next.clone()), part(&[], &[], None));
        staging.begin();
        assert_eq!(cut(&staging, next.clone()), next);
    }

    #[test]
    fn a_part_with_a_key_that_is_too_long_to_go_on_after_is_the_last() {
        let staging = Staging::new(1 << 20);
        let key = |bytes| "k".repeat(bytes);
        let ending_with = |key: &str| part(&[], &[key], Some(&format!("a{key}")));
        let longest = ending_with(&key(ENTRY_KEY_BYTES_MAX));
        assert_eq!(cut(&staging, longest.clone()), longest);
        assert_eq!(cut(&staging, ending_with(&key(ENTRY_KEY_BYTES_MAX + 1))), part(&[], &[], None));
    }

    #[test]
    fn a_part_that_leads_elsewhere_than_to_its_end_is_the_last() {
        let staging = Staging::new(1 << 20);
        for well in [part(&["s"], &[], Some("ps")), part(&[], &["a"], Some("aa")), part(&[], &["a"], None)] {
            assert_eq!(cut(&staging, well.clone()), well);
        }
        for next in ["", "x", "pa", "a", "ab"] {
            assert_eq!(cut(&staging, part(&[], &["a"], Some(next))), part(&[], &[], None), "{next}");
        }
        assert_eq!(cut(&staging, part(&[], &[], Some("ab"))), part(&[], &[], None));
    }
}
