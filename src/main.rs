//! Flags -> config -> one match on the command -> exit code.

use std::process::ExitCode;

use clap::Parser as _;
use undertone::commands::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
