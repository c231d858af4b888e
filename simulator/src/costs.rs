//! What an operation costs, counted: messages, bytes, signatures, records, syncs. Time on a shared machine is noise; these
//! are the same wherever they are counted, so that a change of the protocol shows what it costs.

use core::fmt::Write as _;
use core::time::Duration;

use crate::cluster::{Cluster, Failure};

/// How clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    name: &'static str,
    /// Clients that ask at once.
    clients: usize,
    /// Requests that each asks at once.
    requests: usize,
    rounds: usize,
}

const LOADS: [Load; 3] = [
    Load { name: "one request at a time", clients: 1, requests: 1, rounds: 64 },
    Load { name: "4 at once", clients: 4, requests: 1, rounds: 64 },
    Load { name: "256 at once", clients: 4, requests: 64, rounds: 10 },
];

/// Sizes that are measured.
const SIZES: [usize; 2] = [4, 7];

/// Bytes of an operation.
const OPERATION_BYTES: usize = 256;

/// What all replicas and clients together did so far.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    messages: u64,
    bytes: u64,
    signed: u64,
    checked: u64,
    records: u64,
    syncs: u64,
}

impl Totals {
    fn of(cluster: &mut Cluster) -> Self {
        let (signed, checked) = cluster.world().signatures();
        let counts = cluster.world().counts();
        let logs = (0..cluster.size()).map(|replica| cluster.disk(replica).log.totals());
        let (records, syncs) = logs.fold((0, 0), |(records, syncs), (more, again)| (records + more, syncs + again));
        Self { messages: counts.delivered, bytes: counts.delivered_bytes, signed, checked, records, syncs }
    }

    fn all(self) -> [u64; 6] {
        [self.messages, self.bytes, self.signed, self.checked, self.records, self.syncs]
    }
}

/// What one operation costs all replicas and clients together, in hundredths.
fn measure(size: usize, load: Load) -> Result<[u64; 6], Failure> {
    let mut cluster = Cluster::builder(size, 1).application(crate::ledger::Ledger::replicated).build();
    let bound = Duration::from_mins(1);
    let ask = |cluster: &mut Cluster, round: usize| {
        for client in 0..load.clients {
            for request in 0..load.requests {
                let mut operation = format!("{round}.{request}").into_bytes();
                operation.resize(OPERATION_BYTES, 0);
                cluster.client(client).submit(operation);
            }
        }
        cluster.run_until_answered(bound)
    };
    // Sessions are open from the first round on.
    ask(&mut cluster, 0)?;
    let before = Totals::of(&mut cluster).all();
    (1..=load.rounds).try_for_each(|round| ask(&mut cluster, round))?;
    let after = Totals::of(&mut cluster).all();
    let operations = (load.clients * load.requests * load.rounds) as u64;
    Ok(core::array::from_fn(|index| (after[index] - before[index]) * 100 / operations))
}

/// The table: a line for each size and load.
///
/// # Errors
/// [`Failure`], if a calm cluster does not answer.
pub fn table() -> Result<String, Failure> {
    let mut table = format!("{:32}", "per operation, all together");
    for column in ["messages", "bytes", "signed", "checked", "records", "syncs"] {
        write!(table, "{column:>10}").expect("a string takes everything");
    }
    table.push('\n');
    for size in SIZES {
        for load in LOADS {
            write!(table, "{:32}", format!("{size} replicas, {}", load.name)).expect("a string takes everything");
            for hundredths in measure(size, load)? {
                write!(table, "{:>7}.{:02}", hundredths / 100, hundredths % 100).expect("a string takes everything");
            }
            table.push('\n');
        }
    }
    Ok(table)
}
