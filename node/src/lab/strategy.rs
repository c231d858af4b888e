//! What an attacker plays, as it is written on a command line: names of attacks with their moments, scenario files, or
//! `none`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context as _;
use quorate_protocol::number::ReplicaId;
use quorate_simulator::adversary::Attacks;
use quorate_simulator::scenario::{Attacker, Scenario, ScenarioError};

use super::wire::{self, WireAttack};
use crate::error::Problem;

/// What is written for a replica that plays nothing yet.
pub(crate) const NONE: &str = "none";

/// How the name of a scenario file ends.
const FILE_ENDING: &str = ".json";

/// Longest scenario file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What one replica is to play: an element for each name or file. Bound: the length of a command line, or of an order. Attacks on
/// the transport are among them, by their names.
pub(crate) type Part = Vec<Attacker>;

/// A part, looked at.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What the adversary plays.
    pub(crate) attacks: Attacks,
    /// What is played below its messages.
    pub(crate) wire: Vec<WireAttack>,
}

/// Which replica is to play what: `0=equivocate,flood@from:5s`, `2=scenario.json`, `1=none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Casting {
    /// The replica.
    pub(crate) replica: ReplicaId,
    /// What it is to play, not looked at yet.
    pub(crate) strategy: String,
}

impl FromStr for Casting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` names no replica: write its number and what it plays, as 0=equivocate");
        let (replica, strategy) = text.split_once('=').ok_or_else(refused)?;
        let replica: u8 = replica.trim().parse().map_err(|_not_a_number| refused())?;
        Ok(Self { replica: ReplicaId::new(replica), strategy: strategy.to_owned() })
    }
}

impl Casting {
    /// What the replica is to play in a cluster of `size`.
    ///
    /// # Errors
    /// A [`Problem`] of usage if there is no such replica, or as [`read`].
    pub(crate) fn read(&self, size: usize) -> anyhow::Result<Part> {
        if self.replica.index() >= size {
            let what = format!("there is no replica {}: the cluster has {size}", self.replica);
            return Err(Problem::usage(what, format!("name one below {size}")).into());
        }
        read(&self.strategy, self.replica, size).with_context(|| format!("replica {}", self.replica))
    }
}

/// Reads what `replica` of a cluster of `size` is to play.
///
/// # Errors
/// A [`Problem`] of usage names what there is instead of an unknown attack; another says what is wrong in which file.
pub(crate) fn read(text: &str, replica: ReplicaId, size: usize) -> anyhow::Result<Part> {
    if text.trim() == NONE {
        return Ok(Part::new());
    }
    text.split(',').map(str::trim).map(|part| read_one(part, replica, size)).collect()
}

fn read_one(text: &str, replica: ReplicaId, size: usize) -> anyhow::Result<Attacker> {
    if text.ends_with(FILE_ENDING) {
        let attacker = read_file(Path::new(text), replica)?;
        check(&attacker, size)
            .map_err(|error| Problem::failed(format!("{text}: replica {replica}: {error}"), error.mend()))?;
        return Ok(attacker);
    }
    let attacker = Attacker::named(replica.value(), text.to_owned());
    if let Some(read) = WireAttack::read(text) {
        let mend = "such an attack has no other moment than `from`, as flood-handshakes@from:5s";
        return read.map(|_attack| attacker).map_err(|what| Problem::usage(what, mend).into());
    }
    check(&attacker, size).map_err(|error| {
        let mend = "write one, or several by commas, each with or without a moment, as silent@from:5s, a scenario file \
                    (FILE.json), or `none`; `quorate attacks` says what each does";
        let what = match text {
            "" => "an attack without a name".to_owned(),
            _ if error.to_string().contains("there are:") => format!("{error}, {}", wire::names().join(", ")),
            _ => error.to_string(),
        };
        Problem::usage(what, mend)
    })?;
    Ok(attacker)
}

fn check(attacker: &Attacker, size: usize) -> Result<Attacks, ScenarioError> {
    attacker.attacks(u8::try_from(size).unwrap_or(u8::MAX))
}

/// What the attacker of a scenario file does: the one with the replica's number, or the only one.
fn read_file(path: &Path, replica: ReplicaId) -> anyhow::Result<Attacker> {
    let name = path.display();
    let mut text = String::new();
    let opened = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    opened.with_context(|| format!("reading the scenario {name}"))?;
    let scenario = Scenario::from_json(&text);
    let scenario = scenario.map_err(|error| Problem::failed(format!("{name}: {error}"), error.mend()))?;
    let own = scenario.attackers.iter().find(|attacker| attacker.replica == replica.value());
    let found = own.or(if let [only] = &scenario.attackers[..] { Some(only) } else { None });
    let Some(found) = found else {
        let numbers: Vec<String> = scenario.attackers.iter().map(|attacker| attacker.replica.to_string()).collect();
        let what = match &numbers[..] {
            [] => format!("{name} has no attacker: the rest of a scenario is for the simulator alone"),
            _ => format!("{name} has attackers {} and none for replica {replica}", numbers.join(", ")),
        };
        return Err(Problem::failed(what, "name a file with one attacker, or with one of that number").into());
    };
    Ok(Attacker { replica: replica.value(), ..found.clone() })
}

/// The attacks of a part.
///
/// # Errors
/// What is wrong with one of them.
pub(crate) fn plan(part: &[Attacker], size: usize) -> Result<Plan, String> {
    let mut plan = Plan::default();
    for attacker in part {
        let wire = if attacker.script.is_empty() { WireAttack::read(&attacker.attack) } else { None };
        match wire {
            Some(attack) => plan.wire.push(attack?),
            None => plan.attacks = plan.attacks.and(check(attacker, size).map_err(|error| error.to_string())?),
        }
    }
    Ok(plan)
}

/// A part in a few words.
pub(crate) fn title(part: &[Attacker]) -> String {
    if part.is_empty() { NONE.to_owned() } else { part.iter().map(Attacker::title).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::{Exit, Report};

    const SIZE: usize = 4;

    fn read_text(text: &str) -> Result<Part, Report> {
        read(text, ReplicaId::new(1), SIZE).map_err(|error| Report::new(&error))
    }

    #[test]
    fn several_attacks_have_their_moments_and_none_is_none() {
        assert_eq!(read_text("none").unwrap(), []);
        let part = read_text("equivocate, silent@from:5s").unwrap();
        assert_eq!(title(&part), "equivocate,silent@from:5s");
        assert!(plan(&part, SIZE).is_ok_and(|plan| plan.wire.is_empty()));
        assert_eq!(title(&[]), NONE);
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_that_there_are() {
        let report = read_text("equivocate,nonsense").unwrap_err();
        assert_eq!(report.exit(), Exit::Usage);
        for name in quorate_simulator::adversary::names().into_iter().chain(wire::names()) {
            assert!(report.error.contains(name), "{report}");
        }
        for wrong in ["", "silent@never", "equivocate,,silent", "none,silent"] {
            assert_eq!(read_text(wrong).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn attacks_on_the_transport_are_named_like_others() {
        let part = read_text("flood-frames@from:5s,equivocate, drip-streams").unwrap();
        assert_eq!(title(&part), "flood-frames@from:5s,equivocate,drip-streams");
        let plan = plan(&part, SIZE).unwrap();
        assert_eq!(format!("{:?}", plan.wire), "[flood-frames after 5s, drip-streams after 0ns]");
        assert!(format!("{:?}", plan.attacks).contains("equivocate"));
        let report = read_text("flood-frames@view:3").unwrap_err();
        assert!(report.error.contains("`view:3` is no moment") && report.exit() == Exit::Usage, "{report}");
    }

    #[test]
    fn a_file_gives_the_attacker_of_that_number_or_its_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("scenario.json");
            fs::write(&path, text).unwrap();
            read_text(path.to_str().unwrap())
        };
        let only = file(r#"{"attackers": [{"replica": 3, "attack": "silent"}]}"#).unwrap();
        assert_eq!(only, [Attacker::named(1, "silent".to_owned())]);
        let both = r#"{"attackers": [{"replica": 0, "attack": "silent"}, {"replica": 1, "attack": "flood"}]}"#;
        assert_eq!(title(&file(both).unwrap()), "flood");
        for (text, says) in [
            ("{", "line 1"),
            ("{}", "no attacker"),
            (r#"{"attackers": [{"replica": 0, "attack": "slow"}, {"replica": 2, "attack": "slow"}]}"#, "0, 2"),
            (r#"{"attackers": [{"replica": 1, "attack": "nonsense"}]}"#, "nonsense"),
            (r#"{"attackers": [{"replica": 1}]}"#, "neither"),
        ] {
            let report = file(text).unwrap_err();
            assert!(report.error.contains("scenario.json") && report.error.contains(says), "{report}");
            assert!(report.mend.is_some(), "{report}");
        }
        let report = read_text("nowhere.json").unwrap_err();
        assert!(report.error.contains("nowhere.json") && report.mend.is_some(), "{report}");
    }

    #[test]
    fn who_plays_is_a_number_of_the_cluster() {
        let casting: Casting = "3=silent,flood".parse().unwrap();
        assert_eq!(title(&casting.read(SIZE).unwrap()), "silent,flood");
        let report = Report::new(&casting.read(3).unwrap_err());
        assert!(report.error.contains("no replica 3") && report.exit() == Exit::Usage, "{report}");
        for wrong in ["", "silent", "=silent", "x=silent", "256=silent"] {
            assert!(wrong.parse::<Casting>().is_err(), "{wrong}");
        }
    }
}
