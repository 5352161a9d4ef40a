//! Dependent quantization (Schwarz et al. 2019, as in VVC; trellis-coded quantization of Marcellin and Fischer 1990): two
//! grids of twice the step, of which the parities of all levels before say which one a level belongs to.
//!
//! The decoder follows a state. The encoder finds the levels with the least error and size together by the Viterbi
//! algorithm, which packs the points of a whole block more densely than a grid for each coordinate can: at the same size
//! the error was a seventh to a fifth smaller than on one grid.

/// Which grid is next: 0 and 1 even multiples of the step, 2 and 3 zero and odd multiples.
#[derive(Clone, Copy, Default)]
pub(super) struct State(usize);

impl State {
    /// 0 or 1: which of the two grids, and which frequencies.
    #[inline(always)]
    pub(super) fn grid(self) -> usize {
        self.0 >> 1
    }

    /// The multiple of the step that a level stands for.
    #[inline(always)]
    pub(super) fn point(self, level: i16) -> i32 {
        let level = i32::from(level);
        2 * level - level.signum() * self.grid() as i32
    }

    #[inline(always)]
    pub(super) fn after(self, level: i16) -> Self {
        Self(NEXT[self.0][(level & 1) as usize])
    }
}

/// The multiples of the step that the levels of a block stand for.
#[inline(always)]
pub(super) fn points(levels: &[i16], points: &mut [f32]) {
    let mut state = State::default();
    for (point, &level) in points.iter_mut().zip(levels) {
        *point = state.point(level) as f32;
        state = state.after(level);
    }
}

/// What levels cost, in squared steps: by grid, then magnitude.
pub(super) type Costs = [[f32; COUNTED]; 2];

/// Finds the levels of blocks; keeps its buffers from one to the next.
#[derive(Default)]
pub(super) struct Search {
    /// By half grid the best level for each coordinate, of its magnitude: even and odd levels of the first grid, then of
    /// the second.
    choices: Vec<[[i16; AT_ONCE]; 4]>,
    /// Per coordinate, a bit for each state after it: whether the better way there came from the second of the two before.
    turns: Vec<u8>,
}

impl Search {
    /// The levels with the least sum of squared errors, in steps, and costs. Without costs the nearest of the even ones,
    /// which lead from the first state to the first: a single grid of four steps.
    #[inline(always)]
    pub(super) fn levels(&mut self, values: &[f32], per_step: f32, costs: Option<&Costs>, levels: &mut [i16]) {
        let Some(costs) = costs else {
            for (level, value) in levels.iter_mut().zip(values) {
                let quarter = (value * per_step).clamp(-FARTHEST, FARTHEST) * 0.25;
                *level = (2 * ((quarter + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32)) as i16;
            }
            return;
        };
        self.choices.clear();
        self.turns.clear();
        // A block begins in state 0.
        let mut totals = [0.0, FAR, FAR, FAR];
        for values in values.chunks(AT_ONCE) {
            let mut steps = [0.0; AT_ONCE];
            for (steps, value) in steps.iter_mut().zip(values) {
                *steps = (value * per_step).abs().min(FARTHEST);
            }
            let mut choices = [[0; AT_ONCE]; 4];
            let mut least = [[0.0; AT_ONCE]; 4];
            for half in 0..4 {
                best_of_half_grid(half, &steps, costs, &mut choices[half], &mut least[half]);
            }
            self.choices.push(choices);
            let [a, b, c, d] = &least;
            for i in 0..values.len() {
                let ([a, b, c, d], [s0, s1, s2, s3]) = ([a[i], b[i], c[i], d[i]], totals);
                let first = [s0 + a, s2 + c, s0 + b, s2 + d];
                let second = [s1 + b, s3 + d, s1 + a, s3 + c];
                let mut turns = 0;
                for state in 0..4 {
                    turns |= u8::from(second[state] < first[state]) << state;
                    totals[state] = if second[state] < first[state] { second[state] } else { first[state] };
                }
                self.turns.push(turns);
            }
            let least = totals.iter().fold(FAR, |least, total| total.min(least));
            totals = totals.map(|total| total - least);
        }
        let mut state = (0..4).fold(0, |best, state| if totals[state] < totals[best] { state } else { best });
        for (i, (level, value)) in levels.iter_mut().zip(values).enumerate().rev() {
            let (before, half) = BACK[state][usize::from(self.turns[i] >> state & 1)];
            let magnitude = self.choices[i / AT_ONCE][half][i % AT_ONCE];
            *level = if *value < 0.0 { -magnitude } else { magnitude };
            state = before;
        }
    }
}

/// Of a half grid the best level for each of these magnitudes, in steps, and its error and cost.
///
/// Its points are 4m + offset and its levels 2m, or 2m + 1 in the odd halves, but that 0 is 0.
#[inline(always)]
fn best_of_half_grid(
    half: usize,
    steps: &[f32; AT_ONCE],
    costs: &Costs,
    levels: &mut [i16; AT_ONCE],
    least: &mut [f32; AT_ONCE],
) {
    let (costs, odd, offset) = (&costs[half >> 1], half as i32 & 1, OFFSETS[half]);
    for i in 0..AT_ONCE {
        let a = steps[i];
        let nearest = (((a - offset) * 0.25 + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32).max(0);
        // The next one toward zero is farther off and may be cheaper.
        let lower = (nearest - 1).max(0);
        let cost = |m: i32| {
            let level = 2 * m + odd;
            let off = a - (4.0 * m as f32 + offset).max(0.0);
            off * off + costs[(level as usize).min(COUNTED - 1)]
        };
        let (near, low) = (cost(nearest), cost(lower));
        levels[i] = (2 * if low < near { lower } else { nearest } + odd) as i16;
        least[i] = if low < near { low } else { near };
    }
}

/// By state, then parity.
const NEXT: [[usize; 2]; 4] = [[0, 2], [2, 0], [1, 3], [3, 1]];
/// The same from behind: by state, two states before and which half grid led here.
const BACK: [[(usize, usize); 2]; 4] = [[(0, 0), (1, 1)], [(2, 2), (3, 3)], [(0, 1), (1, 0)], [(2, 3), (3, 2)]];
const OFFSETS: [f32; 4] = [0.0, 2.0, -1.0, 1.0];
/// Coordinates whose errors are found at a time.
const AT_ONCE: usize = 64;
/// Magnitudes with a cost of their own; larger ones share the last.
pub(super) const COUNTED: usize = 1024;
/// More steps are cut off, so that levels fit 16 bits.
const FARTHEST: f32 = 32_000.0;
const FAR: f32 = 1e30;
/// Adding 1.5·2^23 leaves no room for a fraction.
const ROUNDER: f32 = 12_582_912.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_back_are_the_ways_there() {
        for (state, next) in NEXT.iter().enumerate() {
            for (parity, &next) in next.iter().enumerate() {
                assert!(BACK[next].contains(&(state, 2 * (state >> 1) + parity)));
            }
        }
    }

    #[test]
    fn no_other_levels_are_better() {
        let values = [0.3, -1.2, 2.9, 0.9, -4.4, 1.6];
        let mut costs = [[0.0; COUNTED]; 2];
        for (magnitude, cost) in costs.iter_mut().flat_map(|costs| costs.iter_mut().enumerate()) {
            *cost = 0.3 * magnitude as f32;
        }
        let total = |levels: &[i16]| {
            let mut state = State::default();
            let mut total = 0.0;
            for (&level, value) in levels.iter().zip(values) {
                let off = state.point(level) as f32 - value;
                total += off * off + costs[state.grid()][usize::from(level.unsigned_abs())];
                state = state.after(level);
            }
            total
        };
        let mut found = [0; 6];
        Search::default().levels(&values, 1.0, Some(&costs), &mut found);
        let mut best = f32::MAX;
        for number in 0..7i32.pow(6) {
            let levels: Vec<i16> = (0..6).map(|i| (number / 7i32.pow(i) % 7 - 3) as i16).collect();
            best = best.min(total(&levels));
        }
        assert!((total(&found) - best).abs() < 1e-4, "{} but {best} is possible", total(&found));
    }
}
