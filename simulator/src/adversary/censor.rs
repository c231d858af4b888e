//! Never orders what one client asks for, and serves all others. (Clement et al., Aardvark, NSDI 2009, section 5.3: unfair
//! primaries; PROTOCOL §6, deadline)
//!
//! It breaks a system that takes any progress for a sign that the primary is correct: the client waits for ever. Correct
//! backups expect each request by a deadline of its own, which progress on others does not restart.

use quorate_protocol::Output;
use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::verify::Payload;

use super::{Body, Strategy};

/// Does not hear one client, and does not speak to it: the same as its accomplices.
#[derive(Debug)]
pub(super) struct Censor;

impl Strategy for Censor {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        let client = match &input {
            Input::Request(request) | Input::Copy(request) => Some(request.request.client),
            Input::Message { message, .. } => match &**message {
                Payload::Request(request) => Some(request.request.client),
                _ => None,
            },
            _ => None,
        };
        let is_heard = client.is_none_or(|client| !body.is_victim(client));
        is_heard.then_some(input)
    }

    fn outgoing(&mut self, body: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        let Message::Request(signed) = &message else { return Some(message) };
        let client = signed.claimed_id().map(|id| id.client);
        let is_passed_on = client.is_none_or(|client| !body.is_victim(client));
        is_passed_on.then_some(message)
    }

    fn output(&mut self, body: &mut Body, output: Output) -> Option<Output> {
        let client = match &output {
            Output::Reply(reply) => Some(reply.client),
            Output::Busy { client, .. } => Some(*client),
            _ => None,
        };
        let is_answered = client.is_none_or(|client| !body.is_victim(client));
        is_answered.then_some(output)
    }
}
