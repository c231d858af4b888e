//! The protocol's own part of a state: sessions, the time of the last slot, and who votes in which epoch; as entries, and
//! read back from them. Pure, so that a state can be checked where no replica is. (PROTOCOL §5)

use alloc::vec::Vec;

use bytes::Bytes;
use quorate_crypto::Digest;

use super::checkpoint::protocol_digest;
use crate::codec::{decode, encode};
use crate::configuration::{Configuration, InitialState};
use crate::membership::Membership;
use crate::message::{Entry, StateRoot};
use crate::number::Epoch;
use crate::sessions::{Bounds, Sessions};
use crate::time::WallTime;

/// The key under which the time of the last slot stands among the protocol's own entries; clients' keys are longer.
const CLOCK_KEY: &[u8] = b"t";

/// The key under which the epoch stands, with who votes in it.
const MEMBERSHIP_KEY: &[u8] = b"e";

/// The protocol's own part of a state.
#[derive(Debug, Clone, Hash)]
pub(super) struct ProtocolState {
    pub(super) sessions: Sessions,
    pub(super) time: WallTime,
    pub(super) membership: Membership,
    pub(super) root: StateRoot,
}

impl ProtocolState {
    /// What `entries`, in ascending order of their keys, hold beside an application with this root; `None` if they are no
    /// state of this configuration.
    pub(super) fn restore(configuration: &Configuration, application: Digest, entries: &[Entry]) -> Option<Self> {
        let is_own = |entry: &Entry| entry.key[..] == *CLOCK_KEY || entry.key[..] == *MEMBERSHIP_KEY;
        let (own, table): (Vec<Entry>, Vec<Entry>) = entries.iter().cloned().partition(is_own);
        let [membership, clock] = &own[..] else { return None };
        if (&membership.key[..], &clock.key[..]) != (MEMBERSHIP_KEY, CLOCK_KEY) {
            return None;
        }
        let time: WallTime = decode(clock.value.bytes()).ok()?;
        let membership: Membership = decode(membership.value.bytes()).ok()?;
        if !membership.fits(configuration) {
            return None;
        }
        let sessions = Sessions::restore(Bounds::of(configuration.parameters()), &table)?;
        let protocol = protocol_digest(configuration, sessions.root(), time, &membership);
        Some(Self { sessions, time, membership, root: StateRoot { application, protocol } })
    }
}

/// The root of the state at slot 0 that the genesis names, if it names one. (PROTOCOL §11)
pub(super) fn initial_root(configuration: &Configuration) -> Option<StateRoot> {
    let InitialState { application, time } = *configuration.initial_state()?;
    let sessions = Sessions::new(Bounds::of(configuration.parameters())).root();
    let protocol = protocol_digest(configuration, sessions, time, &Membership::first(configuration.size()));
    Some(StateRoot { application, protocol })
}

/// The entries beside those of sessions.
pub(super) fn own_entries(time: WallTime, membership: &Membership) -> [(Bytes, Bytes); 2] {
    let time = encode(&time).expect("a fixed-width number");
    [(Bytes::from_static(MEMBERSHIP_KEY), membership.encode()), (Bytes::from_static(CLOCK_KEY), time)]
}

/// The protocol's own entries of a state in which nothing was ordered yet: no sessions, the first epoch, and a time from
/// which its operations go on. In ascending order of their keys.
pub fn founding_entries(configuration: &Configuration, time: WallTime) -> Vec<Entry> {
    let own = own_entries(time, &Membership::first(configuration.size()));
    own.map(|(key, value)| Entry { key: key.into(), value: value.into() }).into()
}

/// What the protocol keeps of its own in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolSummary {
    /// The digest of all of it: the protocol's part of the state's root.
    pub digest: Digest,
    /// The epoch of the state.
    pub epoch: Epoch,
    /// The time that the operations of the last slot saw.
    pub time: WallTime,
    /// Sessions in the table.
    pub sessions: usize,
}

impl ProtocolSummary {
    /// That of the protocol's own entries of a state, in ascending order of their keys; `None` if they are no state of this
    /// configuration. Only if its digest is the certified one are they what correct replicas have.
    pub fn of(configuration: &Configuration, entries: &[Entry]) -> Option<Self> {
        let ProtocolState { sessions, time, membership, root } =
            ProtocolState::restore(configuration, Digest::ZERO, entries)?;
        Some(Self { digest: root.protocol, epoch: membership.epoch(), time, sessions: sessions.len() })
    }
}
