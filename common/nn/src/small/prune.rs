//! Magnitude pruning: the weights of the least size become zero.

use dunlin_core::TensorSpec;

/// How many weights stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// This share of the elements of matrices and kernels, rounded; vectors are not pruned.
    Density(f64),
    /// So many parameters of the whole model, vectors included, which are not pruned.
    Parameters(usize),
}

/// Sets the smallest elements of the tensors of two and more axes to zero, ties by the lowest index: of all of them
/// together, or the same share of each if `per_layer` is set. What is zero already counts as pruned.
///
/// # Panics
/// When a density is not from 0 to 1.
pub fn prune(tensors: &mut [(TensorSpec, Vec<f32>)], keep: Keep, per_layer: bool) {
    let is_pruned = |spec: &TensorSpec| spec.shape.len() >= 2;
    let (mut weights, mut others) = (0, 0);
    for (spec, values) in tensors.iter() {
        *(if is_pruned(spec) { &mut weights } else { &mut others }) += values.len();
    }
    let density = match keep {
        Keep::Density(density) => density,
        Keep::Parameters(count) => count.saturating_sub(others) as f64 / (weights as f64).max(1.0),
    };
    assert!((0.0..).contains(&density), "a density of {density}");
    let kept = |len: usize| ((density * len as f64).round() as usize).min(len);
    let chosen = tensors.iter_mut().filter(|(spec, _)| is_pruned(spec)).map(|(_, values)| values.as_mut_slice());
    if per_layer {
        chosen.for_each(|values| {
            let count = kept(values.len());
            keep_largest(&mut [values], count);
        });
    } else {
        keep_largest(&mut chosen.collect::<Vec<_>>(), kept(weights));
    }
}

/// Leaves at most `count` elements.
fn keep_largest(parts: &mut [&mut [f32]], count: usize) {
    // The bits of a positive float rise with it.
    let size = |value: f32| value.abs().to_bits();
    let mut sizes: Vec<u32> = parts.iter().flat_map(|part| part.iter().map(|&value| size(value))).collect();
    if count >= sizes.len() {
        return;
    }
    if count == 0 {
        return parts.iter_mut().for_each(|part| part.fill(0.0));
    }
    let (_, &mut threshold, _) = sizes.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
    let mut at_threshold = count - sizes.iter().filter(|&&size| size > threshold).count();
    for value in parts.iter_mut().flat_map(|part| part.iter_mut()) {
        let stays = match size(*value).cmp(&threshold) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                let stays = at_threshold > 0;
                at_threshold -= usize::from(stays);
                stays
            }
        };
        if !stays {
            *value = 0.0;
        }
    }
}
