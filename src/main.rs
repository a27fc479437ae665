//! Flags -> config -> one match on the command -> exit code.

use std::process::ExitCode;

use clap::Parser as _;
use undertone::commands::{Cli, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Cli::parse())
}
