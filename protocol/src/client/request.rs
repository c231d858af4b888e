//! A request on its way: before it has a number, and from its first sending to its answer. (PROTOCOL §4.1)

use quorate_crypto::PublicKey;

use super::answers::Answers;
use super::member_set::MemberSet;
use super::{ClientError, Ticket};
use crate::batch::{OPERATIONS_MAX, SignedRequest};
use crate::codec::{Blob, List};
use crate::configuration::Parameters;
use crate::time::Time;

/// What an encoded request takes besides its operations: key, session, number, count.
const REQUEST_OVERHEAD_BYTES: usize = 32 + 12 + 8 + 4;

/// What an operation takes besides its bytes.
const OPERATION_OVERHEAD_BYTES: usize = 4;

/// Operations that wait for a number. Whatever waits was never sent.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    pub(super) ticket: Ticket,
    pub(super) operations: List<Blob, OPERATIONS_MAX>,
    pub(super) submitted_at: Time,
}

/// A request that has a number and was sent at least once.
#[derive(Debug, Clone)]
pub(super) struct Outstanding {
    pub(super) ticket: Ticket,
    pub(super) submitted_at: Time,
    pub(super) operations_count: usize,
    pub(super) sending: Sending,
}

/// A signed request, to whom it went, and when it goes again.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    /// Signed once; the same bytes go out each time.
    pub(super) signed: SignedRequest,
    pub(super) first_sent_at: Time,
    /// How often it was sent to all.
    pub(super) retries: u32,
    /// Whether the others were given a copy.
    pub(super) is_copied: bool,
    /// Those to whom it went by a link that has not broken since.
    pub(super) handed: MemberSet,
    /// When it is sent to all. Nothing that a replica says puts it off.
    pub(super) deadline: Time,
    /// When it is sent to the primary again, which was busy.
    pub(super) resend_at: Option<Time>,
    pub(super) answers: Answers,
}

impl Submission {
    /// Why no correct replica would order these operations, if that is so.
    pub(super) fn refuse(&self, client: &PublicKey, parameters: &Parameters) -> Option<ClientError> {
        let lengths = self.operations.iter().map(|operation| OPERATION_OVERHEAD_BYTES + operation.len());
        let bytes = lengths.fold(REQUEST_OVERHEAD_BYTES, usize::saturating_add);
        if self.operations.is_empty() {
            return Some(ClientError::NoOperations);
        }
        if self.operations.len() > parameters.batch_operations_max as usize {
            return Some(ClientError::TooManyOperations { operations_max: parameters.batch_operations_max });
        }
        if bytes > parameters.request_bytes_max as usize {
            return Some(ClientError::TooLarge { request_bytes_max: parameters.request_bytes_max });
        }
        (!parameters.clients.takes(client)).then_some(ClientError::NotListed)
    }
}

impl Sending {
    /// A request that nobody was given yet.
    pub(super) fn new(signed: SignedRequest, now: Time, deadline: Time) -> Self {
        Self {
            signed,
            first_sent_at: now,
            retries: 0,
            is_copied: false,
            handed: MemberSet::EMPTY,
            deadline,
            resend_at: None,
            answers: Answers::default(),
        }
    }

    /// When it needs attention next.
    pub(super) fn wake_at(&self) -> Time {
        self.resend_at.map_or(self.deadline, |resend_at| resend_at.min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::batch::Request;
    use crate::client::tests::key;
    use crate::codec::encode;
    use crate::configuration::ClientPolicy;
    use crate::number::{RequestNumber, Session};

    fn submission(operations: Vec<Blob>) -> Submission {
        Submission { ticket: 1, operations: List::new(operations).expect("few"), submitted_at: Time::ZERO }
    }

    fn refusal(operations: Vec<Blob>, parameters: &Parameters) -> Option<ClientError> {
        submission(operations).refuse(&key(9), parameters)
    }

    #[test]
    fn a_request_of_the_largest_size_is_taken_and_one_byte_more_is_refused() {
        let parameters = Parameters { request_bytes_max: 1024, ..Parameters::default() };
        let length = 1024 - REQUEST_OVERHEAD_BYTES - 2 * OPERATION_OVERHEAD_BYTES - 1;
        let operations = |length| vec![Blob::from(vec![1]), Blob::from(vec![0; length])];
        assert_eq!(refusal(operations(length), &parameters), None);
        assert_eq!(
            refusal(operations(length + 1), &parameters),
            Some(ClientError::TooLarge { request_bytes_max: 1024 })
        );
        let request = Request {
            client: key(9),
            session: Session::NONE,
            number: RequestNumber::new(1),
            operations: List::new(operations(length)).expect("two"),
        };
        assert_eq!(encode(&request).expect("short").len(), 1024);
    }

    #[test]
    fn what_no_replica_would_order_is_refused_at_once() {
        let some = || vec![Blob::from(vec![1]); 3];
        assert_eq!(refusal(vec![], &Parameters::default()), Some(ClientError::NoOperations));
        let parameters = Parameters { batch_operations_max: 2, ..Parameters::default() };
        assert_eq!(refusal(some(), &parameters), Some(ClientError::TooManyOperations { operations_max: 2 }));
        let clients = ClientPolicy::Listed(List::new(vec![key(8)]).expect("one"));
        let parameters = Parameters { clients, ..Parameters::default() };
        assert_eq!(refusal(some(), &parameters), Some(ClientError::NotListed));
        assert_eq!(submission(some()).refuse(&key(8), &parameters), None);
    }
}
