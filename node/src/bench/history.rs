//! Every call and its answer as a line of JSON, for a check of linearizability.
//!
//! A line: `client` and `number` name the request, `step` the operation's place in it; `operation` is `put`, `get`,
//! `delete` or `cas`; then `key`, `value` (of a `put`, or what a `cas` sets), `expect` (of a `cas`; `null`: nothing); `start_ns` and `end_ns`
//! since the start of the run, the latter absent when no answer came; `outcome` is `ok`, `error` (it never executes) or
//! `unknown`; where it is `ok`, `result` is what a `get` found (`null`: nothing), of a `put` or `delete` whether the key held
//! a value before, of a `cas` whether it was as expected; `sequence` and `index` are the slot and the request's place in it,
//! absent of a read that nobody ordered.
//!
//! Lines stand in the order of the answers. Memory is bounded: lines wait in chunks, and generators wait for the disk.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use quorate_protocol::number::Sequence;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::workload::Call;

/// Bytes of lines that are handed to the disk at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that wait for the disk; beyond it generators wait.
const CHUNKS_MAX: usize = 64;

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum CallResult {
    /// Of a get.
    Value(Option<String>),
    /// Of a put or delete: whether the key held a value before. Of a compare-and-set: whether it wrote.
    Flag(bool),
}

/// Whether it executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CallOutcome {
    /// Once, with the result given.
    Ok,
    /// Never.
    Error,
    /// Nobody can tell.
    Unknown,
}

/// What a compare-and-set expects.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Expectation<'a> {
    Value(&'a str),
    Nothing,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    client: usize,
    number: u64,
    step: usize,
    operation: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Expectation<'a>>,
    start_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a CallResult>,
    outcome: CallOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
}

/// A request of which the end is known.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) client: usize,
    pub(super) number: u64,
    pub(super) calls: &'a [Call],
    pub(super) start_ns: u64,
    pub(super) end_ns: Option<u64>,
    pub(super) outcome: CallOutcome,
    /// Slot, place and a result for each call, if it executed.
    pub(super) executed: Option<(Sequence, Option<u32>, Vec<CallResult>)>,
}

/// Writes lines to the file, on a thread of its own.
#[derive(Debug)]
pub(super) struct Writer {
    chunks: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// Makes the file anew.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let (chunks, mut waiting) = mpsc::channel::<Vec<u8>>(CHUNKS_MAX);
        let thread = spawn_blocking(move || {
            while let Some(chunk) = waiting.blocking_recv() {
                file.write_all(&chunk)?;
            }
            file.sync_all()
        });
        Ok(Self { chunks, thread })
    }

    /// A generator's end of it.
    pub(super) fn lines(&self) -> Lines {
        Lines { chunk: Vec::with_capacity(CHUNK_BYTES), chunks: self.chunks.clone() }
    }

    /// Waits until all lines are written. Every generator must have ended.
    pub(super) async fn finish(self) -> io::Result<()> {
        drop(self.chunks);
        self.thread.await.map_err(io::Error::other)?
    }
}

/// Lines of one generator.
#[derive(Debug)]
pub(super) struct Lines {
    chunk: Vec<u8>,
    chunks: mpsc::Sender<Vec<u8>>,
}

impl Lines {
    /// Adds a request's lines.
    pub(super) fn add(&mut self, ended: &Ended<'_>) {
        for (step, call) in ended.calls.iter().enumerate() {
            let (operation, key, value, expect) = match call {
                Call::Put { key, value } => ("put", key, Some(value.as_str()), None),
                Call::Get { key } => ("get", key, None, None),
                Call::Delete { key } => ("delete", key, None, None),
                Call::Cas { key, expect, set } => {
                    ("cas", key, Some(set.as_str()), Some(expectation(expect.as_deref())))
                }
            };
            let line = Line {
                client: ended.client,
                number: ended.number,
                step,
                operation,
                key,
                value,
                expect,
                start_ns: ended.start_ns,
                end_ns: ended.end_ns,
                result: ended.executed.as_ref().and_then(|(_, _, results)| results.get(step)),
                outcome: ended.outcome,
                sequence: ended
                    .executed
                    .as_ref()
                    .filter(|(_, index, _)| index.is_some())
                    .map(|executed| executed.0.value()),
                index: ended.executed.as_ref().and_then(|(_, index, _)| *index),
            };
            serde_json::to_writer(&mut self.chunk, &line).expect("texts and numbers have a form in JSON");
            self.chunk.push(b'\n');
        }
    }

    /// Hands full chunks to the disk; waits for it if it is slow.
    pub(super) async fn hand_over(&mut self) {
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush().await;
        }
    }

    /// Hands all lines to the disk. If the disk failed they are lost, and [`Writer::finish`] says why.
    pub(super) async fn flush(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        self.chunks.send(chunk).await.ok();
    }
}

fn expectation(expect: Option<&str>) -> Expectation<'_> {
    expect.map_or(Expectation::Nothing, Expectation::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put() -> Call {
        Call::Put { key: "k".to_owned(), value: "v".to_owned() }
    }

    #[tokio::test]
    async fn a_history_holds_a_line_for_each_operation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let writer = Writer::create(&path).unwrap();
        let mut lines = writer.lines();
        let results = vec![CallResult::Flag(false), CallResult::Value(Some("v".to_owned())), CallResult::Value(None)];
        let get = |key: &str| Call::Get { key: key.to_owned() };
        lines.add(&Ended {
            client: 3,
            number: 4,
            calls: &[put(), get("k"), get("x")],
            start_ns: 5,
            end_ns: Some(6),
            outcome: CallOutcome::Ok,
            executed: Some((Sequence::new(7), Some(8), results)),
        });
        lines.add(&Ended {
            client: 0,
            number: 1,
            calls: &[put(), Call::Cas { key: "k".to_owned(), expect: None, set: "w".to_owned() }],
            start_ns: 9,
            end_ns: None,
            outcome: CallOutcome::Unknown,
            executed: None,
        });
        lines.flush().await;
        drop(lines);
        writer.finish().await.unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let expected = [
            r#"{"client":3,"number":4,"step":0,"operation":"put","key":"k","value":"v","start_ns":5,"end_ns":6,"result":false,"outcome":"ok","sequence":7,"index":8}"#,
            r#"{"client":3,"number":4,"step":1,"operation":"get","key":"k","start_ns":5,"end_ns":6,"result":"v","outcome":"ok","sequence":7,"index":8}"#,
            r#"{"client":3,"number":4,"step":2,"operation":"get","key":"x","start_ns":5,"end_ns":6,"result":null,"outcome":"ok","sequence":7,"index":8}"#,
            r#"{"client":0,"number":1,"step":0,"operation":"put","key":"k","value":"v","start_ns":9,"outcome":"unknown"}"#,
            r#"{"client":0,"number":1,"step":1,"operation":"cas","key":"k","value":"w","expect":null,"start_ns":9,"outcome":"unknown"}"#,
        ];
        assert_eq!(written.lines().collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn a_slow_disk_makes_the_generators_wait() {
        let (chunks, mut waiting) = mpsc::channel(CHUNKS_MAX);
        let mut lines = Lines { chunk: Vec::new(), chunks };
        for _ in 0..CHUNKS_MAX {
            lines.flush().await;
        }
        let blocked = tokio::time::timeout(std::time::Duration::from_millis(20), lines.flush()).await;
        assert!(blocked.is_err());
        assert!(waiting.try_recv().is_ok());
        lines.flush().await;
    }
}
