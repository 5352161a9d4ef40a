//! Blocks rotated, rounded to a uniform grid, and coded by their frequencies.
//!
//! A rotated block looks like draws of a normal variable whatever it was before, for which a uniform grid with entropy
//! coding is within a quarter of a bit of the least size at all rates, and better than the best grid without (EDEN). That
//! the grid is one of two, which take turns ([`trellis`]), wins back about half of that from two bits on.

use crate::{
    Error, Fit, Rate,
    bits::Stream,
    model::Frequencies,
    range::{RangeReader, RangeStream, RangeWriter, log2},
    vectorised,
    whole::{
        Each, code_seed, dot,
        hadamard::{blocks, flip_signs, transform},
        scale,
        trellis::{self, COUNTED, Costs, State},
    },
};

/// Writes bodies; keeps its buffers from one to the next.
#[derive(Default)]
pub(super) struct Writer {
    /// The rotated vector.
    rotated: Vec<f32>,
    /// Σ of the squares of each block of it.
    energies: Vec<f64>,
    levels: Vec<i16>,
    heads: Vec<Head>,
    search: trellis::Search,
    /// By class.
    statistics: Vec<Statistics>,
    models: Models,
}

/// What levels of a class of blocks cost, as far as is known.
struct Statistics {
    /// Whether anything is.
    known: bool,
    /// How many levels have which magnitude, by grid.
    counts: [[u32; COUNTED]; 2],
    costs: Box<Costs>,
}

/// What is known of a block before its levels.
#[derive(Clone, Copy, Default)]
struct Head {
    /// Which frequencies its levels have; 0 if they are all zero.
    class: u8,
    /// The code of its scale.
    scale: u16,
}

/// What is known before the blocks.
#[derive(Clone, Copy, Default)]
struct Shape {
    seed: u64,
    /// Largest blocks have 2^`log2` coordinates.
    log2: u32,
    /// Low bits of a level that are written as they are.
    plain: u32,
    /// Largest magnitude of the rest of a level.
    most: u32,
}

/// How fine the grid of a block is.
#[derive(Clone, Copy)]
enum Step {
    /// In parts of the block's standard deviation: all blocks have the same relative error.
    Relative(f32),
    /// The same everywhere: least error for the bits that all blocks have together.
    Absolute {
        /// The step.
        size: f32,
        /// Of all coordinates.
        mean_square: f64,
    },
}

impl Writer {
    /// Appends a body to `out`, so that the whole frame has the wanted rate or just below.
    pub(super) fn write(&mut self, rate: Rate, fit: Fit, seed: u64, u: &[f32], out: &mut Vec<u8>) {
        self.rotate(seed, u);
        let (start, n) = (out.len(), u.len() as f64);
        let mean_square = (self.energies.iter().sum::<f64>() / n).max(f64::MIN_POSITIVE);
        let step = |fineness: f64| match fit {
            Fit::Unbiased => Step::Relative(exp2(-fineness) as f32),
            Fit::LeastError => {
                let size = (mean_square.sqrt() * exp2(-fineness)) as f32;
                Step::Absolute { size, mean_square }
            }
        };
        let bit = (rate.bits() >= TWO_GRIDS_FROM).then(|| BIT * (rate.bits() as f32).min(1.0));
        let mut shape = Shape { seed, log2: BLOCK_LOG2, plain: 0, most: 0 };
        let wanted = rate.bits().max(8.0 * SMALLEST / n);
        let (mut fineness, mut slope) = self.search(rate.bits(), bit, step);
        // The finest step known to be short enough, and the coarsest known to be too long.
        let (mut low, mut high) = (None, None);
        for (attempt, spare) in SPARE.iter().enumerate() {
            if attempt + 1 == SPARE.len()
                && let Some((known, _)) = low
            {
                fineness = known;
            }
            shape = self.round((fit, bit), step(fineness), shape);
            out.truncate(start);
            self.code(shape, u.len(), out);
            let bits = 8.0 * (out.len() + crate::header::TRAILER_BYTES) as f64 / n;
            if bits <= wanted && (bits >= wanted * CLOSE || fineness >= FINEST) {
                break;
            }
            *(if bits <= wanted { &mut low } else { &mut high }) = Some((fineness, bits));
            if let (Some((low, fewer)), Some((high, more))) = (low, high)
                && low < high
            {
                slope = f64::max((more - fewer) / (high - low), slope / 4.0);
                fineness += (wanted * spare - bits) / slope;
                if fineness <= low || fineness >= high {
                    fineness = f64::midpoint(low, high);
                }
            } else {
                fineness = (fineness + (wanted * spare - bits) / slope).clamp(COARSEST, FINEST);
            }
        }
    }

    /// What was written last, as it is decoded.
    pub(super) fn each(&mut self, seed: u64, each: &mut impl Each) -> Result<(), Error> {
        let mut buffer = [0.0; LARGEST_BLOCK];
        for (block, head) in blocks(self.levels.len(), BLOCK_LOG2).zip(&self.heads) {
            if head.class > 0 {
                let scale = scale::value(head.scale, block.start)?;
                let values = &mut buffer[..block.len()];
                rotate_back(seed, block.start, &self.levels[block.clone()], scale, values);
                each(block.start, values)?;
            }
        }
        Ok(())
    }

    fn rotate(&mut self, seed: u64, u: &[f32]) {
        let Self { rotated, energies, .. } = self;
        rotated.clear();
        rotated.extend_from_slice(u);
        energies.clear();
        vectorised(
            #[inline(always)]
            || {
                for block in blocks(u.len(), BLOCK_LOG2) {
                    let start = block.start;
                    let block = &mut rotated[block];
                    flip_signs(seed, start, block);
                    transform(block);
                    energies.push(dot(block, |i| block[i]));
                }
            },
        );
    }

    /// The fineness, which is −log2 of a step, at which a sample of the blocks has an entropy of `bits` per coordinate,
    /// and how many bits an octave more of it costs there.
    fn search(&mut self, bits: f64, bit: Option<f32>, step: impl Fn(f64) -> Step) -> (f64, f64) {
        // What it is for a normal variable, nearly.
        let (mut fineness, mut slope) = if bit.is_some() { (bits - 1.05, 0.9) } else { (bits - 0.35, 0.6) };
        let (mut low, mut high) = ((COARSEST, 0.0), (FINEST, f64::INFINITY));
        let learn = if bit.is_some() { LEARN } else { 0 };
        let mut learnt = 0;
        for _ in 0..TRIALS {
            if learnt == 0 {
                self.statistics.iter_mut().for_each(|statistics| statistics.known = false);
            }
            let blocks = if learnt == learn { SAMPLED_BLOCKS } else { SAMPLED_BLOCKS / 4 };
            let found = self.sampled_bits(step(fineness), bit, blocks);
            if (found - bits).abs() < bits * EXACT * if learnt == learn { 1.0 } else { 10.0 } {
                if learnt == learn {
                    break;
                }
                learnt += 1;
                let known = self.statistics.iter_mut().filter(|statistics| statistics.known);
                known.for_each(|statistics| statistics.learn(bit.unwrap_or_default()));
                (low, high) = ((COARSEST, 0.0), (FINEST, f64::INFINITY));
                continue;
            }
            *(if found < bits { &mut low } else { &mut high }) = (fineness, found);
            let apart = high.0 - low.0;
            if apart > 0.01 && high.1.is_finite() && low.1 > 0.0 {
                slope = ((high.1 - low.1) / apart).clamp(0.05, 1.5);
            }
            fineness += (bits - found) / slope;
            if !(low.0..=high.0).contains(&fineness) {
                fineness = f64::midpoint(low.0, high.0);
            }
        }
        (fineness, slope)
    }

    /// Bits per coordinate of a sample of the blocks by the entropy of their levels, class by class and grid by grid.
    fn sampled_bits(&mut self, step: Step, bit: Option<f32>, sampled: usize) -> f64 {
        let Self { rotated, energies, levels, search, statistics, .. } = self;
        statistics.resize_with(CLASSES, Statistics::unknown);
        statistics.iter_mut().for_each(|statistics| statistics.counts = [[0; COUNTED]; 2]);
        let every = energies.len().div_ceil(sampled);
        levels.clear();
        levels.resize(1 << BLOCK_LOG2, 0);
        let mut coordinates = 0;
        vectorised(
            #[inline(always)]
            || {
                for (block, &energy) in blocks(rotated.len(), BLOCK_LOG2).zip(&*energies).step_by(every) {
                    coordinates += block.len();
                    let (size, class) = step.of(energy, block.len());
                    let levels = &mut levels[..block.len()];
                    if size > 0.0 {
                        let statistics = statistics[class].or_of_normal(step.variance(class), bit.unwrap_or_default());
                        search.levels(&rotated[block], 1.0 / size, bit.map(|_| &*statistics.costs), levels);
                        statistics.count(levels);
                    }
                }
            },
        );
        let bits: f64 = statistics.iter().map(Statistics::bits).sum();
        bits / coordinates.max(1) as f64
    }

    /// Rounds all blocks to a grid and fits their scales.
    fn round(&mut self, (fit, bit): (Fit, Option<f32>), step: Step, shape: Shape) -> Shape {
        let Self { rotated, energies, levels, heads, search, statistics, .. } = self;
        levels.clear();
        levels.resize(rotated.len(), 0);
        heads.clear();
        let mut most = 0;
        let mut points = [0.0; LARGEST_BLOCK];
        vectorised(
            #[inline(always)]
            || {
                for (block, &energy) in blocks(rotated.len(), BLOCK_LOG2).zip(&*energies) {
                    let (size, class) = step.of(energy, block.len());
                    let (values, levels) = (&rotated[block.clone()], &mut levels[block]);
                    if size > 0.0 {
                        // The sample may have left out the class.
                        let statistics = statistics[class].or_of_normal(step.variance(class), bit.unwrap_or_default());
                        search.levels(values, 1.0 / size, bit.map(|_| &*statistics.costs), levels);
                        if fit == Fit::Unbiased {
                            keep_one(values, levels);
                        }
                    }
                    let points = &mut points[..values.len()];
                    trellis::points(levels, points);
                    let power = dot(values, |i| points[i]);
                    let head = if power > 0.0 {
                        let fitted = match fit {
                            Fit::Unbiased => energy / power,
                            Fit::LeastError => power / dot(points, |i| points[i]),
                        };
                        Head { class: class as u8, scale: scale::nearest((fitted / values.len() as f64) as f32) }
                    } else {
                        levels.fill(0);
                        Head::default()
                    };
                    most = levels.iter().fold(most, |most, level| most.max(level.unsigned_abs()));
                    heads.push(head);
                }
            },
        );
        let most = u32::from(most);
        let plain = (0..).find(|plain| most >> plain <= MOST).unwrap_or_default();
        Shape { plain, most: most >> plain, ..shape }
    }

    fn code(&mut self, shape: Shape, n: usize, out: &mut Vec<u8>) {
        let mut stream = RangeWriter::new(out);
        shape.code(&mut stream);
        let models = &mut self.models;
        models.begin(shape);
        for (block, &head) in blocks(n, shape.log2).zip(&self.heads) {
            models.head(&mut stream, head);
            if head.class > 0 {
                models.levels(&mut stream, head.class, &mut self.levels[block]);
            }
        }
        stream.finish();
    }
}

/// What a body would be without entropy coding, in bytes: levels in as many bits as all have, and scales.
pub(super) fn quantized(body: &[u8], n: usize) -> u64 {
    let shape = Shape::default().code(&mut RangeReader::new(body));
    let width = (2 * shape.most + 1).ilog2() + 1 + shape.plain;
    (u64::from(width) * n as u64).div_ceil(8) + 2 * blocks(n, shape.log2).count() as u64
}

/// Reads a body.
pub(super) fn read(
    body: &[u8],
    frame_bytes: usize,
    n: usize,
    models: &mut Models,
    each: &mut impl Each,
) -> Result<(), Error> {
    let mut stream = RangeReader::new(body);
    let shape = Shape::default().code(&mut stream);
    if shape.log2 > LARGEST_BLOCK.ilog2() || shape.plain > PLAIN_MOST || shape.most > MOST {
        return Err(Error::BadBlock { index: 0 });
    }
    models.begin(shape);
    let (mut levels, mut buffer) = ([0; LARGEST_BLOCK], [0.0; LARGEST_BLOCK]);
    for block in blocks(n, shape.log2) {
        let head = models.head(&mut stream, Head::default());
        if head.class > 0 {
            let scale = scale::value(head.scale, block.start)?;
            let (levels, values) = (&mut levels[..block.len()], &mut buffer[..block.len()]);
            models.levels(&mut stream, head.class, levels);
            rotate_back(shape.seed, block.start, levels, scale, values);
            each(block.start, values)?;
        }
    }
    stream.finish(frame_bytes)
}

/// The models of a frame, which both directions teach alike; their memory is kept from one to the next.
pub(super) struct Models {
    shape: Shape,
    classes: Frequencies,
    /// The upper bytes of scales.
    scales: Frequencies,
    /// By class: whether the frame has one yet, and by grid.
    levels: [(bool, Option<Box<[Frequencies; 2]>>); CLASSES],
}

impl Default for Models {
    fn default() -> Self {
        let levels = std::array::from_fn(|_| (false, None));
        Self { shape: Shape::default(), classes: Frequencies::new(), scales: Frequencies::new(), levels }
    }
}

impl Models {
    /// Forgets the frame before.
    fn begin(&mut self, shape: Shape) {
        (self.shape, self.classes, self.scales) = (shape, Frequencies::of(CLASSES), Frequencies::new());
        self.levels.iter_mut().for_each(|(begun, _)| *begun = false);
    }

    fn head<S: RangeStream>(&mut self, stream: &mut S, head: Head) -> Head {
        let class = self.classes.code(stream, head.class.into()) as u8;
        if class == 0 {
            return Head::default();
        }
        let upper = self.scales.code(stream, u32::from(head.scale >> 8));
        let lower = stream.bits(u32::from(head.scale & 0xff), 8);
        Head { class, scale: (upper << 8 | lower) as u16 }
    }

    fn levels<S: RangeStream>(&mut self, stream: &mut S, class: u8, levels: &mut [i16]) {
        let Shape { plain, most, .. } = self.shape;
        let (symbols, zero) = (2 * most as usize + 2, most as i32 + 1);
        let (begun, models) = &mut self.levels[usize::from(class)];
        let models = models.get_or_insert_with(|| Box::new([Frequencies::new(), Frequencies::new()]));
        if !*begun {
            *begun = true;
            models.iter_mut().for_each(|model| *model = Frequencies::of(symbols));
        }
        let mut state = State::default();
        for level in levels {
            let symbol = models[state.grid()].code(stream, ((i32::from(*level) >> plain) + zero) as u32);
            let low = if plain == 0 { 0 } else { stream.bits(u32::from(*level as u16) & ((1 << plain) - 1), plain) };
            *level = ((symbol as i32 - zero) << plain | low as i32) as i16;
            state = state.after(*level);
        }
    }
}

impl Statistics {
    fn unknown() -> Self {
        Self { known: false, counts: [[0; COUNTED]; 2], costs: Box::new([[0.0; COUNTED]; 2]) }
    }

    /// Unless more is known, those of a normal variable whose variance is `variance` squared steps, with a bit worth `bit`
    /// of them.
    fn or_of_normal(&mut self, variance: f64, bit: f32) -> &mut Self {
        if !self.known {
            self.known = true;
            self.counts = [[0; COUNTED]; 2];
            self.expect_normal(variance, bit);
        }
        self
    }

    fn expect_normal(&mut self, variance: f64, bit: f32) {
        let exponent = -0.5 * std::f64::consts::LOG2_E / variance;
        let density = |x: f64| exp2((exponent * x * x).max(-60.0));
        for (grid, costs) in self.costs.iter_mut().enumerate() {
            costs.fill(0.0);
            let point = |magnitude: usize| (2 * magnitude) as f64 - if magnitude > 0 { grid as f64 } else { 0.0 };
            let mut masses = [0.0; COUNTED];
            for (magnitude, mass) in masses.iter_mut().enumerate() {
                if point(magnitude) * point(magnitude) > 64.0 * variance.max(1.0) {
                    break;
                }
                let to = f64::midpoint(point(magnitude), point(magnitude + 1));
                let from = if magnitude == 0 { -to } else { f64::midpoint(point(magnitude), point(magnitude - 1)) };
                // Both signs; Simpson's rule in four parts.
                let at = |quarter: f64| density(from + (to - from) * quarter / 4.0);
                *mass = (to - from) * (at(0.0) + 4.0 * at(1.0) + 2.0 * at(2.0) + 4.0 * at(3.0) + at(4.0));
            }
            masses[0] /= 2.0;
            let all: f64 = masses.iter().sum();
            for (magnitude, (mass, cost)) in masses.iter().zip(costs).enumerate() {
                let share = ((mass / all * f64::from(1 << 24)) as u32).max(1);
                let sign = if magnitude > 0 { 1 << 16 } else { 0 };
                *cost = bit * ((24 << 16) - log2(share) + sign) as f32 / 65536.0;
            }
        }
    }

    fn count(&mut self, levels: &[i16]) {
        let mut state = State::default();
        for &level in levels {
            self.counts[state.grid()][usize::from(level.unsigned_abs()).min(COUNTED - 1)] += 1;
            state = state.after(level);
        }
    }

    /// Makes the costs those of what was counted.
    fn learn(&mut self, bit: f32) {
        for (counts, costs) in self.counts.iter().zip(&mut *self.costs) {
            let seen: u32 = counts.iter().sum();
            for (magnitude, (&count, cost)) in counts.iter().zip(costs).enumerate() {
                if count >= ENOUGH {
                    let sign = if magnitude > 0 { 1 << 16 } else { 0 };
                    *cost = bit * (log2(seen) - log2(count) + sign) as f32 / 65536.0;
                }
            }
        }
    }

    /// Bits of what was counted.
    fn bits(&self) -> f64 {
        let information = |count: u32| if count == 0 { 0 } else { u64::from(count) * u64::from(log2(count)) };
        let mut total = 0;
        for counts in &self.counts {
            let seen: u32 = counts.iter().sum();
            let signs = u64::from(seen - counts[0]) << 16;
            total += information(seen) - counts.iter().map(|&count| information(count)).sum::<u64>() + signs;
        }
        total as f64 / 65536.0
    }
}

impl Shape {
    fn code<S: Stream>(self, stream: &mut S) -> Self {
        Self {
            seed: code_seed(stream, self.seed),
            log2: stream.bits(self.log2, 4),
            plain: stream.bits(self.plain, 4),
            most: stream.bits(self.most, 7),
        }
    }
}

impl Step {
    /// In squared steps, of the blocks of a class.
    fn variance(self, class: usize) -> f64 {
        match self {
            Self::Relative(relative) => 1.0 / (f64::from(relative) * f64::from(relative)),
            Self::Absolute { size, mean_square } => {
                exp2(class as f64 - EVEN_CLASS as f64) * mean_square / (f64::from(size) * f64::from(size))
            }
        }
    }

    /// The step and the class of a block; 0 if it has no energy.
    #[inline(always)]
    fn of(self, energy: f64, len: usize) -> (f32, usize) {
        if energy == 0.0 {
            return (0.0, 0);
        }
        let mean = energy / len as f64;
        let (size, class) = match self {
            Self::Relative(relative) => ((f64::from(relative) * mean.sqrt()) as f32, EVEN_CLASS),
            Self::Absolute { size, mean_square } => {
                // Octaves of the mean square, with the usual block in the middle of one.
                let ratio = (1.5 * mean / mean_square) as f32;
                let octave = (ratio.to_bits() >> 23).saturating_sub(127 - EVEN_CLASS as u32);
                (size, octave.clamp(1, CLASSES as u32 - 1) as usize)
            }
        };
        // What divides by it stays finite.
        (size.max(f32::MIN_POSITIVE), class)
    }
}

/// A block of which everything is rounded to zero keeps its largest value, or nothing could be right on average.
#[inline(always)]
fn keep_one(values: &[f32], levels: &mut [i16]) {
    if levels.iter().fold(0, |any, level| any | level) != 0 {
        return;
    }
    let mut largest = 0;
    for (i, value) in values.iter().enumerate() {
        if value.abs() > values[largest].abs() {
            largest = i;
        }
    }
    levels[largest] = if values[largest] < 0.0 { -1 } else { 1 };
}

/// The coordinates of a block from its levels.
fn rotate_back(seed: u64, start: usize, levels: &[i16], scale: f32, values: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            trellis::points(levels, values);
            transform(values);
            for value in &mut *values {
                *value *= scale;
            }
            flip_signs(seed, start, values);
        },
    );
}

/// Blocks of 2^13 stay in the first-level cache, and a scale for each costs a thousandth of a bit per coordinate.
const BLOCK_LOG2: u32 = 13;
/// The largest block that is read.
const LARGEST_BLOCK: usize = 1 << 14;
/// Classes of blocks, each twice the mean square of the one before; 0 for blocks that are zero.
const CLASSES: usize = 24;
/// The class of blocks whose mean square is that of all coordinates, and of all blocks where steps are relative.
const EVEN_CLASS: usize = 10;
/// The largest magnitude of a level's coded part.
const MOST: u32 = 126;
/// The most low bits of a level.
const PLAIN_MOST: u32 = 8;
/// What a bit is worth in squared steps: what the error changes by when a bit more is spent, 2·ln 2 times the error.
/// Below a bit per coordinate less turned out better.
const BIT: f32 = 0.35;
/// Wanted bits below which two grids win nothing.
const TWO_GRIDS_FROM: f64 = 0.4;
/// Blocks in the sample of the search.
const SAMPLED_BLOCKS: usize = 8;
/// Steps of the search at most.
const TRIALS: u32 = 24;
/// Times that costs are learnt from a sample.
const LEARN: u32 = 3;
/// Levels seen less often keep the cost that is expected.
const ENOUGH: u32 = 16;
/// The share of the wanted bits to which a search is exact; the frame decides.
const EXACT: f64 = 0.001;
/// Octaves that a step may be below the standard deviation, or above it.
const FINEST: f64 = 9.0;
const COARSEST: f64 = -14.0;
/// A frame that came out too long, or too short by half a percent, is tried again for so much of the wanted size.
const SPARE: [f64; 6] = [0.9995, 0.999, 0.998, 0.995, 0.98, 1.0];
const CLOSE: f64 = 0.995;
/// Bytes below which no rate is aimed at: header, seed, a scale, and learning.
const SMALLEST: f64 = 64.0;

/// 2^x for moderate x, by arithmetic that every machine does alike.
fn exp2(x: f64) -> f64 {
    let whole = x.floor();
    let y = (x - whole) * std::f64::consts::LN_2;
    let fraction = 1.0 + y * (1.0 + y / 2.0 * (1.0 + y / 3.0 * (1.0 + y / 4.0 * (1.0 + y / 5.0 * (1.0 + y / 6.0)))));
    fraction * f64::from_bits(((whole as i64 + 1023) as u64) << 52)
}
