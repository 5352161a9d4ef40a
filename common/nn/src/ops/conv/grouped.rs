//! Convolution in groups: each one's channels are taken out, convolved densely and put back.

use super::{Extent, Gradients, Wanted};
use crate::ops::kernel::Float;

impl Extent {
    /// The convolution of one group.
    fn group(&self) -> Self {
        Self { channels: self.channels / self.groups, outputs: self.outputs / self.groups, groups: 1, ..*self }
    }

    pub(super) fn grouped_forward<T: Float>(&self, x: &[T], w: &[T], b: &[T], rectify: bool) -> Vec<T> {
        let group = self.group();
        let mut y = vec![T::zero(); self.batch * self.out_len()];
        let filters = w.chunks_exact(w.len() / self.groups).zip(b.chunks_exact(group.outputs));
        for (index, (w, b)) in filters.enumerate() {
            let x = taken(x, self.channels, index, group.channels);
            put(&group.dense_forward(&x, w, b, rectify), &mut y, self.outputs, index, group.outputs);
        }
        y
    }

    pub(super) fn grouped_backward<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        y: Option<&[T]>,
        dy: &[T],
        wanted: Wanted,
    ) -> Gradients<T> {
        let group = self.group();
        let mut dx = wanted.input.then(|| vec![T::zero(); x.len()]);
        let mut dw = Vec::with_capacity(w.len());
        let mut db = wanted.bias.then(|| Vec::with_capacity(self.outputs));
        for (index, w) in w.chunks_exact(w.len() / self.groups).enumerate() {
            let x = taken(x, self.channels, index, group.channels);
            let y = y.map(|y| taken(y, self.outputs, index, group.outputs));
            let dy = taken(dy, self.outputs, index, group.outputs);
            let gradients = group.dense_backward(&x, w, y.as_deref(), &dy, wanted);
            dw.extend(gradients.w);
            if let (Some(db), Some(part)) = (&mut db, gradients.b) {
                db.extend(part);
            }
            if let (Some(dx), Some(part)) = (&mut dx, gradients.x) {
                put(&part, dx, self.channels, index, group.channels);
            }
        }
        Gradients { x: dx, w: dw, b: db }
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
