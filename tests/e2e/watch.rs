//! `quorate kv watch`: what changes under a prefix, as somebody sees it who looks on. (PROTOCOL §8)

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use quorate_tests::{Cluster, LIMIT, start, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Somebody who looks on.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    /// Looks on, and shows what is there: then it is known when that has begun.
    fn begin(cluster: &Cluster, arguments: &[&str]) -> Self {
        let net = cluster.client_folder().display().to_string();
        let common = ["kv", "watch", "--initial", "--interval", "50ms", "--net", &net];
        let mut child = start(common.iter().chain(arguments)).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    /// The next line.
    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a change is shown in time")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).expect("it was asked for JSON")
    }

    /// Ctrl-C.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let mut ended = None;
        wait_until("the watch to end", LIMIT, || {
            ended = self.child.try_wait().expect("a child can be waited for");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(0));
        assert_eq!(self.lines.recv().ok(), None, "nothing else was shown");
    }
}

fn put(cluster: &Cluster, key: &str, value: &str) {
    let done = cluster.kv(&["put", key, value]);
    assert_eq!(done.status, Some(0), "{done:?}");
}

#[test]
fn changes_are_shown_in_their_order_though_replicas_fail() {
    let mut cluster = Cluster::start(4);
    put(&cluster, "user/ann", "1");
    put(&cluster, "other", "1");
    let watch = Watch::begin(&cluster, &["user/", "--json"]);
    let first = watch.json();
    assert_eq!((&first["key"], &first["value"], &first["deleted"]), (&"user/ann".into(), &"1".into(), &false.into()));
    put(&cluster, "other", "2");
    put(&cluster, "user/bob", "2");
    let second = watch.json();
    assert_eq!(
        (&second["key"], &second["value"], &second["deleted"]),
        (&"user/bob".into(), &"2".into(), &false.into())
    );
    assert!(second["sequence"].as_u64() > first["sequence"].as_u64(), "{first} {second}");
    cluster.kill(0);
    assert_eq!(cluster.kv(&["delete", "user/ann"]).status, Some(0));
    let third = watch.json();
    assert_eq!((&third["key"], &third["value"], &third["deleted"]), (&"user/ann".into(), &Value::Null, &true.into()));
    assert!(third["sequence"].as_u64() > second["sequence"].as_u64(), "{second} {third}");
    watch.end();
}

#[test]
fn a_line_is_a_change_and_fast_readings_see_the_same() {
    let cluster = Cluster::builder(4).parameter("fast_reads", true).start();
    put(&cluster, "key", "one");
    let watch = Watch::begin(&cluster, &["k", "--fast"]);
    let line = watch.line();
    assert!(line.ends_with("\tput\tkey\tone"), "{line}");
    put(&cluster, "key", "two");
    let line = watch.line();
    assert!(line.ends_with("\tput\tkey\ttwo"), "{line}");
    assert_eq!(cluster.kv(&["delete", "key"]).status, Some(0));
    let line = watch.line();
    assert!(line.ends_with("\tdelete\tkey"), "{line}");
    watch.end();
}
