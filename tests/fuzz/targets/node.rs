//! The targets of `node/src/fuzz.rs` for libFuzzer: `QUORATE_TARGET` names the one.

#![no_main]

mod wanted;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use quorate_node::fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| wanted::wanted(&TARGETS));

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
