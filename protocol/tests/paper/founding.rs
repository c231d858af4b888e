//! §11, a cluster that begins with a state: its genesis vouches for slot 0.

use std::sync::Arc;

use quorate_protocol::configuration::InitialState;
use quorate_protocol::message::{Message, Status};
use quorate_protocol::number::{RecordNumber, Sequence};
use quorate_protocol::replica::{DurableCheckpoint, Replica, Start, StartError, founding_entries};
use quorate_protocol::time::WallTime;
use quorate_protocol::{Input, Output};

use crate::support::state::{application_root, content, hand_out, no_leaves, ready, serve, wants};
use crate::support::subject::{Subject, executed, idle_status, now};
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
    let sequence = Sequence::ZERO;
    assert!(outputs.contains(&Output::StageBegin { afresh: false }), "{outputs:?}");
    let asked = backup.step(ready(no_leaves()));
    let mut liar = backup.clone();
    let (from, _, want) = wants(&asked).remove(0);
    let lie = content(slot(9), &[], &want);
    hand_out(&mut liar, from, sequence, want, lie);
    let refused = serve(&mut liar, &[], &founding_entries(&group.0, TIME));
    assert!(
        !refused.iter().any(|output| matches!(output, Output::StageEnd { .. })),
        "another state than the genesis names"
    );
    let served = serve(&mut backup, &asked, &founding_entries(&group.0, TIME));
    assert!(matches!(served.last(), Some(Output::StageEnd { .. })), "{served:?}");
    let staged = Input::StateStaged { sequence, application_root: Some(application_root(sequence)) };
    let installing = backup.step(staged);
    assert!(installing.contains(&Output::StageInstall), "{installing:?}");
    let installed = backup.step(Input::StateInstalled { sequence });
    assert_eq!(executed(&installed), [1]);
}
