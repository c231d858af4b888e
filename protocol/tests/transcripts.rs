//! Whole runs of four replicas as text: what was asked, `----`, and what each replica recorded, said and did, in order.
//!
//! The network delivers everything in the order in which it was sent; a disk syncs once whatever waits is delivered.
//! Names are short and stable: batches are called A, B, C in the order in which they appear, roots r1, r2.
//! `UPDATE=1 cargo test -p quorate-protocol --test transcripts` rewrites the texts; review reads the difference.

#[path = "transcripts/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the support of several tests, of which each uses a part")]
mod support;

use cluster::Cluster;

#[test]
fn normal_case() {
    let mut cluster = Cluster::new("normal_case");
    cluster.ask(0, 0, "a client opens its session at the primary");
    cluster.settle();
    cluster.ask(1, 1, "another client asks a backup, which passes the request on");
    cluster.settle();
    cluster.finish();
}

#[test]
fn primary_crash_view_change() {
    let mut cluster = Cluster::new("primary_crash_view_change");
    cluster.ask(0, 0, "a client opens its session at the primary, which proposes and crashes");
    cluster.sync_only(0);
    cluster.deliver();
    cluster.crash(0);
    cluster.settle();
    cluster.pass_until_view(1, "nothing is heard of the primary until its crash is suspected");
    cluster.ask(1, 1, "the new primary orders");
    cluster.settle();
    cluster.finish();
}

#[test]
fn view_change_with_one_silent_backup() {
    let mut cluster = Cluster::new("view_change_with_one_silent_backup");
    cluster.ask(0, 0, "a client opens its session; replica 3 hears nothing and says nothing");
    cluster.cut_off(3);
    cluster.settle();
    cluster.misbehave("the primary proposes two batches for slot 2 to replicas 1 and 2");
    cluster.settle();
    cluster.reconnect(3);
    cluster.pass_until_view(1, "replica 3 is heard again and learns of the view from the others");
    cluster.pass(400, "replica 3 catches up");
    cluster.finish();
}

#[test]
fn checkpoint_and_cut() {
    let mut cluster = Cluster::new("checkpoint_and_cut");
    for client in 0..5 {
        cluster.ask(0, client, "a client opens its session");
        cluster.settle();
    }
    cluster.finish();
}

#[test]
fn request_retransmission() {
    let mut cluster = Cluster::new("request_retransmission");
    cluster.ask(0, 0, "a client opens its session; what is said to replica 2 is lost");
    cluster.cut_off(2);
    cluster.settle();
    cluster.ask(0, 0, "the client asks again, as if the reply were lost");
    cluster.settle();
    cluster.reconnect(2);
    cluster.pass(300, "statuses show what replica 2 lacks");
    cluster.ask(1, 0, "the client asks a backup, which executed the request");
    cluster.finish();
}
