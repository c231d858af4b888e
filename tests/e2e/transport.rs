//! Attacks below the messages, by a replica that has a key and a processor: the others go on as if nothing were, keep little of
//! it, and let new clients in. (PROTOCOL §4, §12)

use std::fs;
use std::time::{Duration, Instant};

use quorate_tests::{Cluster, LIMIT, Load, say, wait_until};

/// The attacker: it dials all others.
const ATTACKER: u8 = 0;

/// The others of four.
const CORRECT: [u8; 3] = [1, 2, 3];

/// Longest silence that a client may notice.
const GAP_MAX: Duration = Duration::from_secs(3);

/// What a replica's memory may grow by, in KiB: what it may hold of a member and of clients, and what the load makes of it.
const GROWTH_MAX: u64 = 192 << 10;

/// Memory that a replica has in use, in KiB.
pub(crate) fn memory(cluster: &mut Cluster, id: u8) -> u64 {
    let pid = cluster.process(id).pid();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How often the correct replicas refused or ended connections for that reason.
fn refused(cluster: &Cluster, reason: &str) -> u64 {
    let rows = cluster.status().replicas;
    CORRECT.iter().filter_map(|id| rows[usize::from(*id)].connections_refused.get(reason)).sum()
}

/// How many packets or frames the attacker says that an attack has sent.
pub(crate) fn sent(cluster: &Cluster, attack: &str) -> u64 {
    let log = cluster.log_of(ATTACKER);
    let said = log.lines().rfind(|line| line.contains("an attack goes on") && line.contains(attack));
    let count = said.and_then(|line| line.split("sent=").nth(1));
    count.and_then(|count| count.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What shows that an attack does what it says, and what came of it.
type Bites = fn(&Cluster) -> bool;

const ATTACKS: [(&str, Bites); 8] = [
    ("flood-datagrams", |cluster| sent(cluster, "flood-datagrams") > 10_000),
    ("flood-handshakes", |cluster| {
        let is_counted = |reason, count| refused(cluster, reason) > count;
        sent(cluster, "flood-handshakes") > 10_000
            && is_counted("address_unproved", 10_000)
            && is_counted("too_many_begun", 1_000)
    }),
    ("flood-signatures", |cluster| sent(cluster, "flood-signatures") > 10_000 && refused(cluster, "offender") > 1_000),
    ("steal-addresses", |cluster| {
        sent(cluster, "steal-addresses") > 2_000 || cluster.log_of(ATTACKER).contains("CAP_NET_RAW")
    }),
    ("replay-datagrams", |cluster| sent(cluster, "replay-datagrams") > 5_000),
    ("drip-streams", |cluster| {
        let ended = "closed by peer: closed because of a frame that was started and not completed in time";
        cluster.log_of(ATTACKER).contains(ended)
    }),
    ("flood-frames", |cluster| {
        let rows = cluster.status().replicas;
        let counted =
            |id: &u8| rows[usize::from(*id)].invalid_from_peers > 0 && rows[usize::from(*id)].invalid_from_clients > 0;
        CORRECT.iter().all(counted)
    }),
    // The last one: its connections are held.
    ("hold-connections", |cluster| {
        let rows = cluster.status().replicas;
        CORRECT.iter().all(|id| rows[usize::from(*id)].clients > 1_000)
    }),
];

#[test]
fn attacks_on_the_transport_hold_nobody_up_and_take_little() {
    let mut cluster = Cluster::builder(4).malicious(ATTACKER, "none").start();
    let load = Load::start(&cluster, 3);
    load.wait_for(100);
    let before = CORRECT.map(|id| memory(&mut cluster, id));
    for (attack, bites) in ATTACKS {
        let told = cluster.attack(&["start", &format!("{ATTACKER}={attack}")]);
        assert_eq!(told.status, Some(0), "{told:?}");
        let begun = Instant::now();
        wait_until(&format!("{attack} to bite"), LIMIT, || bites(&cluster));
        load.wait_for(50);
        // Somebody who was not there before.
        let put = cluster.kv(&["put", "attacked-by", attack]);
        assert_eq!(put.status, Some(0), "{attack}: {put:?}");
        assert_eq!(cluster.kv(&["get", "attacked-by"]).text(), format!("{attack}\n"));
        let (bit, gap) = (begun.elapsed(), load.longest_gap_since(begun));
        say(&format!("{attack}: {:.1} s, silence {} ms at most", bit.as_secs_f64(), gap.as_millis()));
        assert!(gap < GAP_MAX, "{attack}: {gap:?}");
        // All places were taken: somebody else's connection gave way.
        assert_eq!(refused(&cluster, "gave_way") > 0, attack == "hold-connections");
    }
    let after = CORRECT.map(|id| memory(&mut cluster, id));
    say(&format!("memory of the correct replicas, in KiB: {before:?}, then {after:?}"));
    for (before, after) in before.iter().zip(&after) {
        assert!(after - before < GROWTH_MAX, "{before} KiB, then {after}");
    }
    let stopped = cluster.attack(&["stop"]);
    assert_eq!(stopped.status, Some(0), "{stopped:?}");
    // It breaks no rule of the protocol, and is a member like others again.
    cluster.assert_nothing_lost(load);
}
