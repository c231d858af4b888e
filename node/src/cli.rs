//! The command line: arguments, dispatch, and the exit status. One file a command in `cli/`.
//!
//! Results go to stdout through [`Output`], logs and progress to stderr. Exit status: 0 done; 1 it failed or a check did
//! not hold; 2 wrong usage; `kv` adds 4 and 5.

#[cfg(feature = "lab")]
mod attack;
#[cfg(feature = "lab")]
mod attacks;
mod backup;
mod bench;
#[cfg(feature = "lab")]
mod check_history;
mod completions;
mod evidence;
mod forensics;
mod genesis;
mod init;
mod inspect;
mod kv;
mod logging;
mod output;
mod replay;
mod replica;
mod restore;
mod signals;
#[cfg(feature = "lab")]
mod simulate;
mod standby;
mod status;
mod testnet;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use self::output::{Output, OutputError};
use crate::error::{Exit, Problem, Report};

/// A replicated key-value store that stays correct while up to a third of its replicas lie.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    arg_required_else_help = true,
    after_help = "\
Example: a cluster of four replicas on this machine, until Ctrl-C
  quorate testnet --replicas 4

Exit status: 0 done, 1 it failed or a check did not hold, 2 wrong usage."
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Print the result as one JSON object on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Log more to stderr; twice for everything. `QUORATE_LOG` sets it by module
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log warnings and errors only; twice for errors only
    #[arg(short, long, global = true, action = ArgAction::Count)]
    quiet: u8,
    /// How to write the log
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people: a line an event.
    Text,
    /// For programs: a JSON object an event.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Replica(replica::Arguments),
    Testnet(testnet::Arguments),
    Kv(kv::Arguments),
    Bench(bench::Arguments),
    Status(status::Arguments),
    #[command(subcommand)]
    Standby(standby::Command),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    Inspect(inspect::Arguments),
    Replay(replay::Arguments),
    #[command(subcommand)]
    Evidence(evidence::Command),
    Forensics(forensics::Arguments),
    #[command(subcommand)]
    Genesis(genesis::Command),
    #[cfg(feature = "lab")]
    Simulate(simulate::Arguments),
    #[cfg(feature = "lab")]
    CheckHistory(check_history::Arguments),
    #[cfg(feature = "lab")]
    Attacks(attacks::Arguments),
    #[cfg(feature = "lab")]
    #[command(subcommand)]
    Attack(attack::Command),
    Completions(completions::Arguments),
}

/// Runs the program with `arguments`, the first of which is its own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let Arguments { global, command } = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error, arguments.iter().any(|argument| argument == "--json")),
    };
    logging::start(&global);
    let mut output = Output::stdout(global.json);
    let outcome = match command {
        Command::Init(arguments) => init::run(arguments, &mut output),
        Command::Replica(arguments) => replica::run(arguments, &mut output),
        Command::Testnet(arguments) => testnet::run(arguments, &global, &mut output),
        Command::Kv(arguments) => kv::run(arguments, &mut output),
        Command::Bench(arguments) => bench::run(arguments, &mut output),
        Command::Status(arguments) => status::run(arguments, &mut output),
        Command::Standby(command) => standby::run(command, &mut output),
        Command::Backup(arguments) => backup::run(&arguments, &mut output),
        Command::Restore(arguments) => restore::run(&arguments, &mut output),
        Command::Inspect(arguments) => inspect::run(&arguments, &mut output),
        Command::Replay(arguments) => replay::run(&arguments, &mut output),
        Command::Evidence(command) => evidence::run(command, &mut output),
        Command::Forensics(arguments) => forensics::run(&arguments, &mut output),
        Command::Genesis(command) => genesis::run(command, &mut output),
        #[cfg(feature = "lab")]
        Command::Simulate(arguments) => simulate::run(arguments, &mut output),
        #[cfg(feature = "lab")]
        Command::CheckHistory(arguments) => check_history::run(arguments, &mut output),
        #[cfg(feature = "lab")]
        Command::Attacks(arguments) => attacks::run(&arguments, &mut output),
        #[cfg(feature = "lab")]
        Command::Attack(command) => attack::run(command, &mut output),
        Command::Completions(arguments) => completions::run(arguments, &mut output),
    };
    outcome.unwrap_or_else(|error| report(&error, &mut output)).into()
}

/// Help and version go to stdout, wrong usage to stderr and, where JSON is asked for, as an object to stdout; who stopped
/// reading has what he wanted.
fn explain(error: &clap::Error, is_json: bool) -> ExitCode {
    error.print().ok();
    if !error.use_stderr() {
        return Exit::Done.into();
    }
    let text = error.to_string();
    let what: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let what = what.join(" ");
    let problem = Problem::usage(what.strip_prefix("error: ").unwrap_or(&what), "see --help");
    Output::stdout(is_json).show_json(&Report::new(&problem.into())).ok();
    Exit::Usage.into()
}

/// A path as a word of a command that can be pasted into a shell.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+,:@%".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn report(error: &anyhow::Error, output: &mut Output) -> Exit {
    if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OutputError::Closed))) {
        return Exit::Done;
    }
    let report = Report::new(error);
    // There is no place left to say that these could not be written.
    writeln!(io::stderr().lock(), "{report}").ok();
    output.show_json(&report).ok();
    report.exit()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_value_may_be_a_negative_number() {
        for arguments in [&["put", "n", "-5"][..], &["cas", "n", "--expect", "-5", "--set", "-6"]] {
            let line = ["quorate", "kv", "--net", "net/client"].iter().chain(arguments);
            assert!(Arguments::try_parse_from(line).is_ok(), "{arguments:?}");
        }
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(quote(Path::new("net/replica-0")), "net/replica-0");
        assert_eq!(quote(Path::new("my net")), "'my net'");
        assert_eq!(quote(Path::new("it's")), "'it'\\''s'");
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let mut waiting = vec![Arguments::command()];
        while let Some(command) = waiting.pop() {
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{name}");
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") || command.has_subcommands(), "{name}");
            waiting.extend(command.get_subcommands().filter(|inner| inner.get_name() != "help").cloned());
        }
    }
}
