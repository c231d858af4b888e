//! `quorate forensics`: who is to blame if correct replicas decided differently. (PROTOCOL §15)

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::forensics::{Divergence, Lacking};
use quorate_protocol::message::to_frame;
use quorate_protocol::number::ReplicaId;
use serde::Serialize;

use super::Output;
use super::evidence::Verdict;
use crate::configuration::Genesis;
use crate::error::{Exit, Problem};
use crate::forensics::{ReadFolder, Reading, read};

/// Find out who made replicas diverge, from the logs of stopped replicas
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate forensics --genesis net/genesis.toml --proofs proofs net/replica-2 net/replica-3

More than f faulty replicas can have correct ones decide differently. Who did it has signed it, and logs hold that: two decisions \
for one slot convict f + 1 replicas at least. A folder may be a copy without the key: replica.toml and data are enough. What is \
in it is believed for its signatures only, so nobody is accused because somebody's log says so. Each proof convinces anybody who \
has the genesis: `quorate evidence verify`.

Exit status: 0 if replicas diverged and at least f + 1 of them are convicted; 1 if not, and it says why: nothing diverges, or \
what would be proof is in none of the logs.")]
pub(super) struct Arguments {
    /// The genesis of the cluster
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Write each proof to a file in this folder, which is made
    #[arg(long, value_name = "FOLDER")]
    proofs: Option<PathBuf>,
    /// Folders of replicas that are stopped, or copies of them
    #[arg(value_name = "FOLDER", required = true)]
    folders: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let genesis = Genesis::load(&arguments.genesis)?;
    let reading = read(&genesis, &arguments.folders)?;
    let mut report = Report::new(&reading, genesis.configuration());
    if let Some(folder) = &arguments.proofs {
        for (proof, evidence) in report.proofs.iter_mut().zip(&reading.findings.proofs) {
            proof.file = Some(write_proof(folder, evidence, proof.verdict.kind)?);
        }
    }
    output.show(&report)?;
    Ok(if report.verdict == Outcome::Convicted { Exit::Done } else { Exit::Failed })
}

/// Writes one proof, and none over a file that is there.
fn write_proof(folder: &Path, evidence: &Evidence, kind: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("replica-{}-{kind}.bin", evidence.accused()));
    let bytes = to_frame(evidence).with_context(|| format!("writing {}", path.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
        let what = format!("cannot make {}: {error}", path.display());
        Problem::failed(what, "name a new folder for the proofs")
    })?;
    file.write_all(&bytes).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// Replicas diverged, and f + 1 are convicted at least.
    Convicted,
    /// Nothing in these logs diverges.
    NoDivergence,
    /// Replicas diverged, and these logs convict fewer than f + 1.
    Unexplained,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    verdict: Outcome,
    /// Whom the proofs convict.
    culprits: BTreeSet<u8>,
    /// How many have to be faulty for a divergence: f + 1.
    culprits_min: usize,
    proofs: Vec<Proof>,
    /// Slots at which two decisions, or two stable states, differ.
    divergences: usize,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<First>,
    /// Slots that at least two of the logs decide.
    compared: usize,
    /// Members whose folders hold what is lacking, if they are correct, and were not named.
    ask: BTreeSet<u8>,
    /// Why nobody, or not everybody, is convicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    folders: &'a [ReadFolder],
}

#[derive(Debug, Serialize)]
struct Proof {
    #[serde(flatten)]
    verdict: Verdict,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct First {
    /// `decisions` or `states`.
    of: &'static str,
    epoch: u64,
    sequence: u64,
    /// The views of the two decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<[u64; 2]>,
    /// Of the two batches, or the roots of the two states.
    digests: [String; 2],
}

impl From<&Divergence> for First {
    fn from(divergence: &Divergence) -> Self {
        let sequence = divergence.sequence().value();
        match divergence {
            Divergence::Decisions(first, second) => Self {
                of: "decisions",
                epoch: first.epoch.value(),
                sequence,
                views: Some([first.view.value(), second.view.value()]),
                digests: [first.digest.to_string(), second.digest.to_string()],
            },
            Divergence::Checkpoints(first, second) => Self {
                of: "states",
                epoch: first.epoch.value(),
                sequence,
                views: None,
                digests: [first.root.to_string(), second.root.to_string()],
            },
        }
    }
}

impl<'a> Report<'a> {
    fn new(reading: &'a Reading, configuration: &Configuration) -> Self {
        let Reading { folders, findings, compared } = reading;
        let culprits: BTreeSet<u8> = findings.culprits().into_iter().map(ReplicaId::value).collect();
        let culprits_min = configuration.weak_quorum();
        let verdict = match findings.divergences.is_empty() {
            true => Outcome::NoDivergence,
            false if culprits.len() >= culprits_min => Outcome::Convicted,
            false => Outcome::Unexplained,
        };
        let named: BTreeSet<u8> = folders.iter().map(|folder| folder.replica).collect();
        let lacking = findings.lacking.as_ref();
        let helpful = lacking.into_iter().flat_map(|lacking| &lacking.members).map(|member| member.value());
        let ask: BTreeSet<u8> = helpful.filter(|member| !named.contains(member)).collect();
        let reason = match verdict {
            Outcome::Convicted => None,
            Outcome::NoDivergence => Some(why_nothing_diverges(folders, compared.len())),
            Outcome::Unexplained => Some(lacking.map_or_else(String::new, why_unexplained)),
        };
        Self {
            verdict,
            culprits,
            culprits_min,
            proofs: findings
                .proofs
                .iter()
                .map(|proof| Proof { verdict: Verdict::new(proof, true), file: None })
                .collect(),
            divergences: findings.divergences.len(),
            first: findings.divergences.first().map(First::from),
            compared: compared.len(),
            ask,
            reason,
            folders,
        }
    }
}

/// Slots that only one log decides can be compared with nothing; what is below the logs was cut from them.
fn why_nothing_diverges(folders: &[ReadFolder], compared: usize) -> String {
    let cut = folders.iter().filter_map(|folder| folder.first_decided).max().filter(|first| *first > 1);
    let cut =
        cut.map(|first| format!("; what was decided below slot {first} is not in all of them, since logs are cut"));
    let cut = cut.unwrap_or_default();
    match compared {
        0 => format!("no slot is decided in two of these logs, so that nothing can be compared{cut}"),
        _ => format!("the logs agree in all {compared} slots that two of them decide{cut}"),
    }
}

fn why_unexplained(lacking: &Lacking) -> String {
    let Lacking { view, decided, is_begun, .. } = lacking;
    if view == decided {
        return format!(
            "another batch was prepared in view {view}, the view of the decision, and no log holds both certificates"
        );
    }
    let what = format!("in view {view} another batch was prepared than the one that view {decided} decided");
    if *is_begun {
        format!("{what}, and the new view of it in these logs does not lead there: there must be another one")
    } else {
        format!("{what}, and the new view that led there is in none of these logs, or was cut from them")
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ReadFolder { folder, replica, records, first_decided, last_decided, stable, is_damaged, .. } in self.folders
        {
            write!(formatter, "replica {replica}  {}: {records} records", folder.display())?;
            if let Some((first, last)) = first_decided.zip(*last_decided) {
                write!(formatter, ", decisions of slots {first} to {last}")?;
            }
            let damaged = if *is_damaged { ", DAMAGED" } else { "" };
            writeln!(formatter, ", stable at slot {stable}{damaged}")?;
        }
        if let Some(First { of, epoch, sequence, views, digests: [left, right] }) = &self.first {
            let views = views.map(|[left, right]| {
                if left == right { format!(", both in view {left}") } else { format!(", in views {left} and {right}") }
            });
            let (views, short) =
                (views.unwrap_or_default(), |digest: &str| digest.get(..16).unwrap_or(digest).to_owned());
            writeln!(
                formatter,
                "DIVERGED   two {of} for slot {sequence} of epoch {epoch}{views}: {}… and {}…",
                short(left),
                short(right)
            )?;
            writeln!(formatter, "           and so at {} slots in all", self.divergences)?;
        }
        for Proof { verdict, file } in &self.proofs {
            writeln!(formatter, "{verdict}")?;
            if let Some(file) = file {
                writeln!(formatter, "       in {}", file.display())?;
            }
        }
        if let Some(reason) = &self.reason {
            writeln!(formatter, "{reason}")?;
        }
        if !self.ask.is_empty() {
            writeln!(formatter, "the folder of any of these, if it is correct, would help: {}", list(&self.ask))?;
        }
        match self.verdict {
            Outcome::Convicted => write!(formatter, "convicted: {}", list(&self.culprits)),
            Outcome::NoDivergence => write!(formatter, "nothing diverges"),
            Outcome::Unexplained => {
                let Self { culprits, culprits_min, .. } = self;
                write!(formatter, "UNEXPLAINED: {} of at least {culprits_min} convicted", culprits.len())
            }
        }
    }
}

fn list(replicas: &BTreeSet<u8>) -> String {
    let each: Vec<String> = replicas.iter().map(|replica| format!("replica {replica}")).collect();
    each.join(", ")
}
