//! `dunlin bench`: what the parts of a round cost on this machine.

mod client;
mod processes;
mod start;
mod suite;

use super::output::{self, bytes, count, percent, seconds};
use super::summary::plain_table;
use super::{Done, Failure, of_key};
use crate::progress::Progress;
use clap::{Args, Subcommand, ValueEnum};
use dunlin::core::Recipe;
use dunlin::simulation::Transport;
use dunlin::{RoundSummary, Simulation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Measure what Dunlin itself costs, apart from training
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    Round(RoundArgs),
    Start(start::StartArgs),
}

/// Time rounds of a model that takes no time to train
///
/// Without a federation described by --clients, --cohort, --transport, --density, --dense or --per-process, four are
/// measured: ten client processes, a thousand clients in one process, and a simulation of a thousand clients with every
/// parameter sent as f32 and with the 1 % codec.
#[derive(Args, Clone, Debug)]
struct RoundArgs {
    /// Clients [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    clients: Option<u32>,

    /// Clients that take part in a round [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cohort: Option<u32>,

    /// Rounds [default: 10, but 40 of ten client processes where four federations are measured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,

    /// What carries the clients' calls [default: in-process]
    #[arg(long, value_name = "KIND")]
    transport: Option<Carrier>,

    /// Parameters of the model
    #[arg(long, value_name = "N", default_value_t = 1_663_370, value_parser = clap::value_parser!(u64).range(1..))]
    params: u64,

    /// Share of the parameters that is sent, each way, as signs with a scale [default: 0.01]
    #[arg(long, value_name = "SHARE", conflicts_with = "dense")]
    density: Option<f64>,

    /// Send every parameter as f32, both ways, without error feedback
    #[arg(long)]
    dense: bool,

    /// With --transport processes, clients in each client process [default: 1]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    per_process: Option<u32>,

    /// With --transport processes, let clients keep their residuals and models on disk, as with a --state-dir
    #[arg(long)]
    state_dir: bool,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Carrier {
    /// Function calls; nothing is stored
    InProcess,
    /// gRPC over the loopback interface, all in this process
    Grpc,
    /// A server process and a process for each client, on the loopback interface, with a store on disk
    Processes,
}

/// What was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Figures {
    clients: u32,
    cohort: u32,
    rounds: u64,
    params: u64,
    transport: String,
    dense: bool,
    /// Of a round, from opening to publication.
    seconds_median: f64,
    seconds_min: f64,
    seconds_max: f64,
    up_bytes_per_update: u64,
    down_bytes_per_round: u64,
    /// Server seconds a round by what they were spent on, where the server tells.
    server_seconds: BTreeMap<String, f64>,
    /// Seconds a client's update by what they were spent on, measured on one client alone.
    client_seconds: BTreeMap<String, f64>,
    /// Seconds of a call there and back on the idle server, with messages of a few bytes; where clients call from outside.
    call_seconds: Option<f64>,
    /// Peak memory of the process that holds the server, where the system tells.
    peak_bytes: Option<u64>,
    /// The same of the largest client process, where clients have processes.
    client_peak_bytes: Option<u64>,
}

pub(crate) fn run(args: BenchArgs) -> Done {
    match args.command {
        BenchCommand::Round(args) => round(&args),
        BenchCommand::Start(args) => start::run(&args),
    }
}

fn round(args: &RoundArgs) -> Done {
    if args.describes_none() {
        return suite::run(args);
    }
    let recipe = recipe(args)?;
    let carrier = args.transport.unwrap_or(Carrier::InProcess);
    let mut figures = match carrier {
        Carrier::InProcess => in_process(&recipe, Transport::InProcess)?,
        Carrier::Grpc => in_process(&recipe, Transport::Grpc)?,
        Carrier::Processes => {
            let figures = processes::measure(&recipe, args.per_process.unwrap_or(1), args.state_dir)?;
            Figures { client_seconds: client::measure(&recipe)?, ..figures }
        }
    };
    figures.transport = carrier.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    figures.dense = args.dense;
    if args.json {
        output::json(&figures);
    } else {
        print(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

impl RoundArgs {
    /// Whether no federation is described by them.
    fn describes_none(&self) -> bool {
        let Self { clients, cohort, transport, density, dense, per_process, state_dir, rounds: _, params: _, json: _ } =
            self;
        let are_unsaid = [clients, cohort, per_process].iter().all(|number| number.is_none());
        are_unsaid && transport.is_none() && density.is_none() && !dense && !state_dir
    }
}

fn recipe(args: &RoundArgs) -> Result<Recipe, Failure> {
    let (clients, rounds, params) = (args.clients.unwrap_or(10), args.rounds.unwrap_or(10), args.params);
    let mut sets = vec![
        "name=bench".to_owned(),
        "model.kind=trivial".to_owned(),
        "data.source=none".to_owned(),
        format!("data.features={params}"),
        format!("data.clients={clients}"),
        format!("rounds.cohort={}", args.cohort.unwrap_or(clients).min(clients)),
        format!("rounds.count={rounds}"),
        "rounds.quorum=1".to_owned(),
        "rounds.evaluate_every=0".to_owned(),
    ];
    if args.dense {
        for link in ["uplink", "downlink"] {
            sets.extend(["density=1", "quantizer=f32", "coder=raw"].map(|set| format!("{link}.{set}")));
        }
        sets.push("uplink.feedback=0".to_owned());
    } else {
        sets.extend(["uplink", "downlink"].map(|link| format!("{link}.density={}", args.density.unwrap_or(0.01))));
    }
    Recipe::load(None, &sets).map_err(Failure::usage)
}

fn in_process(recipe: &Recipe, transport: Transport) -> Result<Figures, Failure> {
    let mut progress = Progress::new(recipe.rounds.count, false);
    let outcome = Simulation::new(recipe.clone())
        .transport(transport)
        .on_round(|round| {
            progress.round(round);
            ControlFlow::Continue(())
        })
        .run();
    progress.finish();
    let outcome = outcome.map_err(|error| of_key(error.key(), error))?;
    let peak_bytes = memory_of("self", PEAK);
    Ok(Figures { peak_bytes, ..Figures::from_rounds(recipe, &outcome.rounds, outcome.report.params) })
}

impl Figures {
    fn from_rounds(recipe: &Recipe, rounds: &[RoundSummary], params: u64) -> Self {
        let published: Vec<_> = rounds.iter().filter(|round| round.published).collect();
        let mut seconds: Vec<_> = published.iter().map(|round| round.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let updates: u64 = published.iter().map(|round| u64::from(round.clients)).sum();
        let up: u64 = published.iter().map(|round| round.bytes.up).sum();
        let down: u64 = published.iter().map(|round| round.bytes.down).sum();
        Self {
            clients: recipe.data.clients,
            cohort: recipe.rounds.cohort,
            rounds: published.len() as u64,
            params,
            seconds_median: seconds.get(seconds.len() / 2).copied().unwrap_or_default(),
            seconds_min: seconds.first().copied().unwrap_or_default(),
            seconds_max: seconds.last().copied().unwrap_or_default(),
            up_bytes_per_update: up / updates.max(1),
            down_bytes_per_round: down / (published.len() as u64).max(1),
            ..Self::default()
        }
    }
}

fn print(figures: &Figures) {
    let mut table = plain_table();
    let (clients, params) = (count(figures.clients.into()), count(figures.params));
    table.add_row(["round", &seconds(figures.seconds_median), "median"]);
    let (least, most) = (seconds(figures.seconds_min), seconds(figures.seconds_max));
    table.add_row(["", &format!("{least} to {most}"), &format!("{} rounds", figures.rounds)]);
    let cohort = format!("{} of them in a round, {}", count(figures.cohort.into()), figures.transport);
    table.add_row(["clients", &clients, &cohort]);
    table.add_row(["parameters", &params, if figures.dense { "all sent as f32" } else { "" }]);
    table.add_row(["update", &bytes(figures.up_bytes_per_update), "up, each"]);
    table.add_row(["models", &bytes(figures.down_bytes_per_round), "down, all clients"]);
    for (part, spent) in &figures.client_seconds {
        table.add_row([&format!("client: {part}"), &seconds(*spent), "an update, on one client alone"]);
    }
    for (part, spent) in &figures.server_seconds {
        let share = spent / figures.seconds_median.max(f64::MIN_POSITIVE);
        table.add_row([&format!("server: {part}"), &seconds(*spent), &format!("a round, {}", percent(share))]);
    }
    if let Some(call) = figures.call_seconds {
        table.add_row(["RPC: a call there and back", &seconds(call), "an update makes three, and sends its bytes"]);
    }
    if let Some(peak) = figures.peak_bytes {
        let whose =
            if figures.transport == "processes" { "peak of the server's process" } else { "peak of this process" };
        table.add_row(["memory", &bytes(peak), whose]);
    }
    if let Some(peak) = figures.client_peak_bytes {
        table.add_row(["", &bytes(peak), "peak of the largest client process"]);
    }
    output::line(table);
}

/// The middle one of some values, of which there is one at least.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A line of what the system tells about a process's memory, where it does.
fn memory_of(process: &str, line: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|text| text.strip_prefix(line))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(1024 * kib)
}

/// The most memory that a process has held at once.
const PEAK: &str = "VmHWM:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_published_rounds() {
        let round = |seconds, up, published| RoundSummary {
            seconds,
            published,
            clients: 2,
            bytes: dunlin::core::report::Bytes { up, ..Default::default() },
            ..RoundSummary::default()
        };
        let rounds = [round(3.0, 100, true), round(9.0, 0, false), round(1.0, 100, true), round(2.0, 100, true)];
        let figures = Figures::from_rounds(&Recipe::default(), &rounds, 7);
        assert_eq!((figures.seconds_min, figures.seconds_median, figures.seconds_max), (1.0, 2.0, 3.0));
        assert_eq!((figures.rounds, figures.up_bytes_per_update, figures.params), (3, 50, 7));
    }
}
