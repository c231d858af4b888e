//! Who waits for what: submissions for their results, questions for their answers.

use std::collections::BTreeMap;

use quorate_crypto::PublicKey;
use quorate_protocol::codec::Blob;
use quorate_protocol::message::{ClientMessage, ReplicaMessage, Want};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::ClientError;
use super::session::{Answer, Completion, CompletionSender};

/// Questions without an answer, at most; those whose asker went away make room.
pub(super) const QUESTIONS_MAX: usize = 256;

/// Who gets the result of a submission.
#[derive(Debug)]
pub(super) struct Respond {
    destination: Destination,
    /// The submission's room in its session, free again afterwards.
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Destination {
    Caller(oneshot::Sender<Result<Answer, ClientError>>),
    Queue(u64, CompletionSender),
}

impl Respond {
    pub(super) fn to_caller(
        caller: oneshot::Sender<Result<Answer, ClientError>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { destination: Destination::Caller(caller), _permit: permit }
    }

    pub(super) fn to_queue(tag: u64, queue: CompletionSender, permit: OwnedSemaphorePermit) -> Self {
        Self { destination: Destination::Queue(tag, queue), _permit: permit }
    }

    /// Tells the result. Whoever does not wait any more does not hear it.
    pub(super) fn tell(self, outcome: Result<Answer, ClientError>) {
        match self.destination {
            Destination::Caller(caller) => drop(caller.send(outcome)),
            Destination::Queue(tag, queue) => drop(queue.send(Completion { tag, outcome })),
        }
    }
}

/// Questions to single replicas.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Bound: [`QUESTIONS_MAX`] together with `numbered`.
    accounts: Vec<(ReplicaId, oneshot::Sender<Blob>)>,
    numbered: BTreeMap<RequestNumber, Numbered>,
    last: RequestNumber,
}

/// A question whose answer names its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// For the value of a key with its proof.
    Proof { query: Blob },
    /// For what it has executed.
    Reading { client: PublicKey, operation: Blob },
    /// Which checkpoint the replica hands out.
    Checkpoint,
    /// For a piece of it.
    Piece { sequence: Sequence, want: Want, offset: u32 },
}

impl Question {
    fn message(&self, number: RequestNumber) -> ClientMessage {
        match self {
            Self::Proof { query } => ClientMessage::Prove { number, query: query.clone() },
            Self::Reading { client, operation } => {
                ClientMessage::Read { client: *client, number, operation: operation.clone() }
            }
            Self::Checkpoint => ClientMessage::Checkpoint { number },
            Self::Piece { sequence, want, offset } => {
                ClientMessage::Part { number, sequence: *sequence, want: want.clone(), offset: *offset }
            }
        }
    }
}

#[derive(Debug)]
struct Numbered {
    to: ReplicaId,
    question: Question,
    answer: oneshot::Sender<ReplicaMessage>,
}

impl Questions {
    /// Asks a replica for its account; gives what to send it.
    pub(super) fn ask_account(&mut self, to: ReplicaId, answer: oneshot::Sender<Blob>) -> Option<ClientMessage> {
        self.make_room()?;
        self.accounts.push((to, answer));
        Some(ClientMessage::Status)
    }

    /// Asks a replica something that its answer names; gives what to send it.
    pub(super) fn ask(
        &mut self,
        to: ReplicaId,
        question: Question,
        answer: oneshot::Sender<ReplicaMessage>,
    ) -> Option<ClientMessage> {
        self.make_room()?;
        let number = self.last.saturating_add(1);
        self.last = number;
        let message = question.message(number);
        self.numbered.insert(number, Numbered { to, question, answer });
        Some(message)
    }

    fn make_room(&mut self) -> Option<()> {
        if self.accounts.len() + self.numbered.len() >= QUESTIONS_MAX {
            self.accounts.retain(|(_, answer)| !answer.is_closed());
            self.numbered.retain(|_, question| !question.answer.is_closed());
        }
        (self.accounts.len() + self.numbered.len() < QUESTIONS_MAX).then_some(())
    }

    /// What a replica whose link came up is to be asked again: what was under way went lost.
    pub(super) fn again(&self, to: ReplicaId) -> Vec<ClientMessage> {
        let account = self.accounts.iter().any(|(asked, _)| *asked == to).then_some(ClientMessage::Status);
        let open = self.numbered.iter().filter(|(_, asked)| asked.to == to && !asked.answer.is_closed());
        let open = open.map(|(number, asked)| asked.question.message(*number));
        account.into_iter().chain(open).collect()
    }

    /// A replica's account came: it answers all who asked for it.
    pub(super) fn on_account(&mut self, from: ReplicaId, account: &Blob) {
        for (_, answer) in self.accounts.extract_if(.., |(asked, _)| *asked == from) {
            answer.send(account.clone()).ok();
        }
    }

    /// An answer came. Only the one who was asked counts.
    pub(super) fn on_answer(&mut self, from: ReplicaId, number: RequestNumber, message: ReplicaMessage) {
        if self.numbered.get(&number).is_some_and(|question| question.to == from)
            && let Some(question) = self.numbered.remove(&number)
        {
            question.answer.send(message).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: ReplicaId = ReplicaId::new(1);

    #[test]
    fn questions_are_bounded_and_those_nobody_waits_for_make_room() {
        let mut questions = Questions::default();
        let mut askers = Vec::new();
        for _ in 0..QUESTIONS_MAX {
            let (answer, asker) = oneshot::channel();
            assert!(questions.ask_account(ASKED, answer).is_some());
            askers.push(asker);
        }
        assert!(questions.ask_account(ASKED, oneshot::channel().0).is_none());
        askers.pop();
        assert!(questions.ask(ASKED, Question::Checkpoint, oneshot::channel().0).is_some());
    }

    #[test]
    fn only_the_replica_that_was_asked_answers() {
        let mut questions = Questions::default();
        let (answer, mut account) = oneshot::channel();
        questions.ask_account(ASKED, answer);
        questions.on_account(ReplicaId::new(2), &Blob::EMPTY);
        assert!(account.try_recv().is_err());
        questions.on_account(ASKED, &Blob::from(&b"{}"[..]));
        assert_eq!(account.try_recv(), Ok(Blob::from(&b"{}"[..])));
        let (answer, mut proof) = oneshot::channel();
        questions.ask(ASKED, Question::Checkpoint, answer);
        let message = || ReplicaMessage::Status(Blob::EMPTY);
        questions.on_answer(ReplicaId::new(2), RequestNumber::new(1), message());
        assert!(proof.try_recv().is_err());
        questions.on_answer(ASKED, RequestNumber::new(1), message());
        assert!(proof.try_recv().is_ok());
    }

    #[test]
    fn what_is_not_answered_is_asked_again_on_a_new_link() {
        let mut questions = Questions::default();
        let (_account, _proof);
        let (answer, asker) = oneshot::channel();
        _account = asker;
        questions.ask_account(ASKED, answer);
        let (answer, asker) = oneshot::channel();
        _proof = asker;
        questions.ask(ASKED, Question::Proof { query: Blob::from(&b"k"[..]) }, answer);
        let expected =
            [ClientMessage::Status, ClientMessage::Prove { number: RequestNumber::new(1), query: b"k"[..].into() }];
        assert_eq!(questions.again(ASKED), expected);
        assert!(questions.again(ReplicaId::new(0)).is_empty());
    }
}
