//! The spoken digits: cepstral coefficients of 3,000 recordings (Jackson et al. 2018, Free Spoken Digit Dataset).

use super::arrays::{Archive, Values, whole};
use super::set::Dataset;
use crate::Error;
use crate::model::InputShape;
use std::path::Path;

/// The file in the data set's folder.
pub(super) const FILE: &str = "digits.npz";

/// Steps of a row. The longest recording has 92, but 99 of 100 have at most 37; what is longer loses its end.
const STEPS: usize = 40;
const LABELS: usize = 10;

/// The recordings that `split` puts among the training and the test rows. Each coefficient is standardised over the
/// steps of the training rows; a recording that is shorter than a row is followed by zeros, the mean.
///
/// The archive has the recordings one after the other, `X` [all steps, coefficients], with their `lengths` and digits
/// `y`. It does not say who speaks, so there is no natural key.
pub(super) fn read(
    path: &Path,
    split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>,
) -> Result<(Dataset, Dataset), Error> {
    let mut archive = Archive::npz(path)?;
    let steps = archive.required(path, "X")?;
    let (y, lengths) = (archive.required(path, "y")?, archive.required(path, "lengths")?);
    let (labels, lengths) = (whole(path, "y", y)?, whole(path, "lengths", lengths)?);
    let (Values::Floats(values), &[count, coefficients]) = (steps.values, steps.shape.as_slice()) else {
        return Err(Error::malformed(path.display(), "X is no matrix of floats; fetch the file again"));
    };
    let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    if total != count as u64 || lengths.len() != labels.len() || coefficients == 0 {
        let problem = format!(
            "{} lengths of {total} steps do not go with {} labels and {count} steps",
            lengths.len(),
            labels.len()
        );
        return Err(Error::malformed(path.display(), problem));
    }
    let mut rest = values.as_slice();
    let recordings: Vec<&[f32]> = lengths
        .iter()
        .map(|&length| {
            let (recording, others) = rest.split_at(length as usize * coefficients);
            rest = others;
            recording
        })
        .collect();
    let (train, test) = split(&labels)?;
    let scales = scales(&recordings, &train, coefficients);
    let mut features = Vec::with_capacity(recordings.len() * STEPS * coefficients);
    for recording in recordings {
        let kept = &recording[..recording.len().min(STEPS * coefficients)];
        let standardised = kept
            .iter()
            .zip(scales.iter().cycle())
            .map(|(&value, &(mean, scale))| ((f64::from(value) - mean) * scale) as f32);
        features.extend(standardised);
        features.resize(features.len() + STEPS * coefficients - kept.len(), 0.0);
    }
    let all = Dataset::new("spoken-digits", InputShape::sequence(STEPS, coefficients, LABELS), features, labels)?;
    Ok((all.select(&train), all.select(&test)))
}

/// Mean and inverse deviation of each coefficient over all steps of these rows; a constant one becomes 0.
fn scales(recordings: &[&[f32]], rows: &[u32], coefficients: usize) -> Vec<(f64, f64)> {
    let steps = |of: usize| {
        let recordings = rows.iter().map(|&row| recordings[row as usize]);
        recordings.flat_map(move |recording| recording.iter().skip(of).step_by(coefficients).copied().map(f64::from))
    };
    (0..coefficients)
        .map(|of| {
            let count = steps(of).count().max(1) as f64;
            let mean = steps(of).sum::<f64>() / count;
            let variance = steps(of).map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            (mean, if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 })
        })
        .collect()
}

#[cfg(test)]
mod tests;
