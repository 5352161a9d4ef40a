//! Federations of several kinds, before anything happens to them.

use dunlin::core::Recipe;

/// A federation before anything happens to it.
pub(crate) struct Setting {
    pub(super) recipe: Recipe,
}

impl Setting {
    /// Six honest clients and a hostile one, in federations of several kinds.
    pub(crate) fn random(seed: u64) -> Self {
        let sets = ["rounds.cohort=4", "rounds.quorum=0.5", "rounds.max_abandoned=100"];
        let mut setting = Self::of(seed, &[&sets[..], &common(seed)].concat());
        let rounds = &mut setting.recipe.rounds;
        rounds.over_selection = if seed.is_multiple_of(2) { 1.0 } else { 1.5 };
        rounds.federated_evaluation_every = if seed.is_multiple_of(3) { 4 } else { 0 };
        setting
    }

    /// No silence is too long and every member is waited for, so each round has the updates of its whole cohort.
    pub(crate) fn nobody_is_lost(seed: u64) -> Self {
        let sets = ["rounds.cohort=4", "rounds.quorum=1", "rounds.idle_timeout_s=1000000", "rounds.deadline_s=1000000"];
        Self::of(seed, &[&sets[..], &common(seed)].concat())
    }

    /// All six are asked in each round, and the hostile one as well once it is known.
    pub(crate) fn everybody_is_chosen(seed: u64) -> Self {
        let sets = ["data.clients=7", "rounds.cohort=7", "rounds.quorum=0.5", "rounds.min_clients=7"];
        Self::of(seed, &sets)
    }

    fn of(seed: u64, sets: &[&str]) -> Self {
        let common = [
            "model.kind=trivial",
            "data.source=none",
            "data.clients=6",
            "rounds.count=12",
            "rounds.min_clients=6",
            "rounds.deadline_s=60",
            "rounds.idle_timeout_s=20",
            "uplink.density=1",
            "uplink.quantizer=f32",
            "uplink.coder=raw",
            "downlink.density=1",
            "downlink.quantizer=f32",
            "limits.packet_ring=3",
        ];
        let sets: Vec<String> = common.iter().chain(sets).map(|&set| set.into()).collect();
        let recipe = Recipe::load(None, &sets).unwrap();
        Self { recipe: Recipe { seed, ..recipe } }
    }
}

/// In every other federation all clients of a round send the same three of the seven coordinates, as integers on a grid
/// that holds whole steps, and keep the rest for when its turn comes.
fn common(seed: u64) -> Vec<&'static str> {
    let coordinates = match seed % 6 {
        1 => "common.coordinates=random",
        3 => "common.coordinates=cyclic",
        5 => "common.coordinates=announced",
        _ => return Vec::new(),
    };
    vec![
        coordinates,
        "uplink.density=0.43",
        "uplink.quantizer=common",
        "uplink.bits=8",
        "uplink.clip=15",
        "uplink.feedback=1",
    ]
}
