//! The program `quorate`: parse, run, exit status; everything else is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    quorate_node::cli::run(std::env::args_os())
}
