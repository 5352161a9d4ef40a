//! The `dunlin` command.

mod commands;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    dunlin::nn::allocator::keep_freed_memory();
    let cli = commands::Cli::parse();
    progress::log_to_stderr(cli.log_level());
    match cli.run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
