//! The report that a person reads when something failed: what, where, and how to mend it.
//!
//! Errors travel up as `anyhow::Error`, each level adding what it was doing. Here the whole chain becomes one line
//! `error:` and, where one of the errors in it knows a way out, one line `mend:`.

use std::error::Error;
use std::process::ExitCode;
use std::{fmt, io};

use serde::Serialize;

use crate::backup::{RestoreError, TakeError};
use crate::client::OpenError;
use crate::configuration::FileError;
use crate::recording::ReadError;
use crate::storage::lock::LockError;

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
        let mend = error.chain().find_map(mend);
        Self { error: chain.join(": "), mend, exit: problem.map_or(Exit::Failed, |problem| problem.exit) }
    }

    /// How the program ends after this report.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// What the reader can do about one of the errors that led to the end.
fn mend(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(problem) = cause.downcast_ref::<Problem>() {
        return Some(problem.mend.clone());
    }
    if let Some(error) = cause.downcast_ref::<FileError>() {
        return error.mend();
    }
    if let Some(mend) = cause.downcast_ref().and_then(ReadError::mend) {
        return Some(mend.to_owned());
    }
    if let Some(error) = cause.downcast_ref::<RestoreError>() {
        return error.mend();
    }
    if let Some(error) = cause.downcast_ref::<TakeError>() {
        return error.mend();
    }
    if let Some(LockError::Held { .. }) = cause.downcast_ref() {
        return Some("let that process go on, or end it before you start another on its folder".to_owned());
    }
    if let Some(OpenError::Address { .. }) = cause.downcast_ref() {
        return Some("correct the name, or see that this machine can look it up".to_owned());
    }
    cause.downcast_ref().and_then(mend_io).map(str::to_owned)
}

/// What the reader can do about what the system said, where that is known.
fn mend_io(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound => Some("check that path: a file or folder of it is missing"),
        io::ErrorKind::PermissionDenied => {
            Some("run as a user who may do that, such as the owner of the file or folder")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free some space on that disk"),
        io::ErrorKind::ReadOnlyFilesystem => Some("choose a place that can be written to"),
        io::ErrorKind::NotADirectory => Some("check that path: a part of it is a file, not a folder"),
        io::ErrorKind::IsADirectory => Some("name a file: this is a folder"),
        io::ErrorKind::AddrInUse => {
            Some("end the program that listens there, or set another in [listen] of replica.toml")
        }
        io::ErrorKind::AddrNotAvailable => Some("set an address of this machine in [listen] of replica.toml"),
        _ => None,
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
    fn what_the_system_said_has_a_way_out_of_its_own_unless_a_file_knows_a_better_one() {
        let report = |error: anyhow::Error| Report::new(&error.context("outside"));
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        assert!(report(missing().into()).mend.is_some_and(|mend| mend.starts_with("check that path")));
        let file = FileError::Io { action: "open", path: "net/genesis.toml".into(), source: missing() };
        assert!(report(file.into()).mend.is_some_and(|mend| mend.contains("net/genesis.toml")));
        let held = LockError::Held { folder: "net/replica-0/data".into(), process: Some(7) };
        assert!(report(held.into()).mend.is_some());
        let address = OpenError::Address { address: "nowhere:1".to_owned(), source: io::Error::other("unknown") };
        assert!(report(address.into()).mend.is_some());
    }

    #[test]
    fn an_error_without_a_known_way_out_has_one_line() {
        let error = anyhow::Error::from(io::Error::other("odd"));
        assert_eq!(Report::new(&error).to_string(), "error: odd");
    }
}
