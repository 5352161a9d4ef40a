//! `FedAdagrad`, `FedAdam` and `FedYogi`: one step rule, three second moments.

use super::{ServerRate, StateError, Strategy, check_state};
use dunlin_core::recipe::StrategyConfig;

/// How the second moment v takes in Δ².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondMoment {
    /// v ← v + Δ²
    Adagrad,
    /// v ← β₂v + (1 − β₂)Δ²
    Adam,
    /// v ← v − (1 − β₂)Δ² sign(v − Δ²)
    Yogi,
}

/// m ← β₁m + (1 − β₁)Δ, v as [`SecondMoment`] says, w ← w + ηm / (√v + τ); no bias correction.
///
/// v starts at τ², the smallest value that the paper's analysis allows, so that a first small update is not blown up.
#[derive(Clone, Debug)]
pub struct Adaptive {
    moment: SecondMoment,
    rate: ServerRate,
    beta1: f32,
    beta2: f32,
    tau: f32,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adaptive {
    /// The optimizer at rest for `len` parameters.
    #[must_use]
    pub fn new(moment: SecondMoment, config: &StrategyConfig, rate: ServerRate, len: usize) -> Self {
        let tau = config.tau as f32;
        Self {
            moment,
            rate,
            // As in the paper: Adagrad is used without momentum.
            beta1: if moment == SecondMoment::Adagrad { 0.0 } else { config.momentum as f32 },
            beta2: config.beta2 as f32,
            tau,
            first: vec![0.0; len],
            second: vec![tau * tau; len],
        }
    }

    fn walk(&mut self, rate: f32, mean: &[f32], w: &mut [f32], second_moment: impl Fn(f32, f32) -> f32) {
        let (beta1, tau) = (self.beta1, self.tau);
        for (((w, m), v), &delta) in w.iter_mut().zip(&mut self.first).zip(&mut self.second).zip(mean) {
            *m = beta1 * *m + (1.0 - beta1) * delta;
            *v = second_moment(*v, delta * delta);
            *w += rate * *m / (v.sqrt() + tau);
        }
    }
}

impl Strategy for Adaptive {
    fn name(&self) -> &'static str {
        match self.moment {
            SecondMoment::Adagrad => "fedadagrad",
            SecondMoment::Adam => "fedadam",
            SecondMoment::Yogi => "fedyogi",
        }
    }

    fn step(&mut self, round: u64, mean: &[f32], w: &mut [f32]) {
        let rate = self.rate.at(round);
        let (beta2, keep) = (self.beta2, 1.0 - self.beta2);
        match self.moment {
            SecondMoment::Adagrad => self.walk(rate, mean, w, |v, square| v + square),
            SecondMoment::Adam => self.walk(rate, mean, w, |v, square| beta2 * v + keep * square),
            // sign(0) is 0: where v equals Δ² it stays.
            SecondMoment::Yogi => self.walk(rate, mean, w, |v, square| {
                let toward = f32::from(i8::from(square > v) - i8::from(square < v));
                v + keep * square * toward
            }),
        }
    }

    fn state(&self) -> Vec<&[f32]> {
        vec![&self.first, &self.second]
    }

    fn restore(&mut self, state: Vec<Vec<f32>>) -> Result<(), StateError> {
        check_state(self.name(), &self.state(), &state)?;
        let mut vectors = state.into_iter();
        self.first = vectors.next().expect("the state was checked to be two vectors");
        self.second = vectors.next().expect("the state was checked to be two vectors");
        Ok(())
    }
}
