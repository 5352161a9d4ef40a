//! `dunlin completions`.

use super::{Cli, Done, output};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::process::ExitCode;

/// Print the completions of a shell
///
/// For bash: dunlin completions bash > ~/.local/share/bash-completion/completions/dunlin
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Done {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dunlin", &mut text);
    output::raw(&String::from_utf8_lossy(&text));
    Ok(ExitCode::SUCCESS)
}
