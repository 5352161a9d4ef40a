//! Rounds in which all clients send the same coordinates, seen from outside: client i moves coordinate i and nothing else, so
//! the model shows whose updates arrived, and when.

use dunlin::client::driver::Workplace;
use dunlin::client::trainer::{Progress, Trainer, TrainerError, Work};
use dunlin::core::{ClientId, Layout, TensorSpec};
use dunlin::nn::train::Evaluation;
use dunlin::simulation::Transport;
use dunlin::{Recipe, Simulation};
use std::sync::Arc;

const CLIENTS: usize = 16;
const LEN: usize = 40;
/// Of which so many are sent in a round.
const SENT: usize = 8;
/// A power of two, so that means of all clients are floats.
const MOVE: f32 = 1.0 / 64.0;

/// Nothing is lost on the way but to the choice of coordinates, and that only for a while.
fn recipe(way: &str, rounds: u64) -> Recipe {
    let sets = [
        &format!("common.coordinates={way}"),
        &format!("rounds.count={rounds}"),
        "data.clients=16",
        "rounds.cohort=16",
        "uplink.quantizer=common",
        "uplink.bits=8",
        "uplink.clip=1",
        "uplink.density=0.2",
        "uplink.feedback=1",
        "downlink.density=1",
        "downlink.quantizer=f32",
    ];
    Recipe::load(None, &sets.map(str::to_owned)).unwrap()
}

struct Units(Layout);

impl Units {
    fn new() -> Arc<Self> {
        let layout = Layout::new(vec![TensorSpec::new("w", [6, 6]), TensorSpec::new("b", [4])]);
        Arc::new(Self(layout.unwrap()))
    }
}

impl Workplace for Units {
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
        Ok((self.0.clone(), vec![0.0; LEN]))
    }

    fn examples(&self, _: &ClientId) -> Result<u32, TrainerError> {
        Ok(1)
    }

    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
        let index = client.as_str().rsplit('-').next().unwrap().parse().unwrap();
        Ok(Box::new(Unit { layout: self.0.clone(), index }))
    }
}

struct Unit {
    layout: Layout,
    index: usize,
}

impl Trainer for Unit {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn examples(&self) -> u32 {
        1
    }

    fn train(&mut self, _: &Work<'_>, params: &mut Vec<f32>, _: Progress<'_>) -> Result<f64, TrainerError> {
        params[self.index] += MOVE;
        Ok(0.0)
    }

    fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, TrainerError> {
        Ok(Evaluation { examples: 1, correct: 1, loss_sum: 0.0 })
    }
}

#[test]
fn what_a_round_does_not_carry_arrives_whole_with_the_next_one_that_does() {
    for way in ["random", "cyclic", "announced"] {
        let mut arrived = [0.0; LEN];
        for rounds in 1..=12u64 {
            // Rounds are the same however many follow.
            let outcome = Simulation::new(recipe(way, rounds)).workplace(Units::new()).run().unwrap();
            let mut carried = 0;
            for (index, (&value, arrived)) in outcome.params.iter().zip(&mut arrived).enumerate() {
                // The last round with which all of the client's moves until then had arrived, if nothing else did.
                let last = value / MOVE * CLIENTS as f32;
                let is_new = last == rounds as f32;
                assert!(last == *arrived || (is_new && index < CLIENTS), "{way}: {last} at {index} after {rounds}");
                carried += usize::from(is_new);
                *arrived = last;
            }
            assert!(carried <= SENT, "{way}: {carried} coordinates of {SENT} in round {rounds}");
        }
        assert!(arrived[CLIENTS..].iter().all(|&last| last == 0.0), "{way}: {arrived:?}");
        let heard = arrived[..CLIENTS].iter().filter(|&&last| last > 0.0).count();
        assert!(heard >= CLIENTS / 2, "{way}: {arrived:?}");
        if way == "cyclic" {
            assert!(arrived[..CLIENTS].iter().all(|&last| last > 12.0 - 5.0), "a fifth in each round: {arrived:?}");
        }
        let grpc = Simulation::new(recipe(way, 12)).workplace(Units::new()).transport(Transport::Grpc).run().unwrap();
        let expected = arrived.map(|last| last * MOVE / CLIENTS as f32);
        assert_eq!(grpc.params, expected, "{way}");
    }
}
