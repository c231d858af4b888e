//! `quorate genesis check FILE`: whether a genesis is whole, and what it says.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_protocol::configuration::ClientPolicy;
use serde::Serialize;

use super::Output;
use crate::configuration::Genesis;
use crate::error::Exit;

/// Verify the genesis of a cluster
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:
  quorate genesis check net/genesis.toml")]
pub(super) enum Command {
    Check(CheckArguments),
}

/// Verify that a genesis is whole and unchanged, and show what it says
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate genesis check net/genesis.toml

Exit status: 0 if the file is whole, 1 if not.")]
pub(super) struct CheckArguments {
    /// The genesis file
    file: PathBuf,
}

pub(super) fn run(command: Command, output: &mut Output) -> anyhow::Result<Exit> {
    let Command::Check(CheckArguments { file }) = command;
    let genesis = Genesis::load(&file)?;
    output.show(&Checked::new(&genesis))?;
    Ok(Exit::Done)
}

/// What a genesis says.
#[derive(Debug, Serialize)]
struct Checked {
    valid: bool,
    cluster: String,
    faults_max: usize,
    quorum: usize,
    clients: String,
    /// The root of the application's state with which the cluster begins, if that is not the empty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    members: Vec<CheckedMember>,
}

#[derive(Debug, Serialize)]
struct CheckedMember {
    id: u8,
    key: String,
    peer: String,
    client: String,
}

impl Checked {
    fn new(genesis: &Genesis) -> Self {
        let configuration = genesis.configuration();
        let member = |id| configuration.member(id).map(|member| (id, member));
        let members = configuration.replicas().filter_map(member).map(|(id, member)| CheckedMember {
            id: id.value(),
            key: member.key.to_string(),
            peer: member.peer_address.clone(),
            client: member.client_address.clone(),
        });
        Self {
            valid: true,
            cluster: genesis.cluster().digest().to_string(),
            faults_max: configuration.faults_max(),
            quorum: configuration.quorum(),
            clients: match &configuration.parameters().clients {
                ClientPolicy::Any => "any key".to_owned(),
                ClientPolicy::Listed(keys) => format!("{} listed keys", keys.len()),
            },
            state: configuration.initial_state().map(|state| state.application.to_string()),
            members: members.collect(),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "valid: cluster {}", self.cluster)?;
        let Self { members, faults_max, quorum, clients, state, .. } = self;
        write!(
            formatter,
            "{} replicas, of which {faults_max} may lie; quorum {quorum}; clients: {clients}",
            members.len()
        )?;
        if let Some(state) = state {
            write!(formatter, "\nit begins with a state: the root of the application's is {state}")?;
        }
        members.iter().try_for_each(|CheckedMember { id, key, peer, client }| {
            write!(formatter, "\n  replica {id}  key {key}  peer {peer}  client {client}")
        })
    }
}
