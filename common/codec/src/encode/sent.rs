//! What is sent of a vector: chosen, rounded, not yet written.

use std::ops::Range;

use half::{f16, slice::HalfFloatSliceExt};

use crate::{
    Error, FrameKind, Quantizer, Segment, Segments, StageBytes,
    body::{Part, Parts},
    codebook::Codebook,
    encode::Scales,
    header::TRAILER_BYTES,
    positions::ANS_FROM,
    range::log2,
    source::{AT_ONCE, check_finite},
    values::{HALF_MAX, LEVEL_MAX, code_of, is_scaled, round_scale, value_of, width_of},
};

/// What is sent of each tensor, all tensors in one pair of vectors.
pub(super) struct Sent {
    pub(super) kind: FrameKind,
    pub(super) spans: Vec<Span>,
    positions: Vec<u32>,
    pub(super) codes: Vec<u32>,
    pub(super) nonzeros: usize,
    /// Every coordinate has a code, and none a position.
    is_dense: bool,
}

/// One tensor's share of [`Sent`].
pub(super) struct Span {
    positions: Range<usize>,
    pub(super) codes: Range<usize>,
    pub(super) scale: u16,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            kind: FrameKind::F32,
            spans: Vec::new(),
            positions: Vec::new(),
            codes: Vec::new(),
            nonzeros: 0,
            is_dense: false,
        }
    }
}

impl Sent {
    fn clear(&mut self, is_dense: bool) {
        self.is_dense = is_dense;
        self.spans.clear();
        self.positions.clear();
        self.codes.clear();
        self.nonzeros = 0;
    }

    /// Rounds the selected coordinates. What rounds to zero is not sent.
    pub(super) fn quantize(
        &mut self,
        (quantizer, scales): (Quantizer, Scales),
        segments: &Segments,
        (indices, values): (&[u32], &[f32]),
    ) {
        self.clear(false);
        let (mut indices, mut values) = (indices, values);
        for i in 0..segments.count() {
            let range = segments.range(i);
            let here = indices.partition_point(|&index| (index as usize) < range.end);
            let (indices_here, values_here);
            (indices_here, indices) = indices.split_at(here);
            (values_here, values) = values.split_at(here);
            let scale = if is_scaled(self.kind) {
                round_scale(wanted_scale((quantizer, scales), values_here))
            } else {
                f16::ZERO
            };
            let scale_f32 = scale.to_f32();
            let start = self.positions.len();
            if self.kind == FrameKind::Ternary {
                // None of them rounds to zero.
                self.positions.extend(indices_here.iter().map(|index| index - range.start as u32));
                self.codes.extend(values_here.iter().map(|&value| code_of(Quantizer::Ternary, value, scale_f32)));
            } else if let FrameKind::Codebook { bits } = self.kind {
                let codebook = Codebook::fit(values_here, 1 << (bits - 1));
                self.positions.extend(indices_here.iter().map(|index| index - range.start as u32));
                self.codes.extend(values_here.iter().map(|&value| codebook.code(value)));
            } else {
                for (&index, &value) in indices_here.iter().zip(values_here) {
                    let code = code_of(quantizer, value, scale_f32);
                    if value_of(self.kind, code, scale_f32) != 0.0 {
                        self.positions.push(index - range.start as u32);
                        self.codes.push(code);
                    }
                }
            }
            let span = start..self.positions.len();
            self.spans.push(Span { positions: span.clone(), codes: span, scale: scale.to_bits() });
        }
        self.nonzeros = self.positions.len();
    }

    /// Rounds every coordinate; tensors then have codes but no positions.
    pub(super) fn quantize_all(&mut self, quantizer: Quantizer, segments: &Segments, u: &[f32]) -> Result<(), Error> {
        self.clear(true);
        for i in 0..segments.count() {
            let range = segments.range(i);
            let values = &u[range.clone()];
            check_finite(range.start, values)?;
            let scale = if is_scaled(self.kind) {
                round_scale(values.iter().fold(0.0, |most: f32, value| most.max(value.abs())) / LEVEL_MAX)
            } else {
                f16::ZERO
            };
            let scale_f32 = scale.to_f32();
            if self.kind == FrameKind::F32 {
                self.codes.extend(values.iter().map(|value| value.to_bits()));
                self.nonzeros += values.iter().map(|&value| u32::from(value != 0.0)).sum::<u32>() as usize;
            } else if self.kind == FrameKind::F16 {
                for values in values.chunks(AT_ONCE) {
                    self.take_halves(values);
                }
            } else {
                self.codes.extend(values.iter().map(|&value| code_of(quantizer, value, scale_f32)));
                let is_sent = |&&code: &&u32| value_of(self.kind, code, scale_f32) != 0.0;
                self.nonzeros += self.codes[range.clone()].iter().filter(is_sent).count();
            }
            self.spans.push(Span { positions: 0..0, codes: range, scale: scale.to_bits() });
        }
        Ok(())
    }

    /// Rounds at most [`AT_ONCE`] values to half precision, with the processor's own instructions where it has some.
    fn take_halves(&mut self, values: &[f32]) {
        let (mut clamped, mut halves) = ([0.0; AT_ONCE], [f16::ZERO; AT_ONCE]);
        let (clamped, halves) = (&mut clamped[..values.len()], &mut halves[..values.len()]);
        clamped.iter_mut().zip(values).for_each(|(clamped, value)| *clamped = value.clamp(-HALF_MAX, HALF_MAX));
        halves.convert_from_f32_slice(clamped);
        self.codes.extend(halves.iter().map(|half| u32::from(half.to_bits())));
        self.nonzeros += halves.iter().map(|half| u32::from(half.to_bits() << 1 != 0)).sum::<u32>() as usize;
    }

    pub(super) fn take_integers(&mut self, segments: &Segments, values: &[i32]) {
        self.clear(false);
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
            self.spans.push(Span { positions: span.clone(), codes: span, scale: 0 });
        }
        self.nonzeros = self.positions.len();
    }

    /// Rising positions without values.
    pub(super) fn take_positions(&mut self, segments: &Segments, positions: &[u32]) {
        self.clear(false);
        let mut rest = positions;
        for i in 0..segments.count() {
            let range = segments.range(i);
            let (here, behind) = rest.split_at(rest.partition_point(|&position| (position as usize) < range.end));
            rest = behind;
            let start = self.positions.len();
            self.positions.extend(here.iter().map(|position| position - range.start as u32));
            self.codes.resize(self.positions.len(), 0);
            let span = start..self.positions.len();
            self.spans.push(Span { positions: span.clone(), codes: span, scale: 0 });
        }
        self.nonzeros = self.positions.len();
    }

    pub(super) fn subtract_from(&self, u: &mut [f32], segments: &Segments) {
        if !self.is_dense {
            return self.for_each(segments, |index, value| u[index] -= value);
        }
        for (i, span) in self.spans.iter().enumerate() {
            let scale = f16::from_bits(span.scale).to_f32();
            for (value, &code) in u[segments.range(i)].iter_mut().zip(&self.codes[span.codes.clone()]) {
                *value -= value_of(self.kind, code, scale);
            }
        }
    }

    /// Calls `each` with every coordinate of a sparse vector that is sent, its flat index and its decoded value.
    pub(super) fn for_each(&self, segments: &Segments, each: impl FnMut(usize, f32)) {
        // Told apart here and not for each value.
        match self.kind {
            FrameKind::Ternary => {
                self.for_each_of(segments, |code, scale| value_of(FrameKind::Ternary, code, scale), each);
            }
            kind => self.for_each_of(segments, |code, scale| value_of(kind, code, scale), each),
        }
    }

    fn for_each_of(&self, segments: &Segments, value_of: impl Fn(u32, f32) -> f32, mut each: impl FnMut(usize, f32)) {
        for (i, span) in self.spans.iter().enumerate() {
            let start = segments.range(i).start;
            let scale = f16::from_bits(span.scale).to_f32();
            let codes = &self.codes[span.codes.clone()];
            for (&position, &code) in self.positions[span.positions.clone()].iter().zip(codes) {
                each(start + position as usize, value_of(code, scale));
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
            if is_sparse {
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

    /// How many are in tensors of so few that their gaps go through the range coder.
    pub(super) fn among_few(&self) -> usize {
        self.spans.iter().map(|span| span.positions.len()).filter(|&k| k < ANS_FROM as usize).sum()
    }

    /// Bits that name the positions of all tensors when only their counts are known: Σ log2 C(n, k), by Stirling's
    /// formula to a few bits a tensor, in integers so that every machine finds the same.
    pub(super) fn independent_bits(&self, segments: &Segments) -> u64 {
        let bits = |segment: Segment, span: &Span| {
            let (n, k) = (segment.len as u64, span.positions.len() as u64);
            let times_log2 = |x: u64| if x == 0 { 0 } else { x * u64::from(log2(x as u32)) };
            times_log2(n).saturating_sub(times_log2(k) + times_log2(n - k)) >> 16
        };
        segments.iter().zip(&self.spans).map(|(segment, span)| bits(segment, span)).sum()
    }

    /// A bound on the body of a raw frame from below.
    pub(super) fn raw_bytes_at_least(&self, segments: &Segments) -> usize {
        let width = u64::from(width_of(self.kind));
        let bits: u64 = (0..segments.count())
            .zip(&self.spans)
            .map(|(i, span)| {
                let (n, k) = (segments.range(i).len() as u64, span.positions.len() as u64);
                let positions = if k == n { 0 } else { n.min(32 * k) };
                positions + width * k
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

    fn store(&mut self, _: usize, _: &Part) -> Result<(), Error> {
        Ok(())
    }
}

/// The power of two whose ratio to a normal positive number is within √2 either way.
fn nearest_power_of_two(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounds_up = bits & MANTISSA > std::f32::consts::SQRT_2.to_bits() & MANTISSA;
    f32::from_bits((bits & !MANTISSA) + if rounds_up { MANTISSA + 1 } else { 0 })
}

const MANTISSA: u32 = (1 << 23) - 1;

/// The scale before rounding, in index order so that every machine sums alike.
fn wanted_scale((quantizer, scales): (Quantizer, Scales), selected: &[f32]) -> f32 {
    let magnitudes = selected.iter().map(|value| value.abs());
    match quantizer {
        Quantizer::Ternary => {
            let mean = (magnitudes.map(f64::from).sum::<f64>() / selected.len().max(1) as f64) as f32;
            if scales == Scales::PowersOfTwo { nearest_power_of_two(mean) } else { mean }
        }
        Quantizer::Int8 => magnitudes.fold(0.0, f32::max) / LEVEL_MAX,
        _ => 0.0,
    }
}
