//! The targets of `node/src/fuzz.rs` for libFuzzer: `QUORATE_TARGET` names the one.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use quorate_node::fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("QUORATE_TARGET").unwrap_or_default();
    let names = || TARGETS.map(|(name, _)| name).join(", ");
    let target = TARGETS.into_iter().find(|(name, _)| *name == wanted);
    target.unwrap_or_else(|| panic!("QUORATE_TARGET is `{wanted}`, and none of {}", names()))
});

fuzz_target!(|bytes: &[u8]| (TARGET.1)(bytes));
