//! Whether a run came to what its scenario expects.

use core::time::Duration;

use super::Complaint;
use crate::checker::Invariant;
use crate::cluster::{Cluster, Trouble};
use crate::scenario::rule::moment;
use crate::scenario::{Expectation, Span};

/// How long the read of an expected value may take.
const READ_BOUND: Duration = Duration::from_mins(1);

/// The last moment that an expectation is about.
pub(super) fn last_moment(expectations: &[Expectation]) -> Span {
    let moments = expectations.iter().filter_map(|expectation| match expectation {
        Expectation::AnsweredBy(at) | Expectation::UnansweredAt(at) => Some(*at),
        _ => None,
    });
    moments.max().unwrap_or_default()
}

/// Judges a run that came to its end.
pub(super) fn judge(cluster: &mut Cluster, expectations: &[Expectation]) -> Result<(), Complaint> {
    expectations.iter().try_for_each(|expectation| match complaint(cluster, expectation)? {
        None => Ok(()),
        Some(found) => Err(Complaint::Unmet(expectation.clone(), found)),
    })
}

/// A violation that was expected is none; one that was expected and did not come about is a complaint.
pub(super) fn excuse(expectations: &[Expectation], failure: Option<Complaint>) -> Option<Complaint> {
    let expected = expectations.iter().find_map(|expectation| match expectation {
        Expectation::Violated(invariant) => Some(*invariant),
        _ => None,
    });
    match (expected, failure) {
        (None, failure) => failure,
        (Some(invariant), Some(Complaint::Failed(failure))) if is_violation_of(&failure.trouble, invariant) => None,
        (Some(_), Some(failure)) => Some(failure),
        (Some(invariant), None) => {
            let found = "nothing was violated".to_owned();
            Some(Complaint::Unmet(Expectation::Violated(invariant), found))
        }
    }
}

fn is_violation_of(trouble: &Trouble, invariant: Invariant) -> bool {
    matches!(trouble, Trouble::Violated(violation) if violation.invariant == invariant)
}

/// What is wrong, if the expectation is not met.
fn complaint(cluster: &mut Cluster, expectation: &Expectation) -> Result<Option<String>, Complaint> {
    let unless = |is_met: bool, found: String| if is_met { None } else { Some(found) };
    Ok(match expectation {
        Expectation::AnsweredBy(at) => {
            let (calls, answered) = cluster.calls_answered_by(moment(*at));
            unless(answered == calls, format!("{answered} of {calls} calls were answered"))
        }
        Expectation::UnansweredAt(at) => {
            let (calls, answered) = cluster.calls_answered_by(moment(*at));
            unless(answered == 0, format!("{answered} of {calls} calls were answered"))
        }
        Expectation::Executed(replica, slot) => {
            let executed = cluster.executed(usize::from(*replica));
            unless(executed >= *slot, format!("it executed up to {executed}"))
        }
        Expectation::NotExecuted(replica, slot) => {
            let executed = cluster.executed(usize::from(*replica));
            unless(executed <= *slot, format!("it executed up to {executed}"))
        }
        Expectation::NoViewAbove(view) => {
            let reached = cluster.counts().highest_view;
            unless(reached <= *view, format!("view {reached} was entered"))
        }
        Expectation::ViewReached(view) => {
            let reached = cluster.counts().highest_view;
            unless(reached >= *view, format!("the highest view was {reached}"))
        }
        Expectation::Value(key, value) => {
            let ticket = cluster.client(0).get(key);
            cluster.run_until_answered(READ_BOUND)?;
            let found = cluster.value_of(ticket).map(|value| String::from_utf8_lossy(&value).into_owned());
            unless(found.as_ref() == Some(value), format!("it is {found:?}"))
        }
        Expectation::EvidenceAgainst(replica) => {
            unless(cluster.is_proved_faulty(usize::from(*replica)), "nobody has one".to_owned())
        }
        Expectation::Reacted(replica, times) => {
            let reacted = cluster.reactions(usize::from(*replica));
            unless(reacted >= *times, format!("it reacted {reacted} times"))
        }
        Expectation::TookOverState(replica) => {
            unless(cluster.took_over_state(usize::from(*replica)), "it took over none".to_owned())
        }
        Expectation::Violated(_) => None,
    })
}
