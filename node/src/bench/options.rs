//! What load to drive, at which cluster.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use quorate_protocol::codec::Blob;
use quorate_protocol::configuration::Parameters;
use quorate_protocol::kv::{Operation, VALUE_BYTES_MAX};
use serde::{Serialize, Serializer};

use crate::client::{CLIENTS_MAX, PENDING_MAX};

/// Clients of one connection: a replica takes so many keys from one, and the connection's own is another.
pub(super) const CLIENTS_PER_CONNECTION_MAX: usize = CLIENTS_MAX - 1;

/// Most clients.
const CLIENTS_BENCH_MAX: usize = 65_536;

/// Most connections.
const CONNECTIONS_MAX: usize = 256;

/// Most requests that are outstanding over all clients.
const OUTSTANDING_MAX: usize = 1 << 20;

/// What a request takes besides its operations, and an operation besides its bytes, at most.
const REQUEST_OVERHEAD_BYTES: usize = 128;
const OPERATION_OVERHEAD_BYTES: usize = 4;

/// What load to drive, at which cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The client folder of the cluster.
    pub net: PathBuf,
    /// The load.
    pub load: Load,
    /// When to end.
    pub extent: Extent,
    /// How long to drive load before anything is measured.
    pub warm_up: Duration,
    /// Where to write every call and answer.
    pub history: Option<PathBuf>,
    /// Whether to show on stderr how it goes.
    pub shows_progress: bool,
}

impl Options {
    /// The default load for this long.
    pub fn new(net: PathBuf, duration: Duration) -> Self {
        Self {
            net,
            load: Load::default(),
            extent: Extent::Duration(duration),
            warm_up: WARM_UP_DEFAULT,
            history: None,
            shows_progress: true,
        }
    }
}

/// How long to drive load before anything is measured, unless something else is said.
pub const WARM_UP_DEFAULT: Duration = Duration::from_secs(3);

/// When to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// After so long; what is answered in that time counts.
    Duration(Duration),
    /// When so many requests are answered, which were submitted after the warm-up.
    Requests(u64),
}

/// The load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// Clients, each a key with a session of its own.
    pub clients: usize,
    /// Requests that each client has outstanding at most.
    pub window: usize,
    /// Operations of each request.
    pub operations: usize,
    /// Bytes of each value.
    pub value_size: usize,
    /// Keys, of which each operation takes one, all as likely.
    pub keys: u64,
    /// How many of the operations are reads.
    pub reads: Share,
    /// Whether reads are answered without being ordered, where the cluster allows it.
    pub fast_reads: bool,
    /// How many of them remove a key.
    pub deletes: Share,
    /// How many of them write if the key holds what this program wrote there last.
    pub cas: Share,
    /// Requests a second that are due, over all clients; without it each client sends the next when one is answered.
    pub rate: Option<f64>,
    /// Connections over which the clients are spread; none: as many as are needed.
    pub connections: Option<usize>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            clients: 64,
            window: 8,
            operations: 1,
            value_size: 256,
            keys: 100_000,
            reads: Share::NONE,
            fast_reads: false,
            deletes: Share::NONE,
            cas: Share::NONE,
            rate: None,
            connections: None,
        }
    }
}

/// Why a load cannot be driven.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A number is out of its range.
    #[error("{what} is {found}: at least {min} and at most {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Reads, deletes and compare-and-sets are more than everything.
    #[error("reads, deletes and compare-and-sets are together more than 100% of the operations")]
    Shares,
    /// A request of several operations is ordered whatever they are.
    #[error("fast reads in requests of {0} operations: only a read that is alone need not be ordered")]
    FastReads(usize),
    /// The cluster orders every read.
    #[error("this cluster was founded without fast reads")]
    NoFastReads,
    /// The rate is no positive number.
    #[error("a rate of {0}: it must be above 0 and at most 10000000 a second")]
    Rate(f64),
    /// A request would hold more bytes than the cluster takes.
    #[error("a request of {operations} operations would have {bytes} bytes; this cluster takes {bytes_max}")]
    RequestBytes {
        /// Operations of a request.
        operations: usize,
        /// Its bytes.
        bytes: usize,
        /// Most that the cluster takes.
        bytes_max: u32,
    },
}

impl Load {
    /// Checks the load against the bounds of the cluster.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn check(&self, parameters: &Parameters) -> Result<(), LoadError> {
        let in_range = |what, found: usize, min: usize, max: usize| {
            if (min..=max).contains(&found) {
                return Ok(());
            }
            Err(LoadError::Range { what, found: found as u64, min: min as u64, max: max as u64 })
        };
        in_range("the number of clients", self.clients, 1, CLIENTS_BENCH_MAX)?;
        in_range("the window", self.window, 1, PENDING_MAX)?;
        in_range("the operations of a request", self.operations, 1, parameters.batch_operations_max as usize)?;
        in_range("the size of a value", self.value_size, 0, VALUE_BYTES_MAX)?;
        if let Some(connections) = self.connections {
            let min = self.clients.div_ceil(CLIENTS_PER_CONNECTION_MAX);
            in_range("the number of connections", connections, min, CONNECTIONS_MAX)?;
        }
        in_range("clients times window", self.clients.saturating_mul(self.window), 1, OUTSTANDING_MAX)?;
        if self.reads.fraction() + self.deletes.fraction() + self.cas.fraction() > 1.0 {
            return Err(LoadError::Shares);
        }
        if self.fast_reads && self.operations > 1 {
            return Err(LoadError::FastReads(self.operations));
        }
        if self.fast_reads && !parameters.fast_reads {
            return Err(LoadError::NoFastReads);
        }
        if self.keys == 0 {
            return Err(LoadError::Range { what: "the number of keys", found: 0, min: 1, max: u64::MAX });
        }
        if let Some(rate) = self.rate.filter(|rate| !(*rate > 0.0 && *rate <= 1e7)) {
            return Err(LoadError::Rate(rate));
        }
        self.check_bytes(parameters.request_bytes_max)
    }

    fn check_bytes(&self, bytes_max: u32) -> Result<(), LoadError> {
        let value = Blob::from(vec![0; self.value_size]);
        let key = Blob::from(super::workload::longest_key());
        // The largest of all that are drawn.
        let operation = if self.cas == Share::NONE {
            Operation::put(&key, &value)
        } else {
            Operation::CompareAndSet { key, expect: Some(value.clone()), set: Some(value) }
        };
        let each = operation.encode().map_or(usize::MAX, |bytes| bytes.len()).saturating_add(OPERATION_OVERHEAD_BYTES);
        let bytes = each.saturating_mul(self.operations).saturating_add(REQUEST_OVERHEAD_BYTES);
        if bytes > bytes_max as usize {
            return Err(LoadError::RequestBytes { operations: self.operations, bytes, bytes_max });
        }
        Ok(())
    }

    /// Over how many connections the clients are spread.
    pub(super) fn connections(&self) -> usize {
        let needed = self.clients.div_ceil(CLIENTS_PER_CONNECTION_MAX);
        self.connections.unwrap_or(needed).max(needed).min(self.clients)
    }
}

/// A part of a whole, as people write it: `25%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

/// Why a text is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write it as a percentage from 0% to 100%")]
pub struct ShareError;

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0.0);

    /// As a fraction, 0 to 1.
    pub const fn fraction(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_no_number| ShareError)?;
        if (0.0..=100.0).contains(&percent) { Ok(Self(percent / 100.0)) } else { Err(ShareError) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}%", self.0 * 100.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_load_fits_the_default_cluster() {
        assert_eq!(Load::default().check(&Parameters::default()), Ok(()));
    }

    #[test]
    fn a_load_out_of_bounds_is_refused_with_the_bound() {
        let parameters = Parameters::default();
        let load = Load { clients: 0, ..Load::default() };
        assert!(matches!(load.check(&parameters), Err(LoadError::Range { what: "the number of clients", .. })));
        let load = Load { window: 1025, ..Load::default() };
        assert!(matches!(load.check(&parameters), Err(LoadError::Range { what: "the window", max: 1024, .. })));
        let load = Load { clients: 3000, connections: Some(2), ..Load::default() };
        assert!(matches!(load.check(&parameters), Err(LoadError::Range { min: 3, .. })));
        let load = Load { clients: 65_536, window: 17, ..Load::default() };
        assert!(matches!(load.check(&parameters), Err(LoadError::Range { what: "clients times window", .. })));
        let half = "51%".parse().unwrap();
        let load = Load { reads: half, cas: half, ..Load::default() };
        assert_eq!(load.check(&parameters), Err(LoadError::Shares));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let load = Load { rate: Some(rate), ..Load::default() };
            assert!(matches!(load.check(&parameters), Err(LoadError::Rate(_))));
        }
    }

    #[test]
    fn a_request_that_no_replica_takes_is_refused_before_it_is_sent() {
        let load = Load { operations: 1000, value_size: 256, ..Load::default() };
        assert!(matches!(load.check(&Parameters::default()), Err(LoadError::RequestBytes { .. })));
        let load = Load { operations: 500, value_size: 256, cas: "1%".parse().unwrap(), ..Load::default() };
        assert!(matches!(load.check(&Parameters::default()), Err(LoadError::RequestBytes { .. })));
        let load = Load { operations: 800, value_size: 256, ..Load::default() };
        assert_eq!(load.check(&Parameters::default()), Ok(()));
    }

    #[test]
    fn clients_are_spread_over_as_many_connections_as_they_need() {
        let connections = |clients, connections| Load { clients, connections, ..Load::default() }.connections();
        assert_eq!(connections(64, None), 1);
        assert_eq!(connections(1023, None), 1);
        assert_eq!(connections(1024, None), 2);
        assert_eq!(connections(3, Some(8)), 3);
    }

    #[test]
    fn shares_are_read_as_people_write_them() {
        assert_eq!("25%".parse(), Ok(Share(0.25)));
        assert_eq!("100".parse(), Ok(Share(1.0)));
        assert_eq!("0%".parse::<Share>().map(|share| share.to_string()), Ok("0%".to_owned()));
        for text in ["", "%", "101%", "-1%", "NaN", "x%"] {
            assert_eq!(text.parse::<Share>(), Err(ShareError), "{text}");
        }
    }
}
