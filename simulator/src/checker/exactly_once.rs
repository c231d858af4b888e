//! Exactly once: a request executes in one place of the order, and there once. (PROTOCOL §2.3)

use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::batch::RequestId;
use quorate_protocol::number::Sequence;

use super::{Checker, Invariant, Moment, Observation, short};

/// Knows where each request executed.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    places: BTreeMap<RequestId, (Sequence, u32)>,
}

impl Checker for ExactlyOnce {
    fn invariant(&self) -> Invariant {
        Invariant::ExactlyOnce
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Did { replica, output: Output::Execute(execution), .. } = observation else {
            return Ok(());
        };
        for request in &execution.requests {
            let id = RequestId { client: request.client, session: request.session, number: request.number };
            let here = (execution.sequence, request.index);
            let place = *self.places.entry(id).or_insert(here);
            if place != here {
                return Err(format!(
                    "request {}/{}/{} executed as {}.{}, and on replica {replica} as {}.{}",
                    short(&id.client),
                    id.session,
                    id.number,
                    place.0,
                    place.1,
                    here.0,
                    here.1
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::violation_of;
    use crate::fabricate::Fabricated;

    #[test]
    fn a_request_that_executes_in_two_slots_is_found() {
        let fabricated = Fabricated::new();
        let runs = |slot| Output::Execute(fabricated.execution(slot, 1));
        assert_eq!(violation_of(&mut ExactlyOnce::default(), &[(0, runs(1)), (1, runs(1))]), None);
        assert!(violation_of(&mut ExactlyOnce::default(), &[(0, runs(1)), (0, runs(2))]).is_some());
    }
}
