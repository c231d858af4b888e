//! The scenarios of `simulator/scenarios`: each re-enacts a known attack or bug, and is played as `quorate simulate
//! --scenario` plays it. And their schema.

mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use quorate_simulator::campaign::{Choice, draw};
use quorate_simulator::play::{Outcome, Watch, play};
use quorate_simulator::scenario::{Expectation, Scenario, ScenarioError};
use serde_json::Value;

/// Examples that there are at least: fewer are a mistake of this test.
const EXAMPLES_MIN: usize = 26;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.json"))).expect("an example")
}

fn example(name: &str) -> Scenario {
    Scenario::from_json(&text(name)).map_err(|error| format!("{name}: {error}")).expect("an example")
}

/// The schema as it is committed.
fn schema() -> Value {
    serde_json::from_str(&text("schema")).expect("the schema is JSON")
}

fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("a folder").map(|file| file.expect("a file").path());
    let mut names: Vec<String> = files
        .map(|path| {
            assert_eq!(path.extension().and_then(|extension| extension.to_str()), Some("json"), "{}", path.display());
            path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned()
        })
        .collect();
    names.retain(|name| name != "schema");
    names.sort_unstable();
    assert!(names.len() >= EXAMPLES_MIN, "{names:?}");
    names
}

fn outcome(scenario: &Scenario) -> Outcome {
    play(scenario, Watch { history: 60, ..Watch::default() }).expect("it can be played")
}

#[test]
fn every_example_comes_to_what_it_expects() {
    for name in names() {
        let scenario = example(&name);
        assert!(!scenario.title.is_empty() && scenario.description.len() > 100, "{name} does not say what it shows");
        assert!(!scenario.expect.is_empty(), "{name} expects nothing");
        let outcome = outcome(&scenario);
        let failure = outcome.failure.as_ref().map(ToString::to_string);
        assert_eq!(failure, None, "{name}");
        // A trap that did not spring would let a scenario pass that shows nothing.
        let done: u64 = outcome.faults.values().sum();
        assert_eq!(done, scenario.steps.len() as u64, "{name}: {:?}", outcome.faults);
    }
}

/// What campaigns once found, made smaller: the folder is played whole.
#[test]
fn what_was_found_once_stays_mended() {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")).expect("a folder");
    let mut played = 0;
    for path in files.map(|file| file.expect("a file").path()) {
        let scenario = fs::read_to_string(&path).expect("a file");
        let scenario = Scenario::from_json(&scenario).map_err(|error| format!("{}: {error}", path.display()));
        let outcome = outcome(&scenario.expect("a scenario"));
        assert_eq!(outcome.failure.map(|failure| failure.to_string()), None, "{}", path.display());
        played += 1;
    }
    assert!(played > 0, "nothing was played");
}

/// The same, as seeds of campaigns: of each whose state was spoilt by one of several sources.
#[test]
fn seeds_that_found_something_stay_clean() {
    let choice = Choice { attack: Some("lie-in-transfer".to_owned()), ..Choice::default() };
    for seed in [163, 327, 1023, 1254] {
        let outcome = outcome(&draw(seed, &choice));
        assert_eq!(outcome.failure.map(|failure| failure.to_string()), None, "seed {seed}");
    }
}

/// The same, of a sync that was to fail, and came after everything had been mended.
#[test]
fn what_was_to_fail_and_did_not_is_mended_too() {
    let faults = Some("disk-faults".parse().expect("a schedule"));
    let choice = Choice { attack: Some("none".to_owned()), faults, ..Choice::default() };
    let outcome = outcome(&draw(128, &choice));
    assert_eq!(outcome.failure.map(|failure| failure.to_string()), None);
}

/// Whether a failure is what a scenario expects: it needs no planted bug to be seen.
fn fails_by_itself(name: &str) -> bool {
    example(name).expect.iter().any(|expectation| matches!(expectation, Expectation::Violated(_)))
}

#[test]
fn every_example_fails_with_a_planted_bug() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plants");
    let patches = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut named: Vec<String> = Vec::new();
    for patch in patches {
        let text = fs::read_to_string(&patch).expect("a patch");
        let lists = text.lines().filter_map(|line| line.strip_prefix("# scenario: "));
        named.extend(lists.flat_map(|list| list.split(", ")).map(str::to_owned));
    }
    let (names, is_named) = (names(), |name: &String| named.contains(name) || fails_by_itself(name));
    assert_eq!(named.iter().find(|name| !names.contains(name)), None, "there is no such scenario");
    assert_eq!(names.iter().find(|name| !is_named(name)), None, "no plant was seen to turn it red");
}

#[test]
fn every_attacker_with_a_script_is_expected_to_react() {
    for name in names() {
        let scenario = example(&name);
        let is_expected = |replica: u8| {
            let reacts =
                |expectation: &Expectation| matches!(expectation, Expectation::Reacted(of, _) if *of == replica);
            scenario
                .expect
                .iter()
                .any(|expectation| reacts(expectation) || matches!(expectation, Expectation::Violated(_)))
        };
        let mut scripted = scenario.attackers.iter().filter(|attacker| !attacker.script.is_empty());
        let idle = scripted.find(|attacker| !is_expected(attacker.replica));
        assert!(idle.is_none(), "{name}: {idle:?}");
    }
}

#[test]
fn an_example_plays_the_same_way_again_and_after_it_was_written_and_read() {
    for name in names() {
        let scenario = example(&name);
        let copy = Scenario::from_json(&scenario.to_json()).expect("what is written can be read");
        assert_eq!(copy, scenario, "{name}");
        assert_eq!(outcome(&copy).fingerprint, outcome(&scenario).fingerprint, "{name}");
    }
}

#[test]
fn without_its_attacker_an_attack_does_not_take_place() {
    let mut scenario = example("two-of-four-break-agreement");
    scenario.attackers.pop();
    let failure = outcome(&scenario).failure.expect("one alone breaks nothing, which was not expected");
    assert_eq!(failure.name(), "Expectation", "{failure}");
}

#[test]
fn two_scripts_that_set_each_other_off_come_to_an_end() {
    let say = r#"{ "message": { "Commit": { "view": 0, "slot": 1, "batch": "unknown" } } }"#;
    let echo =
        format!(r#"{{ "when": {{ "hears": {{ "kinds": ["Commit"], "from": [5, 6] }} }}, "say": [{say}, {say}] }}"#);
    let begin = format!(r#"{{ "when": {{ "at": "1s" }}, "say": [{say}] }}"#);
    let attacker = |replica: u8| format!(r#"{{ "replica": {replica}, "script": [{echo}, {begin}] }}"#);
    let attackers = format!("{}, {}", attacker(5), attacker(6));
    let json = format!(r#"{{ "replicas": 7, "attackers": [{attackers}], "ending": {{ "after": "3s" }} }}"#);
    let outcome = outcome(&Scenario::from_json(&json).expect("a scenario"));
    assert_eq!(outcome.failure.map(|failure| failure.to_string()), None);
    assert!((8_000..30_000).contains(&outcome.counts.delivered), "{:?}", outcome.counts);
}

#[test]
fn the_schema_is_that_of_the_types() {
    let path = folder().join("schema.json");
    let schema = format!("{}\n", Scenario::schema());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &schema).expect("the schema can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "simulator/scenarios/schema.json is of other types: run this test with UPDATE=1, and review"
    );
}

#[test]
fn every_example_is_what_the_schema_describes() {
    let schema = schema();
    for name in names() {
        let json = serde_json::from_str(&text(&name)).expect("an example is JSON");
        assert_eq!(schema::refuse(&schema, &schema, &json), None, "{name}");
    }
}

/// The block of docs/simulator.md that begins with this line, without its comments.
fn block_of_the_page(first: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulator.md");
    let page = fs::read_to_string(path).expect("the page is there");
    let from = page.lines().skip_while(|line| *line != first);
    let lines =
        from.take_while(|line| line.starts_with("    ")).map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_page_shows_can_be_played() {
    let whole = block_of_the_page("    {");
    let attackers = format!("{{ {} }}", block_of_the_page(r#"    "attackers": ["#));
    for text in [whole, attackers] {
        let scenario = Scenario::from_json(&text).map_err(|error| format!("{text}: {error}")).expect("a scenario");
        let json = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(schema::refuse(&schema(), &schema(), &json), None);
        assert!(play(&scenario, Watch::default()).is_ok(), "{text}");
    }
}

#[test]
fn the_schema_and_the_types_refuse_the_same() {
    let schema = schema();
    let wrong = [
        r#"{ "sed": 1 }"#,
        r#"{ "seed": -1 }"#,
        r#"{ "seed": "1" }"#,
        r#"{ "replicas": 256 }"#,
        r#"{ "application": "queue" }"#,
        r#"{ "links": { "los_ppm": 0 } }"#,
        r#"{ "links": { "delay": ["1ms"] } }"#,
        r#"{ "machines": { "clock_offset": "1 s" } }"#,
        r#"{ "attackers": [{ "attack": "silent" }] }"#,
        r#"{ "attackers": [{ "replica": 0, "script": [{ "when": { "at": "1s" }, "sya": [] }] }] }"#,
        r#"{ "attackers": [{ "replica": 0, "script": [{ "when": { "hears": { "kind": [] } } }] }] }"#,
        r#"{ "attackers": [{ "replica": 0, "script": [{ "when": { "hears": { "kinds": ["Vote"] } } }] }] }"#,
        r#"{ "attackers": [{ "replica": 0, "script": [{ "say": [] }] }] }"#,
        r#"{ "rules": [{ "messages": {}, "then": "lose" }] }"#,
        r#"{ "rules": [{ "then": { "delay": 5 } }] }"#,
        r#"{ "steps": [{ "at": "1s", "do": { "put": [0, "key"] } }] }"#,
        r#"{ "steps": [{ "at": "1s", "do": { "crush": 0 } }] }"#,
        r#"{ "steps": [{ "at": "1s", "do": "join", "whith": 1 }] }"#,
        r#"{ "steps": [{ "at": "1s" }] }"#,
        r#"{ "steps": [{ "when": { "replica": 0, "does": { "execute": 3 }, "tims": 2 }, "do": "join" }] }"#,
        r#"{ "ending": { "core": 1 } }"#,
        r#"{ "expect": [{ "violated": "Everything" }] }"#,
        r#"{ "expect": [{ "executed": [1] }] }"#,
        r#"{ "expect": ["executed"] }"#,
    ];
    for text in wrong {
        assert!(Scenario::from_json(text).is_err(), "the types take {text}");
        let json = serde_json::from_str(text).expect("it is JSON");
        assert!(schema::refuse(&schema, &schema, &json).is_some(), "the schema takes {text}");
    }
}

#[test]
fn the_schema_takes_what_the_types_write() {
    let schema = schema();
    for seed in 0..40 {
        let scenario = draw(seed, &Choice::default());
        let json = serde_json::from_str(&scenario.to_json()).expect("it is JSON");
        assert_eq!(schema::refuse(&schema, &schema, &json), None, "seed {seed}");
    }
}

/// What is said to somebody who writes this.
fn refusal(json: &str) -> ScenarioError {
    match Scenario::from_json(json) {
        Err(error) => error,
        Ok(scenario) => play(&scenario, Watch::default()).expect_err("it cannot be played"),
    }
}

#[test]
fn a_wrong_file_is_answered_with_what_is_wrong_and_where() {
    let expected = [
        ("{\n  \"sed\": 1\n}", "line 2, column 7: unknown field `sed`"),
        ("{ \"steps\": [\n { \"at\": \"1 s\", \"do\": \"join\" } ] }", "line 2, column 14: `1 s` is no length of time"),
        ("{ \"steps\": [{ \"do\": \"join\" }] }", "a step has either `at` or `when`"),
        ("{ \"replicas\": 14 }", "`replicas` is 14"),
        ("{ \"clients\": 0 }", "`clients` is 0"),
        ("{ \"parameters\": { \"windw\": 4 } }", "there is no parameter `windw`"),
        (
            "{ \"steps\": [{ \"at\": \"1s\", \"do\": { \"crash\": 4 } }] }",
            "`steps[0]`: replica 4 is named, and there are 4",
        ),
        ("{ \"rules\": [{ \"messages\": { \"to\": [9] }, \"then\": \"drop\" }] }", "`rules[0]`: replica 9 is named"),
        ("{ \"expect\": [{ \"executed\": [7, 1] }] }", "`expect[0]`: replica 7 is named"),
        ("{ \"ending\": { \"core\": [0, 5] } }", "`ending.core[1]`: replica 5 is named"),
        ("{ \"attackers\": [{ \"replica\": 0 }] }", "`attackers[0]`: it has neither `attack` nor `script`"),
        ("{ \"attackers\": [{ \"replica\": 0, \"attack\": \"none\" }] }", "`attackers[0]`: there is no attack `none`"),
    ];
    for (json, start) in expected {
        let error = refusal(json);
        assert!(error.to_string().starts_with(start) || error.to_string().contains(start), "{json}: {error}");
        assert!(!error.mend().is_empty());
    }
}

#[test]
fn a_wrong_script_is_answered_with_what_is_wrong_and_where() {
    let script = |reaction: &str| format!("{{ \"attackers\": [{{ \"replica\": 0, \"script\": [{reaction}] }}] }}");
    let many = vec!["{ \"when\": { \"at\": \"1s\" } }"; 65].join(",");
    let say = |to: &str| format!("{{ \"to\": {to}, \"message\": {{ \"Status\": {{}} }} }}");
    let at = |rest: &str| format!("{{ \"when\": {{ \"at\": \"1s\" }}, {rest} }}");
    let expected = [
        (script("{ \"when\": { \"sees\": {} } }"), "unknown variant `sees`, expected one of `hears`, `says`, `at`"),
        (script(&many), "65 reactions, of at most 64"),
        (script(&at(&format!("\"say\": [{}]", vec![say("[1]"); 17].join(",")))), "reaction 0 says 17 things"),
        (script(&at(&format!("\"say\": [{}]", say("[4]")))), "reaction 0 names replica 4"),
        (script(&at(&format!("\"say\": [{}]", say("\"some\"")))), "expected \"all\", \"peer\", or a list of replicas"),
        (script(&at("\"then\": \"drop\"")), "reaction 0 is to a moment"),
        (script("{ \"when\": { \"hears\": {} }, \"then\": { \"delay\": \"1s\" } }"), "reaction 0 delays what it hears"),
        (
            script(&at("\"say\": [{ \"message\": { \"Prepare\": { \"slot\": \"1\" } } }]")),
            "expected a number, as 7, or",
        ),
    ];
    for (json, part) in expected {
        let error = refusal(&json).to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}
