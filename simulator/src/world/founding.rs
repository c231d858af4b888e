//! Clusters that begin with a state, such as that of a backup: the genesis names its root and a time. (PROTOCOL §11)

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::configuration::{Configuration, InitialState};
use quorate_protocol::number::Sequence;
use quorate_protocol::replica::founding_entries;
use quorate_protocol::time::Time;

use crate::clock::wall_at;
use crate::disk::State;
use crate::host::{ApplicationMaker, leaves_of};

/// A configuration that names a state of so many entries, and that state; neither, where there are none.
pub(super) fn found(
    configuration: Configuration,
    count: u32,
    make_application: ApplicationMaker,
) -> (Configuration, Option<Arc<State>>) {
    if count == 0 {
        return (configuration, None);
    }
    // No client of a campaign asks for these keys.
    let entry = |number: u32| (Bytes::from(format!("founded/{number}")), Bytes::from(format!("with {number}")));
    let entries: BTreeMap<Bytes, Bytes> = (0..count).map(entry).collect();
    let mut application = make_application();
    let root = application.restore(&mut State::entries(&entries)).expect("an application takes any entries of its own");
    let time = wall_at(Time::ZERO);
    let configuration = configuration.with_initial_state(Some(InitialState { application: root, time }));
    let protocol = founding_entries(&configuration, time).into_iter();
    let state = State {
        sequence: Sequence::ZERO,
        application_root: root,
        leaves: leaves_of(&application),
        application: entries,
        protocol: protocol.map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect(),
    };
    (configuration, Some(Arc::new(state)))
}
