//! §11, a cluster that begins with a state: its genesis vouches for slot 0.

use std::sync::Arc;

use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::InitialState;
use quorate_protocol::input::StagedState;
use quorate_protocol::message::{Fetch, Message, Part, Status};
use quorate_protocol::number::{RecordNumber, Sequence};
use quorate_protocol::replica::{DurableCheckpoint, Replica, Start, StartError, founding_entries};
use quorate_protocol::time::WallTime;
use quorate_protocol::{Input, Output};

use crate::support::subject::{Subject, application_root, executed, idle_status, now, said};
use crate::support::{Group, START_MS, TOKEN, replica, slot};

/// Later than any clock of these tests.
const TIME: WallTime = WallTime::from_nanoseconds(1 << 60);

/// Four whose genesis names a state.
fn founded() -> Group {
    let initial = InitialState { application: application_root(Sequence::ZERO), time: TIME };
    Group(Arc::new((*Group::of_four().0).clone().with_initial_state(Some(initial))))
}

/// That state, as a host has it.
fn initial(group: &Group) -> DurableCheckpoint {
    let protocol = founding_entries(&group.0, TIME);
    DurableCheckpoint { sequence: Sequence::ZERO, application_root: application_root(Sequence::ZERO), protocol }
}

fn start(group: &Group, checkpoint: Option<DurableCheckpoint>) -> Result<Replica, StartError> {
    let start = Start {
        id: replica(1),
        configuration: Arc::clone(&group.0),
        signer: Arc::new(group.signer(1)),
        checkpoint,
        records: Vec::new(),
        first_record: RecordNumber::new(1),
        is_damaged: false,
        token: TOKEN,
    };
    Replica::start(start, now(START_MS))
}

/// The status of a peer that has executed slot 1 upon that state.
fn ahead() -> Message {
    Message::Status(Status { executed: slot(1), ..idle_status(0) })
}

/// "a replica whose state at slot 0 is another one does not start" (§11)
#[test]
fn only_the_state_that_the_genesis_names_is_one_of_slot_0() {
    let group = founded();
    assert!(start(&group, Some(initial(&group))).is_ok());
    let other_application = DurableCheckpoint { application_root: application_root(slot(1)), ..initial(&group) };
    let other_time = DurableCheckpoint { protocol: founding_entries(&group.0, WallTime::ZERO), ..initial(&group) };
    for other in [other_application, other_time] {
        assert_eq!(start(&group, Some(other)).err(), Some(StartError::InitialState));
    }
    let none_named = Group::of_four();
    assert_eq!(start(&none_named, Some(initial(&none_named))).err(), Some(StartError::InitialState));
}

/// "time goes on from that of the state" (§11)
#[test]
fn operations_see_no_time_before_that_of_the_state() {
    let group = founded();
    let mut backup = Subject::start(&group, 1, START_MS, Some(initial(&group)), vec![]);
    backup.outputs();
    let outputs = backup.decide(0, 1, &group.batch(1));
    let times = outputs.iter().filter_map(|output| match output {
        Output::Execute(execution) => Some(execution.time),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [TIME]);
}

/// "one that has lost it executes nothing before it has fetched it from the others" (§11)
#[test]
fn a_replica_without_the_state_of_slot_0_fetches_it_and_then_executes() {
    let group = founded();
    let mut backup = Subject::start(&group, 1, START_MS, None, vec![]);
    backup.outputs();
    assert_eq!(executed(&backup.decide(0, 1, &group.batch(1))), [], "upon nothing it would be another state");
    let mut outputs = backup.hear(2, ahead());
    outputs.extend(backup.pass_with_primary_alive(500));
    let (sequence, cursor) = (Sequence::ZERO, Blob::EMPTY);
    let fetch = Message::Fetch(Fetch::Part { sequence, cursor: cursor.clone() });
    assert!(said(&outputs).contains(&fetch), "{outputs:?}");
    let to = outputs.iter().rev().find_map(|output| match output {
        Output::Send { to, message } if *message == fetch => Some(to.value()),
        _ => None,
    });
    let protocol = List::new(founding_entries(&group.0, TIME)).expect("two");
    let part = Part { sequence, cursor, protocol, application: List::empty(), next: None };
    backup.hear(to.expect("it was sent"), Message::Part(part));
    let staged =
        |application_root| StagedState { sequence, application_root, protocol: founding_entries(&group.0, TIME) };
    let mut liar = backup.clone();
    let refused = liar.step(Input::StateStaged(staged(Some(application_root(slot(9))))));
    assert!(!refused.contains(&Output::StageInstall), "another state than the genesis names");
    assert_eq!(executed(&refused), []);
    let installing = backup.step(Input::StateStaged(staged(Some(application_root(Sequence::ZERO)))));
    assert!(installing.contains(&Output::StageInstall), "{installing:?}");
    let installed = backup.step(Input::StateInstalled { sequence });
    assert_eq!(executed(&installed), [1]);
}
