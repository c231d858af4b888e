//! Replicas that play attacks, over real sockets and under their real keys, in clusters that are loaded: nothing that was
//! acknowledged is lost, what clients saw is linearizable, and the correct replicas agree. (PROTOCOL §1, §2)

use std::fs;
use std::path::PathBuf;

use quorate_tests::{Cluster, LIMIT, Load, Turn, quorate, say, wait_until};

use crate::hostile::Requester;

/// The attacker: the primary of the first view.
const ATTACKER: u8 = 0;

/// The others of four.
const CORRECT: [u8; 3] = [1, 2, 3];

/// A cluster of four with an attacker that plays nothing yet.
fn cluster() -> Cluster {
    Cluster::builder(4).malicious(ATTACKER, "none").start()
}

/// Starts an attack in the midst of things.
fn begin(cluster: &Cluster, strategy: &str) {
    let told = cluster.attack(&["start", &format!("{ATTACKER}={strategy}")]);
    assert_eq!((told.status, told.text()), (Some(0), &*format!("replica {ATTACKER} plays {strategy}\n")), "{told:?}");
}

/// Drives recorded load for a second, and has what clients saw judged.
fn assert_linearizable(cluster: &Cluster) {
    let history = cluster.scratch().join("history.jsonl").display().to_string();
    let net = cluster.client_folder().display().to_string();
    let measured = quorate([
        "bench",
        "--net",
        &net,
        "--duration",
        "1s",
        "--warm-up",
        "0s",
        "--clients",
        "8",
        "--window",
        "4",
        "--keys",
        "40",
        "--reads",
        "40%",
        "--cas",
        "20%",
        "--deletes",
        "10%",
        "--history",
        &history,
        "--json",
    ]);
    assert_eq!(measured.status, Some(0), "{measured:?}");
    assert!(measured.json()["operations"].as_u64() > Some(0), "{measured:?}");
    let judged = quorate(["check-history", &history, "--json"]);
    assert_eq!(judged.status, Some(0), "{judged:?}");
}

/// Plays an attack under load, until `bites` sees what only it can have brought about, and longer.
fn survive(strategy: &str, bites: impl Fn(&Cluster) -> bool) -> Cluster {
    let cluster = cluster();
    let load = Load::start(&cluster, 3);
    load.wait_for(20);
    begin(&cluster, strategy);
    load.wait_for(50);
    assert_linearizable(&cluster);
    wait_until(&format!("{strategy} to bite"), LIMIT, || bites(&cluster));
    cluster.assert_nothing_lost_among(load, &CORRECT);
    cluster
}

/// Whether the correct replicas have left the attacker's view.
fn is_replaced(cluster: &Cluster) -> bool {
    let status = cluster.status();
    CORRECT.iter().all(|id| status.replicas[usize::from(*id)].view >= 1)
}

/// Files with proofs that a correct replica holds.
fn proofs(cluster: &Cluster) -> Vec<PathBuf> {
    let folders = CORRECT.iter().map(|id| cluster.replica_folder(*id).join("data/evidence"));
    let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "bin")).collect()
}

/// Every proof that a correct replica holds convicts the attacker, offline, and there is one.
fn assert_convicted(cluster: &Cluster) {
    let genesis = cluster.net().join("genesis.toml").display().to_string();
    let proofs = proofs(cluster);
    assert!(!proofs.is_empty(), "no correct replica has a proof");
    for proof in &proofs {
        let verdict = quorate(["evidence", "verify", proof.to_str().unwrap(), "--genesis", &genesis, "--json"]);
        assert_eq!(verdict.status, Some(0), "{verdict:?}");
        let verdict = verdict.json();
        assert_eq!((&verdict["valid"], &verdict["replica"]), (&true.into(), &ATTACKER.into()), "{verdict}");
    }
    let accused = cluster.status().replicas.into_iter().filter(|row| row.evidence == [ATTACKER]).count();
    assert!(accused > 0, "{}", cluster.status());
    say(&format!("{} proofs, each valid on its own", proofs.len()));
}

#[test]
fn a_primary_that_equivocates_is_replaced_and_convicted() {
    // It shows nobody two batches: those that it showed different ones show each other.
    let cluster = survive("equivocate", |cluster| is_replaced(cluster) && !proofs(cluster).is_empty());
    assert_convicted(&cluster);
}

#[test]
fn a_primary_that_takes_its_time_is_replaced() {
    survive("slow", is_replaced);
}

#[test]
fn a_primary_that_equivocates_to_one_and_the_same_backup_is_replaced_and_convicted() {
    let cluster =
        survive("equivocate,conflicting-votes", |cluster| is_replaced(cluster) && !proofs(cluster).is_empty());
    assert_convicted(&cluster);
}

#[test]
fn a_replica_that_votes_for_two_batches_is_convicted() {
    let cluster = survive("conflicting-votes", |cluster| !proofs(cluster).is_empty());
    assert_convicted(&cluster);
}

#[test]
fn what_correct_replicas_record_of_their_statements_has_no_contradiction_though_they_crash() {
    let mut cluster = Cluster::builder(4).malicious(ATTACKER, "none").recorded().start();
    let load = Load::start(&cluster, 3);
    load.wait_for(20);
    begin(&cluster, "conflicting-votes");
    wait_until("the primary to be replaced", LIMIT, || is_replaced(&cluster));
    for id in [1, 3] {
        cluster.kill(id);
        cluster.restart(id);
        load.wait_for(20);
    }
    cluster.assert_nothing_lost_among(load, &CORRECT);
    let check = |id: u8| {
        let file = cluster.replica_folder(id).join("signed.jsonl").display().to_string();
        let judged = quorate(["evidence", "check-signed", &file, "--json"]);
        (judged.status, judged.json())
    };
    for id in CORRECT {
        let (status, found) = check(id);
        assert_eq!((status, &found["contradictions"]), (Some(0), &0.into()), "{found}");
        assert!(found["statements"].as_u64() > Some(50), "{found}");
    }
    let (status, found) = check(ATTACKER);
    assert!(status == Some(1) && found["contradictions"].as_u64() > Some(0), "{found}");
    assert_eq!(found["listed"][0]["replica"], ATTACKER, "{found}");
}

#[test]
fn a_primary_that_falls_silent_is_replaced() {
    survive("silent", is_replaced);
}

#[test]
fn what_a_replica_keeps_back_lies_about_or_forges_holds_nobody_up() {
    let cluster = cluster();
    let load = Load::start(&cluster, 3);
    load.wait_for(20);
    let is_played = |name: &str| cluster.attack(&["show"]).text() == format!("replica 0 plays {name}\n");
    for name in ["withhold-votes", "lie-to-clients", "flood-views", "forge-certificates"] {
        begin(&cluster, name);
        load.wait_for(50);
        assert_linearizable(&cluster);
        assert!(is_played(name), "{name}");
        if name == "lie-to-clients" {
            // The truth would name the view that it is in.
            let view = cluster.status_of(ATTACKER).view;
            assert_eq!(Requester::new(&cluster, ATTACKER).reply().view.value(), view + 1);
        }
    }
    let is_told = |id: &u8| cluster.log_of(*id).contains("invalid message from a peer from=0");
    wait_until("forged certificates to come", LIMIT, || CORRECT.iter().all(is_told));
    // It asked for thousands of views.
    let views: Vec<u64> = CORRECT.iter().map(|id| cluster.status_of(*id).view).collect();
    assert!(views.iter().all(|view| *view <= 1), "{views:?}");
    cluster.assert_nothing_lost_among(load, &CORRECT);
}

/// Plays an attack against a replica that records; gives how many of the first messages that it took in from a member are of a
/// kind.
fn heard_under(strategy: &str) -> impl Fn(u8, &str) -> usize {
    const LISTENER: u8 = 1;
    let mut cluster = Cluster::builder(4).malicious(ATTACKER, strategy).found();
    cluster.set(LISTENER, "on", "true");
    cluster.start_all();
    let load = Load::start(&cluster, 3);
    load.wait_for(200);
    assert!(!is_replaced(&cluster), "{strategy}: it holds nobody up");
    cluster.assert_nothing_lost_among(load, &CORRECT);
    cluster.stop(LISTENER);
    let folder = cluster.replica_folder(LISTENER).display().to_string();
    let said = quorate(["replay", &folder, "--show", "0..5000", "--until", "5000", "--json"]);
    assert_eq!(said.status, Some(0), "{said:?}");
    let steps = said.json()["steps"].as_array().expect("inputs").clone();
    let inputs: Vec<String> = steps.iter().filter_map(|step| step["what"].as_str()).map(str::to_owned).collect();
    move |member, kind| {
        let begin = format!("Message {{ from: ReplicaId({member}), message: Verified {{ content: {kind}(");
        inputs.iter().filter(|input| input.starts_with(&begin)).count()
    }
}

#[test]
fn votes_that_are_withheld_from_most_reach_the_others_seldom_and_hold_nobody_up() {
    let heard = heard_under("withhold-votes");
    let [withheld, given] = [ATTACKER, 2].map(|member| heard(member, "Commit"));
    say(&format!("replica 1 took in {withheld} commits of the attacker, and {given} of a correct one"));
    assert!(withheld > 0 && 2 * withheld < given, "one of three: {withheld} of {given}");
}

#[test]
fn hundreds_of_views_that_one_asks_for_hold_nobody_up() {
    let heard = heard_under("flood-views");
    let (asked, begun) = (heard(ATTACKER, "ViewChange"), heard(ATTACKER, "NewView"));
    say(&format!("replica 1 took in {asked} view changes of the attacker, and {begun} views that it began"));
    assert!(asked > 100 && begun > 20, "{asked}, {begun}");
}

#[test]
fn a_replica_that_is_handed_lies_for_a_state_takes_it_from_another() {
    let mut cluster = cluster();
    let load = Load::start(&cluster, 3);
    load.wait_for(20);
    begin(&cluster, "lie-in-transfer");
    cluster.kill(3);
    // More than the window: what it missed can be had as a state only.
    let missed = cluster.status().executed() + 100;
    wait_until("the others to go on", LIMIT, || cluster.status().executed() >= missed);
    cluster.restart(3);
    wait_until("the replica to catch up", LIMIT, || cluster.status_of(3).executed >= missed);
    assert!(cluster.log_of(3).contains("state transfer ended"), "{}", cluster.log_of(3));
    assert_linearizable(&cluster);
    cluster.assert_nothing_lost_among(load, &CORRECT);
}

#[test]
fn attacks_are_started_and_stopped_in_a_cluster_that_runs() {
    let cluster = cluster();
    let load = Load::start(&cluster, 3);
    load.wait_for(20);
    begin(&cluster, "silent");
    wait_until("the others to replace the primary", LIMIT, || is_replaced(&cluster));
    load.wait_for(20);
    let stopped = cluster.attack(&["stop", "--json"]).json();
    assert_eq!(stopped["attackers"], serde_json::json!([{"replica": ATTACKER, "plays": "none"}]));
    // It is as good as a correct one now, and is asked for at the latest when it is needed.
    let unknown = cluster.attack(&["start", "0=nonsense"]);
    assert!(unknown.status == Some(2) && unknown.stderr.contains("equivocate"), "{unknown:?}");
    let refused = cluster.attack(&["start", "1=silent"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("runs as a correct one"), "{refused:?}");
    assert!(refused.stderr.contains("mend: ") && refused.stderr.contains("--malicious 0=none"), "{refused:?}");
    assert!(!cluster.replica_folder(1).join("attack.sock").exists(), "a correct replica has no such door");
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_written_attacker_plays_its_part_over_real_sockets() {
    // A primary that shows its proposals to nobody.
    let drops = serde_json::json!({"when": {"says": {"kinds": ["PrePrepare"]}}, "then": "drop"});
    let scenario = serde_json::json!({"attackers": [{"replica": 2, "script": [drops]}]});
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    fs::write(file.path(), scenario.to_string()).unwrap();
    let cluster = Cluster::builder(4).malicious(ATTACKER, file.path().to_str().unwrap()).start();
    let load = Load::start(&cluster, 3);
    wait_until("the primary to be replaced", LIMIT, || is_replaced(&cluster));
    assert_eq!(cluster.attack(&["show"]).text(), "replica 0 plays script\n");
    cluster.assert_nothing_lost_among(load, &CORRECT);
}

#[test]
fn a_testnet_with_attackers_measures_and_more_of_them_than_it_survives_are_warned_of() {
    let _turn = Turn::take();
    let measured = quorate([
        "testnet",
        "--replicas",
        "7",
        "--malicious",
        "0=equivocate",
        "--malicious",
        "1=equivocate,lie-to-clients",
        "--bench",
        "2s",
        "--json",
    ]);
    assert_eq!(measured.status, Some(0), "{measured:?}");
    assert!(measured.json()["operations"].as_u64() > Some(0), "{measured:?}");
    assert!(!measured.stderr.contains("MALICIOUS"), "{measured:?}");
    let many = quorate(["testnet", "--malicious", "0=none", "--malicious", "1=none", "--bench", "1s", "--json"]);
    assert_eq!(many.status, Some(0), "{many:?}");
    assert!(many.stderr.contains("2 MALICIOUS REPLICAS, AND 4 SURVIVE 1"), "{}", many.stderr);
}
