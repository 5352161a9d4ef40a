//! The link to a server, and what a round of its recipe costs on it.

use super::Check;
use crate::commands::output::{bytes, count, seconds};
use crate::commands::{Failure, runtime};
use dunlin::client::transport::Disconnected;
use dunlin::client::transport::control::{ControlTransport, MAX_PROBE_BYTES, RunState};
use dunlin::codec::{Codec, Encoder, Quantizer, Segment, Segments};
use dunlin::core::message::{PROTOCOL, PROTOCOL_OLDEST};
use dunlin::core::{Recipe, RoundSummary, Seed};
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

/// What a round costs a client that has the whole model on the link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct RoundCost {
    /// Which round: the one at hand.
    number: u64,
    up_bytes: u64,
    /// What the budgets allow; 0 where there are none.
    max_update_bytes: u64,
    /// On average, for a client that takes part as often as the others.
    down_bytes: u64,
    up_dense_bytes: u64,
    down_dense_bytes: u64,
    /// Parameters that are left of the model.
    kept: u64,
    /// Transfers and the calls around them, without training.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// What clients of the last rounds took to fetch and train; absent where the server does not know yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_seconds: Option<f64>,
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
        checks.push(program(state.program.as_deref()));
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

/// Compares the versions of the programs. Whether they understand each other is a matter of the protocol.
fn program(server: Option<&str>) -> Check {
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let remedy = "the same version on both sides computes the same bits; update the older";
    match server {
        Some(OWN) => Check::ok("versions", format!("{OWN} here and on the server")),
        Some(server) => Check::note("versions", format!("{OWN} here, {server} on the server"), remedy),
        None => {
            Check::note("versions", format!("{OWN} here, an older one on the server, which does not tell it"), remedy)
        }
    }
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

/// The state of a run of another recipe on the same server, in its first round.
pub(super) fn begun(recipe: &Recipe, state: RunState) -> RunState {
    let max_update_bytes = recipe.max_update_bytes(1, 0);
    RunState { round: 1, kept: None, max_update_bytes, client_seconds: None, ..state }
}

/// Predicts the round at hand by encoding a made-up update as the recipe, its budgets and what is left of the model have it.
pub(super) fn predict(recipe: &Recipe, state: &RunState, link: Option<Link>, checks: &mut Vec<Check>) -> RoundCost {
    let number = state.round.clamp(1, recipe.rounds.count);
    let whole = segments(recipe, state.params);
    let left = match state.kept {
        Some(kept) if kept < whole.len() as u64 => shrunk(&whole, kept as usize),
        _ => whole.clone(),
    };
    let sent = match recipe.pruning.is_of_whole(number) {
        true => whole.clone(),
        false if recipe.is_common(number) => {
            let len = recipe.common_count(number, left.len());
            Segments::new(vec![Segment { len, row: len }]).expect("at least one coordinate is sent")
        }
        false => left.clone(),
    };
    let update = made_up(whole.len());
    let max_bytes = max_update_bytes(recipe, state, number);
    let up_of = |number| encoded(&recipe.update_codec(number), max_bytes, &sent, &update[..sent.len()]);
    let packet_of = |number| encoded(&Recipe::codec(&recipe.downlink, number), 0, &left, &update[..left.len()]);
    // A client fetches the packets that it missed, or a snapshot where that is less.
    let turns = f64::from(recipe.data.clients) / f64::from(recipe.cohort_size().max(1));
    let dense = 4 * whole.len() as u64;
    let (mut up_bytes, packet) = (up_of(number), packet_of(number));
    let mut down_bytes = ((packet as f64 * turns.max(1.0)) as u64).min(4 * left.len() as u64);
    // Real updates lie together more than made-up ones. What the last round cost tells how much more.
    let is_told = |last: &&RoundSummary| last.published && last.clients > 0 && last.coded > 0;
    if let Some(last) = state.last_round.as_ref().filter(is_told) {
        let scaled = |real: u64, of: u32, then: u64, now: u64| {
            (real as f64 / f64::from(of.max(1)) * now as f64 / then.max(1) as f64) as u64
        };
        // An update fills what it is allowed, however it lies.
        if max_bytes == 0 {
            up_bytes = scaled(last.coded, last.clients, up_of(last.round), up_bytes);
        }
        if last.bytes.down > 0 {
            down_bytes = scaled(last.bytes.down, last.chosen, packet_of(last.round), packet).min(4 * left.len() as u64);
        }
    }
    let seconds = link.map(|link| {
        CALLS * link.latency_seconds
            + up_bytes as f64 / link.up_bytes_per_second
            + down_bytes as f64 / link.down_bytes_per_second
    });
    let cost = RoundCost {
        number,
        up_bytes,
        max_update_bytes: max_bytes,
        down_bytes,
        up_dense_bytes: dense,
        down_dense_bytes: dense,
        kept: left.len() as u64,
        seconds,
        client_seconds: state.client_seconds,
    };
    checks.push(told(&cost, &whole, recipe.rounds.deadline_s));
    if let Quantizer::Common { grid, .. } = recipe.uplink.quantizer() {
        let (updates, examples) = (recipe.cohort_size(), recipe.limits.max_examples);
        let bits = grid.sum_bits(updates, examples);
        let found = format!("{bits} bits a coordinate hold any sum of {updates} updates of {examples} examples each");
        checks.push(Check::ok("secure sum", found));
    }
    cost
}

/// What a round costs, in a line.
fn told(cost: &RoundCost, whole: &Segments, deadline_s: f64) -> Check {
    let pruned = match cost.kept < whole.len() as u64 {
        true => format!(", with {} of {} parameters left", count(cost.kept), count(whole.len() as u64)),
        false => String::new(),
    };
    let bound = match cost.max_update_bytes {
        0 => String::new(),
        bytes_ => format!(" (of {} that an update may have)", bytes(bytes_)),
    };
    let trained = match cost.client_seconds {
        Some(took) => {
            format!("training, for which clients of the last rounds took {} with their fetching", seconds(took))
        }
        None => "training, of which the server does not know yet how long it takes".to_owned(),
    };
    let takes = cost.seconds.map_or_else(String::new, |it| format!("; {} besides {trained}", seconds(it)));
    let found = format!(
        "about {} up{bound} and {} down for a client in round {}{pruned}, instead of {} each way{takes}",
        bytes(cost.up_bytes),
        bytes(cost.down_bytes),
        cost.number,
        bytes(cost.up_dense_bytes),
    );
    match cost.seconds {
        Some(seconds) if seconds + cost.client_seconds.unwrap_or_default() > deadline_s => {
            let remedy = format!(
                "raise rounds.deadline_s, which is {deadline_s}, or lower the densities of uplink and downlink, or the \
                 training.epochs",
            );
            Check::problem("round", found, remedy)
        }
        _ => Check::ok("round", found),
    }
}

/// Longest frame of an update, in bytes: what the server says of the run's budget, and of a client's own as much as is due
/// to one that has been asked as often as the others; 0 for no such bound.
fn max_update_bytes(recipe: &Recipe, state: &RunState, number: u64) -> u64 {
    let spent = (u128::from(recipe.limits.client_bytes) * u128::from(number - 1)) / u128::from(recipe.rounds.count);
    recipe.client_update_bytes(number, spent as u64, state.max_update_bytes, 0)
}

/// Length of the frame of a vector, which fills `bytes` unless that is 0.
fn encoded(codec: &Codec, bytes: u64, segments: &Segments, update: &[f32]) -> u64 {
    let mut encoder = Encoder::new();
    let encoded = match bytes {
        0 => encoder.encode(codec, segments, update),
        bytes => encoder.encode_source_within(codec, bytes, segments, update, &mut ()),
    };
    encoded.map_or(0, |encoded| encoded.frame.len() as u64)
}

/// The tensors of a model of which `kept` parameters are left; where, only its server knows, so that they all lose the same
/// share.
fn shrunk(whole: &Segments, kept: usize) -> Segments {
    let (mut seen, mut taken) = (0, 0);
    let share = |segment: Segment| {
        seen += segment.len;
        // Rounded on the sums, so that they all together have as many as are left.
        let until = (seen as u128 * kept as u128 / whole.len() as u128) as usize;
        let len = until - taken;
        taken = until;
        (len > 0).then_some(Segment { len, row: segment.row.min(len) })
    };
    let left: Vec<_> = whole.iter().filter_map(share).collect();
    Segments::new(left).expect("something is left of a model, and less than there was")
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

    fn recipe(sets: &[&str]) -> Recipe {
        let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
        Recipe::load(None, &sets).unwrap()
    }

    fn state() -> RunState {
        let run = Run { id: "00".into(), name: "x".into(), created_ms: 0, outcome: None, rounds: 0 };
        RunState {
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
            program: None,
            kept: None,
            max_update_bytes: 0,
            client_seconds: None,
            distilling: None,
        }
    }

    fn link(speed: f64) -> Link {
        Link { latency_seconds: 0.01, up_bytes_per_second: speed, down_bytes_per_second: speed }
    }

    fn check(recipe: &Recipe, state: &RunState, speed: f64) -> (RoundCost, Check) {
        let mut checks = Vec::new();
        let cost = predict(recipe, state, Some(link(speed)), &mut checks);
        (cost, checks.swap_remove(0))
    }

    #[test]
    fn a_round_that_cannot_meet_its_deadline_is_a_problem() {
        let recipe = recipe(&["rounds.deadline_s=10"]);
        let (fast, fine) = check(&recipe, &state(), 1e6);
        let (slow, problem) = check(&recipe, &state(), 10.0);
        assert!(fast.up_bytes > 0 && fast.up_bytes * 20 < fast.up_dense_bytes, "{fast:?}");
        assert_eq!((fast.up_bytes, fast.down_bytes), (slow.up_bytes, slow.down_bytes));
        use super::super::State::{Ok, Problem};
        assert_eq!([fine.state, problem.state], [Ok, Problem]);
        assert!(
            fine.found.ends_with("besides training, of which the server does not know yet how long it takes"),
            "{fine:?}"
        );
        let (cost, late) = check(&recipe, &RunState { client_seconds: Some(9.99), ..state() }, 1e6);
        assert_eq!((cost.client_seconds, late.state), (Some(9.99), Problem));
        let told = "besides training, for which clients of the last rounds took 9.99 s with their fetching";
        assert!(late.found.ends_with(told), "{late:?}");
    }

    #[test]
    fn what_is_predicted_is_what_a_run_costs() {
        const ROUNDS: usize = 12;
        let rotated = [
            "uplink.quantizer=rotated",
            "uplink.density=1",
            "uplink.bits=1",
            "uplink.feedback=0",
            "uplink.fit=unbiased",
        ];
        for sets in [&[][..], &rotated, &["uplink.density=0.1"], &["uplink.quantizer=int8", "uplink.coder=rice"]] {
            let recipe = recipe(&[sets, &["rounds.count=12", "rounds.evaluate_every=0"]].concat());
            let rounds = dunlin::Simulation::new(recipe.clone()).run().unwrap().rounds;
            let before = rounds[ROUNDS - 2].clone();
            let state = RunState { round: ROUNDS as u64, ..state() };
            let blind = predict(&recipe, &state, None, &mut Vec::new());
            let told = predict(&recipe, &RunState { last_round: Some(before), ..state }, None, &mut Vec::new());
            let last = &rounds[ROUNDS - 1];
            let real = [last.coded / u64::from(last.clients), last.bytes.down / u64::from(last.chosen)];
            let off =
                |cost: &RoundCost| [cost.up_bytes as f64 / real[0] as f64, cost.down_bytes as f64 / real[1] as f64];
            // What clients missed differs from round to round.
            let (up, down) = (off(&told)[0], off(&told)[1]);
            assert!((0.85..1.15).contains(&up) && (0.5..2.0).contains(&down), "{sets:?}: {told:?} and not {real:?}");
            // Without a round to go by it is too much rather than too little.
            assert!(off(&blind).iter().all(|off| (0.8..3.0).contains(off)), "{sets:?}: {blind:?} and not {real:?}");
        }
    }

    #[test]
    fn common_coordinates_are_sent_without_positions_and_sums_of_them_have_a_width() {
        let sets = ["common.coordinates=cyclic", "uplink.quantizer=common", "uplink.coder=raw", "uplink.bits=4"];
        let mut checks = Vec::new();
        let cost = predict(&recipe(&sets), &state(), None, &mut checks);
        // A header, half a byte for each of 2 % of 55 210 coordinates, a checksum.
        assert_eq!(cost.up_bytes, 3 + 2 + 2 + 2 + 552 + 4);
        // ⌈log₂(2·10·7·10⁶ + 1)⌉
        assert!(format!("{:?}", checks[1]).contains("28 bits a coordinate"), "{checks:?}");
    }

    #[test]
    fn budgets_bound_the_update_and_the_density_plays_no_part() {
        let fills = |cost: RoundCost, bytes: u64| {
            assert_eq!(cost.max_update_bytes, bytes);
            assert!((bytes * 97 / 100..=bytes).contains(&cost.up_bytes), "{cost:?}");
        };
        let bounded = recipe(&["limits.update_bytes=500"]);
        let (cost, told) = check(&bounded, &begun(&bounded, state()), 1e6);
        fills(cost, 500);
        assert!(told.found.contains(" up (of 500 B that an update may have) and "), "{told:?}");
        // A client is asked in every other of 80 rounds, and before the last has had half of what it sends in one.
        let own = recipe(&["limits.client_bytes=40000"]);
        for (round, bytes) in [(1, 1000), (40, 1000), (80, 500)] {
            fills(check(&own, &RunState { round, ..state() }, 1e6).0, bytes);
        }
    }

    #[test]
    fn what_is_pruned_is_neither_sent_nor_fetched() {
        let recipe =
            recipe(&["pruning.density=0.1", "downlink.density=1", "downlink.quantizer=f32", "rounds.cohort=20"]);
        let of = |kept| check(&recipe, &RunState { round: 60, kept, ..state() }, 1e6);
        let (whole, pruned) = (of(None).0, of(Some(5000)));
        assert_eq!((whole.kept, whole.down_bytes), (whole.down_dense_bytes / 4, whole.down_dense_bytes));
        assert_eq!((pruned.0.kept, pruned.0.down_bytes), (5000, 20_000));
        assert!(pruned.0.up_bytes * 4 < whole.up_bytes, "{pruned:?} and {whole:?}");
        assert!(pruned.1.found.contains("in round 60, with 5,000 of 55,210 parameters left, instead of"), "{pruned:?}");
    }

    #[test]
    fn versions_of_the_programs_are_compared() {
        use super::super::State::{Note, Ok};
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(program(Some(own)).state, Ok);
        let other = program(Some("99.0.0"));
        assert_eq!((other.state, other.found), (Note, format!("{own} here, 99.0.0 on the server")));
        assert_eq!(program(None).state, Note);
    }
}
