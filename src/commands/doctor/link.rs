//! The link to a server, and what a round of its recipe costs on it.

use super::Check;
use crate::commands::output::{bytes, duration, seconds};
use crate::commands::{Failure, runtime};
use dunlin::client::transport::Disconnected;
use dunlin::client::transport::control::{ControlTransport, MAX_PROBE_BYTES, RunState};
use dunlin::codec::{Codec, Encoder, Quantizer, Segment, Segments};
use dunlin::core::message::{PROTOCOL, PROTOCOL_OLDEST};
use dunlin::core::{Recipe, Seed};
use dunlin::nn::{data, model::Model};
use rand::Rng as _;
use serde::Serialize;
use std::time::Duration;

/// A link, as measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Link {
    /// Time for a call that carries nothing, both ways.
    latency_seconds: f64,
    up_bytes_per_second: f64,
    down_bytes_per_second: f64,
}

/// What a round costs a client on the link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct RoundCost {
    up_bytes: u64,
    /// On average, for a client that takes part as often as the others.
    down_bytes: u64,
    up_dense_bytes: u64,
    down_dense_bytes: u64,
    /// Transfers and the calls around them, without training.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// What a server told.
#[derive(Default)]
pub(super) struct Met {
    pub(super) state: Option<RunState>,
    pub(super) recipe: Option<Recipe>,
    pub(super) link: Option<Link>,
}

/// Reaches the server and measures the link.
///
/// # Errors
/// When the address is none.
pub(super) fn look(url: &str, checks: &mut Vec<Check>) -> Result<Met, Failure> {
    runtime()?.block_on(async {
        let mut transport = ControlTransport::new(url).map_err(Failure::usage)?;
        let state = match transport.status().await {
            Ok(state) => state,
            Err(error) => {
                let remedy = "start one with dunlin server, or check address, port and firewall";
                checks.push(Check::problem("server", format!("no answer from {url}: {error}"), remedy));
                return Ok(Met::default());
            }
        };
        checks.push(Check::ok("server", format!("run {} {}, {}", state.run.id, state.run.name, state.phase)));
        checks.push(protocol(&state.protocols));
        let recipe = match Recipe::from_toml(&state.recipe) {
            Ok(recipe) => Some(recipe),
            Err(error) => {
                let remedy = "use the dunlin that the server runs";
                checks.push(Check::problem("recipe", format!("the server's is not understood: {error}"), remedy));
                None
            }
        };
        let link = match measure(&mut transport).await {
            Ok(link) => {
                let (up, down) = (link.up_bytes_per_second, link.down_bytes_per_second);
                let (up, down) = (bytes(up as u64), bytes(down as u64));
                let latency = seconds(link.latency_seconds);
                checks.push(Check::ok("link", format!("{latency} a call, {up}/s up, {down}/s down")));
                Some(link)
            }
            Err(error) => {
                let remedy = "look for what cuts long calls off, such as a proxy";
                checks.push(Check::problem("link", format!("it broke while it was measured: {error}"), remedy));
                None
            }
        };
        Ok(Met { state: Some(state), recipe, link })
    })
}

fn protocol(spoken: &std::ops::RangeInclusive<u32>) -> Check {
    let own = format!("this dunlin speaks protocol {PROTOCOL_OLDEST} to {PROTOCOL}");
    if spoken.contains(&PROTOCOL) {
        return Check::ok("protocol", format!("{PROTOCOL}, which both sides speak"));
    }
    let found = format!("{own}, the server {} to {}", spoken.start(), spoken.end());
    Check::problem("protocol", found, "update the older of the two")
}

async fn measure(transport: &mut ControlTransport) -> Result<Link, Disconnected> {
    // The first call pays for the connection, so the fastest counts.
    let latency = fastest(transport, 0, 0).await?;
    let up = fastest(transport, MAX_PROBE_BYTES, 0).await?;
    let down = fastest(transport, 0, MAX_PROBE_BYTES).await?;
    let speed = |took: Duration| MAX_PROBE_BYTES as f64 / took.saturating_sub(latency).as_secs_f64().max(1e-6);
    Ok(Link {
        latency_seconds: latency.as_secs_f64(),
        up_bytes_per_second: speed(up),
        down_bytes_per_second: speed(down),
    })
}

async fn fastest(transport: &mut ControlTransport, up: usize, down: usize) -> Result<Duration, Disconnected> {
    let mut best = Duration::MAX;
    let mut total = Duration::ZERO;
    for _ in 0..PROBES {
        let took = transport.probe(up, down).await?;
        (best, total) = (best.min(took), total + took);
        // On a slow link once is enough.
        if total > MAX_PROBE_TIME {
            break;
        }
    }
    Ok(best)
}

/// Predicts a round by encoding a made-up update as the recipe says.
pub(super) fn predict(recipe: &Recipe, state: &RunState, link: Option<Link>, checks: &mut Vec<Check>) -> RoundCost {
    let segments = segments(recipe, state.params);
    let update = made_up(segments.len());
    let mut encoder = Encoder::new();
    let mut encoded = |codec: &Codec, segments: &Segments, update: &[f32]| {
        encoder.encode(codec, segments, update).map_or(0, |encoded| encoded.frame.len() as u64)
    };
    let last = recipe.rounds.count;
    let up_bytes = if recipe.common.is_on() {
        let len = recipe.common_count(last, segments.len());
        let part = Segments::new(vec![Segment { len, row: len }]).expect("at least one coordinate is sent");
        encoded(&recipe.update_codec(last), &part, &update[..len])
    } else {
        encoded(&recipe.update_codec(last), &segments, &update)
    };
    let packet = encoded(&Recipe::codec(&recipe.downlink, last), &segments, &update);
    // A client fetches the packets that it missed, or a snapshot where that is less.
    let turns = f64::from(recipe.data.clients) / f64::from(recipe.cohort_size().max(1));
    let dense = 4 * segments.len() as u64;
    let down_bytes = ((packet as f64 * turns.max(1.0)) as u64).min(dense);
    let seconds = link.map(|link| {
        CALLS * link.latency_seconds
            + up_bytes as f64 / link.up_bytes_per_second
            + down_bytes as f64 / link.down_bytes_per_second
    });
    let cost = RoundCost { up_bytes, down_bytes, up_dense_bytes: dense, down_dense_bytes: dense, seconds };
    let takes =
        seconds.map_or_else(String::new, |it| format!(", {} besides training", duration(Duration::from_secs_f64(it))));
    let found = format!(
        "about {} up and {} down for a client, instead of {} each way{takes}",
        bytes(up_bytes),
        bytes(down_bytes),
        bytes(dense),
    );
    checks.push(match seconds {
        Some(seconds) if seconds > recipe.rounds.deadline_s => {
            let remedy = format!(
                "raise rounds.deadline_s, which is {}, or lower the densities of uplink and downlink",
                recipe.rounds.deadline_s,
            );
            Check::problem("round", found, remedy)
        }
        _ => Check::ok("round", found),
    });
    if let Quantizer::Common { grid, .. } = recipe.uplink.quantizer() {
        let (updates, examples) = (recipe.cohort_size(), recipe.limits.max_examples);
        let bits = grid.sum_bits(updates, examples);
        let found = format!("{bits} bits a coordinate hold any sum of {updates} updates of {examples} examples each");
        checks.push(Check::ok("secure sum", found));
    }
    cost
}

/// The tensors of the recipe's model; where its data are not at hand, one tensor of that many parameters.
fn segments(recipe: &Recipe, params: u64) -> Segments {
    let model =
        data::load(&recipe.data, &recipe.data_seed()).and_then(|split| Model::new(&recipe.model, split.train.input()));
    match model {
        Ok(model) => model.layout().segments(),
        Err(_) => {
            let len = (params as usize).max(1);
            Segments::new(vec![Segment { len, row: len }]).expect("the server's model is one that a codec can have")
        }
    }
}

/// Numbers that are mostly small and sometimes large, as updates are: the product of two uniform ones.
fn made_up(len: usize) -> Vec<f32> {
    let mut rng = Seed::from_u64(0).derive("made-up update").rng();
    (0..len).map(|_| 0.01 * rng.random_range(-1.0_f32..1.0) * rng.random::<f32>()).collect()
}

/// Probes of each kind.
const PROBES: usize = 5;

/// Time after which no further probe of a kind is made.
const MAX_PROBE_TIME: Duration = Duration::from_secs(4);

/// Calls that a client makes in a round: check-in, fetch, upload, and the check-in after it.
const CALLS: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin::client::transport::control::Run;

    #[test]
    fn a_round_that_cannot_meet_its_deadline_is_a_problem() {
        let recipe = Recipe::load(None, &["rounds.deadline_s=10".to_owned()]).unwrap();
        let run = Run { id: "00".into(), name: "x".into(), created_ms: 0, outcome: None, rounds: 0 };
        let state = RunState {
            run,
            term: 1,
            phase: "training".into(),
            round: 1,
            version: 0,
            clients: 0,
            live: 0,
            eligible: 0,
            chosen: 0,
            choice: None,
            reported: 0,
            lost: 0,
            refusals: Vec::new(),
            last_round: None,
            params: 0,
            recipe: String::new(),
            protocols: 1..=1,
        };
        let link = |speed| Link { latency_seconds: 0.01, up_bytes_per_second: speed, down_bytes_per_second: speed };
        let mut checks = Vec::new();
        let fast = predict(&recipe, &state, Some(link(1e6)), &mut checks);
        let slow = predict(&recipe, &state, Some(link(10.0)), &mut checks);
        assert!(fast.up_bytes > 0 && fast.up_bytes * 20 < fast.up_dense_bytes, "{fast:?}");
        assert_eq!((fast.up_bytes, fast.down_bytes), (slow.up_bytes, slow.down_bytes));
        use super::super::State::{Ok, Problem};
        assert_eq!([checks[0].state, checks[1].state], [Ok, Problem]);
        let sets = ["common.coordinates=cyclic", "uplink.quantizer=common", "uplink.coder=raw", "uplink.bits=4"];
        let common = Recipe::load(None, &sets.map(str::to_owned)).unwrap();
        let cost = predict(&common, &state, None, &mut checks);
        // A header, half a byte for each of 2 % of 55 210 coordinates, a checksum.
        assert_eq!(cost.up_bytes, 3 + 2 + 2 + 2 + 552 + 4);
        // ⌈log₂(2·10·7·10⁶ + 1)⌉
        assert!(format!("{:?}", checks[3]).contains("28 bits a coordinate"), "{checks:?}");
    }
}
