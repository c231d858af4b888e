//! `quorate attacks --matrix`, in short: attacks under load, beside a run without faults. (PROTOCOL §1, §2)

use quorate_tests::{Turn, quorate};

#[test]
fn attacks_are_played_under_load_and_break_nothing_that_is_promised() {
    let _turn = Turn::take();
    let played = quorate(["attacks", "--matrix", "--each", "2s", "--only", "conflicting-votes", "silent", "--json"]);
    assert_eq!(played.status, Some(0), "{played:?}");
    let matrix = played.json();
    let rows = matrix["rows"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["attack"].as_str().unwrap()).collect::<Vec<_>>(),
        ["conflicting-votes", "silent"]
    );
    for row in rows {
        assert_eq!((&row["roots_equal"], &row["linearizable"]), (&true.into(), &true.into()), "{row}");
        assert!(row["throughput_share"].as_f64() > Some(0.0) && row["p99_share"].as_f64() > Some(0.0), "{row}");
        // The first primary is caught, or not heard of: either way it is replaced.
        assert!(row["view_changes"].as_u64() >= Some(1), "{row}");
    }
    assert_eq!(rows[0]["evidence"], serde_json::json!([0]), "{matrix}");
    assert_eq!(rows[1]["evidence"], serde_json::json!([]), "{matrix}");
}

#[test]
fn what_cannot_be_played_is_said_before_anything_is_started() {
    let unknown = quorate(["attacks", "--matrix", "--only", "nonsense"]);
    assert!(unknown.status == Some(2) && unknown.stderr.contains("there is no attack `nonsense`"), "{unknown:?}");
    let alone = quorate(["attacks", "--each", "1s"]);
    assert_eq!(alone.status, Some(2), "{alone:?}");
}
