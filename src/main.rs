//! The `dunlin` command.

mod commands;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    progress::log_to_stderr(cli.log_level());
    match cli.run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
