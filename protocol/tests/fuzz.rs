//! Bytes from outside, any: what was found to lead to different places once is replayed, and varied a little.
//!
//! `tests/fuzz` has the same targets for a fuzzer that follows coverage, and keeps the corpus (CONTRIBUTING.md).

#[path = "fuzz/replay.rs"]
mod replay;
#[path = "formats/samples.rs"]
#[expect(dead_code, reason = "the samples of several tests, of which each uses a part")]
mod samples;
#[expect(dead_code, reason = "the support of several tests, of which each uses a part")]
mod support;
#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;

use replay::replay;
use targets::{TARGETS, fetch, play};

/// The corpus of a target, with an empty input.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    replay::corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target))
}

#[test]
fn nothing_from_outside_panics_and_what_is_read_has_one_encoding() {
    for (name, target) in TARGETS {
        replay(target, &corpus(name), 2_500);
    }
}

/// The corpus of `handle` holds runs in which slots are decided and checkpoints become stable: else it would show little.
#[test]
fn a_replica_that_is_fed_gets_somewhere() {
    let reached = corpus("handle")
        .iter()
        .map(|input| play(input))
        .reduce(|most, reached| [0, 1, 2].map(|index| most[index].max(reached[index])));
    let [_, executed, stable] = reached.expect("some inputs");
    assert!(executed >= 8 && stable >= 4, "{executed} executed, {stable} stable");
}

/// The corpus of `pieces` holds transfers that come to their end beside a liar.
#[test]
fn a_state_that_is_fetched_beside_a_liar_is_whole_in_the_end() {
    let ended = corpus("pieces").iter().filter(|input| fetch(input).1).count();
    assert!(ended >= 3, "{ended}");
}
