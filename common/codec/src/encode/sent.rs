//! What is sent of a vector: chosen, rounded, not yet written.

use std::ops::Range;

use half::f16;

use crate::{
    Error, FrameKind, Quantizer, Segments, StageBytes,
    body::{Part, Parts},
    header::TRAILER_BYTES,
    values::{LEVEL_MAX, code_of, is_scaled, round_scale, value_of, width_of},
};

/// What is sent of each tensor, all tensors in one pair of vectors.
pub(super) struct Sent {
    pub(super) kind: FrameKind,
    pub(super) spans: Vec<Span>,
    positions: Vec<u32>,
    pub(super) codes: Vec<u32>,
    pub(super) nonzeros: usize,
}

/// One tensor's share of [`Sent`].
pub(super) struct Span {
    positions: Range<usize>,
    pub(super) codes: Range<usize>,
    pub(super) scale: u16,
    /// Travels whole: in a ternary frame as f16, in a dense one as everything.
    whole: bool,
}

impl Default for Sent {
    fn default() -> Self {
        Self { kind: FrameKind::F32, spans: Vec::new(), positions: Vec::new(), codes: Vec::new(), nonzeros: 0 }
    }
}

impl Sent {
    fn clear(&mut self) {
        self.spans.clear();
        self.positions.clear();
        self.codes.clear();
        self.nonzeros = 0;
    }

    /// Rounds the selected coordinates. What rounds to zero is not sent.
    pub(super) fn quantize(
        &mut self,
        quantizer: Quantizer,
        segments: &Segments,
        u: &[f32],
        selected: &[u32],
        is_whole: impl Fn(usize) -> bool,
    ) -> Result<(), Error> {
        self.clear();
        let mut selected = selected;
        for i in 0..segments.count() {
            let range = segments.range(i);
            let (positions, codes) = (self.positions.len(), self.codes.len());
            let mut scale = 0;
            if is_whole(i) {
                if let Some(index) = range.clone().find(|&index| !u[index].is_finite()) {
                    return Err(Error::NotFinite { index, nan: u[index].is_nan() });
                }
                self.codes.extend(u[range].iter().map(|&value| code_of(Quantizer::F16, value, 0.0)));
                let nonzeros = self.codes[codes..].iter().filter(|&code| code & 0x7fff != 0).count();
                self.nonzeros += nonzeros;
                if nonzeros == 0 {
                    self.codes.truncate(codes);
                }
            } else {
                let (here, later) = selected.split_at(selected.partition_point(|&index| (index as usize) < range.end));
                selected = later;
                let scale_f32 = if is_scaled(self.kind) {
                    let rounded = round_scale(wanted_scale(quantizer, u, here));
                    scale = rounded.to_bits();
                    rounded.to_f32()
                } else {
                    0.0
                };
                for &index in here {
                    let code = code_of(quantizer, u[index as usize], scale_f32);
                    if value_of(self.kind, code, scale_f32) != 0.0 {
                        self.positions.push(index - range.start as u32);
                        self.codes.push(code);
                    }
                }
                self.nonzeros += self.positions.len() - positions;
            }
            self.spans.push(Span {
                positions: positions..self.positions.len(),
                codes: codes..self.codes.len(),
                scale,
                whole: is_whole(i),
            });
        }
        Ok(())
    }

    /// Rounds every coordinate; tensors then have codes but no positions.
    pub(super) fn quantize_all(&mut self, quantizer: Quantizer, segments: &Segments, u: &[f32]) -> Result<(), Error> {
        self.clear();
        for i in 0..segments.count() {
            let range = segments.range(i);
            let values = &u[range.clone()];
            if !values.iter().fold(true, |finite, value| finite & value.is_finite()) {
                let at = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
                return Err(Error::NotFinite { index: range.start + at, nan: values[at].is_nan() });
            }
            let scale = if is_scaled(self.kind) {
                round_scale(values.iter().fold(0.0, |most: f32, value| most.max(value.abs())) / LEVEL_MAX)
            } else {
                f16::ZERO
            };
            let scale_f32 = scale.to_f32();
            self.codes.extend(values.iter().map(|&value| code_of(quantizer, value, scale_f32)));
            let is_sent = |&&code: &&u32| value_of(self.kind, code, scale_f32) != 0.0;
            self.nonzeros += self.codes[range.clone()].iter().filter(is_sent).count();
            self.spans.push(Span { positions: 0..0, codes: range, scale: scale.to_bits(), whole: true });
        }
        Ok(())
    }

    pub(super) fn take_integers(&mut self, segments: &Segments, values: &[i32]) {
        self.clear();
        self.kind = FrameKind::Integers;
        for i in 0..segments.count() {
            let start = self.positions.len();
            for (position, &value) in values[segments.range(i)].iter().enumerate() {
                if value != 0 {
                    self.positions.push(position as u32);
                    self.codes.push(value as u32);
                }
            }
            let span = start..self.positions.len();
            self.spans.push(Span { positions: span.clone(), codes: span, scale: 0, whole: false });
        }
        self.nonzeros = self.positions.len();
    }

    pub(super) fn subtract_from(&self, u: &mut [f32], segments: &Segments) {
        for (i, span) in self.spans.iter().enumerate() {
            let u = &mut u[segments.range(i)];
            let codes = &self.codes[span.codes.clone()];
            let scale = f16::from_bits(span.scale).to_f32();
            if span.whole {
                let kind = if self.kind == FrameKind::Ternary { FrameKind::F16 } else { self.kind };
                for (value, &code) in u.iter_mut().zip(codes) {
                    *value -= value_of(kind, code, scale);
                }
                continue;
            }
            for (&position, &code) in self.positions[span.positions.clone()].iter().zip(codes) {
                u[position as usize] -= value_of(self.kind, code, scale);
            }
        }
    }

    /// The stages but the last.
    pub(super) fn stages(&self, is_sparse: bool, segments: &Segments) -> StageBytes {
        let width = u64::from(width_of(self.kind));
        let dense = 4 * segments.len() as u64;
        let mut stages = StageBytes { dense, ..StageBytes::default() };
        for (i, span) in self.spans.iter().enumerate() {
            let (n, k) = (segments.range(i).len() as u64, span.positions.len() as u64);
            let scale = if is_scaled(self.kind) { 2 } else { 0 };
            if span.whole && is_sparse {
                stages.sparse += 4 * n;
                stages.quantized += 2 * n;
            } else if is_sparse {
                stages.sparse += 8 * k;
                stages.quantized += 4 * k + (width * k).div_ceil(8) + if k > 0 { scale } else { 0 };
            } else {
                // Without positions a ternary value needs two bits.
                let width = if self.kind == FrameKind::Ternary { 2 } else { width };
                stages.sparse += 4 * n;
                stages.quantized += (width * n).div_ceil(8) + scale;
            }
        }
        stages
    }

    /// A bound on the body of a raw frame from below.
    pub(super) fn raw_bytes_at_least(&self, segments: &Segments) -> usize {
        let width = u64::from(width_of(self.kind));
        let bits: u64 = (0..segments.count())
            .zip(&self.spans)
            .map(|(i, span)| {
                let (n, k) = (segments.range(i).len() as u64, span.positions.len() as u64);
                let positions = if k == n { 0 } else { n.min(32 * k) };
                if span.whole { 16 * span.codes.len() as u64 } else { positions + width * k }
            })
            .sum();
        (bits / 8) as usize + TRAILER_BYTES
    }
}

impl Parts for Sent {
    fn load(&mut self, segment: usize, part: &mut Part) {
        let span = &self.spans[segment];
        part.positions.extend_from_slice(&self.positions[span.positions.clone()]);
        part.codes.extend_from_slice(&self.codes[span.codes.clone()]);
        part.scale = span.scale;
    }

    fn store(&mut self, _: usize, part: &Part, whole: bool) -> Result<u32, Error> {
        let nonzeros = if whole { part.codes.iter().filter(|&code| code & 0x7fff != 0).count() } else { 0 };
        Ok(nonzeros as u32)
    }
}

/// The scale before rounding, in index order so that every machine sums alike.
fn wanted_scale(quantizer: Quantizer, u: &[f32], selected: &[u32]) -> f32 {
    let magnitudes = selected.iter().map(|&index| u[index as usize].abs());
    match quantizer {
        Quantizer::Ternary => (magnitudes.map(f64::from).sum::<f64>() / selected.len().max(1) as f64) as f32,
        Quantizer::Int8 => magnitudes.fold(0.0, f32::max) / LEVEL_MAX,
        Quantizer::F32 | Quantizer::F16 => 0.0,
    }
}
