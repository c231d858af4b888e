//! An application of one's own, replicated: named counters.
//!
//! An operation is a counter's name, a colon, and what to add; its result is the counter's value. Four replicas run in this
//! one process, each with its own key, log and sockets, as they would on four machines.
//!
//!     cargo run --release --example counter

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quorate_node::client::{Connection, ConnectionOptions};
use quorate_node::configuration::ClientConfiguration;
use quorate_node::configuration::network::{Addresses, Network, Plan};
use quorate_node::host::{self, Build, ReplicaOptions};
use quorate_protocol::application::{Application, Changes, NotAState, Surroundings};
use quorate_protocol::codec::Blob;
use quorate_protocol::message::Entry;
use quorate_protocol::state::Entries;
use tokio::sync::oneshot;

/// Counters by name.
#[derive(Default)]
struct Counters {
    state: Entries,
}

impl Counters {
    /// Adds, and gives the sum; bytes that are no operation change nothing, on every replica alike.
    fn add(&mut self, operation: &[u8]) -> Option<i64> {
        let (name, amount) = std::str::from_utf8(operation).ok()?.rsplit_once(':')?;
        let amount: i64 = amount.parse().ok()?;
        let before = self.state.get_slice(name.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        let sum = i64::from_le_bytes(before.unwrap_or_default()).checked_add(amount)?;
        self.state.insert(name.as_bytes(), &sum.to_le_bytes());
        Some(sum)
    }
}

impl Application for Counters {
    fn execute(&mut self, _surroundings: &Surroundings, operation: &Blob) -> Blob {
        let answer = self.add(operation).map_or_else(|| "not an addition".to_owned(), |sum| sum.to_string());
        Blob::from(answer.into_bytes())
    }

    fn changes(&mut self) -> Changes {
        self.state.changes()
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState> {
        self.state.restore(entries)
    }
}

/// Addresses on this machine that nobody uses at the moment.
fn free_addresses(count: usize) -> anyhow::Result<Vec<Addresses>> {
    let sockets = (0..3 * count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports =
        sockets.iter().map(|socket| Ok(socket.local_addr()?.to_string())).collect::<anyhow::Result<Vec<_>>>()?;
    let of_three =
        |three: &[String]| Addresses { peer: three[0].clone(), client: three[1].clone(), admin: three[2].clone() };
    Ok(ports.chunks_exact(3).map(of_three).collect())
}

/// Counts to a hundred on four replicas, and gives the last answer.
async fn count(folder: &Path) -> anyhow::Result<String> {
    let mut plan = Plan::on_loopback(4, 4100);
    plan.addresses = free_addresses(4)?;
    let network = Network::create(&folder.join("net"), plan)?;

    let build: Build = Arc::new(|| Box::new(Counters::default()));
    let mut replicas = Vec::new();
    for configuration in network.replicas()? {
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ReplicaOptions { configuration, build: Arc::clone(&build) };
        let stopped = async { stopped.await.unwrap_or_default() };
        replicas.push((stop, tokio::spawn(host::run(options, stopped, || ()))));
    }

    let client = ClientConfiguration::load(&network.client_folder())?;
    let configuration = Arc::new(client.genesis.configuration().clone());
    let options = ConnectionOptions::resolve(configuration, client.key.clone()).await?;
    let connection = Connection::open(options)?;
    let session = connection.client(client.key).await?;
    let mut last = String::new();
    for _ in 0..100 {
        let operation = Blob::from(&b"visits:1"[..]);
        let answer = session.submit_within(vec![operation], Duration::from_secs(20)).await?;
        last = String::from_utf8(answer.results.first().context("one result an operation")?.to_vec())?;
    }
    drop(session);
    connection.close().await;
    for (stop, replica) in replicas {
        drop(stop);
        replica.await??;
    }
    Ok(last)
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let visits = runtime.block_on(count(folder.path()))?;
    writeln!(std::io::stdout(), "four replicas agree on {visits} visits")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_replicas_agree_on_a_hundred_visits() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        assert_eq!(runtime.block_on(count(folder.path())).expect("counted"), "100");
    }
}
