//! Requests that wait to be ordered: those that a primary will propose, and those that a backup expects. (PROTOCOL §4.2,
//! §4.6, §12)

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use quorate_crypto::PublicKey;

use crate::batch::{BATCH_OVERHEAD_BYTES, ParsedRequest, RequestId, SignedRequest};
use crate::configuration::Parameters;
use crate::time::Time;

/// Most requests that wait in total.
pub(crate) const REQUESTS_MAX: usize = 1 << 16;

/// Most bytes that waiting requests hold in total.
pub(crate) const BYTES_MAX: usize = 128 << 20;

/// How many requests, and how many bytes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Amount {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

/// A request that waits.
#[derive(Debug, Clone, Hash)]
struct Waiting {
    request: ParsedRequest,
    arrived: Time,
    is_proposed: bool,
    /// Whether it was passed on a second time in this view.
    is_repeated: bool,
    /// What is seen by it, if it is a copy.
    copy: Option<Copied>,
}

/// A copy of a request that its client gave to the primary of this view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Copied {
    /// When it came.
    pub(crate) arrived: Time,
    /// When it was passed on, if the primary was given it once more.
    pub(crate) passed_on: Option<Time>,
}

impl Amount {
    /// With one request more, if that is still within `max`.
    fn plus(self, request: &ParsedRequest, max: Self) -> Option<Self> {
        let more = Self { requests: self.requests + 1, bytes: self.bytes + request.bytes_in_batch() };
        (more.requests <= max.requests && more.bytes <= max.bytes).then_some(more)
    }
}

/// Requests in the order of their arrival.
#[derive(Debug, Clone, Hash, Default)]
pub(crate) struct Queue {
    /// Bounds: [`REQUESTS_MAX`], [`BYTES_MAX`], and a share for each client.
    waiting: BTreeMap<RequestId, Waiting>,
    /// Those not proposed in this view, oldest first; identities that left `waiting` are skipped. Bound: as `waiting`,
    /// since it is rebuilt when it holds twice as many.
    unproposed: VecDeque<RequestId>,
    unproposed_count: usize,
    unproposed_bytes: usize,
    /// All that wait, oldest first; those that left, or came again later, are skipped. Bound: as `unproposed`.
    by_arrival: VecDeque<(RequestId, Time)>,
    /// Copies that were not passed on, oldest first; those that left, or were proposed, are skipped. Bound: as `unproposed`.
    copies: VecDeque<RequestId>,
    /// Bound: as `waiting`.
    per_client: BTreeMap<PublicKey, Amount>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn contains(&self, id: &RequestId) -> bool {
        self.waiting.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many wait to be proposed.
    pub(crate) fn unproposed_count(&self) -> usize {
        self.unproposed_count
    }

    /// Whether those that wait to be proposed fill a batch.
    pub(crate) fn fills_a_batch(&self, parameters: &Parameters) -> bool {
        self.unproposed_bytes >= parameters.batch_bytes_max as usize - parameters.request_bytes_max as usize
            || self.unproposed_count >= parameters.batch_operations_max as usize
    }

    /// Whether another request fits the bounds, `share` being its client's.
    pub(crate) fn has_room(&self, request: &ParsedRequest, share: Amount) -> bool {
        let of_client = self.per_client.get(&request.request.client).copied().unwrap_or_default();
        let of_all = Amount { requests: self.waiting.len(), bytes: self.bytes };
        let total = Amount { requests: REQUESTS_MAX, bytes: BYTES_MAX };
        of_client.plus(request, share).is_some() && of_all.plus(request, total).is_some()
    }

    /// Takes in a request that is not there and fits.
    pub(crate) fn push(&mut self, request: ParsedRequest, arrived: Time) {
        let id = request.request.id();
        let bytes = request.bytes_in_batch();
        self.bytes += bytes;
        self.unproposed_bytes += bytes;
        self.unproposed_count += 1;
        let of_client = self.per_client.entry(id.client).or_default();
        of_client.requests += 1;
        of_client.bytes += bytes;
        self.unproposed.push_back(id);
        self.by_arrival.push_back((id, arrived));
        let waiting = Waiting { request, arrived, is_proposed: false, is_repeated: false, copy: None };
        let earlier = self.waiting.insert(id, waiting);
        assert!(earlier.is_none(), "a request is taken in once");
        self.compact();
    }

    /// Takes in a copy of a request that is not there and fits.
    pub(crate) fn push_copy(&mut self, request: ParsedRequest, arrived: Time) {
        let id = request.request.id();
        self.push(request, arrived);
        self.copies.push_back(id);
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.copy = Some(Copied { arrived, passed_on: None });
        }
    }

    /// When the copy came that waits longest of those that were not passed on.
    pub(crate) fn oldest_copy(&mut self) -> Option<Time> {
        while let Some(id) = self.copies.front() {
            let held = self.held_copy(id);
            if held.is_some() {
                return held;
            }
            self.copies.pop_front();
        }
        None
    }

    fn held_copy(&self, id: &RequestId) -> Option<Time> {
        let copy = self.waiting.get(id)?.copy.filter(|copy| copy.passed_on.is_none())?;
        Some(copy.arrived)
    }

    /// The requests whose copies came up to `arrived`: they are passed on `now`.
    pub(crate) fn release_copies(&mut self, arrived: Time, now: Time) -> Vec<SignedRequest> {
        let mut released = Vec::new();
        while self.oldest_copy().is_some_and(|at| at <= arrived) {
            let Some(waiting) = self.copies.pop_front().and_then(|id| self.waiting.get_mut(&id)) else { continue };
            waiting.copy = waiting.copy.map(|copy| Copied { passed_on: Some(now), ..copy });
            released.push(waiting.request.signed.clone());
        }
        released
    }

    /// Nothing is seen by the copies that are here: they count as requests.
    pub(crate) fn forget_copies(&mut self) {
        self.copies.clear();
        self.waiting.values_mut().for_each(|waiting| waiting.copy = None);
    }

    /// Takes what is seen by a copy, if there is one: its request was proposed.
    pub(crate) fn take_copy(&mut self, id: &RequestId) -> Option<Copied> {
        self.waiting.get_mut(id)?.copy.take()
    }

    /// Removes a request, if it is there: it executed, or never will. Gives when it arrived.
    pub(crate) fn remove(&mut self, id: &RequestId) -> Option<Time> {
        let waiting = self.waiting.remove(id)?;
        let bytes = waiting.request.bytes_in_batch();
        self.bytes -= bytes;
        if !waiting.is_proposed {
            self.unproposed_bytes -= bytes;
            self.unproposed_count -= 1;
        }
        if let Some(of_client) = self.per_client.get_mut(&id.client) {
            of_client.requests -= 1;
            of_client.bytes -= bytes;
            if of_client.requests == 0 {
                self.per_client.remove(&id.client);
            }
        }
        Some(waiting.arrived)
    }

    /// The requests for the next batch, oldest first, within the bounds of a batch. They stay until they execute.
    pub(crate) fn propose(&mut self, parameters: &Parameters) -> Vec<ParsedRequest> {
        let mut batch = Vec::new();
        let mut bytes = BATCH_OVERHEAD_BYTES;
        let mut operations = 0;
        while let Some(id) = self.unproposed.front() {
            let Some(waiting) = self.waiting.get_mut(id).filter(|waiting| !waiting.is_proposed) else {
                self.unproposed.pop_front();
                continue;
            };
            let request_bytes = waiting.request.bytes_in_batch();
            bytes += request_bytes;
            operations += waiting.request.operations_in_batch();
            if bytes > parameters.batch_bytes_max as usize || operations > parameters.batch_operations_max as usize {
                break;
            }
            waiting.is_proposed = true;
            self.unproposed_bytes -= request_bytes;
            self.unproposed_count -= 1;
            batch.push(waiting.request.clone());
            self.unproposed.pop_front();
        }
        batch
    }

    /// Marks a request as proposed, if it is there: a new view carries it over.
    pub(crate) fn mark_proposed(&mut self, id: &RequestId) {
        if let Some(waiting) = self.waiting.get_mut(id).filter(|waiting| !waiting.is_proposed) {
            waiting.is_proposed = true;
            self.unproposed_bytes -= waiting.request.bytes_in_batch();
            self.unproposed_count -= 1;
        }
    }

    /// A new view begins: nothing counts as proposed, or as passed on twice.
    pub(crate) fn forget_proposals(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.is_proposed = false;
            waiting.is_repeated = false;
        }
        self.forget_copies();
        self.unproposed_bytes = self.bytes;
        self.unproposed_count = self.waiting.len();
        self.drop_departed();
        self.unproposed = self.by_arrival.iter().map(|(id, _)| *id).collect();
    }

    /// When the request arrived that waits longest.
    pub(crate) fn oldest(&mut self) -> Option<Time> {
        while let Some((id, arrived)) = self.by_arrival.front() {
            if self.waiting.get(id).is_some_and(|waiting| waiting.arrived == *arrived) {
                return Some(*arrived);
            }
            self.by_arrival.pop_front();
        }
        None
    }

    /// All that wait, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ParsedRequest> {
        let waiting =
            self.by_arrival.iter().map(|(id, arrived)| self.waiting.get(id).filter(|w| w.arrived == *arrived));
        waiting.flatten().map(|waiting| &waiting.request)
    }

    /// The oldest, within `max`.
    pub(crate) fn first(&self, max: Amount) -> Vec<SignedRequest> {
        let within = |sum: &mut Amount, request: &ParsedRequest| {
            *sum = sum.plus(request, max)?;
            Some(request.signed.clone())
        };
        self.iter().scan(Amount::default(), within).collect()
    }

    /// Those that wait since `arrived` or longer and were not repeated in this view, the oldest within `max`. They are
    /// repeated now.
    pub(crate) fn repeat(&mut self, arrived: Time, max: Amount) -> Vec<SignedRequest> {
        let mut sum = Amount::default();
        let mut repeated = Vec::new();
        for (id, _) in self.by_arrival.iter().take_while(|(_, at)| *at <= arrived) {
            let waiting = self.waiting.get_mut(id).filter(|waiting| waiting.arrived <= arrived && !waiting.is_repeated);
            let Some(waiting) = waiting else { continue };
            let Some(more) = sum.plus(&waiting.request, max) else { break };
            sum = more;
            waiting.is_repeated = true;
            repeated.push(waiting.request.signed.clone());
        }
        repeated
    }

    fn drop_departed(&mut self) {
        let waiting = &self.waiting;
        self.by_arrival.retain(|(id, arrived)| waiting.get(id).is_some_and(|waiting| waiting.arrived == *arrived));
    }

    fn compact(&mut self) {
        let bound = 2 * self.waiting.len() + 64;
        if self.by_arrival.len() > bound {
            self.drop_departed();
        }
        if self.copies.len() > bound {
            let waiting = &self.waiting;
            self.copies.retain(|id| waiting.get(id).is_some_and(|waiting| waiting.copy.is_some()));
        }
        if self.unproposed.len() > bound {
            self.unproposed.retain(|id| self.waiting.get(id).is_some_and(|waiting| !waiting.is_proposed));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;
    use quorate_crypto::Signature;

    use super::*;
    use crate::batch::Request;
    use crate::codec::List;
    use crate::number::{RequestNumber, Session};

    fn client(index: u64) -> PublicKey {
        let mut bytes = [5; 32];
        bytes[..8].copy_from_slice(&index.to_le_bytes());
        PublicKey::from_bytes(bytes).expect("neither weak nor beyond the prime")
    }

    fn request_of(of: u64, number: u64, body: Bytes) -> ParsedRequest {
        let (client, number) = (client(of), RequestNumber::new(number));
        let request = Request { client, session: Session::NONE, number, operations: List::empty() };
        let signed = SignedRequest { body: body.into(), signature: Signature::from_bytes([0; 64]) };
        ParsedRequest::new(request, signed)
    }

    fn request(of: u64, number: u64) -> ParsedRequest {
        request_of(of, number, Bytes::from_static(&[0; 100]))
    }

    fn share(requests: usize) -> Amount {
        Amount { requests, bytes: BYTES_MAX }
    }

    fn at(milliseconds: u64) -> Time {
        Time::from_nanoseconds(milliseconds * 1_000_000)
    }

    fn small() -> Parameters {
        Parameters { batch_bytes_max: 4096, request_bytes_max: 1024, batch_operations_max: 5, ..Parameters::default() }
    }

    fn numbers(requests: &[ParsedRequest]) -> Vec<u64> {
        requests.iter().map(|parsed| parsed.request.number.value()).collect()
    }

    #[test]
    fn a_full_queue_takes_no_request_more() {
        let mut queue = Queue::default();
        for of in 0..REQUESTS_MAX as u64 {
            assert!(queue.has_room(&request(of, 1), share(1)));
            queue.push(request(of, 1), at(of));
        }
        assert!(!queue.has_room(&request(REQUESTS_MAX as u64, 1), share(1)));
        queue.remove(&request(7, 1).request.id());
        assert!(queue.has_room(&request(REQUESTS_MAX as u64, 1), share(1)));
    }

    #[test]
    fn what_is_remembered_of_requests_that_left_is_bounded() {
        let mut queue = Queue::default();
        // More at once than are compacted, so that the bound is passed and not met.
        let push_and_remove = |queue: &mut Queue, numbers: core::ops::Range<u64>| {
            for number in numbers.clone() {
                queue.push(request(number, number), at(number));
            }
            for number in numbers {
                queue.remove(&request(number, number).request.id());
            }
        };
        push_and_remove(&mut queue, 1..200);
        for number in 200..2_000 {
            push_and_remove(&mut queue, number..number + 1);
            assert!(queue.by_arrival.len().max(queue.unproposed.len()) <= 200, "after {number} requests");
        }
    }

    #[test]
    fn a_queue_full_of_bytes_takes_no_request_more() {
        let mut queue = Queue::default();
        let body = Bytes::from(vec![0; 1 << 20]);
        let large = |of| request_of(of, 1, body.clone());
        let fitting = (BYTES_MAX / large(0).bytes_in_batch()) as u64;
        for of in 0..fitting {
            assert!(queue.has_room(&large(of), share(1)));
            queue.push(large(of), at(of));
        }
        assert!(!queue.has_room(&large(fitting), share(1)));
        assert!(queue.has_room(&request(fitting, 1), share(1)), "a small one fits yet");
    }

    #[test]
    fn a_client_has_a_share() {
        let mut queue = Queue::default();
        for number in 1..=3 {
            assert!(queue.has_room(&request(0, number), share(3)));
            queue.push(request(0, number), at(number));
        }
        assert!(!queue.has_room(&request(0, 4), share(3)));
        assert!(queue.has_room(&request(1, 1), share(3)));
        assert_eq!(queue.remove(&request(0, 2).request.id()), Some(at(2)));
        assert!(queue.has_room(&request(0, 4), share(3)));
    }

    #[test]
    fn a_clients_share_is_one_of_bytes_too() {
        let mut queue = Queue::default();
        let bytes = request(0, 1).bytes_in_batch();
        let of_two = Amount { requests: 9, bytes: 2 * bytes };
        for number in 1..=2 {
            assert!(queue.has_room(&request(0, number), of_two));
            queue.push(request(0, number), at(number));
        }
        assert!(!queue.has_room(&request(0, 3), of_two));
        assert!(queue.has_room(&request(1, 3), of_two));
        queue.remove(&request(0, 1).request.id());
        assert!(queue.has_room(&request(0, 3), of_two));
    }

    #[test]
    fn what_waits_for_long_is_repeated_once_a_view_within_the_bounds() {
        let mut queue = Queue::default();
        let named = |number: u8| request_of(0, number.into(), Bytes::from(vec![number; 100]));
        for number in 1..=5 {
            queue.push(named(number), at(number.into()));
        }
        queue.remove(&named(2).request.id());
        queue.push(named(2), at(9));
        let numbers =
            |signed: Vec<SignedRequest>| -> Vec<u8> { signed.iter().map(|signed| signed.body.bytes()[0]).collect() };
        assert_eq!(numbers(queue.repeat(at(0), share(9))), []);
        assert_eq!(numbers(queue.repeat(at(4), share(2))), [1, 3]);
        assert_eq!(numbers(queue.repeat(at(4), share(9))), [4]);
        assert_eq!(numbers(queue.repeat(at(4), share(9))), []);
        queue.forget_proposals();
        let one = Amount { requests: 9, bytes: request(0, 1).bytes_in_batch() };
        assert_eq!(numbers(queue.repeat(at(9), one)), [1]);
        assert_eq!(numbers(queue.first(share(3))), [1, 3, 4], "the oldest, repeated or not");
    }

    #[test]
    fn requests_are_proposed_once_in_the_order_of_their_arrival_within_the_bounds() {
        let mut queue = Queue::default();
        for number in 1..=7 {
            queue.push(request(number % 2, number), at(number));
        }
        assert!(queue.fills_a_batch(&small()), "by operations");
        assert_eq!(numbers(&queue.propose(&small())), [1, 2, 3, 4, 5], "five operations at most");
        assert!(!queue.fills_a_batch(&small()));
        assert_eq!(numbers(&queue.propose(&small())), [6, 7]);
        assert_eq!(numbers(&queue.propose(&small())), []);
        assert_eq!((queue.len(), queue.unproposed_count()), (7, 0), "they stay until they execute");
        queue.push(request_of(9, 1, Bytes::from(vec![0; 3072])), at(9));
        assert!(queue.fills_a_batch(&small()), "by bytes");
    }

    #[test]
    fn a_new_view_proposes_anew_what_it_does_not_carry_over() {
        let mut queue = Queue::default();
        for number in 1..=4 {
            queue.push(request(0, number), at(number));
        }
        queue.propose(&small());
        queue.remove(&request(0, 2).request.id());
        queue.forget_proposals();
        queue.mark_proposed(&request(0, 3).request.id());
        queue.mark_proposed(&request(0, 3).request.id());
        queue.mark_proposed(&request(0, 99).request.id());
        assert_eq!(queue.unproposed_count(), 2);
        assert_eq!(numbers(&queue.propose(&small())), [1, 4]);
    }

    #[test]
    fn the_oldest_is_the_one_that_waits_longest() {
        let mut queue = Queue::default();
        assert_eq!(queue.oldest(), None);
        for number in 1..=3 {
            queue.push(request(0, number), at(number));
        }
        assert_eq!(queue.oldest(), Some(at(1)));
        queue.remove(&request(0, 1).request.id());
        assert_eq!(queue.oldest(), Some(at(2)));
        queue.remove(&request(0, 2).request.id());
        queue.remove(&request(0, 3).request.id());
        assert_eq!(queue.oldest(), None);
    }

    #[test]
    fn a_request_that_comes_again_is_as_old_as_its_last_arrival() {
        let mut queue = Queue::default();
        for (number, arrived) in [(1, 1), (2, 2), (3, 3)] {
            queue.push(request(0, number), at(arrived));
        }
        queue.remove(&request(0, 2).request.id());
        queue.push(request(0, 2), at(10));
        queue.remove(&request(0, 1).request.id());
        assert_eq!(queue.oldest(), Some(at(3)), "number 3 waits longest now");
        assert_eq!(queue.iter().map(|parsed| parsed.request.number.value()).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn what_came_and_went_leaves_nothing_behind() {
        let mut queue = Queue::default();
        queue.push(request(1, 1), at(0));
        for number in 1..10_000 {
            queue.push(request(0, number), at(number));
            queue.remove(&request(0, number).request.id());
            assert!(queue.by_arrival.len() <= 70 && queue.unproposed.len() <= 70);
        }
        assert_eq!((queue.len(), queue.per_client.len()), (1, 1));
        assert_eq!(queue.bytes, request(1, 1).bytes_in_batch());
    }
}
