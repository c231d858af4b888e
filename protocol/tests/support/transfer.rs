//! A member that fetches the state at a checkpoint.

use quorate_crypto::Digest;
use quorate_protocol::input::{StageReady, TransferLimits};
use quorate_protocol::message::{Entry, Message};
use quorate_protocol::{Input, Output};

use super::subject::{Subject, idle_status};
use super::{Group, slot};

/// A member that reached slot 4, and one that has nothing but its stable certificate.
pub(crate) fn behind_a_checkpoint() -> (Subject, Subject) {
    let group = Group::of_four();
    let mut source = Subject::new(&group, 2);
    for sequence in 1..=4 {
        source.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        source.settle();
    }
    let root = source.replica.state_root_at(slot(4)).expect("taken");
    let mut behind = Subject::new(&group, 1);
    behind.hear(2, Message::Stable(group.stable(4, root, &[0, 2, 3])));
    (source, behind)
}

/// The status of a member whose stable checkpoint is at slot `stable`, and who can hand out nothing below `executed`.
pub(crate) fn status_at(stable: u64, executed: u64) -> Message {
    let mut status = idle_status(0);
    (status.stable, status.executed, status.decided_from) = (slot(stable), slot(executed), slot(executed + 1));
    Message::Status(status)
}

/// A member that is behind slot 4, which these hold, upon these leaves; with what it asks first, and the protocol's entries.
pub(crate) fn in_transfer_upon(
    holders: &[u8],
    leaves: Vec<Digest>,
    limits: TransferLimits,
) -> (Subject, Vec<Output>, Vec<Entry>) {
    let (source, mut behind) = behind_a_checkpoint();
    behind.hear_all(holders.iter().map(|id| (*id, status_at(4, 4))));
    let mut outputs = Vec::new();
    for _ in 0..20 {
        if !outputs.contains(&Output::StageBegin { afresh: false }) {
            outputs = behind.pass_with_primary_alive(100);
        }
    }
    assert!(outputs.contains(&Output::StageBegin { afresh: false }), "{outputs:?}");
    let asked = behind.step(Input::StageReady(StageReady { leaves, limits }));
    (behind, asked, source.protocol())
}
