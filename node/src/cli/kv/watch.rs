//! `quorate kv watch`: what changes under a prefix, seen by reading it again and again.
//!
//! Each reading is one that enough replicas vouch for, so none alone can make a change up. What a key held between two
//! readings is not seen.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use quorate_crypto::{Digest, Domain, hash};
use quorate_protocol::codec::Blob;
use quorate_protocol::kv::{RANGE_ENTRIES_MAX, Range};
use quorate_protocol::message::Entry;
use quorate_protocol::number::Sequence;
use serde::Serialize;

use super::{Form, Json, Output, Shown, Store, explain};
use crate::cli::signals::StopSignals;
use crate::client::ClientError;
use crate::client::kv::{Executed, KeyValue, KvError, Page};
use crate::configuration::parse_positive_duration;
use crate::error::Exit;

/// Show what changes under a prefix, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv watch user/ --net net/client
  quorate kv watch '' --interval 200ms --json --net net/client

A line a change: the slot of the reading that saw it, `put` or `delete`, the key, and the value; with --json an object. \
The keys are read at each interval, by requests that are ordered like writes, and compared with what was read before: \
what a key held between two readings is not seen, and no single replica can make a change up. What is there at the \
beginning is no change; --initial shows it. Takes some 100 bytes of memory for each key, besides the key.")]
pub(super) struct Arguments {
    /// What the keys begin with; '' for all
    prefix: String,
    /// How long to wait after a reading
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration, default_value = "1s")]
    interval: Duration,
    /// Show what is there at the beginning, too
    #[arg(long)]
    initial: bool,
    /// Ask all replicas without ordering the readings, where the cluster allows it; else they are ordered
    #[arg(long)]
    fast: bool,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    key: Blob,
    /// None if it was removed.
    value: Option<Blob>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Watched {
    /// The digest of each key's value. Bound: the keys that the store holds.
    values: BTreeMap<Vec<u8>, Digest>,
}

impl Watched {
    /// Takes in a page: all entries after the key `after`, up to the last of them if there are `more`. Gives what is not as
    /// it was, in order of the keys.
    fn take(&mut self, after: Option<&[u8]>, entries: &[Entry], more: bool) -> Vec<Change> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let last = match entries.last() {
            Some(last) if more => Bound::Included(&last.key[..]),
            _ => Bound::Unbounded,
        };
        let is_there = |key: &[u8]| entries.binary_search_by(|entry| (*entry.key).cmp(key)).is_ok();
        let held = self.values.range::<[u8], _>((first, last)).map(|(key, _)| key);
        let gone: Vec<Vec<u8>> = held.filter(|key| !is_there(key)).cloned().collect();
        let mut changes = Vec::new();
        for key in gone {
            self.values.remove(&key);
            changes.push(Change { key: key.into(), value: None });
        }
        for Entry { key, value } in entries {
            let digest = hash(Domain::Entry, &[value]);
            if self.values.insert(key.to_vec(), digest) != Some(digest) {
                changes.push(Change { key: key.clone(), value: Some(value.clone()) });
            }
        }
        changes.sort_by(|left, right| left.key.cmp(&right.key));
        changes
    }
}

impl Store {
    pub(super) async fn watch(&self, arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
        let mut signals = StopSignals::listen().context("cannot listen for signals")?;
        tokio::select! {
            outcome = self.keep_watching(arguments, output) => outcome,
            _ = signals.next() => Ok(Exit::Done),
        }
    }

    async fn keep_watching(&self, arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
        let Arguments { prefix, interval, initial, fast } = arguments;
        let prefix = Blob::from(self.form.read("the prefix", &prefix)?);
        let mut store = None;
        let (mut watched, mut is_shown) = (Watched::default(), initial);
        loop {
            let session = match store.take() {
                Some(session) => session,
                None if fast => self.unordered().await?,
                None => self.ordered().await?,
            };
            match self.read_all(&session, &prefix, fast, &mut watched, is_shown.then_some(&mut *output)).await? {
                None => {
                    // The first whole reading says what is there.
                    if !is_shown {
                        tracing::info!(keys = watched.values.len(), "watching");
                    }
                    is_shown = true;
                }
                Some(error) => tracing::warn!("{error}: trying again"),
            }
            store = Some(session);
            tokio::time::sleep(interval).await;
        }
    }

    /// Reads all pages once, and shows what changed if there is somewhere to. Gives why it could not, if that may pass.
    async fn read_all(
        &self,
        store: &KeyValue,
        prefix: &Blob,
        fast: bool,
        watched: &mut Watched,
        mut output: Option<&mut Output>,
    ) -> anyhow::Result<Option<KvError>> {
        let mut after: Option<Blob> = None;
        loop {
            let range = Range { prefix: prefix.clone(), after: after.clone(), limit: RANGE_ENTRIES_MAX };
            let page = if fast { store.range_fast(range).await } else { store.range(range).await };
            let Executed { value: Page { entries, more }, sequence, .. } = match page {
                Ok(page) => page,
                Err(error) if may_pass(&error) => return Ok(Some(error)),
                Err(error) => return Err(explain(error)),
            };
            let changes = watched.take(after.as_deref(), &entries, more);
            if let Some(output) = output.as_deref_mut() {
                changes.iter().try_for_each(|change| show(self.form, change, sequence, output))?;
            }
            after = entries.last().map(|entry| entry.key.clone());
            if !more {
                return Ok(None);
            }
        }
    }
}

/// Whether the next reading may go well: a watch outlives the replicas' restarts.
fn may_pass(error: &KvError) -> bool {
    match error {
        KvError::Client(ClientError::Closed | ClientError::TooManyClients) => false,
        KvError::Client(_) => true,
        _ => false,
    }
}

fn show(form: Form, change: &Change, sequence: Sequence, output: &mut Output) -> anyhow::Result<()> {
    let Change { key, value } = change;
    if output.is_json() {
        let shown = Shown::new(key, sequence);
        let shown = value.as_ref().map_or(shown, |value| shown.value(value));
        output.show_json(&Changed { deleted: value.is_none(), entry: form.json(shown) })?;
        return Ok(());
    }
    let what = if value.is_some() { "put" } else { "delete" };
    let mut line = format!("{sequence}\t{what}\t").into_bytes();
    line.extend(form.write(key));
    if let Some(value) = value {
        line.push(b'\t');
        line.extend(form.write(value));
    }
    line.push(b'\n');
    Ok(output.write_bytes(&line)?)
}

/// A change as JSON.
#[derive(Debug, Serialize)]
struct Changed {
    deleted: bool,
    #[serde(flatten)]
    entry: Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<Entry> {
        let blob = |text: &str| Blob::from(text.as_bytes());
        pairs.iter().map(|(key, value)| Entry { key: blob(key), value: blob(value) }).collect()
    }

    /// `key=value` for what was written, `-key` for what was removed.
    fn said(changes: Vec<Change>) -> Vec<String> {
        let text = |bytes: &Blob| String::from_utf8(bytes.to_vec()).unwrap();
        let said = changes.iter().map(|change| match &change.value {
            Some(value) => format!("{}={}", text(&change.key), text(value)),
            None => format!("-{}", text(&change.key)),
        });
        said.collect()
    }

    #[test]
    fn what_is_new_other_or_gone_is_a_change_and_nothing_else() {
        let mut watched = Watched::default();
        assert_eq!(said(watched.take(None, &entries(&[("a", "1"), ("c", "3")]), false)), ["a=1", "c=3"]);
        assert!(watched.take(None, &entries(&[("a", "1"), ("c", "3")]), false).is_empty());
        assert_eq!(said(watched.take(None, &entries(&[("b", "2"), ("c", "4")]), false)), ["-a", "b=2", "c=4"]);
        assert_eq!(said(watched.take(None, &[], false)), ["-b", "-c"]);
        assert_eq!(said(watched.take(None, &entries(&[("b", "2")]), false)), ["b=2"], "what comes back is new");
    }

    #[test]
    fn a_page_says_nothing_of_keys_outside_it() {
        let mut watched = Watched::default();
        watched.take(None, &entries(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]), false);
        assert_eq!(said(watched.take(None, &entries(&[("a", "1")]), true)), Vec::<String>::new());
        assert_eq!(said(watched.take(Some(b"a"), &entries(&[("c", "3")]), true)), ["-b"]);
        assert_eq!(said(watched.take(Some(b"c"), &[], false)), ["-d"]);
    }
}
