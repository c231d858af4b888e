//! What may be made of a state that is read from one end to the other: its entries are in order and bounded.
//!
//! A source that lies might go on for ever, with keys that it sent already or with ever new ones.

use quorate_protocol::codec::Blob;
use quorate_protocol::message::Entry;
use quorate_protocol::state::place_of;

/// What an entry takes in memory besides its bytes.
const ENTRY_BYTES: u64 = 64;

const _: () = assert!(size_of::<Entry>() as u64 <= ENTRY_BYTES, "an entry costs no more than it is charged for");

/// Why what was sent is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// An entry does not come after the one before.
    #[error("its keys are not in order")]
    Order,
    /// It takes more than it may.
    #[error("it takes more than {bytes_max} bytes")]
    Bytes { bytes_max: u64 },
}

/// How far the state has come.
#[derive(Debug)]
pub(super) struct Order {
    bytes_max: u64,
    bytes: u64,
    /// The last key of each map, the application's with its place.
    protocol: Option<Blob>,
    application: Option<([u8; 4], Blob)>,
}

impl Order {
    /// Nothing has come yet. A state may take `bytes_max` bytes, [`ENTRY_BYTES`] counted for each entry.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, protocol: None, application: None }
    }

    /// Takes the next entries into account: the protocol's by ascending key, the application's in the order of
    /// [`place_of`].
    ///
    /// # Errors
    /// [`Refused`]: the state is none.
    pub(super) fn admit(&mut self, protocol: &[Entry], application: &[Entry]) -> Result<(), Refused> {
        for entry in protocol {
            if self.protocol.as_ref().is_some_and(|last| *last >= entry.key) {
                return Err(Refused::Order);
            }
            self.protocol = Some(entry.key.clone());
            self.spend(entry)?;
        }
        for entry in application {
            let place = (place_of(&entry.key), entry.key.clone());
            if self.application.as_ref().is_some_and(|last| *last >= place) {
                return Err(Refused::Order);
            }
            self.application = Some(place);
            self.spend(entry)?;
        }
        Ok(())
    }

    fn spend(&mut self, entry: &Entry) -> Result<(), Refused> {
        self.bytes += (entry.key.len() + entry.value.len()) as u64 + ENTRY_BYTES;
        if self.bytes > self.bytes_max { Err(Refused::Bytes { bytes_max: self.bytes_max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value_bytes: usize) -> Entry {
        Entry { key: key.as_bytes().into(), value: vec![7; value_bytes].into() }
    }

    fn entries(keys: &[&str]) -> Vec<Entry> {
        keys.iter().map(|key| entry(key, 1)).collect()
    }

    /// The keys in the order in which they are handed out.
    fn placed(keys: &[&str]) -> Vec<Entry> {
        let mut entries = entries(keys);
        entries.sort_by_key(|entry| (place_of(&entry.key), entry.key.clone()));
        entries
    }

    #[test]
    fn entries_are_in_order_over_all_parts_of_each_map() {
        let all = placed(&["a", "b", "c", "d"]);
        let mut order = Order::new(1 << 20);
        assert_eq!(order.admit(&entries(&["s", "t"]), &[]), Ok(()));
        assert_eq!(order.admit(&[], &all[..2]), Ok(()), "each map has an order of its own");
        for wrong in [[&all[1], &all[2]], [&all[0], &all[3]], [&all[3], &all[2]]] {
            let mut order = Order::new(1 << 20);
            assert_eq!(order.admit(&[], &all[..2]), Ok(()));
            assert_eq!(order.admit(&[], &wrong.map(Entry::clone)), Err(Refused::Order), "{wrong:?}");
        }
        assert_eq!(order.admit(&entries(&["t"]), &[]), Err(Refused::Order));
    }

    #[test]
    fn a_state_takes_no_more_than_it_may() {
        let mut order = Order::new(2 * (ENTRY_BYTES + 101));
        assert_eq!(order.admit(&[entry("a", 100)], &[]), Ok(()));
        assert_eq!(order.admit(&[], &[entry("b", 100)]), Ok(()));
        let refused = Refused::Bytes { bytes_max: 2 * (ENTRY_BYTES + 101) };
        assert_eq!(order.admit(&[entry("c", 0)], &[]), Err(refused));
    }
}
