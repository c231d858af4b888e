//! Writers in the background that remember what was acknowledged.
//!
//! Each write has a key of its own, so that every acknowledged one can be read back exactly. One client counts by compare
//! and set: each of its steps holds only if the one before happened, and happened once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_node::client::kv::KeyValue;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::store::{connect, new_key, runtime};
use crate::{Cluster, LIMIT, wait_until};

/// Longest that a write is waited for: longer than any test keeps a cluster from answering.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long a writer rests after an error.
const REST: Duration = Duration::from_millis(50);

/// How long it rests after an answer: clusters of several tests share the machine.
const PACE: Duration = Duration::from_millis(3);

/// Load on a cluster, until it is stopped.
#[derive(Debug)]
pub struct Load {
    writers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    began: Instant,
    client_folder: PathBuf,
    runtime: Runtime,
}

/// What the writers tell.
#[derive(Debug)]
struct Shared {
    prefix: String,
    value_bytes: usize,
    is_stopped: AtomicBool,
    count: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    acknowledged: Vec<String>,
    /// Writes of which nobody knows whether they happened, and why.
    unknown: Vec<(String, String)>,
    /// When each answer came. In order.
    answers: Vec<Instant>,
    /// What the counter stands at.
    counter: u64,
    /// A step of the counter that should have held and did not.
    miscounted: Option<u64>,
}

/// What a load has written.
#[derive(Debug)]
pub struct Written {
    prefix: String,
    value_bytes: usize,
    told: Told,
    client_folder: PathBuf,
}

impl Load {
    /// So many clients that write one after another, with a short rest in between, and one that counts.
    pub fn start(cluster: &Cluster, writers: usize) -> Self {
        Self::with_values(cluster, writers, 64)
    }

    /// The same with values of so many bytes.
    pub fn with_values(cluster: &Cluster, writers: usize, value_bytes: usize) -> Self {
        static LOADS: AtomicU64 = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            prefix: format!("load-{}/", LOADS.fetch_add(1, Ordering::Relaxed)),
            value_bytes,
            is_stopped: AtomicBool::new(false),
            count: AtomicU64::new(0),
            told: Mutex::default(),
        });
        let runtime = runtime();
        let client_folder = cluster.client_folder();
        let writers = runtime.block_on(async {
            let connection = connect(&client_folder).await;
            let mut tasks = Vec::new();
            for writer in 0..=writers {
                let session = connection.client(new_key()).await.expect("the connection was just opened");
                let store = KeyValue::new(session, PATIENCE);
                tasks.push(tokio::spawn(Arc::clone(&shared).drive(writer, store)));
            }
            // The sessions keep the connection's task alive.
            drop(connection);
            tasks
        });
        Self { writers, shared, began: Instant::now(), client_folder, runtime }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged; gives how long that took.
    ///
    /// # Panics
    /// If they are not within a minute.
    pub fn wait_for(&self, more: u64) -> Duration {
        let goal = self.acknowledged() + more;
        wait_until(&format!("{more} more acknowledged writes"), LIMIT, || self.acknowledged() >= goal)
    }

    /// How many clients there are. Each has one write under way at a time.
    pub fn clients(&self) -> u64 {
        u64::try_from(self.writers.len()).expect("a test starts few clients")
    }

    /// The longest time without any answer since `start`, until now.
    ///
    /// # Panics
    /// If the load began later: the time before would count as silence.
    pub fn longest_gap_since(&self, start: Instant) -> Duration {
        assert!(start >= self.began, "nothing was asked for {:?}", self.began - start);
        self.shared.told(|told| longest_gap(&told.answers, start))
    }

    /// Lets the writers finish what they began, and stops.
    ///
    /// # Panics
    /// If they don't finish in time.
    pub fn stop(self) -> Written {
        let Self { writers, shared, client_folder, runtime, .. } = self;
        shared.is_stopped.store(true, Ordering::Relaxed);
        wait_until("the writers to finish", LIMIT, || writers.iter().all(JoinHandle::is_finished));
        runtime.shutdown_background();
        let told = shared.told(std::mem::take);
        Written { prefix: shared.prefix.clone(), value_bytes: shared.value_bytes, told, client_folder }
    }
}

impl Shared {
    fn told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn drive(self: Arc<Self>, writer: usize, store: KeyValue) {
        let mut number = 0_u64;
        while !self.is_stopped.load(Ordering::Relaxed) {
            let goes_on =
                if writer == 0 { self.count_up(&store).await } else { self.write(writer, number, &store).await };
            if !goes_on {
                return;
            }
            number += 1;
            sleep(PACE).await;
        }
    }

    async fn write(&self, writer: usize, number: u64, store: &KeyValue) -> bool {
        let key = format!("{}{writer:02}/{number:07}", self.prefix);
        match store.put(key.as_bytes(), &value_of(&key, self.value_bytes)).await {
            Ok(_) => self.acknowledge(|told| told.acknowledged.push(key)),
            Err(error) => {
                self.told(|told| told.unknown.push((key, error.to_string())));
                sleep(REST).await;
            }
        }
        true
    }

    /// Whether the counter can go on: not after a step of which nobody knows whether it happened.
    async fn count_up(&self, store: &KeyValue) -> bool {
        let key = format!("{}counter", self.prefix);
        let counter = self.told(|told| told.counter);
        let (now, next) = (counter.to_string(), (counter + 1).to_string());
        let expect = (counter > 0).then_some(now.as_bytes());
        match store.compare_and_set(key.as_bytes(), expect, Some(next.as_bytes())).await {
            Ok(done) if done.value => self.acknowledge(|told| told.counter += 1),
            Ok(_) => {
                self.told(|told| told.miscounted = Some(counter));
                return false;
            }
            Err(error) => {
                self.told(|told| told.unknown.push((key, error.to_string())));
                return false;
            }
        }
        true
    }

    fn acknowledge(&self, note: impl FnOnce(&mut Told)) {
        self.told(|told| {
            note(told);
            told.answers.push(Instant::now());
        });
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Written {
    /// How many writes were acknowledged.
    pub fn count(&self) -> usize {
        self.told.acknowledged.len()
    }

    /// The keys of the writes that were acknowledged.
    pub fn keys(&self) -> &[String] {
        &self.told.acknowledged
    }

    /// Writes that got no answer but an error, and which.
    pub fn unknown(&self) -> &[(String, String)] {
        &self.told.unknown
    }

    /// Reads everything back.
    ///
    /// # Panics
    /// If an acknowledged write is missing or differs, something stands there that nobody wrote, or the counter's steps
    /// did not happen exactly once each.
    pub fn assert_all_acknowledged_readable(&self) {
        let store = crate::Store::open(&self.client_folder);
        let mut entries = store.entries(&self.prefix).expect("the cluster answers reads");
        let counter = entries.remove(&format!("{}counter", self.prefix));
        for key in &self.told.acknowledged {
            let value = entries.remove(key);
            assert_eq!(value.as_deref(), Some(&*value_of(key, self.value_bytes)), "{key} was acknowledged");
        }
        let unexplained: Vec<&String> =
            entries.keys().filter(|key| self.told.unknown.iter().all(|(unknown, _)| unknown != *key)).collect();
        assert!(unexplained.is_empty(), "nobody wrote {unexplained:?}");
        assert_eq!(self.told.miscounted, None, "a step of the counter happened twice, or one before it not at all");
        let counter: u64 = counter.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap_or(u64::MAX));
        let is_unsure = self.told.unknown.iter().any(|(key, _)| key.ends_with("counter"));
        let range = self.told.counter..=self.told.counter + u64::from(is_unsure);
        assert!(range.contains(&counter), "the counter stands at {counter}, not in {range:?}");
    }
}

/// What a key's value is: known from the key alone.
fn value_of(key: &str, bytes: usize) -> Vec<u8> {
    key.bytes().cycle().take(bytes).collect()
}

fn longest_gap(answers: &[Instant], start: Instant) -> Duration {
    let after = answers.iter().copied().filter(|answer| *answer >= start).chain([Instant::now()]);
    let mut before = start;
    let mut longest = Duration::ZERO;
    for answer in after {
        longest = longest.max(answer.saturating_duration_since(before));
        before = answer;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_between_two_answers_or_at_either_end() {
        let start = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        let is_about =
            |gap: Duration, seconds: u64| gap.abs_diff(Duration::from_secs(seconds)) < Duration::from_secs(1);
        assert!(is_about(longest_gap(&[], start), 100));
        assert!(is_about(longest_gap(&[at(10), at(60), at(95)], start), 50));
        assert!(is_about(longest_gap(&[at(70), at(95)], start), 70));
        assert!(is_about(longest_gap(&[at(10), at(20), at(30)], start), 70));
        assert!(is_about(longest_gap(&[at(10), at(95)], at(90)), 5), "what was before does not count");
    }
}
