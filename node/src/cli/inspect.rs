//! `quorate inspect`: what stands in a stopped replica's folder, and what a start would make of it.

use std::path::PathBuf;

use clap::Args;

use super::Output;
use crate::configuration::ReplicaConfiguration;
use crate::error::Exit;
use crate::inspect;

/// Show and check what stands in a stopped replica's folder
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate inspect net/replica-0

Segments of the log, the slots, certificates and views in it, and the checkpoint; all signatures of certificates and the
root of the checkpoint are checked. The log is left as it is. At the end it says what a start would do.

Exit status: 0 if all is whole, 1 if something is wrong or the replica runs.")]
pub(super) struct Arguments {
    /// The replica's folder, as `quorate init` made it
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let files = ReplicaConfiguration::load(&arguments.folder)?;
    let found = inspect::inspect(&files)?;
    output.show(&found)?;
    Ok(if found.is_whole() { Exit::Done } else { Exit::Failed })
}
