//! The load generator against a whole cluster in this process.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Error, Extent, Load, Options, run};
use crate::client::TestCluster;

fn options(cluster: &TestCluster) -> Options {
    let load = Load { clients: 6, window: 4, operations: 2, keys: 10, ..Load::default() };
    let mut options = Options { load, shows_progress: false, ..Options::new(cluster.client_folder(), Duration::ZERO) };
    options.warm_up = Duration::ZERO;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_requests_as_asked_are_answered_and_recorded() {
    let cluster = TestCluster::start().await;
    let history = cluster.scratch().join("history.jsonl");
    let share = |text: &str| text.parse().unwrap();
    let load = Load {
        reads: share("40%"),
        deletes: share("10%"),
        cas: share("10%"),
        connections: Some(2),
        ..options(&cluster).load
    };
    let options = Options { load, extent: Extent::Requests(300), history: Some(history.clone()), ..options(&cluster) };
    let report = run(options).await.unwrap();
    assert_eq!((report.requests, report.operations, report.errors, report.replicas), (300, 600, 0, 4));
    assert!(report.latency_ms.p50 > 0.0 && report.latency_ms.max >= report.latency_ms.p999);
    assert!(report.longest_gap_ms >= 0.0 && report.duration_s > 0.0);
    let lines: Vec<Value> =
        std::fs::read_to_string(&history).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 600);
    assert!(lines.iter().all(|line| line["outcome"] == "ok" && line["end_ns"].as_u64() > line["start_ns"].as_u64()));
    for operation in ["put", "get", "delete", "cas"] {
        assert!(lines.iter().any(|line| line["operation"] == operation), "{operation}");
    }
    let places: BTreeSet<_> =
        lines.iter().map(|line| [&line["sequence"], &line["index"], &line["step"]].map(Value::as_u64)).collect();
    assert_eq!(places.len(), 600, "no two operations have the same place in the order");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_rate_no_more_requests_come_than_are_due() {
    let cluster = TestCluster::start().await;
    let load = Load { rate: Some(100.0), ..options(&cluster).load };
    let extent = Extent::Duration(Duration::from_secs(2));
    let report = run(Options { load, extent, ..options(&cluster) }).await.unwrap();
    assert!((1..=201).contains(&report.requests), "{report}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_the_cluster_does_not_take_is_refused() {
    let cluster = TestCluster::start().await;
    let load = Load { operations: 4096, ..Load::default() };
    assert!(matches!(run(Options { load, ..options(&cluster) }).await, Err(Error::Load(_))));
    cluster.stop().await;
}
