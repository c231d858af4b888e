//! `quorate standby`: makes the folder of a standby, and gives one a member's place.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_protocol::number::ReplicaId;
use serde::Serialize;

use super::{Output, quote};
use crate::client::StandbyAddress;
use crate::configuration::standby::{self, StandbyError};
use crate::configuration::{ClientConfiguration, ReplicaConfiguration, parse_positive_duration};
use crate::error::{Exit, Problem};
use crate::storage::lock::FolderLock;

/// Make or promote a standby: it follows what the members decide, and takes a member's place when that is lost
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    Promote(Promote),
}

/// Make the folder of a standby, which `quorate replica` runs
#[derive(Debug, Args)]
#[command(after_help = "Example: a standby beside replica 3, which answers clients at port 4300
  quorate standby create --net net/client --dir standby-3 --of 3 --listen 127.0.0.1:4300
  quorate replica --dir standby-3
and a warm one, which takes a checkpoint every ten minutes
  quorate standby create --net net/client --dir warm-3 --of 3 --listen 127.0.0.1:4301 --every 10m

It needs nothing but the public genesis, has a key of its own, and votes on nothing.")]
pub(super) struct Create {
    /// The client's folder, which says which cluster
    #[arg(long, value_name = "FOLDER")]
    net: PathBuf,
    /// The folder to make; it must not exist, or be empty
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The member whose place it may take; that one it does not ask for anything
    #[arg(long, value_name = "ID")]
    of: u8,
    /// Make it a warm one, which fetches a whole checkpoint so often instead of executing every slot
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
    every: Option<Duration>,
    /// Where it answers clients: how it is, and reads that it proves
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
}

/// Give a stopped standby the key of the member whose place it takes
#[derive(Debug, Args)]
#[command(after_help = "Example: replica 3 is gone for good, and its key was kept
  quorate standby promote --dir standby-3 --key backup-of-keys/replica-3.key
  quorate replica --dir standby-3

The votes of the lost replica are gone with its log: the promoted one notices, and votes again in the next epoch, which \
begins by itself. See that the old process is never started again: two under one key replace each other for ever.")]
pub(super) struct Promote {
    /// The standby's folder
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The file with the member's private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(super) fn run(command: Command, output: &mut Output) -> anyhow::Result<Exit> {
    match command {
        Command::Create(arguments) => create(&arguments, output),
        Command::Promote(arguments) => promote(&arguments, output),
    }
}

/// The address and the key of a standby, as `quorate standby create` prints them.
pub(super) fn parse_address(text: &str) -> Result<StandbyAddress, String> {
    let (address, key) = text.split_once('=').ok_or("write the address, `=`, and the key of 64 hexadecimal digits")?;
    let key = key.parse().map_err(|error| format!("`{key}` is no key: {error}"))?;
    Ok(StandbyAddress { address: address.to_owned(), key })
}

fn create(arguments: &Create, output: &mut Output) -> anyhow::Result<Exit> {
    let Create { net, dir, of, every, listen } = arguments;
    let genesis = ClientConfiguration::load(net)?.genesis;
    standby::create(dir, &genesis, ReplicaId::new(*of), listen, *every).map_err(explain)?;
    let key = ReplicaConfiguration::load(dir)?.key.public_key();
    output.show(&Created { dir: dir.clone(), replica: *of, client: listen.clone(), key: key.to_string() })?;
    Ok(Exit::Done)
}

fn promote(arguments: &Promote, output: &mut Output) -> anyhow::Result<Exit> {
    let Promote { dir, key } = arguments;
    // A standby that runs would go on under its old name beside the member.
    let _stopped = FolderLock::acquire(&ReplicaConfiguration::load(dir)?.data)?;
    let id = standby::promote(dir, key).map_err(explain)?;
    output.show(&Promoted { dir: dir.clone(), replica: id.value() })?;
    Ok(Exit::Done)
}

fn explain(error: StandbyError) -> anyhow::Error {
    let mend = match &error {
        StandbyError::NoSuchMember { .. } => "name the member whose place it may take",
        StandbyError::Address { .. } => "write it as host:port, for example 127.0.0.1:4300",
        StandbyError::NotAStandby { .. } => "name the folder that `quorate standby create` made",
        StandbyError::OtherKey { .. } => "name the key file of the member that the standby was made for",
        StandbyError::File(_) => return error.into(),
    };
    Problem::failed(error.to_string(), mend).into()
}

/// What was made.
#[derive(Debug, Serialize)]
struct Created {
    dir: PathBuf,
    replica: u8,
    client: String,
    key: String,
}

impl fmt::Display for Created {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, replica, client, key } = self;
        writeln!(formatter, "standby beside replica {replica} in {}", dir.display())?;
        writeln!(formatter, "  key      {key}")?;
        writeln!(formatter, "  clients  {client}")?;
        write!(formatter, "run it with: quorate replica --dir {}", quote(dir))
    }
}

/// What became of a standby.
#[derive(Debug, Serialize)]
struct Promoted {
    dir: PathBuf,
    replica: u8,
}

impl fmt::Display for Promoted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, replica } = self;
        writeln!(formatter, "{} is the folder of replica {replica} now", dir.display())?;
        write!(formatter, "run it with: quorate replica --dir {}", quote(dir))
    }
}
