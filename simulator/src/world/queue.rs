//! What is going to happen, in order of time; at the same time, in the order in which it was said.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use quorate_protocol::time::Time;

use super::Event;

/// Bounded by what is under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Times, the order of events of the same time, and places in `events`.
    order: BinaryHeap<Reverse<(Time, u64, u32)>>,
    events: Vec<Option<Event>>,
    /// Places in `events` that hold none.
    free: Vec<u32>,
    made: u64,
}

impl Queue {
    pub(super) fn push(&mut self, time: Time, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer than four thousand million messages are under way")
        });
        self.events[place as usize] = Some(event);
        self.order.push(Reverse((time, self.made, place)));
        self.made += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(Time, Event)> {
        let Reverse((time, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((time, self.events[place as usize].take().expect("every place in the order has its event")))
    }

    /// When the next event happens.
    pub(super) fn next_time(&self) -> Option<Time> {
        self.order.peek().map(|Reverse((time, ..))| *time)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// All events, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Time, &Event)> {
        self.order.iter().filter_map(|Reverse((time, _, place))| Some((*time, self.events[*place as usize].as_ref()?)))
    }
}
