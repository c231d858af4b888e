//! How much of what was received may be held at a time, by whom. A reader takes from the budget before it reads a
//! frame's payload; the frame's [`Permit`] gives it back when the host drops it. While a budget is empty its reader
//! stands still, and QUIC's flow control makes the sender wait: so who floods blocks himself and nobody else.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Least bytes that a frame counts for: about what it costs to hold one.
const FRAME_CHARGE_MIN: u32 = 256;

/// A received frame's share of the budget of whoever sent it. Hold it for as long as the frame's bytes, then drop it.
#[derive(Debug)]
#[must_use = "dropping it says that the frame was dealt with"]
pub struct Permit {
    _own: OwnedSemaphorePermit,
    shared: [Option<OwnedSemaphorePermit>; 2],
}

#[cfg(test)]
impl Permit {
    /// One that is of nobody's budget.
    pub(crate) fn of_a_test() -> Self {
        let own = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("nobody else takes it");
        Self { _own: own, shared: [None, None] }
    }
}

/// The budget of one lane of one link.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    own: Arc<Semaphore>,
    charge_min: u32,
    charge_max: u32,
    /// Of those who share a bound, the few first.
    shared: [Option<Arc<Semaphore>>; 2],
}

impl Budget {
    /// At most `bytes_max` bytes in at most `frames_max` frames.
    pub(crate) fn new(bytes_max: u32, frames_max: u32) -> Self {
        let charge_min = bytes_max.div_ceil(frames_max.max(1)).max(FRAME_CHARGE_MIN).min(bytes_max);
        let own = Arc::new(Semaphore::new(usize::try_from(bytes_max).expect("32 bits fit into a usize")));
        Self { own, charge_min, charge_max: bytes_max, shared: [None, None] }
    }

    /// Frames count against these budgets as well, from when they are whole: that of some links, and that of all.
    pub(crate) fn with_shared(self, of_some: Arc<Semaphore>, of_all: Arc<Semaphore>) -> Self {
        Self { shared: [Some(of_some), Some(of_all)], ..self }
    }

    /// What a frame counts for, in bytes.
    fn charge(&self, frame_bytes: u32) -> u32 {
        frame_bytes.clamp(self.charge_min, self.charge_max)
    }

    /// Waits until a frame of that size may be held.
    pub(crate) async fn admit(&self, frame_bytes: u32) -> Permit {
        let own = acquire(&self.own, self.charge(frame_bytes)).await;
        Permit { _own: own, shared: [None, None] }
    }

    /// Waits until a frame that is whole may be handed on. Only now does it count against the budget of all: who starts
    /// a frame and lets it hang takes nothing from the others. Who has to wait for that of some does not stand in the way of others
    /// at that of all.
    pub(crate) async fn admit_whole(&self, mut permit: Permit, frame_bytes: u32) -> Permit {
        for (shared, held) in self.shared.iter().zip(&mut permit.shared) {
            if let Some(shared) = shared {
                *held = Some(acquire(shared, self.charge(frame_bytes)).await);
            }
        }
        permit
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: u32) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_many_owned(bytes).await.expect("nobody closes these semaphores")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_free(budget: &Budget, frame_bytes: u32) -> bool {
        budget.own.available_permits() >= budget.charge(frame_bytes) as usize
    }

    #[tokio::test]
    async fn a_budget_is_bounded_in_bytes_and_comes_back_with_the_permit() {
        let budget = Budget::new(100_000, 1000);
        let permit = budget.admit(99_000).await;
        assert!(is_free(&budget, 1000) && !is_free(&budget, 1001));
        drop(permit);
        assert!(is_free(&budget, 100_000));
    }

    #[tokio::test]
    async fn a_budget_is_bounded_in_frames_however_small_they_are() {
        let budget = Budget::new(100_000, 3);
        let mut permits = Vec::new();
        while is_free(&budget, 1) {
            permits.push(budget.admit(1).await);
        }
        assert!(permits.len() <= 3 && permits.len() >= 2);
    }

    #[tokio::test]
    async fn the_shared_budget_is_taken_only_by_whole_frames() {
        let [of_some, of_all] = [6_000, 10_000].map(|bytes| Arc::new(Semaphore::new(bytes)));
        let budget = Budget::new(10_000, 10).with_shared(Arc::clone(&of_some), Arc::clone(&of_all));
        let left = || (of_some.available_permits(), of_all.available_permits());
        let permit = budget.admit(5000).await;
        assert_eq!(left(), (6_000, 10_000));
        let permit = budget.admit_whole(permit, 5000).await;
        assert_eq!(left(), (1_000, 5_000));
        let next = budget.admit(5000).await;
        let waiting = tokio::time::timeout(Duration::from_millis(20), budget.admit_whole(next, 5000)).await;
        assert!(waiting.is_err() && left().1 == 5_000, "who waits for the first takes nothing of the second");
        drop(permit);
        assert_eq!((left(), budget.own.available_permits()), ((6_000, 10_000), 10_000));
    }
}
