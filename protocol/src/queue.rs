//! Requests that wait to be ordered: those that a primary will propose, and those that a backup expects. (PROTOCOL §4.2,
//! §4.6, §12)

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use quorate_crypto::PublicKey;

use crate::batch::{BATCH_OVERHEAD_BYTES, ParsedRequest, RequestId};
use crate::configuration::Parameters;
use crate::time::Time;

/// Most requests that wait in total.
pub(crate) const REQUESTS_MAX: usize = 1 << 16;

/// Most bytes that waiting requests hold in total.
pub(crate) const BYTES_MAX: usize = 128 << 20;

/// A request that waits.
#[derive(Debug, Clone)]
struct Waiting {
    request: ParsedRequest,
    arrived: Time,
    is_proposed: bool,
}

/// Requests in the order of their arrival.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    /// Bounds: [`REQUESTS_MAX`], [`BYTES_MAX`], and a share for each client.
    waiting: BTreeMap<RequestId, Waiting>,
    /// Those not proposed in this view, oldest first; identities that left `waiting` are skipped. Bound: as `waiting`,
    /// since it is rebuilt when it holds twice as many.
    unproposed: VecDeque<RequestId>,
    unproposed_count: usize,
    unproposed_bytes: usize,
    /// All that wait, oldest first; identities that left are skipped. Bound: as `unproposed`.
    by_arrival: VecDeque<RequestId>,
    /// Bound: as `waiting`.
    per_client: BTreeMap<PublicKey, usize>,
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

    /// Whether another request of `client` fits the bounds.
    pub(crate) fn has_room(&self, request: &ParsedRequest, share_max: usize) -> bool {
        self.waiting.len() < REQUESTS_MAX
            && self.bytes + request.bytes_in_batch() <= BYTES_MAX
            && self.per_client.get(&request.request.client).is_none_or(|count| *count < share_max)
    }

    /// Takes in a request that is not there and fits.
    pub(crate) fn push(&mut self, request: ParsedRequest, arrived: Time) {
        let id = request.request.id();
        let bytes = request.bytes_in_batch();
        self.bytes += bytes;
        self.unproposed_bytes += bytes;
        self.unproposed_count += 1;
        *self.per_client.entry(id.client).or_default() += 1;
        self.unproposed.push_back(id);
        self.by_arrival.push_back(id);
        let earlier = self.waiting.insert(id, Waiting { request, arrived, is_proposed: false });
        assert!(earlier.is_none(), "a request is taken in once");
        self.compact();
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
        if let Some(count) = self.per_client.get_mut(&id.client) {
            *count -= 1;
            if *count == 0 {
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

    /// A new view begins: nothing counts as proposed.
    pub(crate) fn forget_proposals(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.is_proposed = false;
        }
        self.unproposed_bytes = self.bytes;
        self.unproposed_count = self.waiting.len();
        self.by_arrival.retain(|id| self.waiting.contains_key(id));
        self.unproposed = self.by_arrival.clone();
    }

    /// When the request arrived that waits longest.
    pub(crate) fn oldest(&mut self) -> Option<Time> {
        while let Some(id) = self.by_arrival.front() {
            match self.waiting.get(id) {
                Some(waiting) => return Some(waiting.arrived),
                None => self.by_arrival.pop_front(),
            };
        }
        None
    }

    /// All that wait, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ParsedRequest> {
        self.by_arrival.iter().filter_map(|id| self.waiting.get(id)).map(|waiting| &waiting.request)
    }

    fn compact(&mut self) {
        let bound = 2 * self.waiting.len() + 64;
        if self.by_arrival.len() > bound {
            self.by_arrival.retain(|id| self.waiting.contains_key(id));
        }
        if self.unproposed.len() > bound {
            self.unproposed.retain(|id| self.waiting.get(id).is_some_and(|waiting| !waiting.is_proposed));
        }
    }
}
