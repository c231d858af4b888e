//! The closed list of deadlines. The table is filled anew after every input; nothing is set or cancelled.

use crate::time::Time;

/// Something that happens if nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The next status is due.
    Status,
    /// The primary counts as crashed, as silent, or as having let a request wait too long.
    Suspicion,
    /// The new view is late.
    NewView,
    /// What was asked of a peer did not come.
    Fetch,
    /// A copy of a request waited for so long that the primary may lack it.
    Copies,
}

/// When each deadline passes, if it is set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers([Option<Time>; 5]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Option<Time>) {
        self.0[timer as usize] = at;
    }

    pub(crate) fn is_due(&self, timer: Timer, now: Time) -> bool {
        self.0[timer as usize].is_some_and(|at| at <= now)
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }
}
