//! What an operation costs is what the table says: a change that costs more is seen, and reviewed.

use std::fs;
use std::path::Path;

use quorate_simulator::costs::table;

#[test]
fn an_operation_costs_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("costs.txt");
    let counted = table().expect("a calm cluster answers");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &counted).expect("the table can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == counted,
        "simulator/costs.txt says otherwise: run this test with UPDATE=1, and review\n{committed}\n{counted}"
    );
}
