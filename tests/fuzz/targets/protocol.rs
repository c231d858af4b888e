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
mod wanted;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use targets::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| wanted::wanted(&TARGETS));

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
