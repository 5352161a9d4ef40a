//! An update that costs one pass over memory: for measuring everything around the training.

use super::TrainResult;
use crate::Error;
use crate::data::Examples;
use dunlin_core::Seed;
use std::ops::ControlFlow;

/// `start` plus noise on every coordinate, with a tail so heavy that choosing the largest coordinates means something.
pub(super) fn train(
    data: &Examples,
    start: &[f32],
    seed: &Seed,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<TrainResult, Error> {
    let bytes = seed.as_bytes();
    let key = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let params = (0u32..).zip(start).map(|(index, &value)| value + noise(key, index)).collect();
    if progress(1, 1).is_break() {
        return Err(Error::Stopped);
    }
    Ok(TrainResult { params, examples: (data.len() as u32).max(1), steps: 1, loss: 0.0 })
}

/// Smallest magnitude of the noise.
const SCALE: f32 = 1e-4;

/// About ± SCALE/√u with u uniform: a Pareto tail of index 2, at most 0.5 in magnitude.
fn noise(key: u32, index: u32) -> f32 {
    // The low-bias 32-bit mixer of C. Wellons' hash-prospector: four operations a coordinate, and it vectorises.
    let mut hash = index ^ key;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x21f0_aaad);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0xd35a_2d97);
    hash ^= hash >> 15;
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
