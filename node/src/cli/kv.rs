//! `quorate kv`: the key-value client.

mod watch;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{ArgGroup, Args, Subcommand, value_parser};
use quorate_protocol::codec::Blob;
use quorate_protocol::kv::{RANGE_ENTRIES_MAX, Range, VALUE_BYTES_MAX};
use quorate_protocol::number::Sequence;
use serde::Serialize;
use tokio::runtime;

use super::{Output, standby};
use crate::client::kv::{self, KeyValue, KvError};
use crate::client::{ClientError, Connection, ConnectionOptions, Identity, OpenError, Session, StandbyAddress};
use crate::configuration::parse_positive_duration;
use crate::error::{Exit, Problem};

/// How long to wait for a quorum before anything is asked of those that are reached.
const QUORUM_PATIENCE: Duration = Duration::from_millis(500);

/// Talk to the key-value store
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate kv put greeting hello --net net/client
  quorate kv get greeting --net net/client

Exit status: 0 done, 1 it failed, 2 wrong usage, 4 no such key, 5 the condition of `cas` did not hold.")]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Put(PutArguments),
    Get(GetArguments),
    Delete(DeleteArguments),
    Cas(CasArguments),
    Range(RangeArguments),
    Watch(watch::Arguments),
}

/// What all of them take, before or after their own name.
#[derive(Debug, Args)]
struct Common {
    /// The client folder of the cluster (required)
    #[arg(long, value_name = "FOLDER", global = true)]
    net: Option<PathBuf>,
    /// Give up after this long; what was given up may still happen
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration, default_value = "10s", global = true)]
    timeout: Duration,
    /// Keys and values are in base64, as arguments and in what is printed
    #[arg(long, global = true)]
    base64: bool,
}

/// Write a value
#[derive(Debug, Args)]
#[command(override_usage = "quorate kv put [OPTIONS] --net <FOLDER> <KEY> <VALUE|--file <FILE>>")]
#[command(after_help = "Examples:
  quorate kv put greeting hello --net net/client
  quorate kv put picture --file picture.png --net net/client")]
#[command(group(ArgGroup::new("content").required(true).args(["value", "file"])))]
struct PutArguments {
    /// The key
    key: String,
    /// Its new value
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Take the value from this file as it is; `-` for stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Read a value
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv get greeting --net net/client
  quorate kv get picture --file copy.png --net net/client

An ordered read sees every write that was answered before it, and so does a fast one: a quorum answers it alike, in a
single round trip, if the cluster was founded with --parameter fast_reads=true; else, or where they differ, it is
ordered. A proved read is answered by one replica, with a proof that it cannot forge, as of a checkpoint that may be
some time ago. A stale one is the word of one standby, which nobody vouches for, as of what it has executed.
Exit status 4: there is no such key.")]
#[command(group(ArgGroup::new("kind").args(["ordered", "fast", "proved", "stale"])))]
#[command(group(ArgGroup::new("of-one").args(["proved", "stale"])))]
#[expect(clippy::struct_excessive_bools, reason = "they are flags, of which the command line takes one at most")]
struct GetArguments {
    /// The key
    key: String,
    /// Write the value to this file as it is, instead of showing it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Order the read like a write (the default)
    #[arg(long)]
    ordered: bool,
    /// Ask all replicas without ordering the read, where the cluster allows it; else as --ordered
    #[arg(long)]
    fast: bool,
    /// Have one replica prove the value, as of a checkpoint
    #[arg(long)]
    proved: bool,
    /// Take a standby's word for it, as of what it has executed
    #[arg(long, requires = "standby")]
    stale: bool,
    /// With --proved: the slot of the oldest checkpoint that will do
    #[arg(long, value_name = "SLOT", requires = "proved", default_value_t = 0)]
    oldest: u64,
    /// With --proved or --stale: ask a standby, at this address and of this key, instead of the members
    #[arg(long, value_name = "HOST:PORT=KEY", requires = "of-one", value_parser = standby::parse_address)]
    standby: Option<StandbyAddress>,
}

/// Remove a key and its value
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate kv delete greeting --net net/client

Exit status 4: there was no such key.")]
struct DeleteArguments {
    /// The key
    key: String,
}

/// Write a value if the key holds the one that is expected
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv cas counter --expect 1 --set 2 --net net/client
  quorate kv cas lock --expect-absent --set mine --net net/client
  quorate kv cas lock --expect mine --set-absent --net net/client

With --json `found` and `swapped` say whether what was expected was found, and so the change made.

Exit status 5: the key held something else, and nothing changed.")]
#[command(group(ArgGroup::new("condition").required(true).args(["expect", "expect_absent"])))]
#[command(group(ArgGroup::new("change").required(true).args(["set", "set_absent"])))]
struct CasArguments {
    /// The key
    key: String,
    /// What the key must hold
    #[arg(long, value_name = "OLD", allow_negative_numbers = true)]
    expect: Option<String>,
    /// The key must hold nothing
    #[arg(long)]
    expect_absent: bool,
    /// What the key is to hold then
    #[arg(long, value_name = "NEW", allow_negative_numbers = true)]
    set: Option<String>,
    /// The key is to be removed then
    #[arg(long)]
    set_absent: bool,
}

/// List the keys with a prefix, and their values, in order
#[derive(Debug, Args)]
#[command(after_help = "Examples: keys that begin with user/, and all keys
  quorate kv range user/ --net net/client
  quorate kv range '' --net net/client

A line an entry: key, tabulator, value; with --json an object a line. Where they may hold tabulators or line breaks \
themselves, --json or --base64 tells them apart. What does not fit one request is read by several,
one after the other.")]
struct RangeArguments {
    /// What the keys begin with; '' for all
    prefix: String,
    /// Most entries
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { common, command } = arguments;
    let Some(net) = &common.net else {
        return Err(Problem::usage("--net is missing", "name the client folder, for example --net net/client").into());
    };
    let identity = Identity::take(net, common.timeout)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let standby = match &command {
            Command::Get(arguments) => arguments.standby.clone(),
            _ => None,
        };
        let store = Store::open(&identity, standby, &common).await?;
        let outcome = match command {
            Command::Put(arguments) => store.put(arguments, output).await,
            Command::Get(arguments) => store.get(arguments, output).await,
            Command::Delete(arguments) => store.delete(arguments, output).await,
            Command::Cas(arguments) => store.compare_and_set(arguments, output).await,
            Command::Range(arguments) => store.range(arguments, output).await,
            Command::Watch(arguments) => store.watch(arguments, output).await,
        };
        store.connection.close().await;
        outcome
    })
}

/// The store, and how its keys and values are written.
struct Store {
    connection: Connection,
    identity: quorate_crypto::SigningKey,
    form: Form,
    timeout: Duration,
}

impl Store {
    async fn open(identity: &Identity, standby: Option<StandbyAddress>, common: &Common) -> Result<Self, OpenError> {
        let configuration = Arc::new(identity.configuration.genesis.configuration().clone());
        let key = identity.configuration.key.clone();
        let quorum = if standby.is_some() { 1 } else { configuration.quorum() };
        let options = match standby {
            Some(standby) => ConnectionOptions::to_standby(configuration, key.clone(), standby).await?,
            None => ConnectionOptions::resolve(configuration, key.clone()).await?,
        };
        let connection = Connection::open(options)?;
        // Who is not reached when a request executes can't answer it; if too few are, that costs a time-out.
        connection.wait_for_replicas(quorum, QUORUM_PATIENCE.min(common.timeout)).await.ok();
        let form = if common.base64 { Form::Base64 } else { Form::Text };
        Ok(Self { connection, identity: key, form, timeout: common.timeout })
    }

    /// The store by ordered requests. None was sent yet.
    async fn ordered(&self) -> anyhow::Result<KeyValue> {
        self.by(self.connection.client(self.identity.clone()).await)
    }

    /// The store by reads that need not be ordered.
    async fn unordered(&self) -> anyhow::Result<KeyValue> {
        self.by(self.connection.reader(self.identity.clone()).await)
    }

    fn by(&self, session: Result<Session, ClientError>) -> anyhow::Result<KeyValue> {
        Ok(KeyValue::new(session.map_err(|error| explain(error.into()))?, self.timeout))
    }

    async fn put(&self, arguments: PutArguments, output: &mut Output) -> anyhow::Result<Exit> {
        let PutArguments { key, value, file } = arguments;
        let value = match (value, file) {
            (_, Some(file)) => read_value(&file)?,
            (value, None) => self.form.read("the value", &value.unwrap_or_default())?,
        };
        let bytes = self.form.read("the key", &key)?;
        let done = self.ordered().await?.put(&bytes, &value).await.map_err(explain_write)?;
        self.show(output, Shown::new(&bytes, done.sequence).found(done.value), "stored")?;
        Ok(Exit::Done)
    }

    async fn get(&self, arguments: GetArguments, output: &mut Output) -> anyhow::Result<Exit> {
        let key = self.form.read("the key", &arguments.key)?;
        let (value, sequence) = if arguments.proved {
            let oldest = Sequence::new(arguments.oldest);
            let proved = self.connection.get_proved(&key, oldest, self.timeout).await;
            let proved = proved.map_err(|error| explain(error.into()))?;
            (proved.value, proved.sequence)
        } else if arguments.stale {
            let read = kv::get_stale(&self.connection, &key, self.timeout).await.map_err(explain)?;
            (read.value, read.sequence)
        } else if arguments.fast {
            let read = self.unordered().await?.get_fast(&key).await.map_err(explain)?;
            if read.index.is_some() {
                self.say_ordered();
            }
            (read.value, read.sequence)
        } else {
            let read = self.ordered().await?.get(&key).await.map_err(explain)?;
            (read.value, read.sequence)
        };
        let Some(value) = value else { return self.no_such_key(output, &key, sequence) };
        if let Some(file) = &arguments.file {
            fs::write(file, &value[..]).with_context(|| format!("cannot write {}", file.display()))?;
            let shown = Shown::new(&key, sequence).found(true);
            self.show(output, shown, &format!("{} bytes written to {}", value.len(), file.display()))?;
            return Ok(Exit::Done);
        }
        if output.is_json() {
            output.show_json(&self.form.json(Shown::new(&key, sequence).found(true).value(&value)))?;
        } else {
            output.write_bytes(&[&self.form.write(&value)[..], b"\n"].concat())?;
        }
        Ok(Exit::Done)
    }

    /// Says why a fast read was ordered.
    fn say_ordered(&self) {
        if self.connection.configuration().parameters().fast_reads {
            tracing::info!("the replicas did not agree at once: the read was ordered");
        } else {
            tracing::warn!(
                "this cluster has no fast reads (it was founded without fast_reads=true): the read was ordered"
            );
        }
    }

    async fn delete(&self, arguments: DeleteArguments, output: &mut Output) -> anyhow::Result<Exit> {
        let key = self.form.read("the key", &arguments.key)?;
        let done = self.ordered().await?.delete(&key).await.map_err(explain_write)?;
        if !done.value {
            return self.no_such_key(output, &key, done.sequence);
        }
        self.show(output, Shown::new(&key, done.sequence).found(true), "deleted")?;
        Ok(Exit::Done)
    }

    async fn compare_and_set(&self, arguments: CasArguments, output: &mut Output) -> anyhow::Result<Exit> {
        let CasArguments { key, expect, set, .. } = arguments;
        let key = self.form.read("the key", &key)?;
        let expect = expect.map(|text| self.form.read("--expect", &text)).transpose()?;
        let set = set.map(|text| self.form.read("--set", &text)).transpose()?;
        let store = self.ordered().await?;
        let done = store.compare_and_set(&key, expect.as_deref(), set.as_deref()).await.map_err(explain_write)?;
        let text = if done.value { "set" } else { "the key holds something else: nothing changed" };
        let shown = Shown::new(&key, done.sequence).found(done.value);
        self.show(output, Shown { swapped: Some(done.value), ..shown }, text)?;
        Ok(if done.value { Exit::Done } else { Exit::ConditionFailed })
    }

    async fn range(&self, arguments: RangeArguments, output: &mut Output) -> anyhow::Result<Exit> {
        let prefix = Blob::from(self.form.read("the prefix", &arguments.prefix)?);
        let store = self.ordered().await?;
        let mut left = arguments.limit.unwrap_or(u64::MAX);
        let mut after = None;
        loop {
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(RANGE_ENTRIES_MAX);
            let page = store.range(Range { prefix: prefix.clone(), after, limit }).await.map_err(explain)?;
            for entry in &page.value.entries {
                if output.is_json() {
                    output.show_json(
                        &self.form.json(Shown::new(&entry.key, page.sequence).found(true).value(&entry.value)),
                    )?;
                } else {
                    let line =
                        [&self.form.write(&entry.key)[..], b"\t", &self.form.write(&entry.value), b"\n"].concat();
                    output.write_bytes(&line)?;
                }
            }
            left = left.saturating_sub(page.value.entries.len() as u64);
            after = page.value.entries.last().map(|entry| entry.key.clone());
            if !page.value.more || left == 0 {
                return Ok(Exit::Done);
            }
        }
    }

    /// Says in JSON on stdout, or as text on stderr so that stdout holds values alone, what happened.
    fn show(&self, output: &mut Output, shown: Shown<'_>, text: &str) -> anyhow::Result<()> {
        if output.is_json() {
            output.show_json(&self.form.json(shown))?;
        } else {
            // Nobody may read what is only a comment.
            writeln!(io::stderr().lock(), "{text} (slot {})", shown.sequence).ok();
        }
        Ok(())
    }

    fn no_such_key(&self, output: &mut Output, key: &[u8], sequence: Sequence) -> anyhow::Result<Exit> {
        self.show(output, Shown::new(key, sequence).found(false), "there is no such key")?;
        Ok(Exit::NoSuchKey)
    }
}

/// How keys and values stand in arguments and in what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Base64,
}

impl Form {
    fn read(self, what: &str, text: &str) -> Result<Vec<u8>, Problem> {
        match self {
            Self::Text => Ok(text.as_bytes().to_vec()),
            Self::Base64 => BASE64.decode(text).map_err(|error| {
                Problem::usage(format!("{what} is not base64: {error}"), "write it in base64, or leave --base64 out")
            }),
        }
    }

    fn write(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Text => bytes.to_vec(),
            Self::Base64 => BASE64.encode(bytes).into_bytes(),
        }
    }

    /// Text where it is text and may be, else base64.
    fn json(self, shown: Shown<'_>) -> Json {
        let split = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) if self == Self::Text => (Some(text.to_owned()), None),
            Ok(_) | Err(_) => (None, Some(BASE64.encode(bytes))),
        };
        let (key, key_base64) = split(shown.key);
        let (value, value_base64) = shown.value.map_or((None, None), split);
        Json {
            found: shown.found,
            key,
            key_base64,
            value,
            value_base64,
            swapped: shown.swapped,
            sequence: shown.sequence.value(),
        }
    }
}

/// What there is to say of a key.
#[derive(Debug, Clone, Copy)]
struct Shown<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
    found: Option<bool>,
    swapped: Option<bool>,
    sequence: Sequence,
}

impl<'a> Shown<'a> {
    fn new(key: &'a [u8], sequence: Sequence) -> Self {
        Self { key, value: None, found: None, swapped: None, sequence }
    }

    fn found(self, found: bool) -> Self {
        Self { found: Some(found), ..self }
    }

    fn value(self, value: &'a [u8]) -> Self {
        Self { value: Some(value), ..self }
    }
}

/// The same as JSON.
#[derive(Debug, Serialize)]
struct Json {
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swapped: Option<bool>,
    sequence: u64,
}

/// A value from a file or stdin, no longer than the store takes.
fn read_value(path: &Path) -> anyhow::Result<Vec<u8>> {
    let limit = VALUE_BYTES_MAX as u64 + 1;
    let mut value = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut value)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut value))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if value.len() > VALUE_BYTES_MAX {
        let what = format!("{} holds more than the {VALUE_BYTES_MAX} bytes of the longest value", path.display());
        return Err(Problem::usage(what, "split it over several keys").into());
    }
    Ok(value)
}

/// Adds what the reader can do about it, where nothing was to be changed.
fn explain(error: KvError) -> anyhow::Error {
    advise(error, "")
}

/// Adds what the reader can do about it, and that a change may have been made.
fn explain_write(error: KvError) -> anyhow::Error {
    let may_have_executed = error.may_have_executed();
    advise(error, if may_have_executed { "; it may have happened nevertheless: look before you repeat it" } else { "" })
}

fn advise(error: KvError, fate: &str) -> anyhow::Error {
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let what = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let mend = match &error {
        KvError::Operation(_) => {
            return Problem::usage(what, "a key has 1 to 1024 bytes, a value at most 131072").into();
        }
        KvError::Client(ClientError::Unreachable(_) | ClientError::TimedOut { .. }) => {
            format!("start the replicas that do not run; `quorate status` shows them{fate}")
        }
        KvError::Client(ClientError::NoProof { .. }) => {
            "read with --ordered, or try again when a checkpoint that is new enough is stable".to_owned()
        }
        KvError::Full => "delete something first".to_owned(),
        _ => format!("try again{fate}"),
    };
    Problem::failed(what, mend).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(form: Form, shown: Shown<'_>) -> String {
        serde_json::to_string(&form.json(shown)).unwrap()
    }

    #[test]
    fn what_is_text_is_shown_as_text_and_the_rest_in_base64() {
        let shown = Shown::new(b"k", Sequence::new(7)).found(true);
        assert_eq!(json(Form::Text, shown.value(b"v")), r#"{"found":true,"key":"k","value":"v","sequence":7}"#);
        let expected = r#"{"found":true,"key":"k","value_base64":"/w==","sequence":7}"#;
        assert_eq!(json(Form::Text, shown.value(b"\xff")), expected);
        let expected = r#"{"found":true,"key_base64":"aw==","value_base64":"dg==","sequence":7}"#;
        assert_eq!(json(Form::Base64, shown.value(b"v")), expected);
    }

    #[test]
    fn base64_is_read_and_what_is_none_is_wrong_usage() {
        assert_eq!(Form::Base64.read("the key", "aw==").unwrap(), b"k");
        assert_eq!(Form::Text.read("the key", "aw==").unwrap(), b"aw==");
        let problem = Form::Base64.read("the key", "a?").unwrap_err();
        assert!(problem.to_string().starts_with("the key is not base64"));
    }

    #[test]
    fn what_may_have_happened_is_said_to_the_reader() {
        let unknown = quorate_protocol::client::ClientError::OutcomeUnknown;
        let unknown = || KvError::Client(ClientError::Session(unknown));
        let is_warned = |error: anyhow::Error| {
            crate::error::Report::new(&error).mend.is_some_and(|mend| mend.contains("may have happened"))
        };
        assert!(is_warned(explain_write(unknown())));
        assert!(!is_warned(explain_write(KvError::Full)) && !is_warned(explain(unknown())));
    }

    #[test]
    fn a_file_longer_than_any_value_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        fs::write(&path, vec![0; VALUE_BYTES_MAX]).unwrap();
        assert_eq!(read_value(&path).unwrap().len(), VALUE_BYTES_MAX);
        fs::write(&path, vec![0; VALUE_BYTES_MAX + 1]).unwrap();
        assert!(read_value(&path).is_err());
        assert!(read_value(&folder.path().join("none")).is_err());
    }
}
