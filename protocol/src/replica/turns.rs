//! Whose turn to be primary is passed over: who was given up lately, and for what. (PROTOCOL §6; reputation of leaders: Cohen
//! et al., Be Aware of Your Leaders, FC 2022)
//!
//! To whom a view belongs is fixed, so that nothing said in a view depends on what its reader has seen. What is chosen is how
//! far to go: whoever leaves a view that it was in asks for the next one whose primary was not given up lately. Who has seen
//! less may ask for a nearer view. It follows as soon as a weak quorum asks for the farther one, or one by one as the nearer
//! ones are late: those are never passed over, or replicas that saw different things would miss each other for ever.

use alloc::vec::Vec;

use super::{Mode, Replica};
use crate::number::{ReplicaId, View};
use crate::output::{Notice, Output, Suspicion};
use crate::time::Time;

/// How much a reason to leave a view says about its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Cause {
    /// It may have crashed, the network may have failed it, or others alone know why.
    Absence,
    /// It was there, and did not do what was expected of it.
    Neglect,
    /// It is faulty.
    Proof,
}

impl Cause {
    const fn of(reason: Suspicion) -> Option<Self> {
        match reason {
            Suspicion::Proof => Some(Self::Proof),
            Suspicion::Deadline | Suspicion::Silence | Suspicion::Slowness => Some(Self::Neglect),
            Suspicion::Crash | Suspicion::NewViewLate | Suspicion::Joined => Some(Self::Absence),
            Suspicion::Stranded | Suspicion::Restart => None,
        }
    }
}

/// Those who were given up as primaries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Turns {
    /// Whom, for what, and until when that counts. Bound: as many as may be faulty, so that a quorum has its turns whatever
    /// happens. Of equal causes the older stays: whose turn was given up last is far from its next one anyway.
    given_up: Vec<(ReplicaId, Cause, Time)>,
}

impl Turns {
    fn are_passed_over(&self, of: ReplicaId) -> bool {
        self.given_up.iter().any(|(id, _, _)| *id == of)
    }

    fn forgive(&mut self, now: Time) {
        self.given_up.retain(|(_, _, until)| now < *until);
    }

    fn give_up(&mut self, id: ReplicaId, cause: Cause, until: Time, faults: usize) {
        let before = self.given_up.iter().position(|(held, _, _)| *held == id);
        let cause = before.map_or(cause, |index| self.given_up.remove(index).1.max(cause));
        // The weakest at the end.
        let place = self.given_up.iter().position(|(_, held, _)| *held < cause).unwrap_or(self.given_up.len());
        self.given_up.insert(place, (id, cause, until));
        self.given_up.truncate(faults);
    }
}

impl Replica {
    /// The view to ask for when the one that this replica is in, or asks for, is given up.
    pub(super) fn view_after_wanted(&mut self) -> Option<View> {
        if self.mode != Mode::Normal {
            return self.wanted_view().next();
        }
        self.suspicion.turns.forgive(self.now.monotonic);
        let mut next = self.wanted_view().next()?;
        while self.suspicion.turns.are_passed_over(self.configuration.primary(next)) {
            let replica = self.configuration.primary(next);
            self.outbox.push(Output::Notice(Notice::TurnPassedOver { replica }));
            next = next.next()?;
        }
        Some(next)
    }

    /// This replica leaves the view that it is in or asks for.
    pub(super) fn give_up_primary(&mut self, reason: Suspicion) {
        let given_up = self.configuration.primary(self.wanted_view());
        if let Some(cause) = Cause::of(reason) {
            let until = self.now.monotonic.after(self.parameters().passed_over());
            self.suspicion.turns.give_up(given_up, cause, until, self.configuration.faults_max());
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    const fn id(index: u8) -> ReplicaId {
        ReplicaId::new(index)
    }

    fn passed_over(turns: &Turns) -> Vec<u8> {
        (0..7).filter(|index| turns.are_passed_over(id(*index))).collect()
    }

    #[test]
    fn turns_are_passed_over_until_their_time_is_up() {
        let mut turns = Turns::default();
        assert_eq!(passed_over(&turns), []);
        turns.give_up(id(3), Cause::Absence, at(10), 2);
        turns.give_up(id(5), Cause::Absence, at(20), 2);
        turns.forgive(at(9));
        assert_eq!(passed_over(&turns), [3, 5]);
        turns.forgive(at(10));
        assert_eq!(passed_over(&turns), [5]);
        turns.give_up(id(5), Cause::Absence, at(40), 2);
        turns.forgive(at(39));
        assert_eq!(passed_over(&turns), [5], "once more, and longer");
    }

    #[test]
    fn of_more_than_may_be_faulty_the_worst_count_and_of_equals_the_first() {
        let mut turns = Turns::default();
        turns.give_up(id(0), Cause::Neglect, at(10), 2);
        turns.give_up(id(1), Cause::Absence, at(10), 2);
        turns.give_up(id(2), Cause::Absence, at(10), 2);
        assert_eq!(passed_over(&turns), [0, 1]);
        turns.give_up(id(3), Cause::Proof, at(10), 2);
        assert_eq!(passed_over(&turns), [0, 3]);
        turns.give_up(id(0), Cause::Absence, at(10), 2);
        turns.give_up(id(4), Cause::Neglect, at(10), 2);
        assert_eq!(passed_over(&turns), [0, 3], "what was once worse stays so");
        turns.give_up(id(5), Cause::Proof, at(10), 2);
        assert_eq!(passed_over(&turns), [3, 5]);
    }
}
