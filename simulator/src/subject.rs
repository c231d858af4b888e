//! What runs on a host, as a rule: the real replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::{Message, Status};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence};
use quorate_protocol::output::NotVoting;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::{DurableCheckpoint, Mode, Replica, Start};

use crate::adversary::{Adversary, Attacks, Elsewhere, Plot};
use crate::checker::Held;
use crate::host::{ApplicationMaker, Boot, BootCheckpoint, Builder, Standing, Subject};

impl Subject for Replica {
    fn standing(&self) -> Option<Standing> {
        let (view, is_in_view) = match self.mode() {
            Mode::Normal => (self.view(), true),
            Mode::ViewChange { to } => (to, false),
        };
        Some(Standing { view, is_in_view, executed: self.executed(), stable: self.stable() })
    }

    fn occupation(&self) -> String {
        let transfer = self.transfer_target().map_or(String::new(), |target| format!(", transfers {target}"));
        let diverged = if self.is_diverged() { ", diverged" } else { "" };
        format!("{} slots, {} queued{transfer}{diverged}", self.log_length(), self.queue_length())
    }

    fn held(&self) -> Option<Held> {
        Some(Held { early_proposals: self.early_proposals_max(), slots: self.slot_count() })
    }

    fn is_wanted(&self, from: ReplicaId, message: &Message) -> bool {
        Self::is_wanted(self, from, message)
    }

    fn configuration(&self) -> Option<&Arc<Configuration>> {
        Some(Self::configuration(self))
    }

    fn reads_in(&self) -> Option<Epoch> {
        Self::reads_in(self)
    }

    fn not_voting(&self) -> Option<NotVoting> {
        Self::not_voting(self)
    }

    fn tell_standby(&self, said: &Status) -> Vec<Message> {
        Self::tell_standby(self, said)
    }

    fn decided_for_standby(&self, after: Sequence, bytes_max: usize) -> Vec<Message> {
        Self::decided_for_standby(self, after, bytes_max)
    }

    fn refusals(&self, refusal: Refusal) -> u64 {
        Self::refusals(self).get(&refusal).copied().unwrap_or(0)
    }
}

/// Starts on whatever the disk holds: a replica, or in the place of some of them an adversary.
pub(crate) fn replicas(
    attackers: BTreeMap<usize, Attacks>,
    seed: u64,
    elsewhere: Elsewhere,
    make_application: ApplicationMaker,
) -> Builder {
    let plot = Plot::hearing(elsewhere);
    Box::new(move |boot, now| {
        let Boot { id, stands_by, configuration, signer, checkpoint, records, next_record: first_record, token } = boot;
        let checkpoint = checkpoint.map(|BootCheckpoint { sequence, application_root, protocol }| DurableCheckpoint {
            sequence,
            application_root,
            protocol,
        });
        let is_damaged = false;
        let id = stands_by.unwrap_or(id);
        let start = Start { id, configuration, signer, checkpoint, records, first_record, is_damaged, token };
        if stands_by.is_some() {
            let standby = Replica::start_standby(start, now).map_err(|error| error.to_string())?;
            return Ok(Box::new(standby));
        }
        let Some(attacks) = attackers.get(&id.index()) else {
            let replica = Replica::start(start, now).map_err(|error| error.to_string())?;
            return Ok(Box::new(replica));
        };
        let adversary = Adversary::start(start, now, attacks, &plot, seed, make_application);
        Ok(Box::new(adversary.map_err(|error| error.to_string())?))
    })
}

impl Subject for Adversary {
    fn reactions(&self) -> u64 {
        Self::reactions(self)
    }

    fn tell_standby(&self, said: &Status) -> Vec<Message> {
        self.puppet().tell_standby(said)
    }

    fn decided_for_standby(&self, after: Sequence, bytes_max: usize) -> Vec<Message> {
        self.puppet().decided_for_standby(after, bytes_max)
    }
}
