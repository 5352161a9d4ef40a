//! The contract of [`Aggregator`], and what [`ExactSum`] promises beyond it.

mod sliced;

use super::*;
use dunlin_codec::{Codec, Encoder, EntropyCoder, Fit, Quantizer, Segment};
use proptest::prelude::*;

const LEN: usize = 600;

fn segments() -> Segments {
    Segments::new(vec![Segment { len: LEN - 10, row: 59 }, Segment { len: 10, row: 10 }]).unwrap()
}

fn limits() -> Limits {
    Limits::for_segments(&segments())
}

fn scale() -> Scale {
    Scale::for_recipe(100, 1000, 16.0)
}

fn sum() -> ExactSum {
    ExactSum::new(LEN, scale())
}

fn frame(seed: u64, density: f64, quantizer: Quantizer) -> Vec<u8> {
    let noise = |i: u64| (i * (2 * seed + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let values: Vec<f32> = (1..=LEN as u64).map(|i| noise(i) as f32 / 8_388_608.0 - 1.0).collect();
    let codec = Codec { density, quantizer, coder: EntropyCoder::Auto };
    Encoder::new().encode(&codec, &segments(), &values).unwrap().frame
}

/// Frames of every kind that a client may send, with their weights.
fn frames() -> Vec<(Vec<u8>, u32)> {
    let kinds = [Quantizer::Ternary, Quantizer::F32, Quantizer::F16, Quantizer::Int8];
    let of = |seed: u64| frame(seed, if seed.is_multiple_of(3) { 1.0 } else { 0.05 }, kinds[seed as usize % 4]);
    (1..=12).map(|seed| (of(seed), 1 + (seed as u32 * 37) % 500)).collect()
}

fn integers() -> Vec<u8> {
    Encoder::new().encode_integers(&segments(), &[1; LEN]).unwrap().frame
}

struct Values(Vec<f32>);

impl Sink for Values {
    fn add(&mut self, index: usize, value: f32) {
        self.0[index] = value;
    }
}

fn decoded(frame: &[u8]) -> Vec<f32> {
    let mut values = Values(vec![0.0; LEN]);
    dunlin_codec::decode(frame, &segments(), &limits(), &mut values).unwrap();
    values.0
}

fn add_all<'a>(rule: &mut dyn Aggregator, frames: impl IntoIterator<Item = &'a (Vec<u8>, u32)>) {
    for (frame, weight) in frames {
        rule.add_frame(frame, &segments(), &limits(), *weight).unwrap();
    }
}

fn result(rule: &mut dyn Aggregator) -> Vec<u32> {
    let mut out = vec![0.0; LEN];
    rule.aggregate(&mut out).unwrap();
    out.into_iter().map(f32::to_bits).collect()
}

/// What every rule must do, whatever it computes.
fn contract(make: impl Fn() -> Box<dyn Aggregator>) {
    let frames = frames();
    let mut rule = make();
    assert_eq!(rule.aggregate(&mut vec![0.0; LEN]), Err(Error::Empty), "nothing has no aggregate");
    add_all(rule.as_mut(), &frames);
    assert_eq!(rule.updates(), 12);
    let all = result(rule.as_mut());
    assert_eq!((rule.updates(), rule.aggregate(&mut vec![0.0; LEN])), (0, Err(Error::Empty)), "they are forgotten");

    add_all(rule.as_mut(), frames.iter().rev());
    assert_eq!(result(rule.as_mut()), all, "the order of arrival does not matter");

    for damaged in [&frames[0].0[..frames[0].0.len() - 1], &integers(), b""] {
        add_all(rule.as_mut(), &frames);
        assert!(rule.add_frame(damaged, &segments(), &limits(), 1).is_err());
        assert_eq!((rule.updates(), result(rule.as_mut())), (12, all.clone()), "a refused frame does not count");
    }

    add_all(rule.as_mut(), &frames);
    rule.clear();
    assert_eq!((rule.updates(), rule.aggregate(&mut vec![0.0; LEN])), (0, Err(Error::Empty)));
    add_all(rule.as_mut(), &frames);
    assert_eq!(result(rule.as_mut()), all, "a cleared rule is as new");

    let mut from_values = make();
    for (frame, weight) in &frames {
        let values: Vec<(u32, f32)> = (0..).zip(decoded(frame)).filter(|(_, value)| *value != 0.0).collect();
        from_values.add_values(&values, *weight).unwrap();
    }
    assert_eq!((from_values.updates(), result(from_values.as_mut())), (12, all), "who decodes does not matter");

    let mut alone = make();
    add_all(alone.as_mut(), &frames[..1]);
    let mut out = vec![0.0; LEN];
    alone.aggregate(&mut out).unwrap();
    for (got, want) in out.into_iter().zip(decoded(&frames[0].0)) {
        assert!((got - want).abs() <= 1e-6, "one update alone is its own aggregate: {got} {want}");
    }
}

#[test]
fn the_exact_sum_keeps_the_contract() {
    contract(|| Box::new(sum()));
}

proptest! {
    #[test]
    fn any_grouping_gives_the_same_bits(groups in prop::collection::vec(0..4usize, 12)) {
        let frames = frames();
        let mut whole = sum();
        add_all(&mut whole, &frames);
        let mut parts = vec![sum(); 4];
        for (update, group) in frames.iter().zip(groups) {
            add_all(&mut parts[group], [update]);
        }
        let mut merged = sum();
        for part in &parts {
            merged.merge(part).unwrap();
        }
        prop_assert_eq!(merged, whole);
    }
}

#[test]
fn dense_updates_count_together_as_they_do_alone_or_not_at_all() {
    let kinds = [Quantizer::F32, Quantizer::F16, Quantizer::Int8];
    let of = |seed: u64| {
        let codec = Codec { density: 1.0, quantizer: kinds[seed as usize % 3], coder: EntropyCoder::Raw };
        let values: Vec<f32> = (0..LEN as u64).map(|i| ((i * seed) as f32).sin()).collect();
        (Encoder::new().encode(&codec, &segments(), &values).unwrap().frame, 1 + seed as u32 * 7)
    };
    let frames: Vec<_> = (1..=5).map(of).collect();
    let mut alone = sum();
    add_all(&mut alone, &frames);
    let updates: Vec<_> = frames.iter().map(|(frame, weight)| (&**frame, *weight)).collect();
    let mut together = sum();
    together.add_dense(&updates, &segments(), &limits()).unwrap();
    assert_eq!(together, alone);

    let damaged = &frames[3].0[..frames[3].0.len() - 1];
    let mut with_one_damaged = updates.clone();
    with_one_damaged[3].0 = damaged;
    assert!(matches!(together.add_dense(&with_one_damaged, &segments(), &limits()), Err(Error::Frame(_))));
    let mut flipped = frames[1].0.clone();
    flipped[100] ^= 1;
    with_one_damaged[3] = (&flipped, 1);
    assert!(matches!(together.add_dense(&with_one_damaged, &segments(), &limits()), Err(Error::Frame(_))));
    let not_a_number = resealed(&frames[2].0, f32::NAN);
    with_one_damaged[3] = (&not_a_number, 1);
    assert!(matches!(together.add_dense(&with_one_damaged, &segments(), &limits()), Err(Error::Frame(_))));
    let too_heavy = [updates[0], (updates[1].0, u32::MAX)];
    assert!(matches!(together.add_dense(&too_heavy, &segments(), &limits()), Err(Error::TooMuchWeight { .. })));
    let other = Segments::new(vec![Segment { len: 3, row: 3 }]).unwrap();
    assert_eq!(together.add_dense(&[], &other, &limits()), Err(Error::OtherScale));
    assert_eq!(together, alone, "nothing of a refused group counts");
}

/// A frame of floats with another one at its end, and the checksum of that.
fn resealed(frame: &[u8], last: f32) -> Vec<u8> {
    let mut frame = frame[..frame.len() - 8].to_vec();
    frame.extend(last.to_le_bytes());
    frame.extend(crc32c::crc32c(&frame).to_le_bytes());
    frame
}

#[test]
fn a_value_beyond_the_bound_counts_as_the_bound_and_its_neighbours_as_they_are() {
    let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
    let values: Vec<f32> = (0..LEN).map(|i| (i as f32).sin()).collect();
    let frame = Encoder::new().encode(&codec, &segments(), &values).unwrap().frame;
    for (last, counted) in [(1e9, 4.0), (-1e9, -4.0), (0.5, 0.5)] {
        let empty = ExactSum::new(LEN, Scale::for_recipe(10, 1000, 4.0));
        let (mut of_it, mut of_the_bound) = (empty.clone(), empty);
        of_it.add_frame(&resealed(&frame, last), &segments(), &limits(), 7).unwrap();
        of_the_bound.add_frame(&resealed(&frame, counted), &segments(), &limits(), 7).unwrap();
        assert_eq!(of_it, of_the_bound, "{last}");
    }
}

#[test]
fn the_mean_equals_a_wide_integer_reference() {
    let mut exact = sum();
    let frames = frames();
    add_all(&mut exact, &frames);
    let unit = f64::from(scale().fraction_bits()).exp2();
    let mut wide = vec![0i128; LEN];
    let mut weights = 0i128;
    for (frame, weight) in &frames {
        weights += i128::from(*weight);
        for (sum, value) in wide.iter_mut().zip(decoded(frame)) {
            *sum += (f64::from(value) * unit).round_ties_even() as i128 * i128::from(*weight);
        }
    }
    assert_eq!(i128::from(exact.weight()), weights);
    let reference: Vec<u32> =
        wide.iter().map(|&sum| ((sum as f64 / (weights as f64 * unit)) as f32).to_bits()).collect();
    assert_eq!(result(&mut exact), reference);
}

#[test]
fn unit_vectors_show_who_was_counted_and_how_often() {
    let segments = Segments::new(vec![Segment { len: 8, row: 8 }]).unwrap();
    let limits = Limits::for_segments(&segments);
    let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Auto };
    let mut sum = ExactSum::new(8, scale());
    for (client, times) in [(1, 1), (4, 2), (6, 5)] {
        let mut unit = [0.0; 8];
        unit[client] = 1.0;
        let frame = Encoder::new().encode(&codec, &segments, &unit).unwrap().frame;
        for _ in 0..times {
            sum.add_frame(&frame, &segments, &limits, 1).unwrap();
        }
    }
    let mut mean = [0.0; 8];
    sum.aggregate(&mut mean).unwrap();
    assert_eq!(mean.map(|share| share * 8.0), [0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 5.0, 0.0]);
}

#[test]
fn a_weight_counts_as_so_many_updates() {
    let frame = frame(5, 0.1, Quantizer::Ternary);
    let (mut heavy, mut light) = (sum(), sum());
    heavy.add_frame(&frame, &segments(), &limits(), 3).unwrap();
    for _ in 0..3 {
        light.add_frame(&frame, &segments(), &limits(), 1).unwrap();
    }
    assert_eq!((heavy.sums.clone(), heavy.weight()), (light.sums.clone(), light.weight()));
    let mut weightless = sum();
    weightless.add_frame(&frame, &segments(), &limits(), 0).unwrap();
    assert_eq!(weightless.aggregate(&mut vec![0.0; LEN]), Err(Error::Empty), "updates without weight have no mean");
}

#[test]
fn more_weight_than_announced_is_refused() {
    let mut sum = ExactSum::new(LEN, Scale::for_recipe(2, 100, 16.0));
    let frame = frame(1, 0.1, Quantizer::Ternary);
    sum.add_frame(&frame, &segments(), &limits(), 150).unwrap();
    let before = sum.clone();
    let too_much = Error::TooMuchWeight { weight: 201, max: 200 };
    assert_eq!(sum.add_frame(&frame, &segments(), &limits(), 51), Err(too_much.clone()));
    assert_eq!(sum.add_values(&[(3, 0.5)], 51), Err(too_much));
    assert_eq!(sum.merge(&before), Err(Error::TooMuchWeight { weight: 300, max: 200 }));
    assert_eq!(sum, before);
    assert_eq!(sum.merge(&ExactSum::new(LEN, scale())), Err(Error::OtherScale));
}

#[test]
fn values_that_lie_about_their_bound_cannot_overflow() {
    let scale = Scale::for_recipe(1000, 1_000_000, 4.0);
    let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Auto };
    let frame = Encoder::new().encode(&codec, &segments(), &[f32::MAX; LEN]).unwrap().frame;
    let mut sum = ExactSum::new(LEN, scale);
    for _ in 0..1000 {
        sum.add_frame(&frame, &segments(), &limits(), 1_000_000).unwrap();
    }
    let mut mean = vec![0.0; LEN];
    sum.aggregate(&mut mean).unwrap();
    assert_eq!(mean, [4.0; LEN]);
}

#[test]
fn the_scale_leaves_room_for_the_largest_sum() {
    let cases = [(10, 1_000_000, 16.0), (1, 1, 1.0), (1000, 1_000_000, 0.3), (u32::MAX, u32::MAX, 1e6), (3, 7, 1e-20)];
    for (updates, examples, max_abs) in cases {
        let scale = Scale::for_recipe(updates, examples, max_abs);
        let units = i128::from(scale.fixed().units(max_abs)) * i128::from(scale.max_weight);
        assert!(units <= 1 << 62, "{updates} {examples} {max_abs}: {scale:?}");
        assert_eq!(scale.fixed().units(-max_abs), -scale.fixed().units(max_abs));
    }
    assert_eq!(Scale::for_recipe(10, 1_000_000, 16.0).fraction_bits(), 34);
    assert_eq!(Scale::for_recipe(1, 1, 1.0).fraction_bits(), Scale::MAX_FRACTION_BITS);
}

#[test]
fn rounding_by_addition_is_rounding_to_even() {
    let scale = Scale::for_recipe(10, 1000, 16.0);
    let (fixed, per_unit) = (scale.fixed(), scale.unit().recip());
    let half = (0.5 / per_unit) as f32;
    for value in [0.0, half, 3.0 * half, -half, -3.0 * half, 1.0, -15.999, 16.0, 1e-9, 0.1, f32::MIN_POSITIVE] {
        assert_eq!(fixed.units(value), (f64::from(value) * per_unit).round_ties_even() as i64, "{value}");
    }
    assert_eq!(fixed.units(f32::INFINITY), fixed.units(16.0));
    assert_eq!(fixed.units(f32::NAN).abs(), fixed.units(16.0));
}

/// What a secure sum would give, which sees integers and their sum.
#[test]
fn the_sum_on_a_common_grid_is_that_of_the_integers() {
    for (bits, clip) in [(8, 0.25), (2, 1.0), (5, 1e-6), (8, 60000.0)] {
        let grid = CommonGrid::new(bits, clip).unwrap();
        let quantizer = Quantizer::Common { grid, fit: Fit::LeastError };
        let mut sum = ExactSum::new(LEN, Scale::for_grid(12, 500, grid));
        let mut integers = vec![0i64; LEN];
        let mut weight = 0;
        for seed in 1..=12u32 {
            let values: Vec<f32> = (0..LEN).map(|i| (i as f32 * seed as f32).sin() * 1.2 * clip as f32).collect();
            let coder = if seed % 2 == 0 { EntropyCoder::Auto } else { EntropyCoder::Raw };
            let codec = Codec { density: 1.0, quantizer, coder };
            let frame = Encoder::new().encode(&codec, &segments(), &values).unwrap().frame;
            let examples = 7 + 41 * seed;
            sum.add_frame(&frame, &segments(), &limits(), examples).unwrap();
            for (sum, value) in integers.iter_mut().zip(decoded(&frame)) {
                let level = value / grid.step();
                assert!(level.fract() == 0.0 && level.abs() <= f32::from(grid.most()));
                *sum += i64::from(examples) * level as i64;
            }
            weight += examples;
        }
        assert_eq!(sum.sums, integers, "{bits} bits up to {clip}");
        let room = 1i64 << (grid.sum_bits(12, 500) - 1);
        assert!(integers.iter().all(|sum| (-room..room).contains(sum)));
        let mut mean = vec![0.0; LEN];
        sum.aggregate(&mut mean).unwrap();
        let step = f64::from(grid.step());
        let expected: Vec<f32> = integers.iter().map(|&sum| (sum as f64 * step / f64::from(weight)) as f32).collect();
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= f32::EPSILON * b.abs();
        assert!(mean.iter().zip(&expected).all(close), "{bits} bits up to {clip}");
    }
}

#[test]
fn a_sum_on_a_common_grid_has_room_for_all_its_weight() {
    for (updates, examples) in [(10, 1_000_000), (1, 1), (u32::MAX, u32::MAX)] {
        let grid = CommonGrid::new(8, 1.0).unwrap();
        let scale = Scale::for_grid(updates, examples, grid);
        assert_eq!(scale.fixed().units(5.0), 127, "what lies about its bound is cut off");
        assert!(i128::from(scale.max_weight) * 127 <= 1 << 62);
        assert_eq!(scale.max_weight, (u64::from(updates) * u64::from(examples)).min((1 << 62) / 127));
    }
}
