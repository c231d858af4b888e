//! The program `quorate`: parse, run, exit status; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate_node::cli::run(std::env::args_os())
}
