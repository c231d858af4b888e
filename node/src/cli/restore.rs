//! `quorate restore`: a backup is checked, and made a replica's data.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Output, quote};
use crate::backup::{self, Content};
use crate::configuration::{Genesis, ReplicaConfiguration};
use crate::error::Exit;

/// Check a backup, and make the data of a replica that has lost its own
#[derive(Debug, Args)]
#[command(after_help = "Examples: replica 2 gets its state back; and a file is only checked
  quorate restore monday.backup --dir net/replica-2
  quorate restore monday.backup --verify --genesis net/genesis.toml

The folder is one that `quorate init` made, of the cluster that the backup is of; its data folder must be empty or not there. \
Every byte is checked before any of it is in its place. The votes of that replica are lost with its log: once it is started it \
catches up with the others, has the epoch ended, and votes again in the next.

With --verify nothing is written. A file can say of itself only that it is whole: name a genesis that you trust to know that it \
is of your cluster.

Exit status: 0 if the backup is whole, and restored; 1 if not.")]
pub(super) struct Arguments {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The replica's folder
    #[arg(long, value_name = "FOLDER", required_unless_present = "verify", conflicts_with = "verify")]
    dir: Option<PathBuf>,
    /// Only check the file, and show what is in it
    #[arg(long)]
    verify: bool,
    /// With --verify: the genesis of the cluster that it is to be of
    #[arg(long, value_name = "FILE", requires = "verify")]
    genesis: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { file, dir, genesis, .. } = arguments;
    if let Some(dir) = dir {
        let files = ReplicaConfiguration::load(dir)?;
        let content = backup::restore(file, &files)?;
        output.show(&Restored { content, replica: files.id.value(), dir: dir.clone() })?;
    } else {
        let genesis = genesis.as_deref().map(Genesis::load).transpose()?;
        let content = backup::verify(file, genesis.as_ref())?;
        output.show(&Verified { valid: true, genesis: genesis.is_some(), content })?;
    }
    Ok(Exit::Done)
}

/// A backup that is whole.
#[derive(Debug, Serialize)]
struct Verified {
    valid: bool,
    /// Whether it was compared with a genesis.
    genesis: bool,
    #[serde(flatten)]
    content: Content,
}

/// A replica that has its state back.
#[derive(Debug, Serialize)]
struct Restored {
    replica: u8,
    dir: PathBuf,
    #[serde(flatten)]
    content: Content,
}

impl fmt::Display for Verified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "valid: {}", self.content.file.display())?;
        self.content.fmt(formatter)?;
        if !self.genesis {
            write!(formatter, "\nwhole in itself; whether that is your cluster, --genesis tells")?;
        }
        Ok(())
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "restored replica {} from {}", self.replica, self.content.file.display())?;
        self.content.fmt(formatter)?;
        write!(formatter, "\nstart it: quorate replica --dir {}", quote(&self.dir))
    }
}
