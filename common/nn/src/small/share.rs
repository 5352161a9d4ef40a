//! Weight sharing: k-means in one dimension, with the linear initialisation of Han et al. 2016.

use dunlin_codec::container::{CODEBOOK_MAX, Precision, Values};
use half::f16;

/// The non-zero values as places in a codebook of at most 2^`bits` means, at most [`CODEBOOK_MAX`].
///
/// The means start evenly spread from the least value to the largest, which keeps the large and few (Han et al. 2016,
/// section 3.2), and move until no value changes its mean (Lloyd 1982); with no more distinct values than means, each is
/// its own. They are rounded to how they are stored before the values are dealt out for good.
///
/// # Panics
/// When a value is not finite.
#[must_use]
pub fn share(values: &[f32], bits: u32, precision: Precision) -> Values {
    let most = 1usize.checked_shl(bits).unwrap_or(usize::MAX).min(CODEBOOK_MAX);
    let mut sorted: Vec<f32> = values.iter().copied().filter(|&value| value != 0.0).collect();
    assert!(sorted.iter().all(|value| value.is_finite()), "values to be shared are finite");
    sorted.sort_unstable_by(f32::total_cmp);
    let mut codebook = means(&sorted, most);
    if precision == Precision::Half {
        let round = |mean: &mut f32| *mean = f16::from_f32(mean.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32())).to_f32();
        codebook.iter_mut().for_each(round);
    }
    codebook.dedup();
    codebook.retain(|&mean| mean != 0.0);
    let borders = borders(&codebook);
    let code = |&value: &f32| match codebook.is_empty() || value == 0.0 {
        true => 0,
        false => borders.partition_point(|&border| border < f64::from(value)) as u8 + 1,
    };
    let codes = values.iter().map(code).collect();
    Values::Shared { precision, codebook, codes }
}

/// Rising means of sorted values.
fn means(sorted: &[f32], most: usize) -> Vec<f32> {
    let mut distinct = sorted.to_vec();
    distinct.dedup();
    if distinct.len() <= most {
        return distinct;
    }
    let mut sums = Vec::with_capacity(sorted.len() + 1);
    sums.push(0.0);
    for &value in sorted {
        sums.push(sums[sums.len() - 1] + f64::from(value));
    }
    let (least, largest) = (f64::from(sorted[0]), f64::from(sorted[sorted.len() - 1]));
    let step = (largest - least) / (most.max(2) - 1) as f64;
    let mut means: Vec<f32> = (0..most).map(|i| (least + i as f64 * step) as f32).collect();
    let mut before = Vec::new();
    for _ in 0..ROUNDS {
        let ends: Vec<usize> = borders(&means)
            .into_iter()
            .map(|border| sorted.partition_point(|&value| f64::from(value) <= border))
            .chain([sorted.len()])
            .collect();
        if ends == before {
            break;
        }
        let mut start = 0;
        for (mean, &end) in means.iter_mut().zip(&ends) {
            if end > start {
                *mean = ((sums[end] - sums[start]) / (end - start) as f64) as f32;
            }
            start = end;
        }
        before = ends;
    }
    // A mean of nothing would only take room.
    let starts = std::iter::once(0).chain(before.iter().copied());
    let used = means.iter().zip(starts.zip(&before)).filter(|(_, (start, end))| *start < **end);
    used.map(|(&mean, _)| mean).collect()
}

/// Halfway between neighbours.
fn borders(rising: &[f32]) -> Vec<f64> {
    rising.windows(2).map(|pair| f64::midpoint(pair[0].into(), pair[1].into())).collect()
}

/// It takes some tens; what is left to gain after these is below what rounding to 16 bits loses.
const ROUNDS: usize = 300;
