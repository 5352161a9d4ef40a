//! Random changes of images on which a client trains.

use crate::model::InputShape;
use crate::train::below;
use dunlin_core::Rng;
use dunlin_core::recipe::Augment;

/// Pixels by which an image may move, in each direction (He et al. 2016, <https://arxiv.org/abs/1512.03385>, section
/// 4.2).
const PADDING: usize = 4;

/// Changes one image, [channels, height, width] row by row, as `augment` says.
///
/// `crop-flip` lays [`PADDING`] zeros around the image and cuts one of its size out anywhere; then, as `flip` does, it
/// mirrors one in two left to right. Draws: for the crop the rows and then the columns above it, each of 0 to 8, then
/// one of 0 and 1 for the mirror.
///
/// # Panics
/// When `image` has another length than `input` says.
pub(crate) fn apply(augment: Augment, image: &mut [f32], input: &InputShape, rng: &mut Rng) {
    let (height, width) = (input.height, input.width);
    assert_eq!(image.len(), input.features(), "an image of {input:?}");
    if augment == Augment::CropFlip {
        let (top, left) = (below(rng, 2 * PADDING + 1), below(rng, 2 * PADDING + 1));
        // The columns x for which x + left − PADDING is one of the image.
        let start = PADDING.saturating_sub(left);
        let end = (width + PADDING).saturating_sub(left).min(width);
        let original = image.to_vec();
        image.fill(0.0);
        for (to, from) in image.chunks_exact_mut(height * width).zip(original.chunks_exact(height * width)) {
            for y in 0..height {
                let from_y = (y + top).checked_sub(PADDING).filter(|&from_y| from_y < height);
                let Some(from_y) = from_y.filter(|_| start < end) else { continue };
                let from_start = from_y * width + start + left - PADDING;
                to[y * width + start..y * width + end].copy_from_slice(&from[from_start..from_start + end - start]);
            }
        }
    }
    if augment != Augment::None && below(rng, 2) == 1 {
        for row in image.chunks_exact_mut(width) {
            row.reverse();
        }
    }
}

#[cfg(test)]
mod tests;
