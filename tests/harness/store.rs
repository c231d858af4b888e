//! The key-value store by the client library, for a test's own thread: each call waits for its answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_crypto::SigningKey;
use quorate_node::client::kv::{KeyValue, KvError};
use quorate_node::client::{Connection, ConnectionOptions};
use quorate_node::configuration::{ClientConfiguration, key_file};
use quorate_protocol::codec::Blob;
use quorate_protocol::kv::{RANGE_ENTRIES_MAX, Range};
use tokio::runtime::{Builder, Runtime};

/// Longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store of a cluster, under a key of its own.
#[derive(Debug)]
pub struct Store {
    // Used before the runtime that drives it goes.
    entries: KeyValue,
    _connection: Connection,
    runtime: Runtime,
}

impl Store {
    /// Connects with the cluster of a client's folder.
    pub(crate) fn open(client_folder: &Path) -> Self {
        let runtime = runtime();
        let (connection, store) = runtime.block_on(async {
            let connection = connect(client_folder).await;
            let session = connection.client(new_key()).await.expect("the connection was just opened");
            (connection, KeyValue::new(session, PATIENCE))
        });
        Self { entries: store, _connection: connection, runtime }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// What the client library says.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), KvError> {
        self.runtime.block_on(self.entries.put(key.as_bytes(), value)).map(drop)
    }

    /// Reads a value, ordered.
    ///
    /// # Errors
    /// What the client library says.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let read = self.runtime.block_on(self.entries.get(key.as_bytes()))?;
        Ok(read.value.map(|value| value.to_vec()))
    }

    /// Reads all entries with a prefix.
    ///
    /// # Errors
    /// What the client library says.
    pub fn entries(&self, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, KvError> {
        let prefix = Blob::from(prefix.as_bytes().to_vec());
        let mut entries = BTreeMap::new();
        let mut after = None;
        loop {
            let range = Range { prefix: prefix.clone(), after, limit: RANGE_ENTRIES_MAX };
            let page = self.runtime.block_on(self.entries.range(range))?.value;
            after = page.entries.last().map(|entry| entry.key.clone());
            let pairs = page.entries.into_iter();
            entries.extend(pairs.map(|e| (String::from_utf8_lossy(&e.key).into_owned(), e.value.to_vec())));
            if !page.more {
                return Ok(entries);
            }
        }
    }
}

/// A runtime for what a test does beside its own thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("the system has a thread to spare")
}

/// A key that nobody else uses.
pub(crate) fn new_key() -> SigningKey {
    key_file::generate().expect("the system has randomness")
}

/// A connection to all replicas.
pub(crate) async fn connect(client_folder: &Path) -> Connection {
    let client = ClientConfiguration::load(client_folder).expect("init wrote the client's folder");
    let configuration = Arc::new(client.genesis.configuration().clone());
    let options = ConnectionOptions::resolve(configuration, new_key()).await.expect("the addresses are numbers");
    Connection::open(options).expect("the loopback has a port to spare")
}
