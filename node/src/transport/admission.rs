//! Which handshakes are begun: bounds in total, per source and for those not finished, and when a source must first prove
//! its address by a retry. Pure but for a lock.
//!
//! A handshake that is not finished holds its place only while nobody else needs it. Where a source has all of its share
//! its oldest one gives way to its newest; where all places are taken, the oldest one of the source that has most. So who
//! begins handshakes and lets them hang is in his own way first.
//!
//! Addresses can be forged until they are proved. So those that are not proved may only take a part of each bound, half of
//! a source's share and `half_open_before_retry` of the unfinished ones, and make nobody give way.
//!
//! Members are known by address and port. One that proved its own has places that nobody else can take: neither from
//! elsewhere nor from the same host, where its port is taken by itself.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::transport::ReplicaId;

/// Unfinished handshakes of one member, beside the bounds of all others.
const MEMBER_HALF_OPEN_MAX: usize = 4;

/// Bounds of what an endpoint takes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Connections, unfinished handshakes among them.
    pub connections_max: usize,
    /// Connections from one IPv4 address or one IPv6 /64, unfinished ones among them.
    pub per_source_max: usize,
    /// Handshakes that are not finished.
    pub half_open_max: usize,
    /// Handshakes from one IPv4 address or one IPv6 /64 that are not finished.
    pub half_open_per_source_max: usize,
    /// From so many unfinished handshakes on a source has to prove its address first. Below `half_open_max`.
    pub half_open_before_retry: usize,
}

/// What to do with a handshake that somebody wants to begin.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go on; the ticket lasts as long as the connection.
    Admit(Ticket),
    /// Ask for proof of the address.
    Retry,
    /// Too many connections in total.
    RefuseTotal,
    /// Too many connections of this source.
    RefuseSource,
}

/// Who shares a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Source {
    /// A member, at its own address and port.
    Member(SocketAddr),
    /// All who come from one IPv4 address or one IPv6 /64.
    Host(IpAddr),
}

/// Counts connections and decides.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: AdmissionLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Where members come from, as far as is known. Bound: one a member.
    members: BTreeMap<ReplicaId, SocketAddr>,
    /// The oldest first. At most `half_open_max` entries, and [`MEMBER_HALF_OPEN_MAX`] for each member.
    half_open: BTreeMap<u64, HalfOpen>,
    next_number: u64,
    /// Finished handshakes whose connection lives, by source: at most `connections_max` entries, and one a member.
    settled: HashMap<Source, usize>,
    settled_total: usize,
}

#[derive(Debug)]
struct HalfOpen {
    source: Source,
    /// Dropping it tells the handshake to give way.
    _stays: oneshot::Sender<()>,
}

impl Gate {
    /// A gate that nobody has passed.
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member comes from this address.
    pub(crate) fn expect(&self, member: ReplicaId, address: SocketAddr) {
        self.counts().members.insert(member, canonical(address));
    }

    /// Decides on a handshake from `remote`; `is_proved` says whether the address cannot be forged.
    pub(crate) fn admit(self: &Arc<Self>, remote: SocketAddr, is_proved: bool) -> Admission {
        let mut counts = self.counts();
        let source = counts.source(remote);
        let refused = match source {
            Source::Member(_) if !is_proved => Some(Admission::Retry),
            Source::Member(_) => {
                if counts.half_open_of(source) >= MEMBER_HALF_OPEN_MAX {
                    counts.give_way(source);
                }
                None
            }
            Source::Host(_) => self.make_room(&mut counts, source, is_proved),
        };
        if let Some(refused) = refused {
            return refused;
        }
        let number = counts.next_number;
        counts.next_number += 1;
        let (stays, gives_way) = oneshot::channel();
        counts.half_open.insert(number, HalfOpen { source, _stays: stays });
        Admission::Admit(Ticket { gate: Arc::clone(self), number, source, is_settled: false, gives_way })
    }

    /// Makes room for one more handshake from a host, if need be at the cost of an older one, or says why there is none.
    fn make_room(&self, counts: &mut Counts, source: Source, is_proved: bool) -> Option<Admission> {
        let limits = &self.limits;
        let settled_of_source = counts.settled.get(&source).copied().unwrap_or(0);
        let share = limits.per_source_max.saturating_sub(settled_of_source).min(limits.half_open_per_source_max);
        let room = limits.connections_max.saturating_sub(counts.settled_total).min(limits.half_open_max);
        let (of_source, of_hosts) = (counts.half_open_of(source), counts.half_open_of_hosts());
        if share == 0 {
            return Some(Admission::RefuseSource);
        }
        if room == 0 {
            return Some(Admission::RefuseTotal);
        }
        let is_scarce = of_hosts >= limits.half_open_before_retry || of_source * 2 >= share || of_hosts * 2 >= room;
        if is_scarce && !is_proved {
            return Some(Admission::Retry);
        }
        if of_source >= share {
            counts.give_way(source);
        } else if of_hosts >= room
            && let Some(greediest) = counts.greediest()
        {
            counts.give_way(greediest);
        }
        None
    }
}

impl Counts {
    fn source(&self, remote: SocketAddr) -> Source {
        let remote = canonical(remote);
        let is_member = self.members.values().any(|member| *member == remote);
        if is_member { Source::Member(remote) } else { Source::Host(host(remote.ip())) }
    }

    fn half_open_of(&self, source: Source) -> usize {
        self.half_open.values().filter(|half_open| half_open.source == source).count()
    }

    fn half_open_of_hosts(&self) -> usize {
        self.half_open.values().filter(|half_open| matches!(half_open.source, Source::Host(_))).count()
    }

    /// The host that holds most of the unfinished handshakes; of several, the one whose oldest is the oldest.
    fn greediest(&self) -> Option<Source> {
        let mut held: BTreeMap<Source, usize> = BTreeMap::new();
        let hosts = || self.half_open.values().map(|half_open| half_open.source);
        for source in hosts().filter(|source| matches!(source, Source::Host(_))) {
            *held.entry(source).or_default() += 1;
        }
        let most = held.values().max()?;
        hosts().find(|source| held.get(source) == Some(most))
    }

    /// The oldest unfinished handshake of that source ends.
    fn give_way(&mut self, source: Source) {
        let oldest = self.half_open.iter().find(|(_, half_open)| half_open.source == source);
        if let Some(number) = oldest.map(|(number, _)| *number) {
            self.half_open.remove(&number);
        }
    }
}

/// One connection's place; given back on drop.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    number: u64,
    source: Source,
    is_settled: bool,
    gives_way: oneshot::Receiver<()>,
}

impl Ticket {
    /// Waits until the handshake has to give way to another one.
    pub(crate) async fn gives_way(&mut self) {
        // Nothing is ever sent: it ends when the gate drops the other end.
        drop((&mut self.gives_way).await);
    }

    /// The handshake is finished, unless it had to give way just before.
    pub(crate) fn try_settle(&mut self) -> bool {
        let mut counts = self.gate.counts();
        if counts.half_open.remove(&self.number).is_none() {
            return false;
        }
        *counts.settled.entry(self.source).or_default() += 1;
        counts.settled_total += 1;
        self.is_settled = true;
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        if !self.is_settled {
            counts.half_open.remove(&self.number);
            return;
        }
        counts.settled_total -= 1;
        let of_source = counts.settled.remove(&self.source).unwrap_or(1) - 1;
        if of_source > 0 {
            counts.settled.insert(self.source, of_source);
        }
    }
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What counts as one host: it commands all addresses of an IPv6 /64.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AdmissionLimits = AdmissionLimits {
        connections_max: 10,
        per_source_max: 5,
        half_open_max: 6,
        half_open_per_source_max: 4,
        half_open_before_retry: 3,
    };

    fn remote(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 1000).into()
    }

    fn admitted_at(gate: &Arc<Gate>, remote: SocketAddr, is_proved: bool) -> Ticket {
        match gate.admit(remote, is_proved) {
            Admission::Admit(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn admitted(gate: &Arc<Gate>, host: u8, is_proved: bool) -> Ticket {
        admitted_at(gate, remote(host), is_proved)
    }

    fn settled(gate: &Arc<Gate>, host: u8) -> Ticket {
        let mut ticket = admitted(gate, host, true);
        assert!(ticket.try_settle());
        ticket
    }

    #[test]
    fn many_unfinished_handshakes_make_newcomers_prove_their_address() {
        let gate = Gate::new(AdmissionLimits { half_open_max: 8, ..LIMITS });
        let mut held: Vec<_> = (0..3).map(|host| admitted(&gate, host, false)).collect();
        assert!(matches!(gate.admit(remote(9), false), Admission::Retry));
        held.push(admitted(&gate, 9, true));
        for ticket in &mut held {
            assert!(ticket.try_settle());
        }
        drop(admitted(&gate, 8, false));
    }

    #[test]
    fn where_all_places_are_taken_the_oldest_of_the_host_that_has_most_gives_way() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<_> = [1, 2, 2, 2, 3, 3].map(|host| admitted(&gate, host, true)).into();
        let mut newcomer = admitted(&gate, 9, true);
        assert_eq!(gate.counts().half_open.len(), LIMITS.half_open_max);
        let gave_way: Vec<bool> = held.iter_mut().map(|ticket| !ticket.try_settle()).collect();
        assert_eq!(gave_way, [false, true, false, false, false, false]);
        assert!(newcomer.try_settle());
    }

    #[test]
    fn a_host_that_has_all_of_its_share_is_in_its_own_way_alone() {
        let gate = Gate::new(LIMITS);
        let mut other = admitted(&gate, 1, true);
        let mut held: Vec<_> = (0..100).map(|_count| admitted(&gate, 2, true)).collect();
        assert_eq!(gate.counts().half_open.len(), 1 + LIMITS.half_open_per_source_max);
        assert!(other.try_settle());
        let settled = held.iter_mut().map(Ticket::try_settle).skip_while(|settled| !settled).count();
        assert_eq!(settled, LIMITS.half_open_per_source_max, "the newest stay");
    }

    #[tokio::test]
    async fn a_handshake_that_gives_way_is_told() {
        let gate = Gate::new(AdmissionLimits { half_open_per_source_max: 1, ..LIMITS });
        let mut older = admitted(&gate, 1, true);
        let newer = admitted(&gate, 1, true);
        older.gives_way().await;
        drop((older, newer));
        assert!(gate.counts().half_open.is_empty());
    }

    #[test]
    fn a_member_at_its_own_address_has_places_that_nobody_else_can_take() {
        let gate = Gate::new(LIMITS);
        let (member, neighbour) = (remote(1), SocketAddr::new(remote(1).ip(), 2000));
        gate.expect(ReplicaId(0), member);
        assert!(matches!(gate.admit(member, false), Admission::Retry), "its address has to be proved first");
        let mut finishing = admitted_at(&gate, member, true);
        let _settled: Vec<_> = (20..24).map(|host| settled(&gate, host)).collect();
        let _neighbours: Vec<_> = (0..100).map(|_count| admitted_at(&gate, neighbour, true)).collect();
        let _strangers: Vec<_> = (10..110).map(|host| admitted(&gate, host, true)).collect();
        assert!(finishing.try_settle());
        drop(finishing);
        let mut held: Vec<_> = (0..=MEMBER_HALF_OPEN_MAX).map(|_count| admitted_at(&gate, member, true)).collect();
        assert!(!held[0].try_settle(), "it has only so many");
        assert!(held[1..].iter_mut().all(Ticket::try_settle));
    }

    #[test]
    fn connections_are_bounded_in_total() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<Ticket> = (0..10).map(|host| settled(&gate, host)).collect();
        assert!(matches!(gate.admit(remote(99), true), Admission::RefuseTotal));
        held.pop();
        drop(admitted(&gate, 99, true));
    }

    #[test]
    fn a_source_is_bounded_and_forgers_take_at_most_half_of_its_share() {
        let gate = Gate::new(LIMITS);
        let forged = [admitted(&gate, 1, false), admitted(&gate, 1, false)];
        assert!(matches!(gate.admit(remote(1), false), Admission::Retry));
        let honest: Vec<_> = (0..5).map(|_count| settled(&gate, 1)).collect();
        assert!(matches!(gate.admit(remote(1), true), Admission::RefuseSource));
        drop((forged, honest));
        drop(admitted(&gate, 1, false));
        assert!(gate.counts().settled.is_empty() && gate.counts().half_open.is_empty());
    }

    #[test]
    fn the_addresses_of_one_host_are_one_source() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(host(address("2001:db8::1")), host(address("2001:db8::ffff:1")));
        assert_ne!(host(address("2001:db8::1")), host(address("2001:db8:0:1::1")));
        assert_eq!(host(address("::ffff:10.0.0.1")), host(address("10.0.0.1")));
    }
}
