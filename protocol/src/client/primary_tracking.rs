//! Which replica the client takes for the primary. (PROTOCOL §4.1)
//!
//! Each reply names its replica's view. The client believes in the highest view that a weak quorum reached: a correct
//! replica is among those, so liars lead nobody to a view that does not exist yet, and cannot hide one that does.

use alloc::vec::Vec;

use crate::configuration::Configuration;
use crate::number::{Epoch, ReplicaId, View};

/// The views that the replicas report, and the one that follows from them.
#[derive(Debug, Clone)]
pub(super) struct PrimaryTracking {
    /// The highest that each member reported. Bound: one a member.
    reported: Vec<(Epoch, View)>,
    weak_quorum: usize,
    /// Never goes back, since nothing reported does.
    believed: (Epoch, View),
}

impl PrimaryTracking {
    /// Before anyone reported anything: the first view of the configuration's epoch.
    pub(super) fn new(configuration: &Configuration) -> Self {
        let start = (configuration.epoch(), View::ZERO);
        Self {
            reported: configuration.replicas().map(|_| start).collect(),
            weak_quorum: configuration.weak_quorum(),
            believed: start,
        }
    }

    /// The member `from` is in `view` of `epoch`; whether another view is believed in now.
    pub(super) fn on_report(&mut self, from: ReplicaId, epoch: Epoch, view: View) -> bool {
        let Some(reported) = self.reported.get_mut(from.index()) else { return false };
        if (epoch, view) <= *reported {
            return false;
        }
        *reported = (epoch, view);
        let mut descending = self.reported.clone();
        descending.sort_unstable_by(|left, right| right.cmp(left));
        let reached = descending.get(self.weak_quorum - 1).copied().unwrap_or(self.believed);
        let has_moved = reached != self.believed;
        self.believed = reached;
        has_moved
    }

    /// The primary of the view that is believed in. For an epoch after that of `configuration` it is a guess, which
    /// costs a hop if it is wrong.
    pub(super) fn primary(&self, configuration: &Configuration) -> ReplicaId {
        let (epoch, view) = self.believed;
        configuration.primary(view.saturating_add(epoch.distance_from(configuration.epoch())))
    }

    /// The view that is believed in.
    pub(super) fn view(&self) -> View {
        self.believed.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::configuration;

    fn report(tracking: &mut PrimaryTracking, from: u8, view: u64) -> bool {
        tracking.on_report(ReplicaId::new(from), Epoch::ZERO, View::new(view))
    }

    #[test]
    fn a_liar_with_a_high_view_moves_nobody() {
        let configuration = configuration(4);
        let mut tracking = PrimaryTracking::new(&configuration);
        assert!(!report(&mut tracking, 3, u64::MAX));
        assert_eq!(tracking.primary(&configuration), ReplicaId::new(0));
    }

    #[test]
    fn a_weak_quorum_moves_to_the_lowest_of_its_views() {
        let configuration = configuration(4);
        let mut tracking = PrimaryTracking::new(&configuration);
        assert!(!report(&mut tracking, 3, u64::MAX));
        assert!(report(&mut tracking, 2, 5));
        assert_eq!(tracking.view(), View::new(5));
        assert_eq!(tracking.primary(&configuration), ReplicaId::new(1));
    }

    #[test]
    fn seven_replicas_need_three_reports() {
        let mut tracking = PrimaryTracking::new(&configuration(7));
        assert!(!report(&mut tracking, 1, 9));
        assert!(!report(&mut tracking, 2, 9));
        assert!(report(&mut tracking, 3, 2));
        assert_eq!(tracking.view(), View::new(2));
    }

    #[test]
    fn a_report_that_comes_late_takes_nothing_back() {
        let mut tracking = PrimaryTracking::new(&configuration(4));
        report(&mut tracking, 1, 4);
        report(&mut tracking, 2, 4);
        assert!(!report(&mut tracking, 1, 3));
        assert_eq!(tracking.view(), View::new(4));
    }

    #[test]
    fn a_later_epoch_counts_for_more_than_a_higher_view() {
        let configuration = configuration(4);
        let mut tracking = PrimaryTracking::new(&configuration);
        report(&mut tracking, 1, 7);
        report(&mut tracking, 2, 7);
        tracking.on_report(ReplicaId::new(1), Epoch::new(1), View::ZERO);
        assert!(tracking.on_report(ReplicaId::new(2), Epoch::new(1), View::ZERO));
        assert_eq!(tracking.primary(&configuration), ReplicaId::new(1));
    }

    #[test]
    fn whoever_is_no_member_reports_nothing() {
        let mut tracking = PrimaryTracking::new(&configuration(4));
        assert!(!report(&mut tracking, 4, 9));
        assert!(!report(&mut tracking, 255, 9));
        assert_eq!(tracking.view(), View::ZERO);
    }
}
