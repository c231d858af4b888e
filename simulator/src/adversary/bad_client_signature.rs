//! Orders, and passes on, what no client signed. (Clement et al., Making Byzantine Fault Tolerant Systems Tolerate Byzantine
//! Faults, NSDI 2009, section 3.2: the Big MAC; PROTOCOL §4.3)
//!
//! It breaks a system that leaves clients' signatures to the primary: operations run that nobody asked for. Correct
//! replicas check each signature before they accept a batch; one that is invalid proves its primary faulty. A backup that
//! passes on such a request harms nobody: the primary refuses it. (PROTOCOL §4.2)

use quorate_protocol::batch::{Batch, ParsedRequest};
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Signs in the place of clients.
#[derive(Debug)]
pub(super) struct BadClientSignature;

/// The request under a signature that is valid for something else.
fn unsigned(body: &Body, request: &ParsedRequest) -> ParsedRequest {
    let mut request = request.clone();
    request.signed.signature = body.prepare(body.view(), body.executed(), Batch::empty().digest()).signature;
    request
}

impl Strategy for BadClientSignature {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        match &message {
            Message::PrePrepare(proposal) => {
                let batch = body.batch_of(proposal)?;
                let mut requests = batch.requests().to_vec();
                let Some(last) = requests.last_mut() else { return Some(message) };
                *last = unsigned(body, last);
                let statement = proposal.vote.statement;
                let bad = Batch::new(batch.stamp(), requests);
                Some(body.propose(to, statement.view, statement.sequence, &bad))
            }
            Message::Request(signed) => {
                let request = ParsedRequest::parse(signed.clone(), body.configuration()).ok()?;
                body.send(to, Message::Request(unsigned(body, &request).signed));
                Some(message)
            }
            _ => Some(message),
        }
    }
}
