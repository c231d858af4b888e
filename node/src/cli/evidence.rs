//! `quorate evidence verify FILE`: whether a proof of misbehaviour is one, checked offline. (PROTOCOL §4.3)

#[cfg(feature = "lab")]
mod check_signed;

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::from_frame;
use quorate_protocol::number::{Sequence, View};
use serde::Serialize;

use super::Output;
use crate::configuration::Genesis;
use crate::error::{Exit, Problem};
use crate::forensics::EVIDENCE_BYTES_MAX;
use crate::host::Zip215;

/// Check proofs of misbehaviour
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:
  quorate evidence verify net/replica-0/data/evidence/replica-2-1.bin --genesis net/genesis.toml")]
pub(super) enum Command {
    Verify(VerifyArguments),
    #[cfg(feature = "lab")]
    CheckSigned(check_signed::CheckSignedArguments),
}

/// Check a proof of misbehaviour and name the replica that it convicts
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate evidence verify net/replica-0/data/evidence/replica-2-1.bin --genesis net/genesis.toml

Needs no replica: what is in the file and the keys in the genesis are enough.

Exit status: 0 if it is a proof, 1 if not.")]
pub(super) struct VerifyArguments {
    /// The file, as a replica keeps it in `data/evidence`
    file: PathBuf,
    /// The genesis of the cluster
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
}

pub(super) fn run(command: Command, output: &mut Output) -> anyhow::Result<Exit> {
    match command {
        Command::Verify(arguments) => verify(arguments, output),
        #[cfg(feature = "lab")]
        Command::CheckSigned(arguments) => check_signed::run(&arguments, output),
    }
}

fn verify(VerifyArguments { file, genesis }: VerifyArguments, output: &mut Output) -> anyhow::Result<Exit> {
    let genesis = Genesis::load(&genesis)?;
    let mut bytes = Vec::new();
    let opened = File::open(&file).and_then(|opened| opened.take(EVIDENCE_BYTES_MAX).read_to_end(&mut bytes));
    opened.with_context(|| format!("reading {}", file.display()))?;
    let evidence: Evidence = from_frame(&bytes.into()).map_err(|error| {
        let what = format!("{} holds no proof of this version: {error}", file.display());
        Problem::failed(what, "name a file of the folder data/evidence of a replica")
    })?;
    // Members and keys are the same in every epoch.
    let configuration = genesis.configuration().in_epoch(evidence.epoch(), Sequence::ZERO);
    let is_proof = evidence.is_proof(&configuration, &mut Zip215::default());
    output.show(&Verdict::new(&evidence, is_proof))?;
    Ok(if is_proof { Exit::Done } else { Exit::Failed })
}

/// What the file proves.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    valid: bool,
    /// The replica that it is about.
    pub(super) replica: u8,
    pub(super) kind: &'static str,
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<u64>,
    sequence: u64,
}

impl Verdict {
    pub(super) fn new(evidence: &Evidence, valid: bool) -> Self {
        let (kind, view, sequence) = match evidence {
            Evidence::ConflictingPrepares(vote, _) => {
                ("conflicting-prepares", Some(vote.statement.view), vote.statement.sequence)
            }
            Evidence::ConflictingCommits(vote, _) => {
                ("conflicting-commits", Some(vote.statement.view), vote.statement.sequence)
            }
            Evidence::ConflictingCheckpoints(vote, _) => ("conflicting-checkpoints", None, vote.statement.sequence),
            Evidence::InvalidBatch { vote, .. } => {
                ("invalid-batch", Some(vote.statement.view), vote.statement.sequence)
            }
            Evidence::ForgottenCommit { vote, .. } => {
                ("forgotten-commit", Some(vote.statement.view), vote.statement.sequence)
            }
        };
        Self {
            valid,
            replica: evidence.accused().value(),
            kind,
            epoch: evidence.epoch().value(),
            view: view.map(View::value),
            sequence: sequence.value(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { valid, replica, kind, epoch, view, sequence } = self;
        let what = match *kind {
            "conflicting-prepares" => "accepted, or proposed, two batches",
            "conflicting-commits" => "held two batches prepared",
            "conflicting-checkpoints" => "signed two roots of the state",
            "forgotten-commit" => "knew nothing, in a later view change, of the batch that it had committed",
            _ => "proposed a batch that breaks the rules",
        };
        let view = view.map(|view| format!(" in view {view}")).unwrap_or_default();
        let what = format!("{what} for slot {sequence}{view} of epoch {epoch}");
        if *valid {
            write!(formatter, "proof: replica {replica} {what}")
        } else {
            write!(
                formatter,
                "NO PROOF that replica {replica} {what}: the statements do not conflict, or are not signed by it"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use quorate_crypto::{Digest, SigningKey};
    use quorate_protocol::message::to_frame;
    use quorate_protocol::number::{Epoch, ReplicaId};
    use quorate_protocol::statement::{Prepare, Vote};
    use tempfile::TempDir;

    use super::*;
    use crate::configuration::ReplicaConfiguration;
    use crate::configuration::network::{Network, Plan};

    /// A cluster that was founded, and a proof against replica 2 by these keys of it.
    fn verify(change: impl FnOnce(&mut Vote<Prepare>, &SigningKey)) -> Exit {
        let root = tempfile::tempdir().unwrap();
        let network = Network::create(&root.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let files = ReplicaConfiguration::load(&network.replica_folder(ReplicaId::new(2))).unwrap();
        let vote = |epoch, digest| {
            let (view, sequence) = (View::ZERO, Sequence::new(7));
            let statement =
                Prepare { epoch: Epoch::new(epoch), view, sequence, digest: Digest::from_bytes([digest; 32]) };
            Vote::sign(statement, ReplicaId::new(2), files.genesis.configuration().cluster(), &files.key)
        };
        let (first, mut second) = (vote(3, 1), vote(3, 2));
        change(&mut second, &files.key);
        run_on(&root, &network, &Evidence::ConflictingPrepares(first, second))
    }

    fn run_on(root: &TempDir, network: &Network, evidence: &Evidence) -> Exit {
        let file = root.path().join("replica-2-1.bin");
        fs::write(&file, to_frame(evidence).unwrap()).unwrap();
        let arguments = VerifyArguments { file, genesis: network.genesis_path() };
        run(Command::Verify(arguments), &mut Output::stdout(true)).unwrap()
    }

    #[test]
    fn two_statements_that_contradict_each_other_convict_in_any_epoch() {
        assert_eq!(verify(|_, _| {}), Exit::Done);
    }

    #[test]
    fn what_was_not_signed_or_does_not_conflict_proves_nothing() {
        assert_eq!(verify(|vote, _| vote.statement.digest = Digest::ZERO), Exit::Failed, "not what was signed");
        assert_eq!(
            verify(|vote, _| vote.statement.digest = Digest::from_bytes([1; 32])),
            Exit::Failed,
            "the same twice"
        );
        assert_eq!(verify(|vote, _| vote.voter = ReplicaId::new(1)), Exit::Failed, "of two replicas");
    }

    #[test]
    fn a_file_that_holds_no_proof_is_named() {
        let root = tempfile::tempdir().unwrap();
        let network = Network::create(&root.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let file = root.path().join("notes.txt");
        fs::write(&file, b"nothing").unwrap();
        let arguments = VerifyArguments { file, genesis: network.genesis_path() };
        let error = run(Command::Verify(arguments), &mut Output::stdout(true)).unwrap_err();
        assert!(format!("{error:#}").contains("notes.txt"), "{error:#}");
    }
}
