//! PROTOCOL.md sentence by sentence: each test quotes the sentence that it holds the replica to.

#[path = "paper/certificates.rs"]
mod certificates;
#[path = "paper/checkpoints.rs"]
mod checkpoints;
#[path = "paper/conflicts.rs"]
mod conflicts;
#[path = "paper/epochs.rs"]
mod epochs;
#[path = "paper/fast_reads.rs"]
mod fast_reads;
#[path = "paper/forensics.rs"]
mod forensics;
#[path = "paper/founding.rs"]
mod founding;
#[path = "paper/full_log.rs"]
mod full_log;
#[path = "paper/loss_of_votes.rs"]
mod loss_of_votes;
#[path = "paper/machine.rs"]
mod machine;
#[path = "paper/new_view.rs"]
mod new_view;
#[path = "paper/normal_case.rs"]
mod normal_case;
#[path = "paper/omission.rs"]
mod omission;
#[path = "paper/pace.rs"]
mod pace;
#[path = "paper/proposing.rs"]
mod proposing;
#[path = "paper/recovery.rs"]
mod recovery;
#[path = "paper/rewriting.rs"]
mod rewriting;
#[path = "paper/standby.rs"]
mod standby;
mod support;
#[path = "paper/suspicion.rs"]
mod suspicion;
#[path = "paper/transfer.rs"]
mod transfer;
#[path = "paper/unshown.rs"]
mod unshown;
#[path = "paper/verifying.rs"]
mod verifying;
#[path = "paper/view_change.rs"]
mod view_change;
#[path = "paper/waiting.rs"]
mod waiting;
