//! Pruning while a federation trains: which weights go, when, and what becomes of the others.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How the global model loses weights, step by step.
///
/// A step belongs to the end of a round: the server chooses what is left, and the packet of that round tells the clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PruningConfig {
    /// Share of the weights that is left after the last step; 1 prunes nothing.
    pub density: f64,
    /// Parameters of the whole model that are left after the last step, in place of `density`; 0 goes by `density`.
    pub parameters: u64,
    /// How the density falls from step to step.
    pub schedule: Schedule,
    /// Round with the first step.
    pub first_round: u64,
    /// Rounds from one step to the next.
    pub every: u64,
    /// Number of steps.
    pub steps: u64,
    /// Among which weights each is compared.
    pub scope: Scope,
    /// What makes a weight important.
    pub importance: Importance,
    /// Which weights may be left together.
    pub pattern: Pattern,
    /// Magnitude below which the schedule by threshold takes weights away.
    pub threshold: f64,
    /// Tensors that are not pruned: names or how they begin, separated by commas.
    pub protected: String,
    /// Share of the weights left that each step takes away beyond the schedule and gives to others instead.
    pub regrow: f64,
    /// What the weights that are left become after a step.
    pub rewind: Rewind,
    /// The round whose model the weights go back to.
    pub rewind_round: u64,
}

/// How the density falls from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Quickly at first: density d + (1 − d)·(1 − i/steps)³ after step i (Zhu & Gupta 2017).
    Cubic,
    /// By the same factor in each step, d^(i/steps) (Frankle & Carbin 2019).
    Geometric,
    /// Whatever is below a fixed magnitude goes, as long as more than the density is left.
    Threshold,
}

/// Among which weights each is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All of the model.
    Global,
    /// Those of its own tensor, so that all tensors are of the same density.
    Layer,
}

/// What makes a weight important.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Importance {
    /// |w| (Han et al. 2015); the server knows it.
    Magnitude,
    /// |g|, with g the gradient over the clients' data.
    Gradient,
    /// |g·w|: to first order what the loss changes by without the weight (Molchanov et al. 2017, Lee et al. 2019).
    Taylor,
    /// |γ|, with γ the factor of a channel in the norm behind it (Liu et al. 2017); the server knows it.
    Scale,
    /// How many of the clients, weighted by examples, would keep the connection: each counts those of the largest
    /// magnitude after training on its own data.
    Votes,
}

/// What clients are asked for instead of training, for a step of pruning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The mean gradient of the loss over a client's data.
    Gradient,
    /// 1 for the weights of the largest magnitude after training, as many as the step leaves, and 0 for the others.
    Votes,
}

/// Which weights may be left together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any.
    Unstructured,
    /// Those of whole filters or units.
    Channels,
    /// At most `left` of every `of` consecutive weights of a row.
    Groups {
        /// N of N:M.
        left: u8,
        /// M of N:M.
        of: u8,
    },
}

/// What the weights that are left become after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rewind {
    /// They stay as they are.
    None,
    /// What they were in an earlier round (Frankle & Carbin 2019; later rounds: Frankle et al. 2020).
    Ticket,
    /// The same after all steps but the last, after which they get initial values of other places of their tensor, at
    /// random: the control of the ticket, with the same mask.
    Random,
}

impl PruningConfig {
    /// Whether anything is ever pruned.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.density < 1.0 || self.parameters > 0
    }

    /// Which step belongs to the end of a round (both count from 1).
    #[must_use]
    pub fn step(&self, round: u64) -> Option<u64> {
        let since = round.checked_sub(self.first_round).filter(|_| self.is_on())?;
        let step = since / self.every + 1;
        (since % self.every == 0 && step <= self.steps).then_some(step)
    }

    /// The last step that belonged to an earlier round, if it can be made up for in this one, should that round have been
    /// abandoned: a step that asks clients for nothing, takes single weights down to a density, and leaves the others as
    /// they are.
    #[must_use]
    pub fn step_before(&self, round: u64) -> Option<u64> {
        let can_wait = self.importance == Importance::Magnitude
            && self.schedule != Schedule::Threshold
            && self.pattern == Pattern::Unstructured
            && self.regrow == 0.0
            && self.rewind == Rewind::None;
        let since = round.checked_sub(self.first_round + 1).filter(|_| self.is_on() && can_wait)?;
        Some((since / self.every + 1).min(self.steps))
    }

    /// What clients are asked for in a round instead of training.
    #[must_use]
    pub fn statistic(&self, round: u64) -> Option<Statistic> {
        self.step(round)?;
        match self.importance {
            Importance::Votes => Some(Statistic::Votes),
            Importance::Gradient | Importance::Taylor => Some(Statistic::Gradient),
            Importance::Magnitude | Importance::Scale => (self.regrow > 0.0).then_some(Statistic::Gradient),
        }
    }

    /// Whether the updates of a round are about the whole model and not only about what is left of it.
    #[must_use]
    pub fn is_of_whole(&self, round: u64) -> bool {
        self.regrow > 0.0 && self.statistic(round).is_some()
    }

    /// The first round whose residuals are still of use in a round: those from before a rewind answer to another model.
    #[must_use]
    pub fn residuals_from(&self, round: u64) -> u64 {
        if self.rewind == Rewind::None || !self.is_on() || round <= self.first_round {
            return 0;
        }
        let before = (round - 1).min(self.last_round());
        before - (before - self.first_round) % self.every + 1
    }

    /// The round with the last step.
    #[must_use]
    pub fn last_round(&self) -> u64 {
        self.first_round.saturating_add((self.steps - 1).saturating_mul(self.every))
    }

    /// Density after a step of the schedule, where `last` is the density after the last one.
    #[must_use]
    pub fn density_after(&self, step: u64, last: f64) -> f64 {
        let progress = step.min(self.steps) as f64 / self.steps as f64;
        match self.schedule {
            Schedule::Cubic => {
                let rest = 1.0 - progress;
                last + (1.0 - last) * rest * rest * rest
            }
            Schedule::Geometric => last.powf(progress),
            Schedule::Threshold => last,
        }
    }

    /// How the names of the tensors that are not pruned begin.
    pub fn protected(&self) -> impl Iterator<Item = &str> {
        self.protected.split(',').map(str::trim).filter(|start| !start.is_empty())
    }

    /// Whether the tensor of this name is not pruned.
    #[must_use]
    pub fn is_protected(&self, tensor: &str) -> bool {
        self.protected().any(|start| tensor.starts_with(start))
    }
}

impl Default for PruningConfig {
    fn default() -> Self {
        Self {
            density: 1.0,
            parameters: 0,
            schedule: Schedule::Cubic,
            first_round: 20,
            every: 5,
            steps: 6,
            scope: Scope::Global,
            importance: Importance::Magnitude,
            pattern: Pattern::Unstructured,
            threshold: 0.0,
            protected: String::new(),
            regrow: 0.0,
            rewind: Rewind::None,
            rewind_round: 0,
        }
    }
}

impl Pattern {
    /// Most weights that a group may have.
    pub const MOST: u8 = 64;
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.write_str("unstructured"),
            Self::Channels => f.write_str("channels"),
            Self::Groups { left, of } => write!(f, "{left}:{of}"),
        }
    }
}

/// The text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not \"unstructured\", \"channels\" or N:M with 1 ≤ N < M ≤ {most}", most = Pattern::MOST)]
pub struct UnknownPattern(String);

impl std::str::FromStr for Pattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, UnknownPattern> {
        match text {
            "unstructured" => return Ok(Self::Unstructured),
            "channels" => return Ok(Self::Channels),
            _ => {}
        }
        let groups = text.split_once(':').and_then(|(left, of)| {
            let (left, of) = (left.parse().ok()?, of.parse().ok()?);
            (1 <= left && left < of && of <= Self::MOST).then_some(Self::Groups { left, of })
        });
        groups.ok_or_else(|| UnknownPattern(text.to_owned()))
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_at_their_rounds_and_reach_the_density() {
        let config = PruningConfig { density: 0.1, first_round: 4, every: 3, steps: 3, ..PruningConfig::default() };
        let steps: Vec<_> = (1..=14).filter_map(|round| Some((round, config.step(round)?))).collect();
        assert_eq!((steps, config.last_round()), (vec![(4, 1), (7, 2), (10, 3)], 10));
        let densities = |schedule| {
            let config = PruningConfig { schedule, ..config.clone() };
            [1, 2, 3].map(|step| (config.density_after(step, 0.1) * 1000.0).round() as u64)
        };
        assert_eq!(densities(Schedule::Cubic), [367, 133, 100]);
        assert_eq!(densities(Schedule::Geometric), [464, 215, 100]);
        let rewinding = PruningConfig { rewind: Rewind::Ticket, ..config.clone() };
        assert_eq!([4, 5, 7, 8, 10, 11, 99].map(|round| rewinding.residuals_from(round)), [0, 5, 5, 8, 8, 11, 11]);
        assert_eq!(config.residuals_from(99), 0);
        assert_eq!([4, 5, 7, 8, 99].map(|round| config.step_before(round)), [None, Some(1), Some(1), Some(2), Some(3)]);
        assert_eq!(rewinding.step_before(99), None);
        assert_eq!(PruningConfig::default().step(20), None, "nothing is pruned unless it is asked for");
    }

    #[test]
    fn patterns_are_read_as_they_are_written() {
        for pattern in [Pattern::Unstructured, Pattern::Channels, Pattern::Groups { left: 2, of: 4 }] {
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        for wrong in ["", "2", "4:4", "0:4", "2:65", "2:4:8", "dense"] {
            assert_eq!(wrong.parse::<Pattern>(), Err(UnknownPattern(wrong.to_owned())));
        }
    }
}
