//! Updates of several sizes: each coordinate is the exact mean over those that have it, in any order and grouping.

use super::*;
use dunlin_core::recipe::{SizeConfig, Width};
use dunlin_core::{Layout, Recipe, TensorSpec};
use dunlin_nn::small::Slices;

/// 12 inputs, 10 and 6 hidden units, 3 classes.
fn layout() -> Layout {
    let tensors = [("a", vec![10, 12]), ("ab", vec![10]), ("b", vec![6, 10]), ("bb", vec![6])];
    let tensors = tensors.into_iter().chain([("c", vec![3, 6]), ("cb", vec![3])]);
    Layout::new(tensors.map(|(name, shape)| TensorSpec::new(name, shape)).collect()).unwrap()
}

fn slices() -> Slices {
    let size = |share: f64| SizeConfig { width: Width::new(share).unwrap(), share: 1.0 };
    Slices::new(&Recipe { size: [0.5, 1.0, 0.25, 0.1].map(size).to_vec(), ..Recipe::default() }, &layout()).unwrap()
}

fn empty() -> SlicedSum {
    SlicedSum::new(layout().len(), scale(), &slices())
}

/// An update: which size it is of (0 for the whole), its frame and its weight.
struct Sent {
    size: usize,
    frame: Vec<u8>,
    weight: u32,
}

fn segments_of(size: usize) -> Segments {
    match size {
        0 => layout().segments(),
        size => (**slices().iter().nth(size - 1).unwrap().segments()).clone(),
    }
}

fn sent(seed: u64, size: usize) -> Sent {
    let segments = segments_of(size);
    let noise = |i: u64| (i * (2 * seed + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let values: Vec<f32> = (1..=segments.len() as u64).map(|i| noise(i) as f32 / 8_388_608.0 - 1.0).collect();
    let kinds = [Quantizer::Ternary, Quantizer::F32, Quantizer::Int8];
    let density = if seed.is_multiple_of(2) { 1.0 } else { 0.3 };
    let codec = Codec { density, quantizer: kinds[seed as usize % 3], coder: EntropyCoder::Auto };
    let frame = Encoder::new().encode(&codec, &segments, &values).unwrap().frame;
    Sent { size, frame, weight: 1 + (seed as u32 * 37) % 500 }
}

fn add(sum: &mut SlicedSum, update: &Sent) {
    let segments = segments_of(update.size);
    sum.add_frame(&update.frame, &segments, &Limits::for_segments(&segments), update.weight).unwrap();
}

fn mean(sum: &SlicedSum) -> Vec<u32> {
    let mut out = vec![f32::NAN; layout().len()];
    let mut sum = sum.clone();
    sum.aggregate(&mut out).unwrap();
    assert_eq!((sum.updates(), sum.aggregate(&mut out.clone())), (0, Err(Error::Empty)), "they are forgotten");
    out.into_iter().map(f32::to_bits).collect()
}

/// The same by the definition: for each coordinate over those that have it, in wide integers.
fn by_definition(updates: &[Sent]) -> Vec<u32> {
    let len = layout().len();
    let unit = f64::from(scale().fraction_bits()).exp2();
    let (mut sums, mut weights) = (vec![0i128; len], vec![0i128; len]);
    for update in updates {
        let segments = segments_of(update.size);
        let mut values = Values(vec![0.0; segments.len()]);
        dunlin_codec::decode(&update.frame, &segments, &Limits::for_segments(&segments), &mut values).unwrap();
        let has: Vec<usize> = match update.size {
            0 => (0..len).collect(),
            size => slices().iter().nth(size - 1).unwrap().mask().indices().collect(),
        };
        for (index, value) in has.into_iter().zip(values.0) {
            sums[index] += (f64::from(value) * unit).round_ties_even() as i128 * i128::from(update.weight);
            weights[index] += i128::from(update.weight);
        }
    }
    let mean = |(sum, weight): (i128, i128)| if weight == 0 { 0.0 } else { sum as f64 / (weight as f64 * unit) };
    sums.into_iter().zip(weights).map(|of| (mean(of) as f32).to_bits()).collect()
}

#[test]
fn without_sizes_it_keeps_the_contract_of_a_plain_sum() {
    contract(|| Box::new(SlicedSum::new(LEN, scale(), &Slices::default())));
}

#[test]
fn what_nobody_has_does_not_move_and_what_one_has_is_its_own() {
    let small = sent(3, 2);
    let mut sum = empty();
    add(&mut sum, &small);
    let got = mean(&sum);
    assert_eq!(got, by_definition(std::slice::from_ref(&small)));
    let slices = slices();
    let slice = slices.iter().nth(1).unwrap();
    assert!((0..layout().len()).filter(|&index| !slice.mask().contains(index)).all(|index| got[index] == 0));
    assert!(got.iter().any(|&bits| bits != 0));
}

proptest! {
    #[test]
    fn any_mixture_order_and_grouping_gives_the_mean_by_definition(
        sizes in prop::collection::vec(0..4usize, 1..14),
        groups in prop::collection::vec(0..3usize, 14),
    ) {
        let updates: Vec<Sent> = (1..).zip(sizes).map(|(seed, size)| sent(seed, size)).collect();
        let expected = by_definition(&updates);
        let mut forwards = empty();
        updates.iter().for_each(|update| add(&mut forwards, update));
        prop_assert_eq!(&mean(&forwards), &expected);
        prop_assert_eq!(forwards.updates() as usize, updates.len());
        let mut backwards = empty();
        updates.iter().rev().for_each(|update| add(&mut backwards, update));
        prop_assert_eq!(&mean(&backwards), &expected);
        let mut parts = [empty(), empty(), empty()];
        for (update, group) in updates.iter().zip(groups) {
            add(&mut parts[group], update);
        }
        let mut merged = empty();
        parts.iter().for_each(|part| merged.merge(part).unwrap());
        prop_assert_eq!(mean(&merged), expected);
        merged.clear();
        prop_assert_eq!(merged.aggregate(&mut vec![0.0; layout().len()]), Err(Error::Empty));
    }
}

#[test]
fn the_room_for_weight_is_one_for_all_sizes_and_other_lengths_have_none() {
    let mut sum = SlicedSum::new(layout().len(), Scale::for_recipe(2, 100, 16.0), &slices());
    let [whole, small] = [0, 1].map(|size| segments_of(size).len());
    sum.add_values_of(whole, &[(3, 0.5)], 150).unwrap();
    let too_much = Error::TooMuchWeight { weight: 201, max: 200 };
    assert_eq!(sum.add_values_of(small, &[(3, 0.5)], 51), Err(too_much));
    assert_eq!(sum.add_values_of(whole - 1, &[], 1), Err(Error::OtherScale));
    sum.add_values_of(small, &[(3, 0.5)], 50).unwrap();
    assert_eq!((sum.updates(), sum.weight()), (2, 200));
    let (before, other) = (sum.clone(), SlicedSum::new(layout().len(), scale(), &Slices::default()));
    assert_eq!(sum.merge(&before), Err(Error::TooMuchWeight { weight: 400, max: 200 }));
    assert_eq!(sum.merge(&other), Err(Error::OtherScale));
    assert_eq!((sum.updates(), sum.weight()), (2, 200));
}
