//! Random changes of images on which a client trains.

use super::{Dataset, Examples, shuffle};
use crate::model::InputShape;
use crate::train::below;
use dunlin_core::recipe::Augment;
use dunlin_core::{Rng, Seed};

/// Pixels by which an image may move, in each direction: for photographs as in He et al. 2016
/// (<https://arxiv.org/abs/1512.03385>, section 4.2), for digits as many as leave them whole.
const fn padding(augment: Augment) -> usize {
    match augment {
        Augment::None | Augment::Flip => 0,
        Augment::Shift => 2,
        Augment::CropFlip => 4,
    }
}

/// Changes one image, [channels, height, width] row by row, as `augment` says.
///
/// `shift` lays two zeros around the image and cuts one of its size out anywhere; `crop-flip` lays four and then, as `flip`
/// does, mirrors one in two left to right. Draws: for the crop the rows and then the columns above it, each of 0 to twice
/// the zeros, then one of 0 and 1 for the mirror.
///
/// # Panics
/// When `image` has another length than `input` says.
pub(crate) fn apply(augment: Augment, image: &mut [f32], input: &InputShape, rng: &mut Rng) {
    let (height, width) = (input.height, input.width);
    assert_eq!(image.len(), input.features(), "an image of {input:?}");
    let padding = padding(augment);
    if padding > 0 {
        let (top, left) = (below(rng, 2 * padding + 1), below(rng, 2 * padding + 1));
        // The columns x for which x + left − padding is one of the image.
        let start = padding.saturating_sub(left);
        let end = (width + padding).saturating_sub(left).min(width);
        let original = image.to_vec();
        image.fill(0.0);
        for (to, from) in image.chunks_exact_mut(height * width).zip(original.chunks_exact(height * width)) {
            for y in 0..height {
                let from_y = (y + top).checked_sub(padding).filter(|&from_y| from_y < height);
                let Some(from_y) = from_y.filter(|_| start < end) else { continue };
                let from_start = from_y * width + start + left - padding;
                to[y * width + start..y * width + end].copy_from_slice(&from[from_start..from_start + end - start]);
            }
        }
    }
    if matches!(augment, Augment::Flip | Augment::CropFlip) && below(rng, 2) == 1 {
        for row in image.chunks_exact_mut(width) {
            row.reverse();
        }
    }
}

/// So many of the examples, one after the other in an order that is drawn and again from the front, each changed at random.
///
/// # Errors
/// What would be right, when the rows are no images or there is none.
pub fn augmented(examples: &Examples, augment: Augment, count: usize, seed: &Seed) -> Result<Dataset, String> {
    let set = examples.dataset();
    let input = *set.input();
    if input.height == 1 || input.vocabulary > 0 {
        return Err(format!("the rows of {} are no images; \"none\" is right", set.name()));
    }
    let mut rows = examples.indices().to_vec();
    if rows.is_empty() {
        return Err("there is no example to change".to_owned());
    }
    shuffle(&mut rows, &mut seed.derive("rows").rng());
    let mut rng = seed.derive("changes").rng();
    let (mut features, mut labels) = (Vec::with_capacity(count * input.features()), Vec::new());
    for &row in rows.iter().cycle().take(count) {
        let start = features.len();
        set.append_row(row, &mut features);
        apply(augment, &mut features[start..], &input, &mut rng);
        labels.extend_from_slice(set.row_labels(row));
    }
    Dataset::new(set.name(), input, features, labels).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
