//! Attacks on the transport: what an attacker can do below the messages that an adversary plays with, from sockets of its own.
//! They are played beside whatever the replica plays otherwise, against the other members of its cluster and nobody else.
//!
//! A file each, whose head says what the attack does and what comes of it, in the form of those of the adversary's. All run in
//! one thread of their own, which ends with the orders for it.

mod addresses;
mod connections;
mod datagrams;
mod drip;
mod frames;
mod handshakes;
mod pace;
mod replays;
mod signatures;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use quorate_crypto::{PublicKey, SigningKey};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::number::ReplicaId;
use quorate_simulator::adversary::Account;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::configuration::{key_file, parse_positive_duration};
use crate::transport::bare::{Dialler, Face};
use crate::transport::look_up;

/// How long an attack waits before it begins again where it came to nothing.
const REST: Duration = Duration::from_secs(1);

/// Addresses of one machine that an attacker sends from where it may: on loopback each looks like a host of its own.
const SOURCES: u8 = 8;

type Played = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// An attack on the transport that can be named.
struct Known {
    name: &'static str,
    play: fn(Arc<Ground>) -> Played,
    /// Its file, whose head gives account of it.
    file: &'static str,
}

/// All of them, in alphabetical order.
const KNOWN: &[Known] = &[
    Known { name: "drip-streams", play: |ground| Box::pin(drip::play(ground)), file: include_str!("wire/drip.rs") },
    Known {
        name: "flood-datagrams",
        play: |ground| Box::pin(datagrams::play(ground)),
        file: include_str!("wire/datagrams.rs"),
    },
    Known { name: "flood-frames", play: |ground| Box::pin(frames::play(ground)), file: include_str!("wire/frames.rs") },
    Known {
        name: "flood-handshakes",
        play: |ground| Box::pin(handshakes::play(ground)),
        file: include_str!("wire/handshakes.rs"),
    },
    Known {
        name: "flood-signatures",
        play: |ground| Box::pin(signatures::play(ground)),
        file: include_str!("wire/signatures.rs"),
    },
    Known {
        name: "hold-connections",
        play: |ground| Box::pin(connections::play(ground)),
        file: include_str!("wire/connections.rs"),
    },
    Known {
        name: "replay-datagrams",
        play: |ground| Box::pin(replays::play(ground)),
        file: include_str!("wire/replays.rs"),
    },
    Known {
        name: "steal-addresses",
        play: |ground| Box::pin(addresses::play(ground)),
        file: include_str!("wire/addresses.rs"),
    },
];

/// The names of all attacks on the transport.
pub(crate) fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|known| known.name).collect()
}

/// What they do, what they break and what correct replicas do about it, in alphabetical order.
pub(crate) fn accounts() -> Vec<Account> {
    let account = |known: &Known| Account::read(known.name, known.file).expect("a test reads the heads of all files");
    KNOWN.iter().map(account).collect()
}

/// An attack on the transport, and when it begins.
#[derive(Clone, Copy)]
pub(crate) struct WireAttack {
    known: &'static Known,
    /// So long after it was ordered.
    after: Duration,
}

impl WireAttack {
    /// Reads `flood-datagrams` or `flood-datagrams@from:5s`; nothing, if it names no attack on the transport.
    ///
    /// # Errors
    /// What is wrong with the moment.
    pub(crate) fn read(text: &str) -> Option<Result<Self, String>> {
        let (name, moment) = text.split_once('@').map_or((text, None), |(name, moment)| (name, Some(moment)));
        let known = KNOWN.iter().find(|known| known.name == name)?;
        Some(match moment {
            None => Ok(Self { known, after: Duration::ZERO }),
            Some(moment) => moment
                .strip_prefix("from:")
                .and_then(|after| parse_positive_duration(after).ok())
                .map(|after| Self { known, after })
                .ok_or_else(|| {
                    format!("`{moment}` is no moment of an attack on the transport: write from:5s, or none")
                }),
        })
    }
}

impl std::fmt::Debug for WireAttack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} after {:?}", self.known.name, self.after)
    }
}

/// What an attacker knows of the cluster that it is a member of.
#[derive(Debug)]
pub(crate) struct Ground {
    id: ReplicaId,
    key: SigningKey,
    cluster: [u8; 32],
    targets: Vec<Target>,
}

/// A member that is attacked.
#[derive(Debug)]
struct Target {
    id: ReplicaId,
    key: PublicKey,
    /// `host:port`.
    peer: String,
    client: String,
}

impl Ground {
    /// The other members of the cluster in which `id` has that key.
    pub(crate) fn of(id: ReplicaId, key: SigningKey, configuration: &Configuration) -> Self {
        let others = configuration.replicas().zip(configuration.members()).filter(|(other, _)| *other != id);
        let targets = others.map(|(id, member)| Target {
            id,
            key: member.key,
            peer: member.peer_address.clone(),
            client: member.client_address.clone(),
        });
        Self { id, key, cluster: *configuration.cluster().digest().as_bytes(), targets: targets.collect() }
    }

    fn keys(&self) -> BTreeSet<PublicKey> {
        self.targets.iter().map(|target| target.key).collect()
    }

    /// Where all are attacked, at either port.
    async fn addresses(&self, face: Face) -> anyhow::Result<Vec<SocketAddr>> {
        let mut found = Vec::new();
        for target in &self.targets {
            found.push(target.address(face).await?);
        }
        Ok(found)
    }
}

impl Target {
    async fn address(&self, face: Face) -> anyhow::Result<SocketAddr> {
        let address = if face == Face::Peer { &self.peer } else { &self.client };
        look_up(address).await.with_context(|| format!("looking {address} up"))
    }
}

/// Where the attacker sends from, for the `number`th time, to reach `target`.
fn source(target: SocketAddr, number: u8) -> SocketAddr {
    let ip = match target.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() && cfg!(target_os = "linux") => {
            Ipv4Addr::new(127, 0, 0, 2 + number % SOURCES).into()
        }
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// A dialler with the replica's own key, for the port of another replica.
fn member(ground: &Ground, target: &Target, address: SocketAddr) -> anyhow::Result<Dialler> {
    Ok(Dialler::new(source(address, 0), &ground.key, Face::Peer, BTreeSet::from([target.key]))?)
}

/// A dialler with a key that nobody knows, for the port of clients.
fn stranger(ground: &Ground, target: SocketAddr, number: u8) -> anyhow::Result<Dialler> {
    let key = key_file::generate().context("drawing a key")?;
    Ok(Dialler::new(source(target, number), &key, Face::Client, ground.keys())?)
}

/// Attacks that are played, until this is dropped.
#[derive(Debug)]
pub(crate) struct Siege {
    /// Dropping it ends them.
    _goes_on: oneshot::Sender<()>,
}

impl Siege {
    /// Plays attacks in a thread of their own.
    ///
    /// # Errors
    /// If the system has no thread for them.
    pub(crate) fn lay(attacks: Vec<WireAttack>, ground: &Arc<Ground>) -> std::io::Result<Self> {
        let (goes_on, ends) = oneshot::channel();
        let ground = Arc::clone(ground);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("siege".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ended = ends => {}
                    () = play_all(attacks, &ground) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { _goes_on: goes_on })
    }
}

async fn play_all(attacks: Vec<WireAttack>, ground: &Arc<Ground>) {
    let mut played: JoinSet<()> = attacks.into_iter().map(|attack| play_on(attack, Arc::clone(ground))).collect();
    while played.join_next().await.is_some() {}
}

/// Plays an attack again and again: whatever ends it, it is not over.
async fn play_on(attack: WireAttack, ground: Arc<Ground>) {
    sleep(attack.after).await;
    loop {
        if let Err(error) = (attack.known.play)(Arc::clone(&ground)).await {
            tracing::warn!(attack = attack.known.name, error = format!("{error:#}"), "an attack comes to nothing");
        }
        sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_distinct_in_order_and_not_those_of_an_adversary() {
        assert!(names().is_sorted_by(|left, right| left < right));
        let others = quorate_simulator::adversary::names();
        assert!(names().iter().all(|name| !others.contains(name)));
    }

    #[test]
    fn every_attack_gives_account_of_itself() {
        for Account { name, does, breaks, defence, source } in accounts() {
            for (part, text) in [("does", &does), ("breaks", &breaks), ("defence", &defence), ("source", &source)] {
                assert!(text.len() > 10 && !text.contains("  "), "{name}: {part}: {text}");
            }
            assert!(does.ends_with('.') && breaks.ends_with('.') && source.contains("PROTOCOL §"), "{name}");
        }
    }

    #[test]
    fn the_page_tells_of_every_attack_in_the_words_of_its_file_and_names_its_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path: &str| fs::read_to_string(root.join(path)).expect("the file is there");
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let page = read("docs/attacks.md");
        let (_, page) = page.split_once("\n## Below the messages\n").expect("the page has that part");
        let sections: Vec<(&str, &str)> =
            page.split("\n### ").skip(1).filter_map(|part| part.split_once('\n')).collect();
        assert_eq!(sections.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names());
        let files = [
            "tests/e2e/transport.rs",
            "tests/e2e/hostile.rs",
            "node/src/lab/wire/addresses.rs",
            "node/src/lab/wire/handshakes.rs",
            "node/src/transport/admission.rs",
            "node/src/transport/tests/hostile.rs",
        ];
        let tests: String = files.map(read).concat();
        for ((_, section), Account { name, does, breaks, defence, source }) in sections.into_iter().zip(accounts()) {
            let (told, shown) = section.split_once("- Shown by ").unwrap_or_default();
            assert_eq!(plain(told), format!("{does} - Breaks {breaks} - {defence} - From: {source}"), "{name}");
            let shown: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
            assert!(!shown.is_empty(), "{name}");
            for test in shown {
                assert!(tests.contains(&format!("fn {test}(")), "{name}: there is no test {test}");
            }
        }
    }

    #[test]
    fn an_attack_begins_at_once_or_after_a_while_and_at_no_other_moment() {
        let read = |text| WireAttack::read(text).map(|read| read.map(|attack| attack.after));
        assert_eq!(read("flood-frames"), Some(Ok(Duration::ZERO)));
        assert_eq!(read("flood-frames@from:5s"), Some(Ok(Duration::from_secs(5))));
        assert_eq!(read("flood"), None);
        assert_eq!(read("nonsense@from:5s"), None);
        for wrong in ["flood-frames@", "flood-frames@view:3", "flood-frames@from:soon", "flood-frames@from:0s"] {
            assert!(matches!(read(wrong), Some(Err(_))), "{wrong}");
        }
    }

    #[test]
    fn loopback_is_attacked_from_many_hosts() {
        let sources = |target: &str| {
            let target = target.parse().expect("an address");
            (0..=u8::MAX).map(|number| source(target, number)).collect::<BTreeSet<_>>()
        };
        assert_eq!(sources("127.0.0.1:7").len(), if cfg!(target_os = "linux") { usize::from(SOURCES) } else { 1 });
        assert!(!sources("127.0.0.1:7").contains(&"127.0.0.1:0".parse().expect("an address")));
        assert_eq!(sources("192.0.2.1:7"), BTreeSet::from(["0.0.0.0:0".parse().expect("an address")]));
        assert_eq!(sources("[::1]:7"), BTreeSet::from(["[::]:0".parse().expect("an address")]));
    }
}
