//! How many handshakes are begun in a while: by one host, and by all of them together. Each costs this side a signature, under a
//! lock that the packets of all others wait for, and whoever begins it next to nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// So many at once after a pause, and so many a second in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once; at least 1.
    pub burst: u32,
    /// A second.
    pub per_second: u32,
}

/// What one host began lately: a handshake counts less and less, and for nothing after some times burst / rate.
#[derive(Debug)]
struct Begun {
    count: f64,
    renewed: Instant,
}

/// So little counts for nothing.
const NOTHING: f64 = 0.01;

impl Begun {
    fn renew(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.renewed).as_secs_f64();
        let memory = f64::from(rate.burst.max(1)) / f64::from(rate.per_second.max(1));
        self.count *= (-passed / memory).exp();
        self.renewed = now;
    }
}

/// What was begun lately.
#[derive(Debug)]
pub(crate) struct Rates {
    of_host: Rate,
    of_all: Rate,
    /// How many may still begin, and as of when.
    left: f64,
    renewed: Instant,
    /// Bound: each began a handshake within some times burst / rate, and all together not more than they may.
    hosts: HashMap<IpAddr, Begun>,
    /// How many there were when those that count for nothing were last forgotten.
    swept: usize,
}

impl Rates {
    pub(crate) fn new(of_host: Rate, of_all: Rate, now: Instant) -> Self {
        let left = f64::from(of_all.burst.max(1));
        Self { of_host, of_all, left, renewed: now, hosts: HashMap::new(), swept: 0 }
    }

    /// Whether a handshake from `host` may begin now: it counts then. The less there is left for all, the fewer may a host have begun
    /// lately. So what is left settles at where those who begin many are refused, and who has begun none is not.
    pub(crate) fn take(&mut self, host: IpAddr, now: Instant) -> bool {
        self.sweep(now);
        let passed = now.saturating_duration_since(self.renewed).as_secs_f64();
        let all = f64::from(self.of_all.burst.max(1));
        self.left = passed.mul_add(f64::from(self.of_all.per_second), self.left).min(all);
        self.renewed = now;
        if self.left < 1.0 {
            return false;
        }
        let begun = self.hosts.entry(host).or_insert(Begun { count: 0.0, renewed: now });
        begun.renew(self.of_host, now);
        let share = f64::from(self.of_host.burst) * self.left / all;
        let may = begun.count + 1.0 <= share.max(1.0 + NOTHING);
        if may {
            begun.count += 1.0;
            self.left -= 1.0;
        }
        may
    }

    /// Forgets hosts that count for nothing, each time that there are twice as many as were left.
    fn sweep(&mut self, now: Instant) {
        if self.hosts.len() > 2 * self.swept.max(512) {
            self.hosts.retain(|_, begun| {
                begun.renew(self.of_host, now);
                begun.count > NOTHING
            });
            self.swept = self.hosts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OF_HOST: Rate = Rate { burst: 10, per_second: 5 };
    const OF_ALL: Rate = Rate { burst: 40, per_second: 8 };

    fn host(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        [10, 0, high, low].into()
    }

    fn taken(rates: &mut Rates, number: u16, now: Instant) -> usize {
        (0..100).filter(|_count| rates.take(host(number), now)).count()
    }

    #[test]
    fn a_host_begins_so_many_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut rates = Rates::new(OF_HOST, Rate { burst: 100_000, per_second: 1_000 }, start);
        assert_eq!(taken(&mut rates, 1, start), 9, "so many, but for what the first took of what is left for all");
        let steps = (1..=200).map(|step| start + Duration::from_millis(100) * step);
        let later: usize = steps.map(|now| taken(&mut rates, 1, now)).sum();
        assert!((80..=100).contains(&later), "{later} in twenty seconds");
        assert_eq!(taken(&mut rates, 1, start + Duration::from_mins(1)), 9, "a pause saves up no more");
    }

    #[test]
    fn where_many_begin_more_than_there_is_for_all_who_began_none_still_may() {
        for greedy_hosts in [2, 5, 10] {
            let start = Instant::now();
            let mut rates = Rates::new(OF_HOST, OF_ALL, start);
            let (mut of_greedy, mut of_modest) = (0, 0);
            for step in 1..=200_u16 {
                let now = start + Duration::from_millis(100) * u32::from(step);
                of_greedy += (0..greedy_hosts).map(|number| taken(&mut rates, number, now)).sum::<usize>();
                of_modest += usize::from(step % 10 == 0 && rates.take(host(1_000 + step), now));
            }
            assert!(of_modest == 20 && of_greedy > 100, "{of_modest} of 20, and {of_greedy} of {greedy_hosts}");
        }
    }

    #[test]
    fn hosts_that_began_nothing_lately_are_forgotten() {
        let start = Instant::now();
        let mut rates = Rates::new(OF_HOST, Rate { burst: 10_000, per_second: 10_000 }, start);
        for number in 0..5_000_u16 {
            rates.take(host(number), start + Duration::from_millis(10) * u32::from(number));
        }
        assert!(rates.hosts.len() < 2_000, "{}", rates.hosts.len());
    }
}
