//! `FedAvg` and its variant with momentum.

use super::{ServerRate, StateError, Strategy, check_state};

/// w ← w + ηΔ; with η = 1 the mean of the clients' models (McMahan et al. 2017).
#[derive(Clone, Debug)]
pub struct FedAvg {
    rate: ServerRate,
}

impl FedAvg {
    /// Averaging with this step size.
    #[must_use]
    pub fn new(rate: ServerRate) -> Self {
        Self { rate }
    }
}

impl Strategy for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn step(&mut self, round: u64, mean: &[f32], w: &mut [f32]) {
        let rate = self.rate.at(round);
        for (w, &delta) in w.iter_mut().zip(mean) {
            *w += rate * delta;
        }
    }

    fn state(&self) -> Vec<&[f32]> {
        Vec::new()
    }

    fn restore(&mut self, state: Vec<Vec<f32>>) -> Result<(), StateError> {
        check_state(self.name(), &[], &state)
    }
}

/// m ← βm + Δ, w ← w + ηm (Hsu et al. 2019).
#[derive(Clone, Debug)]
pub struct FedAvgM {
    rate: ServerRate,
    momentum: f32,
    velocity: Vec<f32>,
}

impl FedAvgM {
    /// Averaging with momentum β, at rest, for `len` parameters.
    #[must_use]
    pub fn new(rate: ServerRate, momentum: f32, len: usize) -> Self {
        Self { rate, momentum, velocity: vec![0.0; len] }
    }
}

impl Strategy for FedAvgM {
    fn name(&self) -> &'static str {
        "fedavgm"
    }

    fn step(&mut self, round: u64, mean: &[f32], w: &mut [f32]) {
        let rate = self.rate.at(round);
        for ((w, m), &delta) in w.iter_mut().zip(&mut self.velocity).zip(mean) {
            *m = self.momentum * *m + delta;
            *w += rate * *m;
        }
    }

    fn state(&self) -> Vec<&[f32]> {
        vec![&self.velocity]
    }

    fn restore(&mut self, state: Vec<Vec<f32>>) -> Result<(), StateError> {
        check_state(self.name(), &self.state(), &state)?;
        self.velocity = state.into_iter().next().expect("the state was checked to be one vector");
        Ok(())
    }
}
