//! Convolution in groups: each one's channels are taken out, convolved densely and put back.

use super::{Backward, Extent, Forward, Gradients, Wanted};
use crate::ops::kernel::Float;

impl Extent {
    /// The convolution of one group.
    fn group(&self) -> Self {
        Self { channels: self.channels / self.groups, outputs: self.outputs / self.groups, groups: 1, ..*self }
    }
}

pub(super) struct GroupedForward<'a, T> {
    extent: Extent,
    groups: Vec<Box<dyn Forward<T> + 'a>>,
}

impl<'a, T: Float> GroupedForward<'a, T> {
    pub(super) fn new(extent: &Extent, w: &'a [T], bias: &'a [T], rectify: bool) -> Self {
        let group = extent.group();
        let parts = w.chunks_exact(w.len() / extent.groups).zip(bias.chunks_exact(group.outputs));
        Self { extent: *extent, groups: parts.map(|(w, b)| group.forward((w, None), b, rectify)).collect() }
    }
}

impl<T: Float> Forward<T> for GroupedForward<'_, T> {
    fn append(&mut self, x: &[T], y: &mut Vec<T>) {
        let (Extent { channels, outputs, .. }, group) = (self.extent, self.extent.group());
        let first = y.len();
        y.resize(first + x.len() / self.extent.in_len() * self.extent.out_len(), T::zero());
        for (index, pass) in self.groups.iter_mut().enumerate() {
            let mut part = Vec::new();
            pass.append(&taken(x, channels, index, group.channels), &mut part);
            put(&part, &mut y[first..], outputs, index, group.outputs);
        }
    }
}

pub(super) struct GroupedBackward<'a, T> {
    extent: Extent,
    groups: Vec<Box<dyn Backward<T> + 'a>>,
}

impl<'a, T: Float> GroupedBackward<'a, T> {
    pub(super) fn new(extent: &Extent, w: &'a [T], wanted: Wanted) -> Self {
        let group = extent.group();
        let groups = w.chunks_exact(w.len() / extent.groups).map(|w| group.backward((w, None), wanted)).collect();
        Self { extent: *extent, groups }
    }
}

impl<T: Float> Backward<T> for GroupedBackward<'_, T> {
    fn add(&mut self, x: &[T], y: Option<&[T]>, dy: &[T]) {
        let (Extent { channels, outputs, .. }, group) = (self.extent, self.extent.group());
        for (index, pass) in self.groups.iter_mut().enumerate() {
            let y = y.map(|y| taken(y, outputs, index, group.outputs));
            let dy = taken(dy, outputs, index, group.outputs);
            pass.add(&taken(x, channels, index, group.channels), y.as_deref(), &dy);
        }
    }

    fn gradients(self: Box<Self>) -> Gradients<T> {
        let (channels, group) = (self.extent.channels, self.extent.group());
        let parts: Vec<_> = self.groups.into_iter().map(|pass| pass.gradients()).collect();
        let w = parts.iter().map(|part| part.w.as_deref()).collect::<Option<Vec<_>>>().map(|parts| parts.concat());
        let b = parts.iter().map(|part| part.b.as_deref()).collect::<Option<Vec<_>>>().map(|parts| parts.concat());
        let x = parts.iter().map(|part| part.x.as_deref()).collect::<Option<Vec<_>>>().map(|parts| {
            let mut dx = vec![T::zero(); parts.iter().map(|part| part.len()).sum()];
            for (index, part) in parts.into_iter().enumerate() {
                put(part, &mut dx, channels, index, group.channels);
            }
            dx
        });
        Gradients { x, w, b }
    }
}

/// The channels of group `index` of every pixel.
fn taken<T: Copy>(pixels: &[T], channels: usize, index: usize, per_group: usize) -> Vec<T> {
    pixels.chunks_exact(channels).flat_map(|pixel| &pixel[index * per_group..][..per_group]).copied().collect()
}

/// Writes the channels of group `index` of every pixel.
fn put<T: Copy>(group: &[T], pixels: &mut [T], channels: usize, index: usize, per_group: usize) {
    for (pixel, values) in pixels.chunks_exact_mut(channels).zip(group.chunks_exact(per_group)) {
        pixel[index * per_group..][..per_group].copy_from_slice(values);
    }
}
