//! What a replica recorded of what it signed, held against what stands on its disk: it must have said nothing that its log
//! does not hold. (PROTOCOL §9)

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};

use quorate_node::configuration::Genesis;
use quorate_node::storage::log::{Identity, Options, survey};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::record::{Record, Recovered};
use quorate_simulator::statement::{Said, Subject, in_record};
use serde::Deserialize;

use crate::Cluster;

/// Something said, as `replica --record-signed` writes it down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Statement {
    epoch: u64,
    view: Option<u64>,
    slot: Option<u64>,
    kind: String,
    says: String,
}

impl Statement {
    fn of(said: Said) -> Self {
        let (kind, epoch, view, slot) = match said.subject {
            Subject::Prepare(epoch, view, slot) => ("prepare", epoch, Some(view), Some(slot)),
            Subject::Commit(epoch, view, slot) => ("commit", epoch, Some(view), Some(slot)),
            Subject::Checkpoint(epoch, slot) => ("checkpoint", epoch, None, Some(slot)),
            Subject::ViewChange(epoch, view) => ("view-change", epoch, Some(view), None),
            Subject::NewView(epoch, view) => ("new-view", epoch, Some(view), None),
        };
        Self {
            epoch: epoch.value(),
            view: view.map(View::value),
            slot: slot.map(Sequence::value),
            kind: kind.to_owned(),
            says: said.digest.to_string(),
        }
    }
}

/// What a log holds of what its replica said.
#[derive(Debug, Default)]
struct Held {
    said: BTreeSet<Statement>,
    /// Its last stable checkpoint: what is said up to there is covered by it.
    stable: u64,
    /// The last view that it left others for.
    view: (u64, u64),
    /// The last view that it entered, if it was not the first of an epoch: what it asked for before that is over.
    entered: (u64, u64),
}

impl Held {
    fn take(&mut self, id: ReplicaId, genesis: &Genesis, record: &Record) {
        let members = genesis.configuration().members().len() as u64;
        self.said.extend(in_record(record, id, members).into_iter().map(Statement::of));
        let position = |epoch: Epoch, view: View| (epoch.value(), view.value());
        match record {
            Record::Stable(certificate) => self.stable = self.stable.max(certificate.statement.sequence.value()),
            Record::Epoch(membership, certificate) => {
                self.stable = self.stable.max(certificate.statement.sequence.value());
                self.view = self.view.max(position(membership.epoch(), View::ZERO));
            }
            Record::ViewChange(epoch, view, _) => self.view = self.view.max(position(*epoch, *view)),
            Record::NewView(epoch, view, _) => {
                self.entered = self.entered.max(position(*epoch, *view));
                self.view = self.view.max(self.entered);
            }
            _ => {}
        }
    }

    /// Whether a statement is one that the log must hold. Not one in a view or an epoch that it left, of which it says
    /// nothing any more, nor how it asked for a view that it entered, nor one below its checkpoint; nor what follows from the
    /// state.
    fn is_to_hold(&self, statement: &Statement) -> bool {
        let Some(view) = statement.view.map(|view| (statement.epoch, view)) else { return false };
        let is_over = statement.kind == "view-change" && view <= self.entered;
        view >= self.view && !is_over && statement.slot.is_none_or(|slot| slot > self.stable)
    }
}

/// The record of one replica, as far as it was read.
#[derive(Debug)]
pub struct Signed {
    id: u8,
    position: u64,
    /// What its log has to hold.
    current: BTreeSet<Statement>,
}

impl Signed {
    /// The record of replica `id`, from its start.
    pub const fn of(id: u8) -> Self {
        Self { id, position: 0, current: BTreeSet::new() }
    }

    /// While the replica is down: everything that it has said and could still contradict stands in its log. Gives how much
    /// that is.
    ///
    /// # Panics
    /// If something is missing, or the record or the log cannot be read.
    pub fn assert_durable(&mut self, cluster: &Cluster) -> usize {
        self.read_on(cluster);
        let held = held(self.id, cluster);
        self.current.retain(|statement| held.is_to_hold(statement));
        let missing: Vec<&Statement> = self.current.difference(&held.said).collect();
        assert!(missing.is_empty(), "replica {} said what its disk does not hold: {missing:?}", self.id);
        self.current.len()
    }

    fn read_on(&mut self, cluster: &Cluster) {
        let path = cluster.replica_folder(self.id).join("signed.jsonl");
        let mut file = File::open(path).expect("the replica was started with a record");
        file.seek(SeekFrom::Start(self.position)).expect("a file has every position");
        for line in BufReader::new(file).lines() {
            let line = line.expect("the record can be read");
            self.position += line.len() as u64 + 1;
            self.current.insert(serde_json::from_str(&line).expect("a line is a statement"));
        }
    }
}

fn held(id: u8, cluster: &Cluster) -> Held {
    let genesis = cluster.genesis();
    let configuration = genesis.configuration();
    let identity = Identity { cluster: *configuration.cluster().digest().as_bytes(), replica: id.into() };
    let options = Options::new(cluster.replica_folder(id).join("data/log"), identity);
    let mut held = Held::default();
    let id = ReplicaId::new(id);
    let mut take = |found: quorate_node::storage::log::Recovered| {
        let record = Recovered::decode(&found.head, found.body.as_ref(), configuration);
        if let Recovered::Whole(record) = record.expect("the log holds records") {
            held.take(id, &genesis, &record);
        }
    };
    survey(&options, &mut take).expect("the log can be read");
    held
}
