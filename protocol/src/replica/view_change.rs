//! Leaving a view: the message that says what may have been decided, and the count of those who left. (PROTOCOL §7.1,
//! §7.2)

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Mode, Replica};
use crate::codec::{List, encode};
use crate::message::{
    Cast, CheckedViewChange, Message, SharedViewChange, SignedViewChange, ViewChange, view_change_digest,
};
use crate::number::{RecordNumber, ReplicaId, View};
use crate::output::{Notice, Output, Suspicion};
use crate::record::{NewViewRecord, Record};
use crate::refusal::Refusal;

impl Replica {
    /// Leaves the views below `to` and asks for it. The message is durable before it is sent, and is sent again byte for
    /// byte, never rebuilt.
    pub(super) fn start_view_change(&mut self, to: View, reason: Suspicion) {
        assert!(to > self.wanted_view(), "a replica asks for a view once");
        if !self.may_leave() {
            return;
        }
        self.give_up_primary(reason);
        self.view_changes.forsaken = None;
        self.mode = Mode::ViewChange { to };
        self.suspicion.attempts = self.suspicion.attempts.saturating_add(1);
        self.suspicion.since = self.now.monotonic;
        self.suspicion.new_view_since = None;
        self.suspicion.of_primary = None;
        self.view_changes.own = None;
        self.forget_awaited();
        let view_change = Arc::new(self.build_view_change(to));
        let signed = view_change.signed.clone();
        self.view_changes.own = Some(Arc::clone(&view_change));
        let record = Record::ViewChange(self.configuration.epoch(), to, signed.clone());
        self.outbox.send_after(record, Message::ViewChange(signed));
        self.outbox.push(Output::Notice(Notice::ViewWanted { view: to, reason }));
        self.try_new_view_timer();
    }

    /// Whether it may say that it leaves its view.
    pub(super) fn may_leave(&self) -> bool {
        self.is_voter() && !self.is_log_full()
    }

    /// The highest view that this replica is in or asked for.
    pub(super) fn wanted_view(&self) -> View {
        match self.mode {
            Mode::Normal => self.view,
            Mode::ViewChange { to } => to,
        }
    }

    /// All that was handed to the disk is listed, sent or not. (PROTOCOL §7.1)
    fn build_view_change(&self, to: View) -> CheckedViewChange {
        let slots = || self.log.slots_after(self.log.low());
        let prepared: Vec<_> = slots().filter_map(|(_, slot)| slot.prepared.clone()).collect();
        let cast: Vec<_> = slots()
            .filter_map(|(_, slot)| slot.cast.as_ref())
            .map(|vote| Cast {
                sequence: vote.statement.sequence,
                view: vote.statement.view,
                digest: vote.statement.digest,
            })
            .collect();
        let content = ViewChange {
            epoch: self.configuration.epoch(),
            view: to,
            replica: self.id,
            stable: self.log.stable().cloned(),
            prepared: List::new(prepared).expect("slots are within the window, which is bounded"),
            cast: List::new(cast).expect("slots are within the window, which is bounded"),
        };
        let body = encode(&content).expect("a window of certificates is below the bound of an encoding");
        let digest = view_change_digest(self.configuration.cluster(), &body);
        let signature = self.signer.sign(&digest);
        CheckedViewChange { content, signed: SignedViewChange { body: body.into(), signature }, digest }
    }

    /// This replica's own view change is durable and sent: it counts. A later one may still wait to be.
    pub(super) fn count_own_view_change(&mut self, sent: &SignedViewChange) {
        let own = self.view_changes.own.clone();
        if let Some(own) = own.filter(|own| own.signed == *sent) {
            self.count_view_change(own);
        }
    }

    pub(super) fn on_view_change(&mut self, view_change: SharedViewChange) {
        let epoch = self.configuration.epoch();
        // One that a new view names may be older than the latest of its sender.
        self.complete_new_views(&view_change);
        if self.configuration.epoch() != epoch {
            // That new view brought the end of its epoch, and this message asks for a view of it.
            return self.refuse(Refusal::Epoch);
        }
        match self.refuse_claimed_view_change(view_change.content.replica, view_change.content.view) {
            Some(refusal) => self.refuse(refusal),
            None => self.count_view_change(view_change),
        }
    }

    /// Why a view change of that member and view counts for nothing, whatever else it says.
    pub(super) fn refuse_claimed_view_change(&self, replica: ReplicaId, view: View) -> Option<Refusal> {
        if replica == self.id {
            return Some(Refusal::Duplicate);
        }
        let latest = self.view_changes.latest.get(replica.index())?.as_ref()?;
        match latest.content.view.cmp(&view) {
            core::cmp::Ordering::Greater => Some(Refusal::Outdated),
            core::cmp::Ordering::Equal => Some(Refusal::Duplicate),
            core::cmp::Ordering::Less => None,
        }
    }

    fn count_view_change(&mut self, view_change: SharedViewChange) {
        let replica = view_change.content.replica;
        self.view_changes.latest[replica.index()] = Some(view_change);
        self.try_join();
        self.try_leave();
        self.try_new_view_timer();
        self.try_new_view();
    }

    /// Moves at once to the highest view that a weak quorum asks for or exceeds. (PROTOCOL §6)
    pub(super) fn try_join(&mut self) {
        let mut asked: Vec<View> =
            self.view_changes.latest.iter().flatten().map(|view_change| view_change.content.view).collect();
        asked.sort_unstable_by(|left, right| right.cmp(left));
        let Some(&to) = asked.get(self.configuration.weak_quorum() - 1) else { return };
        if to > self.wanted_view() {
            self.start_view_change(to, Suspicion::Joined);
        }
    }

    /// The time-out for the new view starts when a quorum, this replica among them, asks for that view or a higher one.
    fn try_new_view_timer(&mut self) {
        let Mode::ViewChange { to } = self.mode else { return };
        let asking = self.view_changes.latest.iter().flatten().filter(|view_change| view_change.content.view >= to);
        let is_own_counted = self.own_view_change_is_counted(to);
        if is_own_counted && asking.count() >= self.configuration.quorum() && self.suspicion.new_view_since.is_none() {
            self.suspicion.new_view_since = Some(self.now.monotonic);
        }
    }

    pub(super) fn own_view_change_is_counted(&self, to: View) -> bool {
        self.view_changes.latest[self.id.index()].as_ref().is_some_and(|own| own.content.view == to)
    }

    /// Appends what a start needs to take up the view again: at a cut, older records leave. Gives the number of the last
    /// record, if there is any.
    pub(super) fn append_view(&mut self) -> Option<RecordNumber> {
        let (epoch, mut last) = (self.configuration.epoch(), None);
        if let Some((new_view, view_changes)) = &self.view_changes.entered {
            let view_changes = view_changes.iter().map(|view_change| view_change.signed.clone()).collect();
            let view_changes = List::new(view_changes).expect("a quorum is at most the number of members");
            let record = NewViewRecord { new_view: new_view.signed.clone(), view_changes };
            last = Some(self.outbox.append(Record::NewView(epoch, new_view.content.view, record)));
        }
        let Mode::ViewChange { to } = self.mode else { return last };
        if let Some(own) = &self.view_changes.own {
            let record = Record::ViewChange(epoch, to, own.signed.clone());
            last = Some(self.outbox.append(record));
        }
        last
    }
}
