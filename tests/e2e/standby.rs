//! Hot standbys: they follow, prove what they hold, and take the place of a member that is lost. (PROTOCOL §11)

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use quorate_tests::{Cluster, Finished, LIMIT, Load, ReplicaProcess, ReplicaStatus, Status, quorate, wait_until};

/// A standby beside a member.
struct Standby {
    folder: PathBuf,
    /// As `--standby` takes it.
    place: String,
    process: Option<ReplicaProcess>,
}

impl Standby {
    /// Makes the folder of a hot one.
    fn create(cluster: &Cluster, of: u8) -> Self {
        Self::make(cluster, of, &[])
    }

    fn make(cluster: &Cluster, of: u8, more: &[&str]) -> Self {
        let folder = cluster.scratch().join(format!("standby-{of}"));
        let (net, of, listen) = (cluster.client_folder(), of.to_string(), cluster.free_address());
        let words = ["standby", "create", "--json", "--of", &of, "--listen", &listen].into_iter();
        let words = words.chain(more.iter().copied()).chain(["--net"]).map(OsStr::new);
        let made = quorate(words.chain([net.as_os_str(), OsStr::new("--dir"), folder.as_os_str()]));
        assert_eq!(made.status, Some(0), "{made:?}");
        let key = made.json()["key"].as_str().unwrap().to_owned();
        Self { folder, place: format!("{listen}={key}"), process: None }
    }

    fn start(&mut self) {
        let mut process = ReplicaProcess::launch(&self.folder, &[]);
        process.wait_ready();
        self.process = Some(process);
    }

    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill();
    }

    /// What it says of itself.
    fn status(&self, cluster: &Cluster) -> ReplicaStatus {
        let net = cluster.client_folder();
        let words = ["status", "--json", "--standby", &self.place, "--net"].map(OsStr::new);
        let said = quorate(words.into_iter().chain([net.as_os_str()]));
        let mut status: Status = serde_json::from_value(said.json()).unwrap();
        status.replicas.swap_remove(0)
    }

    fn promote(&self, key: PathBuf) -> Finished {
        let words = ["standby", "promote", "--dir"].map(OsStr::new);
        quorate(words.into_iter().chain([self.folder.as_os_str(), OsStr::new("--key"), key.as_os_str()]))
    }

    /// Waits until it is as far as the members were when this was called, and has the same state.
    fn wait_until_it_follows(&self, cluster: &Cluster) {
        cluster.assert_converged_among(&members(cluster, 3));
        let target = cluster.status_of(0);
        wait_until("the standby to follow", LIMIT, || {
            let own = self.status(cluster);
            own.stable == target.stable && own.executed >= target.executed && own.state_root == target.state_root
        });
    }
}

/// All members but one.
fn members(cluster: &Cluster, but: u8) -> Vec<u8> {
    cluster.ids().filter(|id| *id != but).collect()
}

#[test]
fn a_standby_follows_under_load_and_proves_what_it_holds() {
    let cluster = Cluster::start(4);
    let mut standby = Standby::create(&cluster, 3);
    standby.start();
    let load = Load::start(&cluster, 4);
    load.wait_for(300);
    assert_eq!(cluster.kv(&["put", "watched", "value"]).status, Some(0));
    let written = load.stop();
    standby.wait_until_it_follows(&cluster);
    let own = standby.status(&cluster);
    assert_eq!((own.id, own.role.as_str()), (3, "standby"));
    let proved = cluster.kv(&["get", "watched", "--proved", "--standby", &standby.place]);
    assert_eq!((proved.status, proved.text()), (Some(0), "value\n"), "{proved:?}");
    // What no checkpoint holds yet it has executed.
    assert_eq!(cluster.kv(&["put", "watched", "another"]).status, Some(0));
    let stale = |key| cluster.kv(&["get", key, "--stale", "--standby", &standby.place]);
    wait_until("the standby to hear of it", LIMIT, || stale("watched").text() == "another\n");
    assert_eq!(stale("never-written").status, Some(4));
    let bare = cluster.kv(&["get", "watched", "--stale"]);
    assert_eq!(bare.status, Some(2), "whose word is taken has to be said: {bare:?}");
    // It orders nothing, and no member is asked instead.
    let ordered = cluster.kv(&["get", "watched", "--standby", &standby.place]);
    assert_eq!(ordered.status, Some(2), "{ordered:?}");
    standby.stop();
    let stale = cluster.kv(&["get", "watched", "--stale", "--standby", &standby.place, "--timeout", "1s"]);
    assert_eq!(stale.status, Some(1), "{stale:?}");
    let proved = cluster.kv(&["get", "watched", "--proved", "--standby", &standby.place, "--timeout", "1s"]);
    assert_eq!(proved.status, Some(1), "{proved:?}");
    written.assert_all_acknowledged_readable();
}

#[test]
fn a_standby_that_was_killed_goes_on_where_it_was() {
    let cluster = Cluster::start(4);
    let mut standby = Standby::create(&cluster, 3);
    standby.start();
    let load = Load::start(&cluster, 4);
    for _ in 0..3 {
        load.wait_for(100);
        standby.stop();
        standby.start();
    }
    load.stop();
    standby.wait_until_it_follows(&cluster);
}

#[test]
fn a_promoted_standby_takes_the_place_of_a_member_that_is_lost_with_its_disk() {
    let mut cluster = Cluster::start(4);
    let mut standby = Standby::create(&cluster, 3);
    standby.start();
    let load = Load::start(&cluster, 4);
    load.wait_for(200);
    let key = cluster.scratch().join("kept.key");
    fs::copy(cluster.replica_folder(3).join("replica.key"), &key).unwrap();
    cluster.kill(3);
    fs::remove_dir_all(cluster.replica_folder(3)).unwrap();
    load.wait_for(100);
    let refused = standby.promote(key.clone());
    assert!(refused.status == Some(1) && refused.stderr.contains("is in use"), "{refused:?}");
    standby.stop();
    let other = cluster.replica_folder(2).join("replica.key");
    let refused = standby.promote(other);
    assert!(refused.status == Some(1) && refused.stderr.contains("another key"), "{refused:?}");
    assert_eq!(standby.promote(key).status, Some(0));
    // The harness finds it where the member was.
    fs::rename(&standby.folder, cluster.replica_folder(3)).unwrap();
    cluster.restart(3);
    wait_until("it to hear that it lost votes", LIMIT, || cluster.log_of(3).contains("lost votes"));
    wait_until("the promoted standby to vote", LIMIT, || {
        let status = cluster.status_of(3);
        status.epoch > 0 && status.waits_for.is_none() && status.role != "standby"
    });
    // It is needed: another one is down.
    cluster.kill(1);
    load.wait_for(50);
    cluster.restart(1);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_standby_that_is_made_late_takes_the_state_from_the_members() {
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 4);
    wait_until("slots to leave the members' logs", LIMIT, || cluster.status_of(0).stable > 512);
    let mut standby = Standby::create(&cluster, 0);
    standby.start();
    load.wait_for(100);
    load.stop();
    standby.wait_until_it_follows(&cluster);
    let log = fs::read_to_string(standby.folder.join("replica.log")).unwrap();
    assert!(log.contains("state transfer ended"), "{log}");
}

#[test]
fn a_warm_standby_has_a_checkpoint_that_is_no_older_than_its_interval() {
    const INTERVAL: u64 = 32;
    let cluster = Cluster::builder(4).parameter("checkpoint_interval", INTERVAL).start();
    let mut standby = Standby::make(&cluster, 2, &["--every", "3s"]);
    standby.start();
    let load = Load::start(&cluster, 4);
    let mut fetched = Vec::new();
    wait_until("three checkpoints to be fetched", LIMIT, || {
        let own = standby.status(&cluster);
        assert!(own.executed.is_multiple_of(INTERVAL), "it executes no slot: {own:?}");
        if own.executed > 0 && fetched.last() != Some(&own.executed) {
            fetched.push(own.executed);
        }
        fetched.len() >= 3
    });
    load.stop();
    let log = fs::read_to_string(standby.folder.join("replica.log")).unwrap();
    assert!(log.matches("state transfer ended").count() >= 3, "{log}");
    cluster.assert_converged();
    let target = cluster.status_of(0);
    wait_until("the last checkpoint to be fetched", LIMIT, || {
        let own = standby.status(&cluster);
        (own.executed, &own.state_root) == (target.stable, &target.state_root)
    });
}
