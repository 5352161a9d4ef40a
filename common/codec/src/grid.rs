//! The broadcast model: integers in units of 2^-24, so that everybody who applies the same frames holds the same model.
//!
//! Every half-precision value is a multiple of 2^-24, so ternary and f16 frames apply exactly. Int8 and f32 values are
//! rounded to the grid, halves to even.

use crate::{
    Error, IntegerSink, Limits, Segments, Sink,
    checksum::append,
    decode, decode_integers,
    header::{self, FrameKind},
    scattered::change_at,
    vectorised,
};

/// One step of the grid: 2^-24, the smallest positive half-precision number.
pub const UNIT: f32 = 1.0 / UNITS_PER_ONE;

/// Writes `grid` as floats, rounded to nearest even where an integer needs more than 24 bits.
///
/// # Panics
/// If the lengths differ.
pub fn to_f32(grid: &[i32], values: &mut [f32]) {
    assert_eq!(grid.len(), values.len(), "one value per grid point");
    vectorised(
        #[inline(always)]
        || {
            for (value, &n) in values.iter_mut().zip(grid) {
                *value = float(n);
            }
        },
    );
}

/// The same into a vector of its own.
#[must_use]
pub fn floats(grid: &[i32]) -> Vec<f32> {
    vectorised(
        #[inline(always)]
        || grid.iter().map(|&n| float(n)).collect(),
    )
}

/// One point of the grid as a float, rounded as [`to_f32`] does.
#[inline]
#[must_use]
pub fn float(n: i32) -> f32 {
    n as f32 * UNIT
}

/// Fills `grid` with the nearest integers, halves to even, saturating at the bounds of `i32`; NaN becomes 0.
pub fn from_f32(values: &[f32], grid: &mut Vec<i32>) {
    grid.clear();
    vectorised(
        #[inline(always)]
        || grid.extend(values.iter().map(|&value| round(value))),
    );
}

/// Adds a frame of any kind to `grid`, saturating at the bounds of `i32`.
///
/// Corrupt input may leave `grid` partly changed: [`crate::verify`] frames that come from elsewhere first.
///
/// # Errors
/// As [`crate::verify`], and [`Error::WrongLength`] if `grid` is not as long as the model.
pub fn apply_update(frame: &[u8], segments: &Segments, limits: &Limits, grid: &mut [i32]) -> Result<(), Error> {
    if grid.len() != segments.len() {
        return Err(Error::WrongLength { expected: segments.len(), got: grid.len() });
    }
    apply(frame, segments, limits, &mut Grid(grid))
}

fn apply(
    frame: &[u8],
    segments: &Segments,
    limits: &Limits,
    sink: &mut (impl Sink + IntegerSink),
) -> Result<(), Error> {
    match header::admit(frame, segments, limits)?.kind {
        FrameKind::Integers => decode_integers(frame, segments, limits, sink),
        _ => decode(frame, segments, limits, sink),
    }
}

/// What a frame adds to the grid: decoded once, to be added to several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    indices: Vec<u32>,
    steps: Vec<i32>,
}

impl Steps {
    /// Decodes a frame of any kind with values.
    ///
    /// # Errors
    /// As [`crate::verify`].
    pub fn of(frame: &[u8], segments: &Segments, limits: &Limits) -> Result<Self, Error> {
        let mut steps = Self { indices: Vec::new(), steps: Vec::new() };
        apply(frame, segments, limits, &mut steps)?;
        Ok(steps)
    }

    /// Does what [`apply_update`] does with the frame.
    ///
    /// # Panics
    /// If `grid` is shorter than the model.
    pub fn add_to(&self, grid: &mut [i32]) {
        for (&index, &step) in self.indices.iter().zip(&self.steps) {
            let value = &mut grid[index as usize];
            *value = value.saturating_add(step);
        }
    }
}

impl Sink for Steps {
    fn add(&mut self, index: usize, value: f32) {
        IntegerSink::add(self, index, round(value));
    }
}

impl IntegerSink for Steps {
    fn add(&mut self, index: usize, value: i32) {
        if value != 0 {
            self.indices.push(index as u32);
            self.steps.push(value);
        }
    }
}

/// BLAKE3 of the integers in little-endian bytes: equal digests mean equal models, on every machine.
pub fn digest(grid: &[i32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for_bytes(grid, |bytes| _ = hasher.update(bytes));
    hasher.finalize().into()
}

/// Goes on with a CRC-32C over the integers in little-endian bytes.
pub(crate) fn checksum(mut before: u32, grid: &[i32]) -> u32 {
    for_bytes(grid, |bytes| before = append(before, bytes));
    before
}

/// The integers in little-endian bytes, in one piece or several.
fn for_bytes(grid: &[i32], mut each: impl FnMut(&[u8])) {
    if cfg!(target_endian = "little") {
        each(bytemuck::cast_slice(grid));
    } else {
        grid.iter().for_each(|n| each(&n.to_le_bytes()));
    }
}

struct Grid<'a>(&'a mut [i32]);

impl Sink for Grid<'_> {
    fn add(&mut self, index: usize, value: f32) {
        self.0[index] = self.0[index].saturating_add(round(value));
    }

    fn add_sparse(&mut self, start: usize, positions: &[u32], values: &[f32]) {
        let grid = &mut self.0[start..];
        for (positions, values) in positions.chunks(AT_ONCE).zip(values.chunks(AT_ONCE)) {
            let mut steps = [0; AT_ONCE];
            vectorised(
                #[inline(always)]
                || steps.iter_mut().zip(values).for_each(|(step, &value)| *step = round(value)),
            );
            change_at(grid, positions.iter().copied(), |value, i| *value = value.saturating_add(steps[i]));
        }
    }
}

impl IntegerSink for Grid<'_> {
    fn add(&mut self, index: usize, value: i32) {
        self.0[index] = self.0[index].saturating_add(value);
    }
}

/// Values rounded at a time.
const AT_ONCE: usize = 1024;

/// Scaling by a power of two is exact, and the cast saturates.
#[inline]
fn round(value: f32) -> i32 {
    (value * UNITS_PER_ONE).round_ties_even() as i32
}

const UNITS_PER_ONE: f32 = 16_777_216.0;
