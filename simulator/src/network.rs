//! The network: delays, losses, duplicates, reordering, partitions. (PROTOCOL §1: partially synchronous)
//!
//! What is between replicas and clients is under the same delays and losses; partitions part replicas, and an isolated
//! replica is out of reach for clients as well.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use crate::random::{Chance, Delay, Random};

/// Someone who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A replica.
    Replica(ReplicaId),
    /// A client, by its index.
    Client(usize),
}

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkOptions {
    /// From sending to arrival.
    pub delay: Delay,
    /// How many messages never arrive.
    pub loss: Chance,
    /// How many arrive twice.
    pub duplication: Chance,
    /// How many arrive much later than others: up to a hundred times the mean delay.
    pub straggling: Chance,
    /// Whether messages arrive in the order in which they were sent, as in a stream.
    pub in_order: bool,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            delay: Delay::microseconds(200, 500),
            loss: Chance::NEVER,
            duplication: Chance::NEVER,
            straggling: Chance::NEVER,
            in_order: false,
        }
    }
}

/// What becomes of a message that a filter looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Other filters and the link decide.
    Pass,
    /// It never arrives.
    Drop,
    /// It takes this much longer.
    Delay(Duration),
    /// It arrives twice, the second time this much later.
    Duplicate(Duration),
}

/// A message between two replicas, as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// Who sends it.
    pub from: ReplicaId,
    /// To whom.
    pub to: ReplicaId,
    /// When, in true time.
    pub at: Time,
    /// The message.
    pub message: &'a Message,
}

/// Decides about single messages.
pub type Filter = Box<dyn FnMut(&Passage<'_>) -> Verdict>;

/// Names a filter, to remove it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterId(u64);

/// Delivery times: none if the message is lost, two if it is duplicated.
pub type Arrivals = Vec<Time>;

/// What has been sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkCounts {
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages that were lost by chance.
    pub lost: u64,
    /// Messages that arrived twice.
    pub duplicated: u64,
    /// Messages that a partition or a filter stopped.
    pub stopped: u64,
}

/// All links.
pub struct Network {
    options: LinkOptions,
    links: BTreeMap<(Endpoint, Endpoint), LinkOptions>,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    isolated: BTreeSet<ReplicaId>,
    filters: BTreeMap<FilterId, Filter>,
    filters_made: u64,
    last_arrival: BTreeMap<(Endpoint, Endpoint), Time>,
    random: Random,
    counts: NetworkCounts,
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Network")
            .field("options", &self.options)
            .field("cut", &self.cut)
            .field("isolated", &self.isolated)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// A network whole and at rest.
    pub fn new(options: LinkOptions, random: Random) -> Self {
        Self {
            options,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            isolated: BTreeSet::new(),
            filters: BTreeMap::new(),
            filters_made: 0,
            last_arrival: BTreeMap::new(),
            random,
            counts: NetworkCounts::default(),
        }
    }

    /// How all links behave from now on that have no options of their own.
    pub fn set_options(&mut self, options: LinkOptions) {
        self.options = options;
    }

    /// How all links behave that have no options of their own.
    pub const fn options(&self) -> LinkOptions {
        self.options
    }

    /// How one link behaves from now on, in one direction.
    pub fn set_link(&mut self, from: Endpoint, to: Endpoint, options: LinkOptions) {
        self.links.insert((from, to), options);
    }

    /// Stops what `from` says to `to`, but not what `to` says to `from`.
    pub fn cut_link(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cut.insert((from, to));
    }

    /// Parts `replicas` into groups that do not hear each other; one that is in no group is alone.
    pub fn partition(&mut self, replicas: &[ReplicaId], groups: &[Vec<ReplicaId>]) {
        let group = |id: ReplicaId| groups.iter().position(|group| group.contains(&id));
        for &from in replicas {
            for &to in replicas {
                if from != to && (group(from).is_none() || group(from) != group(to)) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Takes a replica off the network: nobody hears it, clients neither, and it hears nobody.
    pub fn isolate(&mut self, replica: ReplicaId) {
        self.isolated.insert(replica);
    }

    /// Brings an isolated replica back.
    pub fn rejoin(&mut self, replica: ReplicaId) {
        self.isolated.remove(&replica);
    }

    /// Ends partitions, isolations and cut links.
    pub fn join(&mut self) {
        self.cut.clear();
        self.isolated.clear();
    }

    /// Makes the network whole: no partition, no isolation, no filter, no options for single links. The delays and losses
    /// of all links stay.
    pub fn heal(&mut self) {
        self.join();
        self.filters.clear();
        self.links.clear();
    }

    /// Lets `filter` decide about every message between replicas from now on.
    pub fn add_filter(&mut self, filter: Filter) -> FilterId {
        let id = FilterId(self.filters_made);
        self.filters_made += 1;
        self.filters.insert(id, filter);
        id
    }

    /// Removes a filter.
    pub fn remove_filter(&mut self, id: FilterId) {
        self.filters.remove(&id);
    }

    /// What has been sent so far.
    pub const fn counts(&self) -> NetworkCounts {
        self.counts
    }

    /// Whether what is under way from `from` to `to` can arrive now.
    pub fn is_open(&self, from: Endpoint, to: Endpoint) -> bool {
        let is_isolated = |endpoint| matches!(endpoint, Endpoint::Replica(id) if self.isolated.contains(&id));
        let is_cut = match (from, to) {
            (Endpoint::Replica(from), Endpoint::Replica(to)) => self.cut.contains(&(from, to)),
            _ => false,
        };
        !is_isolated(from) && !is_isolated(to) && !is_cut
    }

    /// When a message between two replicas arrives.
    pub fn send_message(&mut self, passage: &Passage<'_>) -> Arrivals {
        let mut extra = Duration::ZERO;
        let mut again = None;
        for filter in self.filters.values_mut() {
            match filter(passage) {
                Verdict::Pass => {}
                Verdict::Drop => {
                    self.counts.sent += 1;
                    self.counts.stopped += 1;
                    return Arrivals::new();
                }
                Verdict::Delay(delay) => extra += delay,
                Verdict::Duplicate(delay) => again = Some(delay),
            }
        }
        let (from, to) = (Endpoint::Replica(passage.from), Endpoint::Replica(passage.to));
        let mut arrivals = self.send(passage.at.after(extra), from, to);
        if let Some(delay) = again {
            self.counts.duplicated += 1;
            arrivals.extend(self.send(passage.at.after(extra + delay), from, to));
        }
        arrivals
    }

    /// When anything sent at `now` arrives.
    pub fn send(&mut self, now: Time, from: Endpoint, to: Endpoint) -> Arrivals {
        self.counts.sent += 1;
        if !self.is_open(from, to) {
            self.counts.stopped += 1;
            return Arrivals::new();
        }
        let options = self.links.get(&(from, to)).copied().unwrap_or(self.options);
        if self.random.happens(options.loss) {
            self.counts.lost += 1;
            return Arrivals::new();
        }
        let mut arrivals = vec![self.arrival(now, from, to, options)];
        if self.random.happens(options.duplication) {
            self.counts.duplicated += 1;
            arrivals.push(self.arrival(now, from, to, options));
        }
        arrivals
    }

    fn arrival(&mut self, now: Time, from: Endpoint, to: Endpoint, options: LinkOptions) -> Time {
        let mut delay = self.random.delay(options.delay);
        if self.random.happens(options.straggling) {
            delay += self.random.duration(Duration::ZERO, options.delay.mean.saturating_mul(100));
        }
        let mut arrival = now.after(delay);
        if options.in_order {
            let last = self.last_arrival.entry((from, to)).or_default();
            arrival = arrival.max(*last);
            *last = arrival;
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    const A: ReplicaId = ReplicaId::new(0);
    const B: ReplicaId = ReplicaId::new(1);
    const C: ReplicaId = ReplicaId::new(2);

    fn network(options: LinkOptions) -> Network {
        Network::new(options, Random::new(1, Stream::Network))
    }

    fn arrivals(network: &mut Network, from: ReplicaId, to: ReplicaId) -> Arrivals {
        network.send(Time::ZERO, Endpoint::Replica(from), Endpoint::Replica(to))
    }

    #[test]
    fn a_partition_parts_groups_and_whoever_is_in_none() {
        let mut network = network(LinkOptions::default());
        network.partition(&[A, B, C], &[vec![A, B]]);
        assert_eq!(arrivals(&mut network, A, B).len(), 1);
        assert!(arrivals(&mut network, A, C).is_empty());
        assert!(arrivals(&mut network, C, A).is_empty());
        network.heal();
        assert_eq!(arrivals(&mut network, C, A).len(), 1);
    }

    #[test]
    fn a_cut_link_is_cut_in_one_direction() {
        let mut network = network(LinkOptions::default());
        network.cut_link(A, B);
        assert!(arrivals(&mut network, A, B).is_empty());
        assert_eq!(arrivals(&mut network, B, A).len(), 1);
    }

    #[test]
    fn loss_and_duplication_happen_about_as_often_as_asked_for() {
        let options =
            LinkOptions { loss: Chance::percent(20), duplication: Chance::percent(50), ..LinkOptions::default() };
        let mut network = network(options);
        let arrived: usize = (0..10_000).map(|_| arrivals(&mut network, A, B).len()).sum();
        assert!((11_500..12_500).contains(&arrived), "8,000 arrive, 4,000 of them twice: {arrived}");
    }

    #[test]
    fn a_link_in_order_never_overtakes_and_another_does() {
        let overtakes = |in_order| {
            let mut network = network(LinkOptions { in_order, ..LinkOptions::default() });
            let times: Vec<Time> = (0..100).flat_map(|_| arrivals(&mut network, A, B)).collect();
            !times.is_sorted()
        };
        assert!(!overtakes(true));
        assert!(overtakes(false));
    }
}
