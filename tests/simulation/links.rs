//! What updates and models are made of on their way.

use crate::{ROUGH, recipe, timeless};
use dunlin::simulation::Transport;
use dunlin::{Simulation, SimulationOutcome};

/// The last loss against that of the first round.
fn assert_loss_falls_below(share: f64, outcome: &SimulationOutcome, sets: &[&str]) {
    let (first, last) = (outcome.rounds[0].loss.unwrap(), outcome.report.loss);
    assert!(last < share * first, "{sets:?}: {first} became {last}");
}

#[test]
fn a_federation_learns_with_each_quantizer_of_whole_vectors() {
    let quantizers: [&[&str]; 6] = [
        &["uplink.quantizer=rotated", "uplink.bits=1"],
        &["uplink.quantizer=eden", "uplink.bits=2", "uplink.fit=unbiased", "uplink.feedback=0"],
        &["uplink.quantizer=qsgd", "uplink.bits=4", "uplink.feedback=0"],
        &["uplink.quantizer=terngrad", "uplink.feedback=0"],
        &["uplink.quantizer=sign"],
        &["uplink.quantizer=low-rank", "uplink.rank=2"],
    ];
    for quantizer in quantizers {
        let sets = [quantizer, &["uplink.density=1", "downlink.density=0.2", "rounds.count=8"]].concat();
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        assert_loss_falls_below(0.8, &outcome, quantizer);
        let report = &outcome.report;
        assert!(report.bytes.up * 6 < report.bytes.up_dense, "{quantizer:?}: {:?}", report.bytes);
    }
}

/// Digits with the same coordinates for all, as integers of one grid.
const COMMON: &[&str] = &["uplink.quantizer=common", "uplink.bits=6", "uplink.density=0.1"];

#[test]
fn a_federation_learns_from_the_coordinates_that_all_send_however_they_are_chosen() {
    for way in ["random", "cyclic", "announced"] {
        let chosen = format!("common.coordinates={way}");
        let sets = [COMMON, &[chosen.as_str(), "rounds.count=30", "uplink.coder=raw"]].concat();
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        assert!(outcome.report.accuracy > 0.8, "{way}: {:?}", outcome.report);
        // As integers are: six bits for each of a tenth of the coordinates, which need not be named.
        let frame = 3 + 2 + 2 + 2 + (5521 * 6_u64).div_ceil(8) + 4;
        for round in &outcome.rounds {
            assert_eq!(round.coded, frame * u64::from(round.clients), "{way}, round {}", round.round);
        }
        let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
        assert_eq!(grpc.report.model_digest, outcome.report.model_digest, "{way}");
        assert_eq!(grpc.report.bytes.up, outcome.report.bytes.up, "{way}");
    }
}

#[test]
fn common_coordinates_go_with_everything_else() {
    for sets in [
        // Late updates, lost ones, rounds without a quorum.
        &[ROUGH, &["rounds.count=6", "rounds.over_selection=1.4", "common.coordinates=announced"]].concat()[..],
        &[
            "rounds.count=6",
            "common.coordinates=cyclic",
            "rounds.cohort=4",
            "downlink.quantizer=common",
            "downlink.density=1",
        ],
        &[
            "rounds.count=8",
            "common.coordinates=announced",
            "pruning.density=0.2",
            "pruning.first_round=2",
            "pruning.every=2",
            "pruning.steps=3",
        ],
        &[
            "rounds.count=6",
            "common.coordinates=announced",
            "pruning.density=0.3",
            "pruning.first_round=2",
            "pruning.every=2",
            "pruning.steps=2",
            "pruning.regrow=0.2",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=random",
            "pruning.density=0.5",
            "pruning.pattern=channels",
            "pruning.first_round=2",
            "pruning.steps=1",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=announced",
            "distillation.kind=ensemble",
            "data.server_share=0.2",
            "distillation.every=2",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=announced",
            "uplink.warmup_rounds=3",
            "uplink.warmup_density=0.5",
            "rounds.federated_evaluation_every=2",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=random",
            "uplink.feedback=0",
            "uplink.fit=unbiased",
            "strategy.kind=fedadam",
        ],
    ] {
        let sets = [COMMON, sets].concat();
        let run = |threads| timeless(Simulation::new(recipe(&sets)).threads(threads).run().unwrap());
        let first = run(1);
        assert_eq!(first, run(3), "{sets:?}");
        let (before, report) = (first.rounds[0].loss.unwrap(), &first.report);
        assert!(report.loss.is_finite() && report.loss < before, "{sets:?}: {before} became {report:?}");
        if !sets.contains(&ROUGH[0]) {
            let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
            assert_eq!(grpc.report.model_digest, report.model_digest, "{sets:?}");
        }
    }
}

#[test]
fn every_quantizer_goes_with_common_coordinates() {
    let quantizers: [&[&str]; 9] = [
        &["uplink.quantizer=f32"],
        &["uplink.quantizer=int8"],
        &["uplink.quantizer=ternary"],
        &["uplink.quantizer=rotated", "uplink.bits=2"],
        &["uplink.quantizer=eden", "uplink.fit=unbiased", "uplink.feedback=0"],
        &["uplink.quantizer=qsgd", "uplink.bits=4", "uplink.feedback=0"],
        &["uplink.quantizer=terngrad", "uplink.feedback=0"],
        &["uplink.quantizer=sign"],
        &["uplink.quantizer=low-rank"],
    ];
    for quantizer in quantizers {
        let sets = [quantizer, &["uplink.density=0.2", "common.coordinates=cyclic", "rounds.count=10"]].concat();
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        assert_loss_falls_below(0.95, &outcome, quantizer);
        let report = &outcome.report;
        assert!(report.bytes.up * 4 < report.bytes.up_dense, "{quantizer:?}: {:?}", report.bytes);
    }
}

#[test]
fn codebooks_and_important_tensors_make_one_model_over_either_transport() {
    let sets = [
        "rounds.count=10",
        "uplink.quantizer=codebook",
        "uplink.importance=fc3=4, fc1.bias=0.5",
        "downlink.quantizer=codebook",
        "downlink.bits=3",
        "downlink.density=0.1",
        "downlink.importance=fc3=2",
        "pruning.density=0.3",
        "pruning.first_round=2",
        "pruning.every=2",
        "pruning.steps=3",
    ];
    let outcome = Simulation::new(recipe(&sets)).run().unwrap();
    assert_loss_falls_below(0.7, &outcome, &sets);
    let report = &outcome.report;
    let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, report.model_digest);
    let plain = Simulation::new(recipe(&sets[..2])).run().unwrap();
    let weighed = Simulation::new(recipe(&sets[..3])).run().unwrap();
    assert_ne!(plain.report.model_digest, weighed.report.model_digest);

    let error = Simulation::new(recipe(&["downlink.importance=fc1=2, fc9=3"])).run().unwrap_err().to_string();
    assert!(
        error.contains("`downlink.importance` names \"fc9\", and no tensor's name begins so; there are fc1."),
        "{error}"
    );
}

#[test]
fn updates_fill_what_the_recipe_allows_and_no_more() {
    let outcome = Simulation::new(recipe(&["rounds.count=5", "limits.update_bytes=700"])).run().unwrap();
    for round in &outcome.rounds {
        let allowed = 700 * u64::from(round.clients);
        assert!(round.coded <= allowed && round.coded * 100 >= allowed * 98, "{} of {allowed}", round.coded);
    }
    let sets = &["rounds.count=8", "limits.run_bytes=60000", "limits.update_bytes=2000", "uplink.quantizer=int8"];
    let in_process = timeless(Simulation::new(recipe(sets)).run().unwrap());
    let spent = in_process.report.bytes.up;
    assert!((58_800..=60_000).contains(&spent), "{spent}");
    let grpc = Simulation::new(recipe(sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, in_process.report.model_digest);
}

#[test]
fn a_client_sends_no_more_than_its_budget_and_nearly_all_of_it_where_it_is_always_asked() {
    let sets = &["data.clients=10", "rounds.count=10", "limits.client_bytes=12000"];
    let outcome = Simulation::new(recipe(sets)).run().unwrap();
    assert_eq!(outcome.clients.len(), 10);
    for client in &outcome.clients {
        assert!(client.updates == 10 && (11_760..=12_000).contains(&client.up), "{client:?}");
    }
    let grpc = Simulation::new(recipe(sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, outcome.report.model_digest);
    assert_eq!(grpc.report.bytes.up, outcome.report.bytes.up);
    // Drawn at random, without feedback, beside a bound of the server's.
    for (others, least) in [
        (&["uplink.feedback=0"][..], 60_000),
        (&["limits.update_bytes=900"], 40_000),
        (&["limits.run_bytes=50000"], 40_000),
    ] {
        let sets = [&["rounds.count=12", "rounds.cohort=5", "limits.client_bytes=5000"], others].concat();
        let drawn = Simulation::new(recipe(&sets)).run().unwrap();
        assert!(drawn.clients.iter().all(|client| client.up <= 5000), "{others:?}: {:?}", drawn.clients);
        assert!(drawn.report.bytes.up > least, "{others:?}: {:?}", drawn.report.bytes);
        assert_eq!(drawn.clients.iter().map(|client| client.updates).sum::<u64>(), 60, "{others:?}");
    }
}

#[test]
fn a_client_that_is_seldom_drawn_sends_nearly_all_of_its_budget_as_well() {
    let sets = &["data.clients=40", "rounds.cohort=4", "rounds.count=40", "limits.client_bytes=6000"];
    let outcome = Simulation::new(recipe(sets)).run().unwrap();
    let asked: Vec<_> = outcome.clients.iter().filter(|client| client.updates > 0).collect();
    assert!(asked.len() > 35, "{}", asked.len());
    for client in asked {
        assert!((5880..=6000).contains(&client.up), "{client:?}");
    }
    let grpc = Simulation::new(recipe(sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!((&grpc.report.model_digest, grpc.report.bytes), (&outcome.report.model_digest, outcome.report.bytes));
}

#[test]
fn a_client_whose_budget_has_no_room_declines_the_round_and_the_others_go_on() {
    // The shortest frames of this quantizer have about 700 bytes, a third of the budget: whoever is to be drawn more often
    // than three times has to pass rounds over.
    let sets = &[
        "rounds.cohort=5",
        "rounds.count=12",
        "rounds.quorum=0.2",
        "uplink.quantizer=rotated",
        "uplink.density=1",
        "uplink.feedback=0",
        "uplink.fit=unbiased",
        "limits.client_bytes=2300",
    ];
    let run = |transport| Simulation::new(recipe(sets)).transport(transport).run().unwrap();
    let outcome = run(Transport::InProcess);
    assert_eq!((outcome.report.rounds, outcome.report.abandoned), (12, 0), "{:?}", outcome.report);
    assert!(outcome.rounds.iter().any(|round| round.clients < 5), "nobody had to decline");
    assert!(outcome.clients.iter().all(|client| client.up <= 2300), "{:?}", outcome.clients);
    assert!(outcome.clients.iter().map(|client| client.updates).sum::<u64>() > 36, "{:?}", outcome.clients);
    assert_eq!(run(Transport::Grpc).report.model_digest, outcome.report.model_digest);
}
