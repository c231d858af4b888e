//! `quorate completions SHELL`: what makes a shell complete our commands and options.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Output;
use crate::error::Exit;

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: for bash, in this shell and in all later ones
  source <(quorate completions bash)
  quorate completions bash > ~/.local/share/bash-completion/completions/quorate")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "quorate", &mut script);
    output.write(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
