//! Mistakes seen in other implementations, one test each.

use dunlin_codec::{Encoder, EntropyCoder, Error, FrameHeader, FrameKind, Quantizer, Segments, StageBytes};

use crate::support::{CODERS, codec, floats, gaussian, one_segment, round_trip, segments, signs};

const TERNARY: Quantizer = Quantizer::Ternary;

#[test]
fn exactly_k_coordinates_are_sent() {
    let segments = segments(&[(6000, 75), (4000, 40)]);
    let u = gaussian(1, segments.len());
    for (density, k) in [(0.0001, 1), (0.00014, 1), (0.01, 100), (0.25, 2500), (0.99999, 10_000)] {
        for coder in CODERS {
            let encoded = Encoder::new().encode(&codec(density, TERNARY, coder), &segments, &u).unwrap();
            assert_eq!(encoded.nonzeros, k);
            assert_eq!(FrameHeader::parse(&encoded.frame).unwrap().nonzeros as usize, k);
        }
    }
}

#[test]
fn a_threshold_of_zero_does_not_send_zeros() {
    let segments = one_segment(1000);
    let mut u = vec![0.0; 1000];
    (u[3], u[700]) = (0.5, -0.5);
    for coder in CODERS {
        for density in [0.1, 1.0] {
            let encoded = Encoder::new().encode(&codec(density, TERNARY, coder), &segments, &u).unwrap();
            assert_eq!(encoded.nonzeros, 2);
            assert_eq!(floats(&encoded.frame, &segments).unwrap(), u);
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    let segments = one_segment(1000);
    let decoded = round_trip(&codec(0.003, TERNARY, EntropyCoder::Auto), &segments, &vec![-0.25; 1000]);
    let sent: Vec<usize> = (0..1000).filter(|&i| decoded[i] != 0.0).collect();
    assert_eq!(sent, [0, 1, 2]);
}

#[test]
fn the_scale_is_the_mean_of_what_is_sent_not_of_the_tensor() {
    let segments = segments(&[(500, 10), (500, 10)]);
    let mut u = vec![0.001; 1000];
    (u[1], u[2], u[600]) = (1.0, -2.0, 8.0);
    let decoded = round_trip(&codec(0.003, TERNARY, EntropyCoder::Auto), &segments, &u);
    assert_eq!((decoded[1], decoded[2], decoded[600]), (1.5, -1.5, 8.0));
}

#[test]
fn residuals_use_the_scale_as_it_was_sent() {
    let segments = one_segment(300);
    let mut u = vec![0.0; 300];
    u[10] = 0.1;
    let mut residual = u.clone();
    Encoder::new().encode_with_feedback(&codec(0.1, TERNARY, EntropyCoder::Auto), &segments, &mut residual).unwrap();
    assert_eq!(residual[10], 0.1 - half::f16::from_f32(0.1).to_f32());
    assert_ne!(residual[10], 0.0);
}

#[test]
fn scales_stay_finite_and_positive_at_both_ends() {
    let segments = segments(&[(300, 300), (300, 300)]);
    let mut u = vec![0.0; 600];
    (u[0], u[300]) = (f32::MAX, f32::from_bits(1));
    for quantizer in [TERNARY, Quantizer::F16] {
        let decoded = round_trip(&codec(0.9, quantizer, EntropyCoder::Auto), &segments, &u);
        assert_eq!(decoded[0], 65504.0);
    }
    assert_eq!(round_trip(&codec(0.9, TERNARY, EntropyCoder::Auto), &segments, &u)[300], 2f32.powi(-24));
    // A value below half the smallest f16 rounds to zero and stays in the residual.
    assert_eq!(round_trip(&codec(0.9, Quantizer::F16, EntropyCoder::Auto), &segments, &u)[300], 0.0);
    round_trip(&codec(1.0, Quantizer::Int8, EntropyCoder::Auto), &segments, &u);
}

#[test]
fn biases_compete_with_matrices_and_cost_nothing_when_they_lose() {
    let segments = segments(&[(10, 10), (10_000, 100), (255, 255), (20, 20)]);
    let mut u = gaussian(2, segments.len());
    for i in [0, 2, 3] {
        u[segments.range(i)].fill(1e-6);
    }
    u[5] = -9.0;
    let alone = &u[segments.range(1)];
    for coder in CODERS {
        let encoded = Encoder::new().encode(&codec(0.01, TERNARY, coder), &segments, &u).unwrap();
        assert_eq!(encoded.nonzeros, 103);
        let decoded = floats(&encoded.frame, &segments).unwrap();
        assert_eq!(decoded[..10], [0.0, 0.0, 0.0, 0.0, 0.0, -9.0, 0.0, 0.0, 0.0, 0.0]);
        // 102 of the matrix, and one bias: its count, place, scale and sign.
        let matrix = Encoder::new().encode(&codec(0.0102, TERNARY, coder), &one_segment(10_000), alone).unwrap();
        assert_eq!(matrix.nonzeros, 102);
        let (with, without) = (encoded.frame.len(), matrix.frame.len());
        assert!(with <= without + if coder == EntropyCoder::Raw { 7 } else { 6 }, "{coder:?}: {with}, {without}");
    }
}

#[test]
fn a_tensor_of_which_nothing_is_sent_costs_a_bit_at_most() {
    let shapes: Vec<_> = (0..65).map(|i| if i == 0 { (20_000, 100) } else { (100, 100) }).collect();
    let segments = segments(&shapes);
    let mut u = vec![0.0; segments.len()];
    u[..20_000].copy_from_slice(&signs(3, 20_000, 0.01));
    // Not the last, so that nothing about the tensors between is certain.
    u[segments.range(64).start] = 1.0;
    for coder in CODERS {
        let frame = |segments: &Segments, u: &[f32]| {
            Encoder::new().encode(&codec(1.0, TERNARY, coder), segments, u).unwrap().frame
        };
        let few = frame(&one_segment(20_000), &u[..20_000]);
        let many = frame(&segments, &u);
        let one = if coder == EntropyCoder::Raw { 8 } else { 6 };
        assert!(many.len() <= few.len() + 8 + one, "{coder:?}: {} and {}", many.len(), few.len());
    }
}

#[test]
fn at_full_density_every_nonzero_is_ternary() {
    let segments = segments(&[(10, 10), (400, 20)]);
    let decoded = round_trip(&codec(1.0, TERNARY, EntropyCoder::Auto), &segments, &gaussian(3, 410));
    assert!(decoded[..10].iter().all(|value| value.abs() == decoded[0].abs()));
    assert!(decoded.iter().all(|&value| value != 0.0));
}

#[test]
fn every_stage_counts_indices_scales_and_headers() {
    let segments = segments(&[(10_000, 100), (10, 10)]);
    let u = gaussian(4, segments.len());
    let stages = |density, quantizer| {
        let encoded = Encoder::new().encode(&codec(density, quantizer, EntropyCoder::Raw), &segments, &u).unwrap();
        (encoded.stages, encoded.frame.len() as u64)
    };
    let dense = 40_040;
    let (ternary, coded) = stages(0.01, TERNARY);
    assert_eq!(ternary, StageBytes { dense, sparse: 800, quantized: 400 + 13 + 2, coded });
    let (f32, coded) = stages(1.0, Quantizer::F32);
    assert_eq!(f32, StageBytes { dense, sparse: dense, quantized: dense, coded });
    let (int8, coded) = stages(1.0, Quantizer::Int8);
    assert_eq!(int8, StageBytes { dense, sparse: dense, quantized: 10_010 + 4, coded });
    assert_eq!(ternary + f32 + int8, {
        let mut sum = StageBytes::default();
        for stage in [ternary, f32, int8] {
            sum += stage;
        }
        sum
    });
}

#[test]
fn what_cannot_be_encoded_is_refused_and_left_alone() {
    let segments = segments(&[(300, 10), (20, 20)]);
    let mut encoder = Encoder::new();
    let good = codec(0.1, TERNARY, EntropyCoder::Auto);
    for (index, bad) in [(0, f32::NAN), (299, f32::INFINITY), (310, f32::NEG_INFINITY)] {
        let mut u = gaussian(5, 320);
        u[index] = bad;
        let before: Vec<u32> = u.iter().map(|x| x.to_bits()).collect();
        let result = encoder.encode_with_feedback(&good, &segments, &mut u);
        assert_eq!(result, Err(Error::NotFinite { index, nan: bad.is_nan() }));
        assert_eq!(u.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), before);
    }
    let short = encoder.encode(&good, &segments, &[0.0; 3]);
    assert_eq!(short, Err(Error::WrongLength { expected: 320, got: 3 }));
    for density in [0.0, -1.0, 1.5] {
        let result = encoder.encode(&codec(density, TERNARY, EntropyCoder::Auto), &segments, &[0.0; 320]);
        assert_eq!(result, Err(Error::BadDensity { density }));
    }
    assert!(codec(f64::NAN, TERNARY, EntropyCoder::Auto).validate().is_err());
}

#[test]
fn a_pruned_model_at_full_density_is_not_sent_dense() {
    let segments = one_segment(10_000);
    let mut u = vec![0.0; 10_000];
    u[..500].copy_from_slice(&gaussian(6, 500));
    let encoded = Encoder::new().encode(&codec(1.0, Quantizer::F16, EntropyCoder::Auto), &segments, &u).unwrap();
    assert_eq!(FrameHeader::parse(&encoded.frame).unwrap().kind, FrameKind::F16);
    assert!(encoded.frame.len() < 1100, "{}", encoded.frame.len());
}
