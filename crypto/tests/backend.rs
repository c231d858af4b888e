//! Which back end of the curve arithmetic this build can use, and which one runs on this machine. Verification takes
//! twice as long without the AVX-512 IFMA one, and nothing else would say that it is missing.
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use std::arch::is_x86_feature_detected;

use quorate_crypto::{Domain, SigningKey, hash, verify};

/// Whether this very program holds code of the back end: names of functions stand in it, as they are or mangled. The names
/// are written backwards here, so that they are not found for standing here.
fn holds_the_back_end() -> Result<bool, std::io::Error> {
    let program = std::fs::read(std::env::current_exe()?)?;
    let names = ["amfi::rotcev", "amfi4rotcev6"].map(|name| name.bytes().rev().collect::<Vec<u8>>());
    Ok(names.iter().any(|name| program.windows(name.len()).any(|window| window == name)))
}

#[test]
#[expect(clippy::print_stdout, reason = "says which back end runs, to whoever asks with --nocapture")]
fn the_avx_512_back_end_is_compiled_in() -> Result<(), std::io::Error> {
    #[expect(
        unexpected_cfgs,
        reason = "the condition belongs to curve25519-dalek, which reads it from the build flags"
    )]
    let is_compiled_in = cfg!(curve25519_dalek_backend = "avx512");
    assert!(
        is_compiled_in,
        "the AVX-512 back end of curve25519-dalek is not compiled in: `.cargo/config.toml` asks for it, but flags of the \
         environment (RUSTFLAGS, CARGO_ENCODED_RUSTFLAGS) or `--config` replace those of the file. Unset them, or add \
         --cfg curve25519_dalek_backend=\"avx512\" to them"
    );
    // What is not used is not linked.
    let (key, digest) = (SigningKey::from_seed([1; 32]), hash(Domain::Prepare, &[]));
    assert_eq!(verify(&key.public_key(), &digest, &key.sign(&digest)), Ok(()));
    assert!(holds_the_back_end()?, "the condition is set, and curve25519-dalek was built without it all the same");
    let has_ifma = is_x86_feature_detected!("avx512ifma") && is_x86_feature_detected!("avx512vl");
    let running = match (has_ifma, is_x86_feature_detected!("avx2")) {
        (true, _) => "AVX-512 IFMA",
        (false, true) => "AVX2 (this processor lacks AVX-512 IFMA)",
        (false, false) => "serial (this processor lacks AVX-512 IFMA and AVX2)",
    };
    println!("curve25519-dalek runs its back end: {running}");
    Ok(())
}
