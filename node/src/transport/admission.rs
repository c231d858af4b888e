//! Which handshakes are begun: bounds in total, per source and for those not finished. Pure but for a lock. Whoever comes here
//! has proved its address by a retry: nothing is kept for an address that may be forged, and nobody is flooded in its name.
//!
//! A handshake that is not finished holds its place only while nobody else needs it. Where a source has all of its share
//! its oldest one gives way to its newest; where all places are taken, the oldest one of the source that has most. So who
//! begins handshakes and lets them hang is in his own way first.
//!
//! A connection that is finished keeps its place from newcomers of the same source only while it says something now and then.
//! Where all places are taken, a newcomer gets one of the source that has most, if that one has at least two more than his own:
//! the one that has said nothing for longest. So who takes all places has to come from as many sources as there are places.
//!
//! A host from which something came that nobody sends by mistake is kept out for a while, and longer each time: what it costs
//! to begin again is then the sender's time and not this side's signatures. Whoever shares its address waits with it, and keeps
//! the connections that he has.
//!
//! How many handshakes a host begins in a while is bounded, too, and how many all begin together: one that is given up at once takes
//! no place, and a signature all the same. The less there is left for all, the sooner those are refused who begin many.
//!
//! Members are known by address and port. One that proved its own has places that nobody else can take: neither from
//! elsewhere nor from the same host, where its port is taken by itself.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::transport::ReplicaId;
use crate::transport::rate::{Rate, Rates};

/// Unfinished handshakes of one member, beside the bounds of all others.
const MEMBER_HALF_OPEN_MAX: usize = 4;

/// How long a host is kept out after its first offence. Each one after that doubles it, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// So long after its last pause the offences of a host are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Hosts whose offences are known; the one whose pause ends first is forgotten for one more.
const OFFENDERS_MAX: usize = 1024;

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
    /// Handshakes begun from one IPv4 address or one IPv6 /64.
    pub begun_per_source: Rate,
    /// Handshakes begun from anywhere but by members.
    pub begun: Rate,
    /// After so long without a frame a connection gives way to a newcomer of its own source, if that has all that it gets.
    pub silence: Duration,
}

/// What to do with a handshake that somebody wants to begin.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go on; the ticket lasts as long as the connection.
    Admit(Ticket),
    /// Too many connections in total.
    RefuseTotal,
    /// Too many connections of this source.
    RefuseSource,
    /// Too many handshakes were begun in a short time, by this source or by all.
    RefuseRate,
    /// It is kept out for what came from it.
    RefuseOffender,
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

/// When something was last heard on a connection.
#[derive(Debug)]
pub(crate) struct Heard {
    /// When its handshake was finished.
    begun: Instant,
    /// So many milliseconds later.
    last: AtomicU64,
}

impl Heard {
    fn now() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), last: AtomicU64::new(0) })
    }

    /// Something was heard just now.
    pub(crate) fn note(&self) {
        let after = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(after, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Counts {
    /// How many handshakes of hosts may begin.
    rates: Rates,
    /// Where members come from, as far as is known. Bound: one a member.
    members: BTreeMap<ReplicaId, SocketAddr>,
    /// The oldest first. At most `half_open_max` entries, and [`MEMBER_HALF_OPEN_MAX`] for each member.
    half_open: BTreeMap<u64, HalfOpen>,
    next_number: u64,
    /// Finished handshakes whose connection lives: at most `connections_max` entries, and those of members.
    settled: BTreeMap<u64, Settled>,
    /// How many of them a source has.
    settled_by_source: HashMap<Source, usize>,
    /// Hosts that sent what nobody sends by mistake. Bound: [`OFFENDERS_MAX`].
    offenders: BTreeMap<IpAddr, Offender>,
}

/// How long a host is kept out.
#[derive(Clone, Copy, Debug)]
struct Offender {
    until: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Settled {
    source: Source,
    heard: Arc<Heard>,
    /// Dropping it tells the connection to give way.
    _stays: oneshot::Sender<()>,
}

#[derive(Debug)]
struct HalfOpen {
    source: Source,
    /// Dropping it tells the handshake to give way.
    stays: oneshot::Sender<()>,
}

impl Gate {
    /// A gate that nobody has passed.
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        let counts = Counts {
            rates: Rates::new(limits.begun_per_source, limits.begun, Instant::now()),
            members: BTreeMap::new(),
            half_open: BTreeMap::new(),
            next_number: 0,
            settled: BTreeMap::new(),
            settled_by_source: HashMap::new(),
            offenders: BTreeMap::new(),
        };
        Arc::new(Self { limits, counts: Mutex::new(counts) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member comes from this address.
    pub(crate) fn expect(&self, member: ReplicaId, address: SocketAddr) {
        self.counts().members.insert(member, canonical(address));
    }

    /// Decides on a handshake from `remote`, which has proved to be there.
    pub(crate) fn admit(self: &Arc<Self>, remote: SocketAddr) -> Admission {
        let now = Instant::now();
        let mut counts = self.counts();
        let source = counts.source(remote);
        let refused = match source {
            Source::Member(_) => {
                if counts.half_open_of(source) >= MEMBER_HALF_OPEN_MAX {
                    counts.give_way(source);
                }
                None
            }
            Source::Host(host) if counts.is_kept_out(host, now) => Some(Admission::RefuseOffender),
            Source::Host(host) if !counts.rates.take(host, now) => Some(Admission::RefuseRate),
            Source::Host(_) => self.make_room(&mut counts, source),
        };
        if let Some(refused) = refused {
            return refused;
        }
        let number = counts.next_number;
        counts.next_number += 1;
        let (stays, gives_way) = oneshot::channel();
        counts.half_open.insert(number, HalfOpen { source, stays });
        let heard = Heard::now();
        Admission::Admit(Ticket { gate: Arc::clone(self), number, source, heard, gives_way })
    }

    /// Makes room for one more handshake from a host, if need be at the cost of an older one, or says why there is none.
    fn make_room(&self, counts: &mut Counts, source: Source) -> Option<Admission> {
        let limits = &self.limits;
        let mut share = limits.per_source_max.saturating_sub(counts.settled_of(source));
        let mut room = limits.connections_max.saturating_sub(counts.settled.len());
        if share == 0 {
            if counts.silent_of(source, limits.silence).is_none() {
                return Some(Admission::RefuseSource);
            }
            share = 1;
        }
        if room == 0 {
            if counts.displaced_by(source).is_none() {
                return Some(Admission::RefuseTotal);
            }
            room = 1;
        }
        let (share, room) = (share.min(limits.half_open_per_source_max), room.min(limits.half_open_max));
        let (of_source, of_hosts) = (counts.half_open_of(source), counts.half_open_of_hosts());
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

    fn is_kept_out(&self, host: IpAddr, now: Instant) -> bool {
        self.offenders.get(&host).is_some_and(|offender| now < offender.until)
    }

    /// An offence of a host. What comes while it is kept out was under way before, and counts with the one before.
    fn on_offence(&mut self, host: IpAddr, now: Instant) {
        if self.is_kept_out(host, now) {
            return;
        }
        self.offenders.retain(|_, offender| now < offender.until + FORGOTTEN_AFTER);
        let pause = self.offenders.get(&host).map_or(PAUSE_FIRST, |known| (known.pause * 2).min(PAUSE_MAX));
        self.offenders.insert(host, Offender { until: now + pause, pause });
        if self.offenders.len() > OFFENDERS_MAX {
            let first = self.offenders.iter().min_by_key(|(_, offender)| offender.until).map(|(host, _)| *host);
            first.and_then(|first| self.offenders.remove(&first));
        }
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

    fn settled_of(&self, source: Source) -> usize {
        self.settled_by_source.get(&source).copied().unwrap_or(0)
    }

    /// The connection of that source on which nothing was heard for longest.
    fn quietest_of(&self, source: Source) -> Option<(u64, Instant)> {
        let own = self.settled.iter().filter(|(_, settled)| settled.source == source);
        own.map(|(number, settled)| (*number, settled.heard.last())).min_by_key(|(_, heard)| *heard)
    }

    /// The same, if nothing was heard on it for so long.
    fn silent_of(&self, source: Source, silence: Duration) -> Option<u64> {
        self.quietest_of(source).filter(|(_, heard)| heard.elapsed() >= silence).map(|(number, _)| number)
    }

    /// The connection that gives way to a newcomer of `source` where all places are taken: the quietest of the host that has most,
    /// unless the newcomer's then had no fewer.
    fn displaced_by(&self, source: Source) -> Option<u64> {
        let hosts = self.settled_by_source.iter().filter(|(source, _)| matches!(source, Source::Host(_)));
        let (greediest, most) = hosts.max_by_key(|(source, count)| (**count, **source))?;
        if self.settled_of(source) + 1 < *most { Some(self.quietest_of(*greediest)?.0) } else { None }
    }

    /// A connection is over, or is told to be.
    fn release(&mut self, number: u64) {
        let Some(Settled { source, .. }) = self.settled.remove(&number) else { return };
        let left = self.settled_of(source).saturating_sub(1);
        if left > 0 {
            self.settled_by_source.insert(source, left);
        } else {
            self.settled_by_source.remove(&source);
        }
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
    heard: Arc<Heard>,
    gives_way: oneshot::Receiver<()>,
}

impl Ticket {
    /// Waits until the handshake, or the connection, has to give way to another one.
    pub(crate) async fn gives_way(&mut self) {
        // Nothing is ever sent: it ends when the gate drops the other end.
        drop((&mut self.gives_way).await);
    }

    /// The handshake is finished, unless it had to give way just before, or nobody gives way to it.
    pub(crate) fn try_settle(&mut self) -> bool {
        let mut counts = self.gate.counts();
        let Some(HalfOpen { source, stays }) = counts.half_open.remove(&self.number) else {
            return false;
        };
        if let Source::Host(_) = source {
            let AdmissionLimits { per_source_max, connections_max, silence, .. } = self.gate.limits;
            let quiet = match (counts.settled_of(source) >= per_source_max, counts.settled.len() >= connections_max) {
                (false, false) => None,
                (true, _) => Some(counts.silent_of(source, silence)),
                (false, true) => Some(counts.displaced_by(source)),
            };
            match quiet {
                Some(None) => return false,
                Some(Some(number)) => counts.release(number),
                None => {}
            }
        }
        *counts.settled_by_source.entry(source).or_default() += 1;
        self.heard.note();
        counts.settled.insert(self.number, Settled { source, heard: Arc::clone(&self.heard), _stays: stays });
        true
    }

    /// Something came on the connection that nobody sends by mistake: its host is kept out for a while. Members are not.
    pub(crate) fn offended(&self) {
        if let Source::Host(host) = self.source {
            self.gate.counts().on_offence(host, Instant::now());
        }
    }

    /// Whoever hears something on the connection says so there.
    pub(crate) fn heard(&self) -> Arc<Heard> {
        Arc::clone(&self.heard)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.half_open.remove(&self.number);
        counts.release(self.number);
    }
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What counts as one host: it commands all addresses of an IPv6 /64.
pub(crate) fn host(ip: IpAddr) -> IpAddr {
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
        begun_per_source: Rate { burst: 1_000, per_second: 1_000 },
        begun: Rate { burst: 10_000, per_second: 10_000 },
        silence: Duration::from_mins(1),
    };

    fn remote(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 1000).into()
    }

    fn admitted_at(gate: &Arc<Gate>, remote: SocketAddr) -> Ticket {
        match gate.admit(remote) {
            Admission::Admit(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn admitted(gate: &Arc<Gate>, host: u8) -> Ticket {
        admitted_at(gate, remote(host))
    }

    fn settled(gate: &Arc<Gate>, host: u8) -> Ticket {
        let mut ticket = admitted(gate, host);
        assert!(ticket.try_settle());
        ticket
    }

    #[test]
    fn where_all_places_are_taken_the_oldest_of_the_host_that_has_most_gives_way() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<_> = [1, 2, 2, 2, 3, 3].map(|host| admitted(&gate, host)).into();
        let mut newcomer = admitted(&gate, 9);
        assert_eq!(gate.counts().half_open.len(), LIMITS.half_open_max);
        let gave_way: Vec<bool> = held.iter_mut().map(|ticket| !ticket.try_settle()).collect();
        assert_eq!(gave_way, [false, true, false, false, false, false]);
        assert!(newcomer.try_settle());
    }

    #[test]
    fn a_host_that_has_all_of_its_share_is_in_its_own_way_alone() {
        let gate = Gate::new(LIMITS);
        let mut other = admitted(&gate, 1);
        let mut held: Vec<_> = (0..100).map(|_count| admitted(&gate, 2)).collect();
        assert_eq!(gate.counts().half_open.len(), 1 + LIMITS.half_open_per_source_max);
        assert!(other.try_settle());
        let settled = held.iter_mut().map(Ticket::try_settle).skip_while(|settled| !settled).count();
        assert_eq!(settled, LIMITS.half_open_per_source_max, "the newest stay");
    }

    #[tokio::test]
    async fn a_handshake_that_gives_way_is_told() {
        let gate = Gate::new(AdmissionLimits { half_open_per_source_max: 1, ..LIMITS });
        let mut older = admitted(&gate, 1);
        let newer = admitted(&gate, 1);
        older.gives_way().await;
        drop((older, newer));
        assert!(gate.counts().half_open.is_empty());
    }

    #[test]
    fn a_member_at_its_own_address_has_places_that_nobody_else_can_take() {
        let gate = Gate::new(LIMITS);
        let (member, neighbour) = (remote(1), SocketAddr::new(remote(1).ip(), 2000));
        gate.expect(ReplicaId(0), member);
        let mut finishing = admitted_at(&gate, member);
        let _settled: Vec<_> = (20..24).map(|host| settled(&gate, host)).collect();
        let _neighbours: Vec<_> = (0..100).map(|_count| admitted_at(&gate, neighbour)).collect();
        let _strangers: Vec<_> = (10..110).map(|host| admitted(&gate, host)).collect();
        assert!(finishing.try_settle());
        drop(finishing);
        let mut held: Vec<_> = (0..=MEMBER_HALF_OPEN_MAX).map(|_count| admitted_at(&gate, member)).collect();
        assert!(!held[0].try_settle(), "it has only so many");
        assert!(held[1..].iter_mut().all(Ticket::try_settle));
    }

    #[test]
    fn connections_are_bounded_in_total() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<Ticket> = (0..10).map(|host| settled(&gate, host)).collect();
        assert!(matches!(gate.admit(remote(99)), Admission::RefuseTotal));
        held.pop();
        drop(admitted(&gate, 99));
    }

    /// Which of them have to give way.
    fn gave_way(tickets: &mut [Ticket]) -> Vec<usize> {
        let told =
            |ticket: &mut Ticket| matches!(ticket.gives_way.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        tickets.iter_mut().enumerate().filter_map(|(place, ticket)| told(ticket).then_some(place)).collect()
    }

    #[test]
    fn where_all_places_are_taken_the_quietest_of_the_host_that_has_most_gives_way() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<Ticket> = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2].map(|host| settled(&gate, host)).into();
        std::thread::sleep(Duration::from_millis(2));
        held[5].heard().note();
        let newcomers = [settled(&gate, 3), settled(&gate, 3), settled(&gate, 3)];
        assert_eq!(gave_way(&mut held), [0, 6, 7], "in turn of those that have most");
        assert!(matches!(gate.admit(remote(3)), Admission::RefuseTotal), "it would have as many");
        assert!(matches!(gate.admit(remote(1)), Admission::RefuseTotal));
        assert_eq!(gate.counts().settled.len(), LIMITS.connections_max);
        drop((newcomers, held));
        assert!(gate.counts().settled.is_empty() && gate.counts().settled_by_source.is_empty());
    }

    #[test]
    fn a_host_that_has_all_of_its_share_gives_up_a_connection_that_is_silent() {
        let gate = Gate::new(AdmissionLimits { silence: Duration::from_millis(50), ..LIMITS });
        let mut held: Vec<Ticket> = (0..LIMITS.per_source_max).map(|_count| settled(&gate, 1)).collect();
        let mut other = [settled(&gate, 2)];
        assert!(matches!(gate.admit(remote(1)), Admission::RefuseSource), "all were heard just now");
        std::thread::sleep(Duration::from_millis(60));
        held.iter().skip(1).for_each(|ticket| ticket.heard().note());
        let newcomer = settled(&gate, 1);
        assert_eq!((gave_way(&mut held), gave_way(&mut other)), (vec![0], vec![]));
        assert!(matches!(gate.admit(remote(1)), Admission::RefuseSource));
        drop(newcomer);
    }

    #[test]
    fn who_begins_handshakes_and_gives_them_up_is_refused_and_members_are_not() {
        let gate = Gate::new(AdmissionLimits { begun_per_source: Rate { burst: 20, per_second: 1 }, ..LIMITS });
        let member = remote(2);
        gate.expect(ReplicaId(0), member);
        let begun = |remote| (0..100).filter(|_count| matches!(gate.admit(remote), Admission::Admit(_))).count();
        // One more with each second that the test takes.
        assert!((19..30).contains(&begun(remote(1))));
        assert!((0..100).any(|_count| matches!(gate.admit(remote(1)), Admission::RefuseRate)));
        assert_eq!(begun(member), 100);
        drop(admitted(&gate, 3));
    }

    #[test]
    fn a_source_is_bounded() {
        let gate = Gate::new(LIMITS);
        let honest: Vec<_> = (0..5).map(|_count| settled(&gate, 1)).collect();
        assert!(matches!(gate.admit(remote(1)), Admission::RefuseSource));
        drop(honest);
        drop(admitted(&gate, 1));
        assert!(gate.counts().settled.is_empty() && gate.counts().half_open.is_empty());
    }

    #[test]
    fn a_host_is_kept_out_for_an_offence_and_longer_each_time() {
        let gate = Gate::new(LIMITS);
        let (mut counts, host) = (gate.counts(), host(remote(1).ip()));
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _offence in 0..8 {
            counts.on_offence(host, now);
            // Those whose requests were under way.
            counts.on_offence(host, now);
            let until = counts.offenders[&host].until;
            let last = until.checked_sub(Duration::from_millis(1)).expect("it lies ahead");
            assert!(counts.is_kept_out(host, last) && !counts.is_kept_out(host, until));
            pauses.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        counts.on_offence(host, now + FORGOTTEN_AFTER);
        assert_eq!(counts.offenders[&host].pause, PAUSE_FIRST, "it was good for a while");
    }

    #[test]
    fn who_offended_is_kept_out_and_nobody_else() {
        let gate = Gate::new(LIMITS);
        let (offender, mut neighbour) = (settled(&gate, 1), [settled(&gate, 1)]);
        offender.offended();
        assert!(matches!(gate.admit(remote(1)), Admission::RefuseOffender));
        drop(admitted(&gate, 2));
        assert_eq!(gave_way(&mut neighbour), [] as [usize; 0], "who is in stays in");
        let member = remote(3);
        gate.expect(ReplicaId(0), member);
        admitted_at(&gate, member).offended();
        drop(admitted_at(&gate, member));
    }

    #[test]
    fn so_many_offenders_are_known_and_no_more() {
        let gate = Gate::new(LIMITS);
        let (mut counts, now) = (gate.counts(), Instant::now());
        let hosts =
            || (0..=1024_u16).map(|number| IpAddr::from([10, 1, number.to_be_bytes()[0], number.to_be_bytes()[1]]));
        hosts().zip(0..).for_each(|(host, after)| counts.on_offence(host, now + Duration::from_micros(after)));
        assert_eq!(counts.offenders.len(), OFFENDERS_MAX);
        let known = hosts().filter(|host| counts.offenders.contains_key(host)).count();
        assert!(known == OFFENDERS_MAX && !counts.offenders.contains_key(&hosts().next().expect("the first")));
    }

    #[test]
    fn the_addresses_of_one_host_are_one_source() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(host(address("2001:db8::1")), host(address("2001:db8::ffff:1")));
        assert_ne!(host(address("2001:db8::1")), host(address("2001:db8:0:1::1")));
        assert_eq!(host(address("::ffff:10.0.0.1")), host(address("10.0.0.1")));
    }
}
