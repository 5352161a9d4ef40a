//! Tests of the part that the file is named after: round trip.

use dunlin_codec::{Decoder, Encoder, EntropyCoder, Limits, Quantizer, Segments, Sink, decode, grid};
use proptest::prelude::*;

use crate::support::{CODERS, Floats, QUANTIZERS, codec, floats, gaussian, one_segment, round_trip, segments};

fn values() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => Just(0.0f32),
        4 => -1e-3f32..1e-3,
        1 => Just(-0.0),
        1 => Just(0.25),
        1 => any::<f32>().prop_map(|x| if x.is_finite() { x } else { f32::MAX }),
    ]
}

fn shapes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let shape = prop_oneof![(1usize..40, 1usize..9), (200usize..900, 1usize..60)];
    prop::collection::vec(shape, 1..5)
}

fn model() -> impl Strategy<Value = (Segments, Vec<f32>)> {
    shapes().prop_flat_map(|shapes| {
        let segments = segments(&shapes);
        let len = segments.len();
        (Just(segments), prop::collection::vec(values(), len))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_quantizer_and_coder_returns_what_it_did_not_leave_behind(
        (segments, u) in model(),
        density in prop_oneof![Just(1.0), 0.001f64..1.0],
    ) {
        for quantizer in QUANTIZERS {
            let decoded: Vec<_> =
                CODERS.iter().map(|&coder| round_trip(&codec(density, quantizer, coder), &segments, &u)).collect();
            for other in &decoded[1..] {
                prop_assert_eq!(&decoded[0], other);
            }
        }
    }

    #[test]
    fn no_forced_coder_beats_auto((segments, u) in model(), density in prop_oneof![Just(1.0), 0.001f64..1.0]) {
        let mut encoder = Encoder::new();
        for quantizer in QUANTIZERS {
            let sizes = CODERS.map(|coder| {
                encoder.encode(&codec(density, quantizer, coder), &segments, &u).unwrap().frame.len()
            });
            prop_assert!(sizes.iter().all(|&size| sizes[0] <= size), "{:?} of {:?}", sizes, quantizer);
            prop_assert!(sizes.iter().all(|&size| size <= Limits::for_segments(&segments).max_frame_bytes));
        }
    }
}

#[test]
fn f32_at_full_density_is_lossless() {
    let segments = segments(&[(3000, 50), (7, 7)]);
    let u = gaussian(1, segments.len());
    for coder in CODERS {
        assert_eq!(round_trip(&codec(1.0, Quantizer::F32, coder), &segments, &u), u);
    }
}

#[test]
fn one_coordinate_and_an_empty_vector_travel() {
    for quantizer in QUANTIZERS {
        for coder in CODERS {
            for density in [0.5, 1.0] {
                assert_eq!(round_trip(&codec(density, quantizer, coder), &one_segment(1), &[0.0]), [0.0]);
                assert_eq!(round_trip(&codec(density, quantizer, coder), &one_segment(1), &[-127.0]), [-127.0]);
            }
        }
    }
}

#[test]
fn an_encoder_keeps_nothing_from_one_vector_to_the_next() {
    let (small, large) = (segments(&[(300, 20)]), segments(&[(5000, 100), (30, 30)]));
    let mut used = Encoder::new();
    for quantizer in QUANTIZERS {
        let codec = codec(0.05, quantizer, EntropyCoder::Auto);
        let (u, v) = (gaussian(2, large.len()), gaussian(3, small.len()));
        used.encode(&codec, &large, &u).unwrap();
        used.encode_integers(&small, &vec![7; small.len()]).unwrap();
        assert_eq!(used.encode(&codec, &small, &v), Encoder::new().encode(&codec, &small, &v));
    }
}

#[test]
fn ternary_and_f16_frames_apply_to_the_grid_exactly() {
    let segments = segments(&[(4000, 64), (64, 64)]);
    let limits = Limits::for_segments(&segments);
    let u: Vec<f32> = gaussian(4, segments.len()).iter().map(|x| x * 0.01).collect();
    for quantizer in [Quantizer::Ternary, Quantizer::F16] {
        let codec = codec(0.1, quantizer, EntropyCoder::Auto);
        let decoded = round_trip(&codec, &segments, &u);
        let frame = Encoder::new().encode(&codec, &segments, &u).unwrap().frame;
        let mut grid = vec![0; segments.len()];
        grid::apply_update(&frame, &segments, &limits, &mut grid).unwrap();
        let mut applied = vec![0.0; grid.len()];
        grid::to_f32(&grid, &mut applied);
        assert_eq!(applied, decoded);
    }
}

#[test]
fn the_grid_rounds_halves_to_even_and_saturates() {
    let mut grid = Vec::new();
    grid::from_f32(&[0.5 * grid::UNIT, 1.5 * grid::UNIT, -2.5 * grid::UNIT, 1e9, -1e9, f32::NAN], &mut grid);
    assert_eq!(grid, [0, 2, -2, i32::MAX, i32::MIN, 0]);

    let segments = one_segment(2);
    let frame = Encoder::new().encode_integers(&segments, &[i32::MAX, i32::MIN]).unwrap().frame;
    let mut grid = vec![1, -1];
    grid::apply_update(&frame, &segments, &Limits::for_segments(&segments), &mut grid).unwrap();
    assert_eq!(grid, [i32::MAX, i32::MIN]);
}

#[test]
fn a_decoder_remembers_nothing_of_the_frame_before() {
    let segments = segments(&[(30, 30), (4000, 64), (500, 20)]);
    let limits = Limits::for_segments(&segments);
    let u = gaussian(9, segments.len());
    let mut decoder = Decoder::new();
    for quantizer in QUANTIZERS {
        for (coder, density) in CODERS.into_iter().zip([0.5, 0.01, 1.0, 0.1, 0.3]) {
            let frame = Encoder::new().encode(&codec(density, quantizer, coder), &segments, &u).unwrap().frame;
            let mut sum = Floats(vec![0.0; segments.len()]);
            assert!(decoder.decode(&frame[..frame.len() - 1], &segments, &limits, &mut sum).is_err());
            let mut again = Floats(vec![0.0; segments.len()]);
            decoder.decode(&frame, &segments, &limits, &mut again).unwrap();
            let mut alone = Floats(vec![0.0; segments.len()]);
            decode(&frame, &segments, &limits, &mut alone).unwrap();
            assert_eq!(again.0, alone.0);
        }
    }
}

#[test]
fn indices_rise_over_the_whole_frame() {
    struct Rising(Option<usize>);

    impl Sink for Rising {
        fn add(&mut self, index: usize, _: f32) {
            assert!(self.0.is_none_or(|last| last < index), "{index} after {:?}", self.0);
            self.0 = Some(index);
        }
    }

    let segments = segments(&[(30, 30), (4000, 64), (64, 64), (500, 20)]);
    let u = gaussian(8, segments.len());
    for quantizer in QUANTIZERS {
        for coder in CODERS {
            for density in [0.2, 1.0] {
                let encoded = Encoder::new().encode(&codec(density, quantizer, coder), &segments, &u).unwrap();
                decode(&encoded.frame, &segments, &Limits::for_segments(&segments), &mut Rising(None)).unwrap();
            }
        }
    }
}

#[test]
fn the_digest_is_blake3_of_the_little_endian_bytes() {
    let grid: Vec<i32> = (0..10_000).map(|n: i32| n.wrapping_mul(0x0123_4567)).collect();
    let bytes: Vec<u8> = grid.iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(grid::digest(&grid), *blake3::hash(&bytes).as_bytes());
}

/// A codebook's error is at most that of one magnitude, and falls with its bits.
#[test]
fn a_codebook_of_more_bits_is_closer_and_a_tensor_of_few_values_has_one_magnitude() {
    let segments = segments(&[(30_000, 100), (20, 20)]);
    let u = gaussian(9, segments.len());
    let mut encoder = Encoder::new();
    let mut error = |quantizer| {
        let mut left = u.clone();
        let encoded = encoder.encode_with_feedback(&codec(0.1, quantizer, EntropyCoder::Auto), &segments, &mut left);
        let decoded = floats(&encoded.unwrap().frame, &segments).unwrap();
        let magnitudes = |range: std::ops::Range<usize>| {
            let bits = decoded[range].iter().filter(|value| **value != 0.0).map(|value| value.abs().to_bits());
            bits.collect::<std::collections::BTreeSet<u32>>().len()
        };
        let sent = u.iter().zip(&decoded).filter(|(_, decoded)| **decoded != 0.0);
        let error: f64 = sent.map(|(u, d)| f64::from(u - d).powi(2)).sum();
        (error, magnitudes(0..30_000), magnitudes(30_000..30_020))
    };
    let (ternary, one, _) = error(Quantizer::Ternary);
    assert_eq!(one, 1);
    let mut last = ternary;
    for bits in 2..=Quantizer::CODEBOOK_MAX_BITS {
        let (error, magnitudes, of_few) = error(Quantizer::Codebook { bits });
        assert!(
            error < 0.4 * last && magnitudes == 1 << (bits - 1) && of_few == 1,
            "{bits} bits: {error} after {last}"
        );
        last = error;
    }
}
