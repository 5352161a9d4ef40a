//! The federations that `dunlin bench round` measures when none is described.

use super::{Figures, RoundArgs, print};
use crate::commands::{Done, Failure, output};
use serde::Serialize;
use std::process::{Command, ExitCode, Stdio};

/// A federation, as options describe it.
struct Setup {
    title: &'static str,
    options: &'static [&'static str],
    rounds: u64,
}

const SETUPS: [Setup; 4] = [
    Setup {
        title: "ten client processes, 1 % of the parameters each way",
        options: &["--transport", "processes"],
        rounds: 40,
    },
    Setup {
        title: "a thousand clients in one process, 1 %",
        options: &["--transport", "processes", "--clients", "1000", "--per-process", "1000"],
        rounds: 10,
    },
    Setup {
        title: "a simulation of a thousand clients, a hundred in a round, every parameter as f32",
        options: &["--clients", "1000", "--cohort", "100", "--dense"],
        rounds: 10,
    },
    Setup {
        title: "the same with 1 % and error feedback, the residuals of idle clients on disk",
        options: &["--clients", "1000", "--cohort", "100"],
        rounds: 10,
    },
];

/// What was measured of one.
#[derive(Serialize)]
struct Measured {
    title: &'static str,
    command: String,
    #[serde(flatten)]
    figures: Figures,
}

pub(super) fn run(args: &RoundArgs) -> Done {
    let mut all = Vec::new();
    for setup in &SETUPS {
        let rounds = args.rounds.unwrap_or(setup.rounds);
        let params = args.params.to_string();
        let rounds = rounds.to_string();
        let options = [setup.options, &["--rounds", &rounds, "--params", &params]].concat();
        let measured = Measured {
            title: setup.title,
            command: format!("dunlin bench round {}", options.join(" ")),
            figures: measure(&options)?,
        };
        if !args.json {
            output::line(format_args!("{}: {}\n", measured.title, measured.command));
            print(&measured.figures);
            output::line("");
        }
        all.push(measured);
    }
    if args.json {
        output::json(&all);
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures in a process of its own, whose peak of memory is that of this federation alone.
fn measure(options: &[&str]) -> Result<Figures, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "round", "--json"]).args(options).stdin(Stdio::null()).stdout(Stdio::piped());
    // Its progress and its errors go where this process's do.
    let output = command.spawn()?.wait_with_output()?;
    if !output.status.success() {
        return Err(Failure::other(format!("`dunlin bench round {}` failed", options.join(" "))));
    }
    serde_json::from_slice(&output.stdout).map_err(Failure::other)
}
