//! Answers clients with results that are none, for others, and before anything is decided. (Castro and Liskov, OSDI 1999, section
//! 4.1: a client waits for f + 1 equal replies; PROTOCOL §4.6)
//!
//! It breaks the client that believes one replica: it reads what was never written, gives up its session, or goes to a
//! primary that is none. Correct clients take what w replicas say alike.

use quorate_protocol::Output;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Outcome, Reply};
use quorate_protocol::number::{RequestNumber, Sequence, Session, View};

use super::{Body, Strategy};

/// Tells clients something else in each reply, the same as its accomplices.
#[derive(Debug)]
pub(super) struct LieToClients;

/// What is said about a request instead. Accomplices agree, since it depends on the request alone.
fn lie(reply: &Reply) -> Outcome {
    let number = reply.number.value();
    let sequence = Sequence::new(number.saturating_add(1));
    let results = |count: usize| List::new(vec![Blob::from(vec![0xfe; 3]); count]).unwrap_or_else(List::empty);
    match (number % 6, &reply.outcome) {
        (0, Outcome::Executed { sequence, index, results: true_ones }) => {
            Outcome::Executed { sequence: *sequence, index: *index, results: results(true_ones.len()) }
        }
        (1, Outcome::Executed { results, .. }) => Outcome::Executed { sequence, index: 7, results: results.clone() },
        (2, _) => Outcome::Evicted,
        (3, _) => Outcome::Forgotten,
        (4, _) => Outcome::Superseded { opening: RequestNumber::new(u64::MAX) },
        _ => Outcome::Opened { session: Session { sequence, index: 1 } },
    }
}

impl Strategy for LieToClients {
    fn output(&mut self, body: &mut Body, output: Output) -> Option<Output> {
        let Output::Reply(reply) = output else { return Some(output) };
        let outcome = lie(&reply);
        // The truth is heard as well, after a lie about everything: the first word of a replica counts.
        let view = View::new(reply.view.value().saturating_add(1));
        body.out.push_back(Output::Reply(Reply { outcome, view, ..reply }));
        body.out.push_back(Output::Busy { client: reply.client, number: reply.number, retry_after_ms: u32::MAX });
        (reply.number.value().is_multiple_of(2)).then_some(Output::Reply(reply))
    }
}
