//! An update that costs next to nothing: for measuring everything around the training.

use super::TrainResult;
use crate::Error;
use crate::data::Examples;
use crate::ops::mixed;
use dunlin_core::Seed;
use std::ops::ControlFlow;

/// Adds noise to a few coordinates, not next to each other, of one block in every eight, with a tail so heavy that
/// choosing the largest coordinates means something.
pub(super) fn train(
    data: &Examples,
    params: &mut [f32],
    seed: &Seed,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<TrainResult, Error> {
    let bytes = seed.as_bytes();
    let key = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (group, values) in (0u32..).zip(params.chunks_mut(EVERY * BLOCK)) {
        let (block, index) = (mixed(key ^ group) as usize % EVERY, group * (EVERY * BLOCK) as u32);
        let moved = values.chunks_mut(BLOCK).nth(block).unwrap_or_default();
        for (index, value) in (index..).zip(moved).step_by(STRIDE) {
            *value += noise(key, index);
        }
    }
    if progress(1, 1).is_break() {
        return Err(Error::Stopped);
    }
    Ok(TrainResult { examples: (data.len() as u32).max(1), steps: 1, loss: 0.0 })
}

/// Coordinates that lie together.
const BLOCK: usize = 64;
/// One of so many moves.
const STRIDE: usize = 4;
/// One block in so many has coordinates that move.
const EVERY: usize = 8;

/// Smallest magnitude of the noise.
const SCALE: f32 = 1e-4;

/// About ± SCALE/√u with u uniform: a Pareto tail of index 2, at most 0.5 in magnitude.
fn noise(key: u32, index: u32) -> f32 {
    let hash = mixed(index ^ key);
    let uniform = ((hash >> 8) + 1) as f32 / (1 << 24) as f32;
    // Lomont 2003, "Fast inverse square root": the right exponent and about the right mantissa, without a division.
    let magnitude = SCALE * f32::from_bits(0x5f37_5a86 - (uniform.to_bits() >> 1));
    f32::from_bits(magnitude.to_bits() | hash << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_is_centred_heavy_tailed_and_bounded() {
        let noise: Vec<f32> = (0..100_000).map(|index| noise(7, index)).collect();
        let mut sizes: Vec<f32> = noise.iter().map(|x| x.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let positive = noise.iter().filter(|&&x| x > 0.0).count();
        assert!((49_000..51_000).contains(&positive), "{positive}");
        assert!(sizes[99_000] > 6.0 * sizes[50_000] && sizes[99_999] < 0.5, "{} {}", sizes[99_000], sizes[99_999]);
    }
}
