//! Which handshakes are begun: bounds in total, per source and for those not finished, and when a source must first prove
//! its address by a retry. Pure but for a lock.
//!
//! Addresses can be forged until they are proved. So those that are not proved may only take a part of each bound:
//! half of a source's share, and `half_open_before_retry` of the unfinished ones.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of what an endpoint takes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Connections, unfinished handshakes among them.
    pub connections_max: usize,
    /// Connections from one IPv4 address or one IPv6 /64, unfinished ones among them.
    pub per_source_max: usize,
    /// Handshakes that are not finished.
    pub half_open_max: usize,
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
    /// Too many connections or handshakes in total.
    RefuseTotal,
    /// Too many of this source.
    RefuseSource,
}

/// Counts connections and decides.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: AdmissionLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    half_open: usize,
    total: usize,
    /// At most `connections_max` entries: one for each source of a connection that counts.
    per_source: HashMap<IpAddr, usize>,
}

impl Gate {
    /// A gate that nobody has passed.
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on a handshake from `remote`; `is_proved` says whether the address cannot be forged.
    pub(crate) fn admit(self: &Arc<Self>, remote: SocketAddr, is_proved: bool) -> Admission {
        let limits = &self.limits;
        let source = source(remote.ip());
        let mut counts = self.counts();
        let of_source = counts.per_source.get(&source).copied().unwrap_or(0);
        if !is_proved && (counts.half_open >= limits.half_open_before_retry || of_source * 2 >= limits.per_source_max) {
            return Admission::Retry;
        }
        if of_source >= limits.per_source_max {
            return Admission::RefuseSource;
        }
        if counts.total >= limits.connections_max || counts.half_open >= limits.half_open_max {
            return Admission::RefuseTotal;
        }
        counts.half_open += 1;
        counts.total += 1;
        counts.per_source.insert(source, of_source + 1);
        Admission::Admit(Ticket { gate: Arc::clone(self), source, is_half_open: true })
    }
}

/// One connection's place; given back on drop.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    source: IpAddr,
    is_half_open: bool,
}

impl Ticket {
    /// The handshake is finished.
    pub(crate) fn on_established(&mut self) {
        if std::mem::take(&mut self.is_half_open) {
            self.gate.counts().half_open -= 1;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.on_established();
        let mut counts = self.gate.counts();
        counts.total -= 1;
        let of_source = counts.per_source.remove(&self.source).unwrap_or(1) - 1;
        if of_source > 0 {
            counts.per_source.insert(self.source, of_source);
        }
    }
}

/// What counts as one source: a host commands all addresses of an IPv6 /64.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AdmissionLimits =
        AdmissionLimits { connections_max: 10, per_source_max: 4, half_open_max: 6, half_open_before_retry: 3 };

    fn remote(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 1000).into()
    }

    fn admitted(gate: &Arc<Gate>, host: u8, is_proved: bool) -> Ticket {
        match gate.admit(remote(host), is_proved) {
            Admission::Admit(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn many_unfinished_handshakes_make_newcomers_prove_their_address() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<_> = (0..3).map(|host| admitted(&gate, host, false)).collect();
        assert!(matches!(gate.admit(remote(9), false), Admission::Retry));
        held.push(admitted(&gate, 9, true));
        for ticket in &mut held {
            ticket.on_established();
        }
        drop(admitted(&gate, 8, false));
    }

    #[test]
    fn unfinished_handshakes_are_bounded_also_for_proved_addresses() {
        let gate = Gate::new(LIMITS);
        let held: Vec<_> = (0..6).map(|host| admitted(&gate, host, true)).collect();
        assert!(matches!(gate.admit(remote(9), true), Admission::RefuseTotal));
        drop(held);
        drop(admitted(&gate, 9, true));
    }

    #[test]
    fn connections_are_bounded_in_total() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<Ticket> = Vec::new();
        for host in 0..10 {
            let mut ticket = admitted(&gate, host, true);
            ticket.on_established();
            held.push(ticket);
        }
        assert!(matches!(gate.admit(remote(99), true), Admission::RefuseTotal));
        held.pop();
        drop(admitted(&gate, 99, true));
    }

    #[test]
    fn a_source_is_bounded_and_forgers_take_at_most_half_of_its_share() {
        let gate = Gate::new(LIMITS);
        let forged = [admitted(&gate, 1, false), admitted(&gate, 1, false)];
        assert!(matches!(gate.admit(remote(1), false), Admission::Retry));
        let honest = [admitted(&gate, 1, true), admitted(&gate, 1, true)];
        assert!(matches!(gate.admit(remote(1), true), Admission::RefuseSource));
        drop((forged, honest));
        drop(admitted(&gate, 1, false));
        assert!(gate.counts().per_source.is_empty());
    }

    #[test]
    fn the_addresses_of_one_host_are_one_source() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(source(address("2001:db8::1")), source(address("2001:db8::ffff:1")));
        assert_ne!(source(address("2001:db8::1")), source(address("2001:db8:0:1::1")));
        assert_eq!(source(address("::ffff:10.0.0.1")), source(address("10.0.0.1")));
    }
}
