//! When which session wants to be woken: one entry a session, found in logarithmic time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use quorate_protocol::time::Time;

/// The deadlines of many sessions, each named by its index.
///
/// An entry may be earlier than what its session wants by now; waking it then does no harm, and it is entered again.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Bound: for each session, one entry for each time that its deadline moved forward since it was woken last.
    heap: BinaryHeap<Reverse<(Time, usize)>>,
    /// The earliest entry of each session, if it has one.
    entered: Vec<Option<Time>>,
}

impl Deadlines {
    /// The session `index` wants to be woken at `wanted`, if at all.
    pub(super) fn want(&mut self, index: usize, wanted: Option<Time>) {
        if self.entered.len() <= index {
            self.entered.resize(index + 1, None);
        }
        let Some(wanted) = wanted else { return };
        let entered = &mut self.entered[index];
        if entered.is_none_or(|entered| wanted < entered) {
            *entered = Some(wanted);
            self.heap.push(Reverse((wanted, index)));
        }
    }

    /// The next time at which some session is to be woken.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// A session that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<usize> {
        while let Some(Reverse((time, index))) = self.heap.peek().copied().filter(|Reverse((time, _))| *time <= now) {
            self.heap.pop();
            if self.entered[index] == Some(time) {
                self.entered[index] = None;
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: u64) -> Time {
        Time::from_nanoseconds(nanoseconds)
    }

    #[test]
    fn sessions_come_due_in_order_and_once() {
        let mut deadlines = Deadlines::default();
        deadlines.want(0, Some(at(30)));
        deadlines.want(2, Some(at(10)));
        deadlines.want(1, None);
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(30)), Some(2));
        assert_eq!(deadlines.pop_due(at(30)), Some(0));
        assert_eq!(deadlines.pop_due(at(30)), None);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn an_earlier_wish_replaces_a_later_one_and_a_later_one_waits() {
        let mut deadlines = Deadlines::default();
        deadlines.want(0, Some(at(30)));
        deadlines.want(0, Some(at(10)));
        deadlines.want(0, Some(at(20)));
        assert_eq!(deadlines.pop_due(at(10)), Some(0));
        assert_eq!(deadlines.pop_due(at(100)), None, "the later entry is stale");
        deadlines.want(0, Some(at(20)));
        assert_eq!(deadlines.pop_due(at(20)), Some(0));
    }

    #[test]
    fn wishes_that_only_move_back_take_no_room() {
        let mut deadlines = Deadlines::default();
        for time in 10..1000 {
            deadlines.want(0, Some(at(time)));
        }
        assert_eq!(deadlines.heap.len(), 1);
    }
}
