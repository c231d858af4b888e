//! One task a connection: submits what is due for each client that has room, and takes the answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorate_protocol::codec::Blob;
use quorate_protocol::kv::{Output, StepOutput};
use tokio::time::sleep_until;

use super::history::{CallOutcome, CallResult, Ended, Lines};
use super::measure::{Measured, Shared};
use super::pace::{Pace, Ticker};
use super::workload::{Call, Workload};
use crate::client::{Answer, ClientError, Completion, CompletionSender, Completions, Connection, Session, completions};

/// Completions that are taken at once.
const BULK: usize = 256;

/// How long a client rests after an error, in nanoseconds, so that errors that come at once are not asked for again at once.
const REST_NS: u64 = 100_000_000;

/// How long outstanding requests are waited for after the end, in nanoseconds.
const DRAIN_NS: u64 = 5_000_000_000;

/// How often the generator looks whether it is over, in nanoseconds.
const LOOK_NS: u64 = 100_000_000;

/// One client of the load.
#[derive(Debug)]
pub(super) struct LoadClient {
    /// Its place among all clients.
    pub(super) index: usize,
    pub(super) session: Session,
    /// Requests that it submitted so far.
    pub(super) submitted: u64,
}

/// A request without an answer.
#[derive(Debug)]
struct Outstanding {
    /// The client's place in this generator.
    client: usize,
    number: u64,
    /// When it was due: what its latency counts from.
    due_ns: u64,
    submitted_ns: u64,
    /// Kept only for a history.
    calls: Vec<Call>,
}

/// Drives the clients of one connection.
#[derive(Debug)]
pub(super) struct Generator {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    clients: Vec<LoadClient>,
    workload: Workload,
    /// Whether reads need not be ordered.
    fast_reads: bool,
    pace: Pace,
    lines: Option<Lines>,
    /// Clients with room, once for each request that they have room for. Bound: clients times window, as the next two.
    free: VecDeque<usize>,
    /// Clients that rest, and until when.
    resting: VecDeque<(u64, usize)>,
    /// By tag.
    outstanding: Vec<Option<Outstanding>>,
    free_tags: Vec<u64>,
    measured: Measured,
    submit_to: CompletionSender,
}

/// What a generator is made of.
#[derive(Debug)]
pub(super) struct GeneratorOptions {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Arc<Connection>,
    pub(super) clients: Vec<LoadClient>,
    pub(super) window: usize,
    pub(super) workload: Workload,
    pub(super) fast_reads: bool,
    pub(super) pace: Pace,
    pub(super) lines: Option<Lines>,
}

impl Generator {
    pub(super) fn new(options: GeneratorOptions) -> (Self, Completions) {
        let GeneratorOptions { shared, connection, clients, window, workload, fast_reads, pace, lines } = options;
        let (submit_to, completions) = completions();
        let free = (0..window).flat_map(|_| 0..clients.len()).collect();
        let generator = Self {
            shared,
            connection,
            clients,
            workload,
            fast_reads,
            pace,
            lines,
            free,
            resting: VecDeque::new(),
            outstanding: Vec::new(),
            free_tags: Vec::new(),
            measured: Measured::new(),
            submit_to,
        };
        (generator, completions)
    }

    /// Works until the end of the run, and a little longer for what is outstanding then.
    pub(super) async fn run(mut self, mut completions: Completions) -> Result<Measured, ClientError> {
        let mut new = Vec::with_capacity(BULK);
        let ticker = Ticker::start(&self.pace, self.shared.instant(0));
        loop {
            let now_ns = self.shared.now_ns();
            self.wake_rested(now_ns);
            self.submit_due(now_ns).await?;
            if self.is_done(now_ns) {
                break;
            }
            tokio::select! {
                biased;
                _ = completions.recv_many(&mut new, BULK) => {}
                () = tick(ticker.as_ref()) => {}
                () = sleep_until(self.shared.instant(self.wake_ns(now_ns)).into()) => {}
            }
            self.take(&mut new).await;
        }
        self.give_up_outstanding();
        if let Some(lines) = &mut self.lines {
            lines.flush().await;
        }
        Ok(self.measured)
    }

    fn wake_rested(&mut self, now_ns: u64) {
        while let Some((_, client)) = self.resting.pop_front_if(|(until_ns, _)| *until_ns <= now_ns) {
            self.free.push_back(client);
        }
    }

    async fn submit_due(&mut self, now_ns: u64) -> Result<(), ClientError> {
        loop {
            let due_ns = self.pace.next_due(now_ns);
            if due_ns > now_ns || self.free.is_empty() || !self.shared.admit(now_ns) {
                return Ok(());
            }
            let Some(client) = self.free.pop_front() else { return Ok(()) };
            self.pace.advance();
            self.submit(client, due_ns).await?;
        }
    }

    async fn submit(&mut self, client: usize, due_ns: u64) -> Result<(), ClientError> {
        let mut calls = self.workload.next();
        let read = calls.first().filter(|call| self.fast_reads && matches!(call, Call::Get { .. })).map(Call::encode);
        let operations: Vec<Blob> = calls.iter().map(Call::encode).collect();
        if self.lines.is_none() {
            calls = Vec::new();
        }
        let load_client = &mut self.clients[client];
        load_client.submitted += 1;
        let number = load_client.submitted;
        let outstanding = Outstanding { client, number, due_ns, submitted_ns: self.shared.now_ns(), calls };
        let tag = self.free_tags.pop().unwrap_or_else(|| {
            self.outstanding.push(None);
            self.outstanding.len() as u64 - 1
        });
        self.outstanding[index(tag)] = Some(outstanding);
        match read {
            Some(read) => load_client.session.read_tagged(tag, read, &self.submit_to).await,
            None => load_client.session.submit_tagged(tag, operations, &self.submit_to).await,
        }
    }

    fn outstanding_count(&self) -> usize {
        self.outstanding.len() - self.free_tags.len()
    }

    fn is_done(&self, now_ns: u64) -> bool {
        if !self.shared.is_closed(now_ns) {
            return false;
        }
        let has_waited = self.shared.phases.end_ns.is_some_and(|end_ns| now_ns >= end_ns.saturating_add(DRAIN_NS));
        self.outstanding_count() == 0 || has_waited || self.shared.is_over.load(Ordering::Relaxed)
    }

    /// When to go on without a completion or a tick: when the next client has rested, or to look around.
    fn wake_ns(&self, now_ns: u64) -> u64 {
        let look_ns = now_ns + LOOK_NS;
        self.resting.front().map_or(look_ns, |(until_ns, _)| look_ns.min(*until_ns))
    }

    async fn take(&mut self, new: &mut Vec<Completion>) {
        if new.is_empty() {
            return;
        }
        let (now_ns, view) = (self.shared.now_ns(), self.connection.view().value());
        for completion in new.drain(..) {
            self.on_completion(now_ns, view, completion);
        }
        if let Some(lines) = &mut self.lines {
            lines.hand_over().await;
        }
    }

    fn on_completion(&mut self, now_ns: u64, view: u64, completion: Completion) {
        let Completion { tag, outcome } = completion;
        let Some(request) = self.outstanding.get_mut(index(tag)).and_then(Option::take) else { return };
        self.free_tags.push(tag);
        let counts = self.shared.counts(request.submitted_ns, now_ns);
        let outcome = outcome.map_err(|error| (error.to_string(), error.may_have_executed()));
        let outcome = outcome.and_then(|answer| results(&answer).map(|results| (answer, results)));
        match &outcome {
            Ok((answer, results)) => {
                let operations = results.len() as u64;
                self.shared.operations.fetch_add(operations, Ordering::Relaxed);
                self.free.push_back(request.client);
                if counts {
                    let since_ns = now_ns.saturating_sub(self.shared.phases.measure_ns);
                    self.measured.on_answer(operations, now_ns.saturating_sub(request.due_ns), since_ns);
                    self.measured.retries += u64::from(answer.retries);
                    self.shared.on_answer(now_ns, view);
                }
            }
            Err((reason, _)) => {
                self.shared.errors.fetch_add(1, Ordering::Relaxed);
                self.resting.push_back((now_ns + REST_NS, request.client));
                if counts {
                    self.measured.on_error(reason.clone());
                }
            }
        }
        let (outcome, executed) = match outcome {
            Ok((answer, results)) => (CallOutcome::Ok, Some((answer.sequence, answer.index, results))),
            Err((_, true)) => (CallOutcome::Unknown, None),
            Err((_, false)) => (CallOutcome::Error, None),
        };
        self.write(&request, Some(now_ns), outcome, executed);
    }

    fn write(
        &mut self,
        request: &Outstanding,
        end_ns: Option<u64>,
        outcome: CallOutcome,
        executed: Option<(quorate_protocol::number::Sequence, Option<u32>, Vec<CallResult>)>,
    ) {
        let Some(lines) = &mut self.lines else { return };
        lines.add(&Ended {
            client: self.clients[request.client].index,
            number: request.number,
            calls: &request.calls,
            start_ns: request.submitted_ns,
            end_ns,
            outcome,
            executed,
        });
    }

    /// What has no answer by now has none.
    fn give_up_outstanding(&mut self) {
        for request in std::mem::take(&mut self.outstanding).into_iter().flatten() {
            self.measured.on_error("no answer until the end".to_owned());
            self.write(&request, None, CallOutcome::Unknown, None);
        }
        self.measured.never_sent = self.pace.due_before(self.shared.phases.end_ns.unwrap_or(0));
    }
}

/// The next tick; never without a ticker.
async fn tick(ticker: Option<&Ticker>) {
    match ticker {
        Some(ticker) => ticker.tick().await,
        None => std::future::pending().await,
    }
}

/// What each operation gave, or what is wrong and whether the request may have executed nevertheless.
fn results(answer: &Answer) -> Result<Vec<CallResult>, (String, bool)> {
    let result = |bytes| match Output::decode(bytes) {
        Ok(Output::Step(StepOutput::Done { replaced })) => Ok(CallResult::Flag(replaced)),
        Ok(Output::Step(StepOutput::Deleted(existed))) => Ok(CallResult::Flag(existed)),
        Ok(Output::Step(StepOutput::Value(value))) => {
            Ok(CallResult::Value(value.map(|value| String::from_utf8_lossy(&value).into_owned())))
        }
        Ok(Output::Step(StepOutput::TooLarge)) => Err(("the answer is too large".to_owned(), true)),
        Ok(Output::Swapped(swapped)) => Ok(CallResult::Flag(swapped)),
        Ok(Output::Full) => Err(("the store is full".to_owned(), false)),
        Ok(_) | Err(_) => Err(("an answer without a meaning".to_owned(), true)),
    };
    answer.results.iter().map(result).collect()
}

fn index(tag: u64) -> usize {
    usize::try_from(tag).unwrap_or(usize::MAX)
}
