//! What of a link's ups and downs is told to the operator: all, as long as its connections last. Of one that ends soon
//! after it came up, again and again, ever fewer: or a peer that reconnects in a loop would fill the log. Pure: the
//! caller hands in the time.

use std::time::{Duration, Instant};

/// A connection that lived for so long was a good one.
const LASTING: Duration = Duration::from_mins(1);

/// How a link's connections ended lately.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    /// Connections one after the other that ended too soon.
    short_lived: u32,
    up_since: Option<Instant>,
}

impl Flaps {
    /// The link came up. Gives the short-lived connections before this one, if it is to be told.
    pub(crate) fn on_up(&mut self, now: Instant) -> Option<u32> {
        self.up_since = Some(now);
        self.told()
    }

    /// The link went down. Gives the same number if its coming up was told, or if that connection lasted.
    pub(crate) fn on_down(&mut self, now: Instant) -> Option<u32> {
        let lived = self.up_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if lived >= LASTING {
            return Some(std::mem::take(&mut self.short_lived));
        }
        let told = self.told();
        self.short_lived = self.short_lived.saturating_add(1);
        told
    }

    fn told(&self) -> Option<u32> {
        (self.short_lived == 0 || self.short_lived.is_power_of_two()).then_some(self.short_lived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_link_that_comes_and_goes_in_a_loop_ever_less_is_told() {
        let (mut flaps, now) = (Flaps::default(), Instant::now());
        let told = (0..10_000).filter(|_time| {
            let told = flaps.on_up(now);
            assert_eq!(flaps.on_down(now + Duration::from_secs(2)), told, "who reads that it came up reads its end");
            told.is_some()
        });
        assert_eq!(told.count(), 15);
    }

    #[test]
    fn of_a_link_whose_connections_last_all_is_told() {
        let (mut flaps, mut now) = (Flaps::default(), Instant::now());
        for _short in 0..100 {
            flaps.on_up(now);
            flaps.on_down(now);
        }
        flaps.on_up(now);
        now += LASTING;
        assert_eq!(flaps.on_down(now), Some(100));
        for _lasting in 0..100 {
            assert_eq!(flaps.on_up(now), Some(0));
            now += LASTING;
            assert_eq!(flaps.on_down(now), Some(0));
        }
    }
}
