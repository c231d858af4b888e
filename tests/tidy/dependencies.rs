//! Which crate may know which: the table in docs/ARCHITECTURE.md, compared with what Cargo says.

use std::process::Command;

use serde_json::Value;

use crate::source::{CRATES, root, sources};

/// For each crate: which of the project's it may use, and which of others' it must not.
const TABLE: [(&str, &[&str], &[&str]); 5] = [
    ("quorate-crypto", &[], &IO),
    ("quorate-protocol", &["quorate-crypto"], &IO),
    ("quorate-simulator", &["quorate-crypto", "quorate-protocol"], &IO),
    ("quorate-node", &["quorate-crypto", "quorate-protocol", "quorate-simulator"], &["rand"]),
    ("quorate-tests", &["quorate-crypto", "quorate-protocol", "quorate-simulator", "quorate-node"], &[]),
];

/// What has sockets, files, threads, clocks or randomness of its own.
const IO: [&str; 14] = [
    "async-std",
    "fjall",
    "getrandom",
    "mio",
    "quinn",
    "quinn-proto",
    "rand",
    "reqwest",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
];

/// What only the program may use: an error that people read is made at the top.
const PROGRAM_ONLY: &str = "anyhow";

fn packages() -> Vec<Value> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("Cargo runs tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("Cargo writes JSON");
    metadata["packages"].as_array().expect("packages are a list").clone()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// What a package names as its dependencies; those for its tests only, if asked for.
fn dependencies(package: &Value, with_tests: bool) -> Vec<&Value> {
    let all = package["dependencies"].as_array().expect("dependencies are a list").iter();
    all.filter(|dependency| with_tests || text(dependency, "kind") != "dev").collect()
}

#[test]
fn crates_use_only_those_that_the_architecture_lets_them() {
    let packages = packages();
    assert_eq!(packages.len(), TABLE.len(), "a new crate needs a line in the table and in docs/ARCHITECTURE.md");
    for (name, allowed, refused) in TABLE {
        let package = packages.iter().find(|package| text(package, "name") == name).expect("every crate is there");
        for dependency in dependencies(package, true) {
            let used = text(dependency, "name");
            let is_ours = used.starts_with("quorate-");
            assert!(!is_ours || allowed.contains(&used), "{name} must not know {used}");
        }
        for dependency in dependencies(package, false) {
            let used = text(dependency, "name");
            assert!(!refused.contains(&used), "{name} must not use {used}");
            assert!(used != PROGRAM_ONLY || name == "quorate-node", "{name} is no program: it has typed errors");
        }
    }
}

#[test]
fn the_program_knows_the_simulator_only_where_attacks_are_asked_for() {
    let packages = packages();
    let node = packages.iter().find(|package| text(package, "name") == "quorate-node").expect("the node is there");
    let simulator = dependencies(node, false).into_iter().find(|used| text(used, "name") == "quorate-simulator");
    if let Some(simulator) = simulator {
        assert_eq!(simulator["optional"], true, "`--no-default-features` leaves malice out");
    }
    let features: Vec<&str> = node["features"].as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
    assert!(features.contains(&"lab"), "{features:?}");
}

#[test]
fn the_core_is_built_without_the_standard_library() {
    let lib = sources().into_iter().find(|source| source.path == "protocol/src/lib.rs").expect("the core is there");
    assert!(lib.code.contains("#![no_std]"), "sockets, files, threads and clocks must not exist in the core");
}

#[test]
fn every_crate_takes_the_lints_of_all() {
    for folder in CRATES {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("every crate has one");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{folder}/Cargo.toml");
    }
}

#[test]
fn the_encoding_is_named_in_two_files_alone() {
    let allowed = ["crypto/src/codec.rs", "protocol/src/codec.rs"];
    let named = concat!("bin", "code::");
    for source in sources().iter().filter(|source| !allowed.contains(&&*source.path)) {
        assert!(!source.code.contains(named), "{} names {named}: it is confined to {allowed:?}", source.path);
    }
}
