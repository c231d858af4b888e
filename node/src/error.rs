//! The report that a person reads when something failed: what, where, and how to mend it.
//!
//! Errors travel up as `anyhow::Error`, each level adding what it was doing. Here the whole chain becomes one line
//! `error:` and, where one of the errors in it knows a way out, one line `mend:`.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

use crate::configuration::FileError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it failed, or a check did not hold.
    Failed,
    /// 2: wrong usage.
    Usage,
    /// 4: there is no such key.
    NoSuchKey,
    /// 5: the condition did not hold.
    ConditionFailed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoSuchKey => 4,
            Exit::ConditionFailed => 5,
        })
    }
}

/// Something that the command line itself found wrong, with the way out.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Problem {
    what: String,
    mend: String,
    exit: Exit,
}

impl Problem {
    /// It failed, or a check did not hold.
    pub fn failed(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into(), exit: Exit::Failed }
    }

    /// The arguments make no sense together.
    pub fn usage(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into(), exit: Exit::Usage }
    }
}

/// What is shown at the very end of a program that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What went wrong and where, from the outermost circumstance to the cause.
    pub error: String,
    /// What the reader can do about it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Report {
    /// Sums up an error and everything that led to it.
    pub fn new(error: &anyhow::Error) -> Self {
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        let problem = error.chain().find_map(|cause| cause.downcast_ref::<Problem>());
        let file = error.chain().find_map(|cause| cause.downcast_ref::<FileError>());
        let mend = problem.map(|problem| problem.mend.clone()).or_else(|| file.and_then(FileError::mend));
        Self { error: chain.join(": "), mend, exit: problem.map_or(Exit::Failed, |problem| problem.exit) }
    }

    /// How the program ends after this report.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}", self.error)?;
        match &self.mend {
            Some(mend) => write!(formatter, "\n  mend: {mend}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_report_names_the_circumstances_the_cause_and_the_way_out() {
        let problem = Problem::failed("port 4100 is taken", "choose another with --base-port");
        let error = anyhow::Result::<()>::Err(problem.into()).context("cannot start replica 2").unwrap_err();
        let expected = "error: cannot start replica 2: port 4100 is taken\n  mend: choose another with --base-port";
        assert_eq!(Report::new(&error).to_string(), expected);
        assert_eq!(Report::new(&error).exit(), Exit::Failed);
    }

    #[test]
    fn wrong_usage_ends_with_its_own_status() {
        let error = anyhow::Error::from(Problem::usage("2 hosts for 4 replicas", "give one --host a replica"));
        assert_eq!(Report::new(&error).exit(), Exit::Usage);
    }

    #[test]
    fn an_error_without_a_known_way_out_has_one_line() {
        let error = anyhow::Error::from(std::io::Error::other("odd"));
        assert_eq!(Report::new(&error).to_string(), "error: odd");
    }
}
