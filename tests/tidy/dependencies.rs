//! Which crate may know which: the table in docs/ARCHITECTURE.md, compared with what Cargo says.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::source::{CRATES, root, sources};

/// A row of the table on the page.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    /// Which of the project's crates it may use.
    allowed: BTreeSet<String>,
    /// Which of others' it must not use, but for its tests.
    refused: BTreeSet<String>,
}

/// The table of a page, with the crates that it means by I/O.
fn table(page: &str) -> Vec<Row> {
    let io = page.split("\n\n").find(|paragraph| paragraph.starts_with("I/O is ")).map(names).unwrap_or_default();
    let cells = page.lines().filter(|line| line.starts_with("| `quorate-")).map(|line| line.split('|').skip(1));
    let row = |mut cells: std::iter::Skip<std::str::Split<'_, char>>| {
        let name = names(cells.next()?).pop_first()?;
        let allowed = names(cells.nth(1)?);
        let refused = cells.next()?;
        let is_without_io = refused.split(',').any(|what| what.trim() == "I/O");
        let refused = names(refused).into_iter().chain(io.iter().filter(|_| is_without_io).cloned()).collect();
        Some(Row { name, allowed, refused })
    };
    cells.filter_map(row).collect()
}

/// What a text says in `code`.
fn names(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn packages() -> Vec<Value> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = cargo().args(arguments).output().expect("Cargo runs tests");
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
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the page is there");
    let (table, packages) = (table(&page), packages());
    let named: BTreeSet<&str> = table.iter().map(|row| &*row.name).collect();
    assert_eq!(named, packages.iter().map(|package| text(package, "name")).collect(), "each crate has a line");
    for Row { name, allowed, refused } in &table {
        let package = packages.iter().find(|package| text(package, "name") == name).expect("every crate is there");
        for dependency in dependencies(package, true) {
            let used = text(dependency, "name");
            assert!(!used.starts_with("quorate-") || allowed.contains(used), "{name} must not know {used}");
        }
        for dependency in dependencies(package, false) {
            let used = text(dependency, "name");
            assert!(!refused.contains(used), "{name} must not use {used}");
        }
    }
}

#[test]
fn a_table_says_which_crates_are_allowed_and_which_are_refused() {
    let page = "| crate | is | a | b |\n| --- | --- |\n| `quorate-a` | `#![x]` | `quorate-b`, `quorate-c` | `rand`, I/O |\n\
                | `quorate-b` | y | | I/O of `c` |\n\nI/O is `mio`,\n`tokio`.\n\n`other`\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let a = Row {
        name: "quorate-a".to_owned(),
        allowed: set(&["quorate-b", "quorate-c"]),
        refused: set(&["mio", "rand", "tokio"]),
    };
    let b = Row { name: "quorate-b".to_owned(), allowed: set(&[]), refused: set(&["c"]) };
    assert_eq!(table(page), [a, b]);
}

/// Whether the program built with these features uses the simulator, itself or by what it uses.
fn knows_the_simulator(features: &[&str]) -> bool {
    let selection = ["tree", "--package", "quorate-node", "--no-default-features", "--edges", "normal,build"];
    let output = cargo().args(selection).args(["--prefix", "none", "--offline"]).args(features).output();
    let output = output.expect("Cargo runs tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("Cargo writes text");
    assert!(tree.lines().any(|line| line.starts_with("quorate-protocol ")), "{tree}");
    tree.lines().any(|line| line.starts_with("quorate-simulator "))
}

#[test]
fn without_the_laboratory_the_program_does_not_know_the_simulator() {
    let packages = packages();
    let node = packages.iter().find(|package| text(package, "name") == "quorate-node").expect("the node is there");
    let features: Vec<&str> = node["features"].as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
    assert!(features.contains(&"lab"), "{features:?}");
    let others: Vec<&str> = features.into_iter().filter(|name| !["lab", "default"].contains(name)).collect();
    let others = others.join(",");
    assert!(!knows_the_simulator(&["--features", &others]), "`--no-default-features` leaves malice out");
}

#[test]
fn the_core_is_built_without_the_standard_library() {
    let lib = sources().into_iter().find(|source| source.path == "protocol/src/lib.rs").expect("the core is there");
    assert!(lib.code.contains("#![no_std]"), "sockets, files, threads and clocks must not exist in the core");
}

#[test]
fn every_crate_takes_the_lints_of_all() {
    for folder in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("every crate has one");
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
