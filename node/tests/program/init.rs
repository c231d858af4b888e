//! `quorate init` that is interrupted: a cluster stands there whole, or nothing of it, least of all a private key.

use rustix::process::Signal;

use crate::run::{Run, names, wait_until};

#[test]
fn an_init_that_is_interrupted_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        // A signal may come when the cluster already stands in its place.
        wait_until("a signal to come in time", || is_interrupted(signal));
    }
}

/// Founds a cluster until the first files are there, and ends that.
fn is_interrupted(signal: Signal) -> bool {
    let mut init = Run::start(&["init", "--replicas", "31", "--dir", "inner/net", "--json"]);
    while names(init.folder()).is_empty() && !init.has_ended() {
        std::thread::yield_now();
    }
    let has_begun = !init.has_ended();
    if has_begun {
        init.signal(signal);
    }
    let ended = init.end();
    assert_eq!(ended.stdout.len(), 1, "{ended:?}");
    if ended.status == Some(0) {
        assert_eq!(names(&init.folder().join("inner")), ["net"]);
        assert_eq!(names(&init.folder().join("inner/net")).len(), 33);
        return false;
    }
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stdout[0].contains("no cluster was founded") && ended.stdout[0].contains("mend"), "{ended:?}");
    init.assert_left_nothing();
    true
}
