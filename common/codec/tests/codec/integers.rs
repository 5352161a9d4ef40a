//! Tests of the part that the file is named after: integers.

use dunlin_codec::{Encoder, EntropyCoder, Error, FrameHeader, FrameKind, Layout, Limits, Quantizer, decode, grid};
use proptest::prelude::*;

use crate::support::{Floats, codec, floats, gaussian, integers, one_segment, segments};

fn round_trip(shapes: &[(usize, usize)], values: &[i32]) -> Vec<u8> {
    let segments = segments(shapes);
    let encoded = Encoder::new().encode_integers(&segments, values).unwrap();
    assert_eq!(integers(&encoded.frame, &segments).unwrap(), values);
    assert_eq!(encoded.nonzeros, values.iter().filter(|&&n| n != 0).count());
    assert_eq!(encoded.stages.coded, encoded.frame.len() as u64);
    encoded.frame
}

proptest! {
    #[test]
    fn integers_come_back_exactly(
        values in prop::collection::vec(prop_oneof![3 => Just(0), 2 => -3i32..3, 1 => any::<i32>()], 800),
        divisor in prop_oneof![Just(1), Just(640), Just(3)],
    ) {
        let values: Vec<i32> = values.iter().map(|n| n / divisor * divisor).collect();
        round_trip(&[(500, 20), (10, 10), (290, 29)], &values);
    }
}

#[test]
fn extremes_zeros_and_full_tensors_come_back() {
    round_trip(&[(4, 2)], &[i32::MIN, i32::MAX, 0, -1]);
    round_trip(&[(3, 3)], &[i32::MIN; 3]);
    round_trip(&[(300, 10), (2, 1)], &vec![0; 302]);
    round_trip(&[(300, 10)], &vec![-77; 300]);
}

#[test]
fn noise_that_does_not_compress_is_sent_plain() {
    let values: Vec<i32> = (1..2000i32).map(|n| n.wrapping_mul(0x9e37_79b9u32 as i32) | 1).collect();
    let frame = round_trip(&[(1999, 1999)], &values);
    assert_eq!(FrameHeader::parse(&frame).unwrap().layout, Layout::Dense);
    assert!(frame.len() <= 4 * 1999 + 16);
}

#[test]
fn a_merged_delta_of_three_rounds_costs_little_more_than_its_positions() {
    let segments = one_segment(100_000);
    let mut merged = vec![0; segments.len()];
    let mut apart = 0;
    for seed in 0..3 {
        let u: Vec<f32> = gaussian(seed, segments.len()).iter().map(|x| x * 0.01).collect();
        let encoded =
            Encoder::new().encode(&codec(0.01, Quantizer::Ternary, EntropyCoder::Auto), &segments, &u).unwrap();
        apart += encoded.frame.len();
        grid::apply_update(&encoded.frame, &segments, &Limits::for_segments(&segments), &mut merged).unwrap();
    }
    let frame = Encoder::new().encode_integers(&segments, &merged).unwrap().frame;
    assert_eq!(integers(&frame, &segments).unwrap(), merged);
    // Three scales instead of one cost log2 3 bits a non-zero; denser positions give as much back.
    assert!(frame.len() < apart + apart / 16, "{} for {apart} apart", frame.len());
}

#[test]
fn floats_and_integers_are_not_taken_for_each_other() {
    let segments = one_segment(4);
    let limits = Limits::for_segments(&segments);
    let frame = Encoder::new().encode_integers(&segments, &[1, 2, 3, 4]).unwrap().frame;
    let result = decode(&frame, &segments, &limits, &mut Floats(vec![0.0; 4]));
    assert_eq!(result, Err(Error::WrongKind { got: FrameKind::Integers }));
    let frame = Encoder::new().encode(&codec(1.0, Quantizer::F32, EntropyCoder::Auto), &segments, &[1.0; 4]).unwrap();
    assert_eq!(integers(&frame.frame, &segments), Err(Error::WrongKind { got: FrameKind::F32 }));
    assert_eq!(floats(&frame.frame, &segments), Ok(vec![1.0; 4]));
}
