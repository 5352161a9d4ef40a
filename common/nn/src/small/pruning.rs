//! Which coordinates are left of a model after a step of pruning. Plain functions of scores, so that the same scores give
//! the same mask everywhere.

#[cfg(test)]
mod tests;

use super::Channels;
use super::channels::By;
use dunlin_codec::Mask;
use dunlin_core::Layout;
use dunlin_core::recipe::{Importance, Pattern, PruningConfig, Schedule, Scope};
use std::cmp::Ordering;
use std::ops::Range;

/// A recipe's pruning for one model.
#[derive(Clone, Debug)]
pub struct Pruning {
    config: PruningConfig,
    weights: Vec<Weights>,
    /// Parameters that are never pruned.
    others: usize,
    /// Filters and units, where the model has layers that may lose some.
    channels: Option<Channels>,
}

/// A tensor that may be pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weights {
    range: Range<usize>,
    /// Consecutive elements that belong to one output.
    row: usize,
}

/// What is known of every coordinate of the whole model when a step comes; what is pruned has no say in `scores`.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Not negative; the larger, the rather a weight is left.
    pub scores: &'a [f32],
    /// Magnitudes of gradients, by which weights come back; empty when none do.
    pub gradients: &'a [f32],
}

impl Pruning {
    /// The pruning of a recipe for a model of these tensors: those of two and more axes that are not protected.
    #[must_use]
    pub fn new(config: &PruningConfig, layout: &Layout) -> Self {
        let weights: Vec<Weights> = layout
            .tensors()
            .iter()
            .enumerate()
            .filter(|(_, tensor)| tensor.shape.len() >= 2 && !config.is_protected(&tensor.name))
            .map(|(index, tensor)| Weights { range: layout.range(index), row: tensor.shape[1..].iter().product() })
            .collect();
        let others = layout.len() - weights.iter().map(|weights| weights.range.len()).sum::<usize>();
        Self { config: config.clone(), weights, others, channels: Channels::of(layout) }
    }

    /// Share of the weights that is left after the last step.
    #[must_use]
    pub fn last_density(&self) -> f64 {
        let total: usize = self.weights.iter().map(|weights| weights.range.len()).sum();
        match (self.config.pattern, self.config.parameters) {
            (Pattern::Groups { left, of }, _) => f64::from(left) / f64::from(of),
            (_, 0) => self.config.density,
            (_, parameters) => {
                let left = parameters.saturating_sub(self.others as u64) as f64;
                (left / total.max(1) as f64).min(1.0)
            }
        }
    }

    /// Fewest parameters that single weights can be pruned to: vectors and protected tensors stay whole, and each other
    /// tensor keeps a weight. Nothing is said of patterns.
    #[must_use]
    pub fn least_parameters(&self) -> usize {
        match self.config.pattern {
            Pattern::Unstructured => self.others + self.weights.len(),
            Pattern::Groups { .. } | Pattern::Channels => 0,
        }
    }

    /// Whether a mask leaves more single weights than a step does: that step never came.
    #[must_use]
    pub fn is_behind(&self, step: u64, mask: &Mask) -> bool {
        let density = self.config.density_after(step, self.last_density());
        let wanted: f64 = self.weights.iter().map(|weights| density * weights.range.len() as f64).sum();
        // Counts are rounded, and each tensor keeps a weight at least.
        mask.len() > self.others + wanted as usize + 2 * self.weights.len()
    }

    /// What is left after a step (from 1); nothing when that is what was left before.
    #[must_use]
    pub fn step(&self, step: u64, mask: &Mask, evidence: Evidence<'_>) -> Option<Mask> {
        let density = self.config.density_after(step, self.last_density());
        let mut left: Vec<bool> = (0..mask.whole().len()).map(|index| mask.contains(index)).collect();
        match self.config.pattern {
            Pattern::Groups { left: n, of } => self.prune_groups(&mut left, evidence.scores, density, (n, of)),
            Pattern::Channels => {
                let per_layer = self.config.scope == Scope::Layer;
                let is_protected = |name: &str| self.config.is_protected(name);
                let by = if self.config.importance == Importance::Scale { By::Scale } else { By::Weights };
                let scores = (evidence.scores, by);
                let next = self.channels.as_ref()?.select(mask, scores, density, per_layer, is_protected)?;
                return (next != *mask).then_some(next);
            }
            Pattern::Unstructured => match self.config.scope {
                Scope::Global => {
                    let all: Vec<usize> = self.weights.iter().flat_map(|weights| weights.range.clone()).collect();
                    self.prune(&mut left, &all, evidence, density);
                }
                Scope::Layer => {
                    for weights in &self.weights {
                        let own: Vec<usize> = weights.range.clone().collect();
                        self.prune(&mut left, &own, evidence, density);
                    }
                }
            },
        }
        self.keep_layers_alive(&mut left, mask, evidence.scores);
        let next = Mask::new(mask.whole().clone(), |index| left[index]).ok()?;
        (next != *mask).then_some(next)
    }

    /// What a client would leave after a step: 1 for those weights, and for what is never pruned, and 0 for the others.
    #[must_use]
    pub fn votes(&self, step: u64, mask: &Mask, params: &[f32]) -> Vec<f32> {
        let scores: Vec<f32> = params.iter().map(|w| w.abs()).collect();
        let next = self.step(step, mask, Evidence { scores: &scores, gradients: &[] });
        let next = next.as_ref().unwrap_or(mask);
        (0..mask.whole().len()).map(|index| if next.contains(index) { 1.0 } else { 0.0 }).collect()
    }

    /// Leaves the share `density` of the weights at these places at most, some of which may be others than before.
    fn prune(&self, left: &mut [bool], places: &[usize], evidence: Evidence<'_>, density: f64) {
        let mut candidates: Vec<usize> = places.iter().copied().filter(|&index| left[index]).collect();
        let wanted = ((density * places.len() as f64).round() as usize).max(1);
        let count = if self.config.schedule == Schedule::Threshold {
            let above = candidates.iter().filter(|&&index| evidence.scores[index] >= self.config.threshold as f32);
            above.count().max(wanted)
        } else {
            wanted
        };
        let count = count.min(candidates.len());
        let others: Vec<usize> = match evidence.gradients {
            [] => Vec::new(),
            _ => places.iter().copied().filter(|&index| !left[index]).collect(),
        };
        // As many come back as there are others.
        let regrown = ((self.config.regrow * count as f64).round() as usize).min(others.len());
        for &index in lesser(&mut candidates, evidence.scores, count - regrown) {
            left[index] = false;
        }
        let mut others = others;
        lesser(&mut others, evidence.gradients, regrown);
        for &index in &others[..regrown] {
            left[index] = true;
        }
    }

    /// Leaves so many of each group that the density is not undercut, and `n` of `of` at last.
    fn prune_groups(&self, left: &mut [bool], scores: &[f32], density: f64, (n, of): (u8, u8)) {
        let most = ((density * f64::from(of)).ceil() as usize).max(n.into());
        for weights in &self.weights {
            for row in weights.range.clone().step_by(weights.row) {
                for start in (row..row + weights.row).step_by(of.into()) {
                    let end = (start + usize::from(of)).min(row + weights.row);
                    // A group that a row's end cuts short keeps its share.
                    let most = ((end - start) * most).div_ceil(of.into());
                    let mut group: Vec<usize> = (start..end).filter(|&index| left[index]).collect();
                    for &index in lesser(&mut group, scores, most) {
                        left[index] = false;
                    }
                }
            }
        }
    }

    /// A tensor without weights would let nothing through: its most important one stays.
    fn keep_layers_alive(&self, left: &mut [bool], mask: &Mask, scores: &[f32]) {
        for weights in &self.weights {
            if weights.range.clone().all(|index| !left[index]) {
                let mut before: Vec<usize> = weights.range.clone().filter(|&index| mask.contains(index)).collect();
                lesser(&mut before, scores, 1);
                if let Some(&most) = before.first() {
                    left[most] = true;
                }
            }
        }
    }
}

/// All but the `count` places with the largest scores, ties by the lowest place; those are then the first ones.
fn lesser<'a>(places: &'a mut [usize], scores: &[f32], count: usize) -> &'a [usize] {
    if count >= places.len() {
        return &[];
    }
    let order = |a: &usize, b: &usize| match scores[*b].total_cmp(&scores[*a]) {
        Ordering::Equal => a.cmp(b),
        unequal => unequal,
    };
    if count > 0 {
        places.select_nth_unstable_by(count - 1, order);
    }
    &places[count..]
}
