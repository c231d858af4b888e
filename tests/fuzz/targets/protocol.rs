//! The targets of `protocol/tests/fuzz/targets.rs` for libFuzzer: `QUORATE_TARGET` names the one.

#![no_main]

#[path = "../../../protocol/tests/formats/samples.rs"]
#[expect(dead_code, reason = "the samples of several tests, of which each uses a part")]
mod samples;
#[path = "../../../protocol/tests/support/mod.rs"]
#[expect(dead_code, reason = "the support of several tests, of which each uses a part")]
mod support;
#[path = "../../../protocol/tests/fuzz/targets.rs"]
mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("QUORATE_TARGET").unwrap_or_default();
    let names = || TARGETS.map(|(name, _)| name).join(", ");
    let target = TARGETS.into_iter().find(|(name, _)| *name == wanted);
    target.unwrap_or_else(|| panic!("QUORATE_TARGET is `{wanted}`, and none of {}", names()))
});

fuzz_target!(|bytes: &[u8]| (TARGET.1)(bytes));
