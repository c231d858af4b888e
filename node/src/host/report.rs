//! A replica's account of itself, as `quorate status` shows it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::output::{Loss, NotVoting};
use quorate_protocol::replica::{Mode, Replica};
use serde::Serialize;

use super::Host;
use super::scrub::{self, Scrub};
use crate::transport::{ConnectionRefusal, LinkPhase};

/// How long an account is given to whoever asks: to make one takes longer than to ask for it.
const REPORT_LIFE: Duration = Duration::from_millis(50);

/// The account that was made last.
#[derive(Debug, Default)]
pub(super) struct LastReport(Option<(Instant, Bytes)>);

impl LastReport {
    /// The account, made anew only if the last one is old.
    fn get(&mut self, now: Instant, make: impl FnOnce() -> Bytes) -> Bytes {
        match &self.0 {
            Some((made, report)) if now.duration_since(*made) < REPORT_LIFE => report.clone(),
            _ => self.0.insert((now, make())).1.clone(),
        }
    }
}

/// What the host counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests_received: u64,
    pub(super) requests_executed: u64,
    pub(super) invalid_from_peers: u64,
    pub(super) invalid_from_clients: u64,
    pub(super) unwanted: u64,
    pub(super) busy: u64,
    pub(super) view_changes: u64,
    pub(super) is_disk_full: bool,
}

/// One link as `quorate status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct LinkReport {
    /// The other replica.
    pub peer: u8,
    /// `up`, `connecting` or `waiting`.
    pub state: &'static str,
    /// Round-trip time, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// How often the link came up again.
    pub reconnects: u64,
    /// Frames that found no room or no connection.
    pub drops: u64,
    /// Why it went down the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A replica as `quorate status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its number.
    pub id: u8,
    /// `primary`, `backup`, `learner` if it has lost votes, or `standby`.
    pub role: &'static str,
    /// Why it does not vote, if it does not, and what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Its epoch.
    pub epoch: u64,
    /// Its view.
    pub view: u64,
    /// The primary of its view.
    pub primary: u8,
    /// `normal`, or what it is busy with instead.
    pub mode: String,
    /// The last slot that it executed.
    pub executed: u64,
    /// The slot of its stable checkpoint.
    pub stable: u64,
    /// The root of its state at the stable checkpoint, if it has got there itself.
    pub state_root: Option<String>,
    /// Slots above the stable checkpoint of which it knows something.
    pub log_length: usize,
    /// Requests that wait to be ordered.
    pub queue: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Connected clients.
    pub clients: usize,
    /// Requests executed since it was started.
    pub requests_executed: u64,
    /// Requests of clients since it was started.
    pub requests_received: u64,
    /// Clients that were told to come back later.
    pub busy: u64,
    /// Views that it asked for since it was started.
    pub view_changes: u64,
    /// Messages of peers that counted for nothing.
    pub invalid_from_peers: u64,
    /// Messages of clients that counted for nothing.
    pub invalid_from_clients: u64,
    /// Messages of peers that came too late to matter.
    pub unwanted: u64,
    /// How long requests wait for the primary's proposal, in milliseconds, as a backup sees by copies of some; none until it
    /// has seen enough of them in this view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<f64>,
    /// How long slots take from their proposal to their execution, in milliseconds, as a backup sees.
    pub ordering_ms: f64,
    /// How far it is with reading the state on its disk; none if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<scrub::Progress>,
    /// Whether the disk is full.
    pub disk_full: bool,
    /// Its links to the other replicas.
    pub links: Vec<LinkReport>,
    /// Replicas that it holds proofs of misbehaviour against.
    pub evidence: Vec<u8>,
    /// Why connections from outside were not let in, or were ended for others, and how often.
    pub connections_refused: BTreeMap<&'static str, u64>,
    /// Why messages were not acted on, and how often.
    pub refusals: BTreeMap<String, u64>,
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl Host {
    /// The account, as JSON.
    pub(super) fn report(&mut self) -> Bytes {
        let mut last = std::mem::take(&mut self.last_report);
        let report = last.get(Instant::now(), || serde_json::to_vec(&self.account()).unwrap_or_default().into());
        self.last_report = last;
        report
    }

    fn account(&self) -> Report {
        let machine = self.machine.replica();
        let primary = machine.configuration().primary(machine.view());
        let mode = match machine.mode() {
            _ if machine.is_diverged() => "diverged".to_owned(),
            _ if machine.transfer_target().is_some() => "state transfer".to_owned(),
            Mode::Normal => "normal".to_owned(),
            Mode::ViewChange { to } => format!("view change to {to}"),
        };
        let counters = &self.counters;
        let (wait, ordering) = machine.pace();
        Report {
            id: machine.id().value(),
            role: match machine.not_voting() {
                Some(NotVoting::Lost(_)) => "learner",
                Some(NotVoting::StandsBy) => "standby",
                _ if primary == machine.id() => "primary",
                _ => "backup",
            },
            waits_for: machine.not_voting().map(|reason| waits_for(machine, reason)),
            epoch: machine.configuration().epoch().value(),
            view: machine.view().value(),
            primary: primary.value(),
            mode,
            executed: machine.executed().value(),
            stable: machine.stable().value(),
            state_root: machine.state_root_at(machine.stable()).map(|root| root.to_string()),
            log_length: machine.log_length(),
            queue: machine.queue_length(),
            sessions: machine.session_count(),
            clients: self.clients.count(),
            requests_executed: counters.requests_executed,
            requests_received: counters.requests_received,
            busy: counters.busy,
            view_changes: counters.view_changes,
            invalid_from_peers: counters.invalid_from_peers,
            invalid_from_clients: counters.invalid_from_clients,
            unwanted: counters.unwanted,
            wait_ms: wait.map(milliseconds),
            ordering_ms: milliseconds(ordering),
            scrub: self.scrub.as_ref().map(Scrub::progress),
            disk_full: counters.is_disk_full,
            links: self.links(),
            evidence: self.evidence.accused().map(ReplicaId::value).collect(),
            connections_refused: self.connections_refused(),
            refusals: machine.refusals().iter().map(|(refusal, count)| (format!("{refusal:?}"), *count)).collect(),
        }
    }

    /// At both ports; reasons that never came up are left out.
    fn connections_refused(&self) -> BTreeMap<&'static str, u64> {
        let counted =
            |reason| (ConnectionRefusal::name(reason), self.others.refused(reason) + self.clients.refused(reason));
        ConnectionRefusal::ALL.into_iter().map(counted).filter(|(_, count)| *count > 0).collect()
    }

    fn links(&self) -> Vec<LinkReport> {
        let link = |status: crate::transport::LinkStatus| LinkReport {
            peer: status.peer.value(),
            state: match status.phase {
                LinkPhase::Up => "up",
                LinkPhase::Connecting => "connecting",
                LinkPhase::Waiting => "waiting",
            },
            rtt_ms: status.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            reconnects: status.reconnects,
            drops: status.drops,
            last_error: status.last_error.map(|error| error.to_string()),
        };
        self.others.links().into_iter().map(link).collect()
    }
}

/// Why a replica does not vote, and what it waits for.
fn waits_for(machine: &Replica, reason: NotVoting) -> String {
    let loss = match reason {
        NotVoting::Asking { answers, needed } => {
            return format!("others to tell what it said before: {answers} of {needed} did");
        }
        NotVoting::StandsBy => return format!("promotion to replica {}", machine.id()),
        NotVoting::Lost(loss) => loss,
    };
    let why = match loss {
        Loss::Empty => "its log is gone or new".to_owned(),
        Loss::Damaged => "votes in its log are damaged".to_owned(),
        Loss::Earlier => "it lost votes before".to_owned(),
        Loss::Shown { by } => format!("replica {by} showed a vote that its log does not hold"),
        Loss::Replaced => "another log was started under its key".to_owned(),
    };
    let what = match machine.epoch_ends() {
        Some(end) => format!("the epoch to end at slot {end}"),
        None => "its rejoin to be ordered, which ends the epoch".to_owned(),
    };
    format!("{what}, since {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_made_no_more_often_than_it_grows_old() {
        let (mut last, start) = (LastReport::default(), Instant::now());
        assert_eq!(last.get(start, || Bytes::from_static(b"first")), "first");
        assert_eq!(last.get(start + REPORT_LIFE / 2, || Bytes::from_static(b"second")), "first");
        assert_eq!(last.get(start + REPORT_LIFE, || Bytes::from_static(b"second")), "second");
    }
}
