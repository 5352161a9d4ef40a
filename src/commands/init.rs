//! `dunlin init`.

use super::{Done, Failure, output};
use clap::Args;
use dunlin::core::Recipe;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Write a recipe in which every key stands with its meaning, values and default
#[derive(Args)]
pub(crate) struct InitArgs {
    /// Where to write it; a file that exists is left alone, and - is the standard output
    #[arg(value_name = "FILE", default_value = "recipe.toml")]
    file: PathBuf,
}

pub(crate) fn run(args: &InitArgs) -> Done {
    let text = Recipe::default().commented_toml();
    if args.file.as_os_str() == "-" {
        output::raw(&text);
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.file.display();
    let mut file = File::create_new(&args.file).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!("{path} exists; choose another name or remove it first")),
        _ => Failure::other(format!("cannot write {path}: {error}")),
    })?;
    file.write_all(text.as_bytes()).map_err(|error| Failure::other(format!("cannot write {path}: {error}")))?;
    output::note(&format!("wrote {path}; try: dunlin simulate {path}"));
    Ok(ExitCode::SUCCESS)
}
