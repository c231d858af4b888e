//! What the core asks for, done. In order, and nothing here waits.

use std::time::Instant;

use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{Message, ReplicaMessage, to_frame};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::output::{NotVoting, Notice, Output};

use super::Host;
use super::executor::Command;
use super::keeper::Keep;
use crate::transport::Lane;

impl Host {
    /// Does all that the machine has asked for.
    pub(super) fn carry_out(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.machine.poll_output() {
            if let Some(recorder) = &mut self.recorder {
                recorder.note_output(&output);
            }
            self.carry_out_one(output)?;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Append { number, record } => {
                self.backlog.append(number, &record);
                self.backlog.hand_over(&self.log)?;
            }
            Output::BeginSegment => {
                self.backlog.begin_segment();
                self.backlog.hand_over(&self.log)?;
            }
            Output::Cut { before } => {
                self.backlog.cut(before);
                self.backlog.hand_over(&self.log)?;
            }
            Output::Send { to, message } => self.send(to, &message),
            Output::Broadcast(message) => self.broadcast(&message),
            Output::Execute(execution) => self.executor.send(Command::Execute(execution))?,
            Output::TakeCheckpoint { sequence, protocol } => {
                self.executor.send(Command::TakeCheckpoint { sequence, protocol })?;
            }
            Output::CheckpointStable { certificate, root } => {
                self.executor.note_stable(certificate, root)?;
            }
            Output::SendPart { to, sequence, want } => self.executor.send_part(to, sequence, want)?,
            Output::StageBegin { afresh } => self.executor.send(Command::StageBegin { afresh })?,
            Output::StageBuckets(buckets) => self.executor.stage(Keep::StageBuckets(buckets))?,
            Output::StageEnd { sequence, protocol } => self.executor.stage(Keep::StageEnd { sequence, protocol })?,
            Output::StageInstall => self.executor.stage(Keep::StageInstall)?,
            Output::Reply(reply) => self.clients.reply(reply),
            Output::Busy { client, number, retry_after_ms } => {
                self.counters.busy += 1;
                self.clients.tell(&client, &ReplicaMessage::Busy { client, number, retry_after_ms });
            }
            Output::Evidence(evidence) => self.keep_evidence(&evidence),
            Output::Notice(notice) => self.note(notice),
        }
        Ok(())
    }

    pub(super) fn send(&mut self, to: ReplicaId, message: &Message) {
        match to_frame(message) {
            Ok(frame) => self.send_frame(to, message, frame),
            Err(error) => tracing::error!(%error, "a message that cannot be encoded"),
        }
    }

    fn broadcast(&mut self, message: &Message) {
        let Ok(frame) = to_frame(message) else {
            return tracing::error!("a message that cannot be encoded");
        };
        let replica = self.machine.replica();
        let own = replica.id();
        for to in replica.configuration().replicas().filter(|to| *to != own) {
            self.send_frame(to, message, frame.clone());
        }
    }

    /// What does not go out is counted by the transport, and sent again when a status shows that it is missed.
    fn send_frame(&self, to: ReplicaId, message: &Message, frame: bytes::Bytes) {
        self.others.send(to, message, frame);
    }

    fn keep_evidence(&mut self, evidence: &Evidence) {
        if let Some(write) = self.evidence.keep(evidence) {
            tokio::task::spawn_blocking(write);
        }
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::PrimarySuspected { view, reason } => tracing::warn!(%view, ?reason, "suspects the primary"),
            Notice::ViewWanted { view, reason } => {
                self.counters.view_changes += 1;
                tracing::warn!(%view, ?reason, "asks for a view");
            }
            Notice::TurnPassedOver { replica } => {
                tracing::info!(%replica, "its turn is passed over: it was given up lately");
            }
            Notice::ViewEntered { view } => tracing::info!(%view, "entered a view"),
            Notice::Stable { sequence } => tracing::debug!(%sequence, "stable checkpoint"),
            Notice::Diverged { sequence, certified, own } => {
                tracing::error!(%sequence, %certified, %own, "this replica's state differs from the certified one");
            }
            Notice::StateDamaged { sequence } => {
                tracing::error!(%sequence, "the state on this disk is damaged: that of the others takes its place");
            }
            Notice::LogDamaged => {
                tracing::error!(
                    "the log on this disk is damaged: what a start would need is written again, and the rest cut"
                );
            }
            Notice::TransferBegan { sequence } => {
                tracing::info!(%sequence, "state transfer began");
                if let Some(transfers) = self.chase.on_began(Instant::now()) {
                    tracing::warn!(
                        transfers,
                        window = self.machine.replica().configuration().parameters().window,
                        "the others are a window ahead each time that their state is here: for this load `window` is too small"
                    );
                }
            }
            Notice::TransferSpoilt { sequence } => {
                tracing::error!(
                    %sequence,
                    "what was fetched is not what was written: the disk or the memory of this machine is damaged; \
                     all is fetched again"
                );
            }
            Notice::TransferSourceReplaced { source, lied } => {
                tracing::warn!(%source, lied, "state transfer: source replaced");
            }
            Notice::TransferEnded { sequence } => {
                tracing::info!(%sequence, "state transfer ended");
                self.chase.on_ended(Instant::now());
            }
            Notice::NotVoting { reason: NotVoting::Lost(loss) } => {
                tracing::warn!(?loss, "this replica lost votes: it executes, and votes again in the next epoch");
            }
            Notice::NotVoting { reason: NotVoting::StandsBy } => {
                tracing::info!(member = %self.machine.replica().id(), "stands by");
            }
            Notice::NotVoting { reason: NotVoting::Asking { .. } } => {
                tracing::info!("asks the others what it has said before it votes");
            }
            Notice::Voting { epoch } => tracing::info!(%epoch, "votes"),
            Notice::EpochEntered { epoch, began } => {
                self.pool.follow(self.machine.replica().configuration());
                tracing::info!(%epoch, %began, "entered an epoch");
            }
            other => tracing::info!(?other, "notice"),
        }
    }
}

/// Votes and what is as small and as urgent go before the rest. A message that came by the other lane is refused.
pub(super) fn lane(message: &Message) -> Lane {
    match message {
        Message::Prepare(_)
        | Message::Commit(_)
        | Message::Checkpoint(_)
        | Message::Status(_)
        | Message::Fetch(_)
        | Message::Conflict(_) => Lane::Votes,
        Message::Request(_)
        | Message::PrePrepare(_)
        | Message::Stable(_)
        | Message::ViewChange(_)
        | Message::NewView(_)
        | Message::Batch(_)
        | Message::Decided(_)
        | Message::Part(_)
        | Message::Statements(_) => Lane::Bulk,
    }
}
