//! Quantizers that take whole vectors: how far off they are, at which size, and which way.

use dunlin_codec::{
    Bias, Encoder, EntropyCoder, Error, Fit, FrameHeader, FrameKind, Quantizer, Rate, Scheme, Segments,
};
use proptest::prelude::*;

use crate::support::{codec, common, floats, gaussian, one_segment, round_trip, segments, whole_quantizers};

const D: usize = 1 << 17;

fn rotated(bits: f64, fit: Fit) -> Quantizer {
    Quantizer::Rotated { rate: Rate::new(bits).unwrap(), fit }
}

fn frame(quantizer: Quantizer, seed: u64, segments: &Segments, u: &[f32]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.seed(seed);
    encoder.encode(&codec(1.0, quantizer, EntropyCoder::Auto), segments, u).unwrap().frame
}

fn decoded(quantizer: Quantizer, seed: u64, u: &[f32]) -> Vec<f32> {
    let segments = one_segment(u.len());
    floats(&frame(quantizer, seed, &segments, u), &segments).unwrap()
}

/// ‖x̂ − x‖² / ‖x‖²
fn relative_error(decoded: &[f32], u: &[f32]) -> f64 {
    let off: f64 = u.iter().zip(decoded).map(|(u, d)| (f64::from(*u) - f64::from(*d)).powi(2)).sum();
    off / u.iter().map(|u| f64::from(*u).powi(2)).sum::<f64>()
}

/// Of the mean of many decoded frames: the error that stays is what is not right on average.
fn error_of_mean(quantizer: Quantizer, times: u64, u: &[f32]) -> f64 {
    let mut mean = vec![0.0; u.len()];
    for seed in 0..times {
        for (mean, value) in mean.iter_mut().zip(decoded(quantizer, seed, u)) {
            *mean += value / times as f32;
        }
    }
    relative_error(&mean, u)
}

/// Those whose scale is found in the vector.
fn scaled_quantizers() -> impl Iterator<Item = Quantizer> {
    whole_quantizers().into_iter().filter(|quantizer| !matches!(quantizer, Quantizer::Common { .. }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_decoded_is_what_feedback_subtracts(
        lengths in prop::collection::vec((1usize..60, 1usize..9), 1..4),
        rows in 1usize..30,
        scale in prop_oneof![Just(0.0f32), Just(1.0), Just(1e-30), Just(3e38)],
        seed in any::<u64>(),
    ) {
        let mut shapes: Vec<_> = lengths;
        shapes.push((30 * rows, rows));
        let segments = segments(&shapes);
        let u: Vec<f32> = gaussian(seed, segments.len()).iter().map(|x| (x * scale).clamp(f32::MIN, f32::MAX)).collect();
        for quantizer in whole_quantizers() {
            round_trip(&codec(1.0, quantizer, EntropyCoder::Auto), &segments, &u);
        }
    }
}

#[test]
fn the_rotated_grid_is_better_than_its_goals_and_no_better_than_possible() {
    let u = gaussian(1, D);
    for (bits, goal) in [(1.0, 0.535), (2.0, 0.098), (3.0, 0.0227), (4.0, 0.0056)] {
        let frame = frame(rotated(bits, Fit::Unbiased), 3, &one_segment(D), &u);
        assert!(8 * frame.len() <= (bits * D as f64) as usize, "{} bytes at {bits}", frame.len());
        let error = relative_error(&floats(&frame, &one_segment(D)).unwrap(), &u);
        let bound = 1.0 / (4f64.powf(bits) - 1.0);
        assert!(error < goal && error > bound, "{error} at {bits} bits; bound {bound}");
    }
}

#[test]
fn fixed_rate_centroids_have_their_published_errors() {
    let u = gaussian(2, D);
    for (bits, expected) in [(1, 0.5708), (2, 0.1331), (3, 0.0358), (4, 0.0096)] {
        let error = relative_error(&decoded(Quantizer::Eden { bits, fit: Fit::Unbiased }, 1, &u), &u);
        assert!((error / expected - 1.0).abs() < 0.02, "{error} for {expected} at {bits} bits");
    }
}

#[test]
fn every_rate_is_met_from_below() {
    let u: Vec<f32> = gaussian(3, D).iter().map(|x| x * x * x).collect();
    for fit in [Fit::Unbiased, Fit::LeastError] {
        for bits in [0.1, 0.2, 0.39, 0.4, 0.5, 0.9, 1.0, 1.7, 2.5, 4.0, 6.0, 8.0] {
            let size = 8.0 * frame(rotated(bits, fit), 1, &one_segment(D), &u).len() as f64 / D as f64;
            assert!(size <= bits && size > 0.98 * bits, "{size} for {bits} with {fit:?}");
        }
    }
}

#[test]
fn errors_of_unbiased_quantizers_cancel_and_those_of_the_others_do_not() {
    let u: Vec<f32> = gaussian(4, 5000).iter().map(|x| x.exp()).collect();
    let times = 64;
    for quantizer in scaled_quantizers().filter(|&quantizer| quantizer != Quantizer::Sign) {
        let (once, often) = (relative_error(&decoded(quantizer, 1, &u), &u), error_of_mean(quantizer, times, &u));
        let ratio = often / once * times as f64;
        match quantizer.bias() {
            Bias::Unbiased => assert!((0.6..1.8).contains(&ratio), "{ratio} of {quantizer:?}"),
            Bias::Biased | Bias::Exact if once > 0.1 => assert!(ratio > 3.0, "{ratio} of {quantizer:?}"),
            Bias::Biased | Bias::Exact => {}
        }
    }
}

#[test]
fn biased_quantizers_lose_less_than_they_are_given() {
    let u: Vec<f32> = gaussian(5, 9000).iter().map(|x| x * x.abs()).collect();
    for quantizer in whole_quantizers().into_iter().filter(|quantizer| quantizer.bias() == Bias::Biased) {
        let error = relative_error(&decoded(quantizer, 1, &u), &u);
        assert!(error < 1.0, "{error} of {quantizer:?}");
    }
}

#[test]
fn the_least_error_is_less_than_that_of_the_unbiased_fit() {
    let u = gaussian(6, D);
    for (unbiased, least) in [
        (rotated(1.0, Fit::Unbiased), rotated(1.0, Fit::LeastError)),
        (Quantizer::Eden { bits: 1, fit: Fit::Unbiased }, Quantizer::Eden { bits: 1, fit: Fit::LeastError }),
    ] {
        let error = |quantizer| relative_error(&decoded(quantizer, 1, &u), &u);
        let (unbiased, least) = (error(unbiased), error(least));
        // 1/(1 − D) − 1 against D.
        assert!((unbiased / (least / (1.0 - least)) - 1.0).abs() < 0.05, "{unbiased} and {least}");
    }
}

#[test]
fn tiny_vectors_are_rounded_like_others() {
    let u = gaussian(11, 3000);
    let error = |scale: f32| {
        let u: Vec<f32> = u.iter().map(|x| x * scale).collect();
        scaled_quantizers().map(|quantizer| relative_error(&decoded(quantizer, 1, &u), &u)).collect::<Vec<_>>()
    };
    for (tiny, usual) in error(2f32.powi(-100)).iter().zip(error(1.0)) {
        assert!((tiny / usual - 1.0).abs() < 1e-3, "{tiny} and {usual}");
    }
}

#[test]
fn a_common_grid_stays_where_it_is_and_within_its_bound_random_rounding_is_right_on_average() {
    // Four bits up to 1.5 in steps of a quarter; all values are within it.
    let u: Vec<f32> = gaussian(12, 5000).iter().map(|x| 0.25 * x.clamp(-5.0, 5.0)).collect();
    let times = 64;
    for (fit, cancels) in [(Fit::Unbiased, true), (Fit::LeastError, false)] {
        let quantizer = common(4, 1.5, fit);
        let (once, often) = (relative_error(&decoded(quantizer, 1, &u), &u), error_of_mean(quantizer, times, &u));
        let ratio = often / once * times as f64;
        assert!(if cancels { (0.6..1.8).contains(&ratio) } else { ratio > 60.0 }, "{ratio} with {fit:?}");
        assert!(decoded(quantizer, 1, &u).iter().all(|value| value.abs() <= 1.5 && (value * 4.0).fract() == 0.0));
        // A vector that is a thousand times smaller is no more than noise on it, and one that is larger is cut off.
        let scaled = |factor: f32| decoded(quantizer, 1, &u.iter().map(|x| factor * x).collect::<Vec<_>>());
        assert_eq!(scaled(1e-3).iter().any(|&value| value != 0.0), cancels);
        assert!(scaled(1e3).iter().zip(&u).all(|(value, u)| u.abs() < 0.01 || *value == 1.5f32.copysign(*u)));
    }
}

#[test]
fn a_bit_spent_where_the_energy_is_saves_most() {
    // One block of eight is a hundred times larger.
    let u: Vec<f32> =
        gaussian(7, D).iter().enumerate().map(|(i, x)| if i >> 13 == 3 { 100.0 * x } else { *x }).collect();
    let even = relative_error(&decoded(rotated(0.5, Fit::Unbiased), 1, &u), &u);
    let least = relative_error(&decoded(rotated(0.5, Fit::LeastError), 1, &u), &u);
    assert!(least < even / 50.0, "{least} and {even}");
}

#[test]
fn the_seed_decides_and_nothing_else_does() {
    let u = gaussian(8, 10_000);
    let segments = segments(&[(9000, 90), (1000, 1000)]);
    for quantizer in whole_quantizers() {
        let frame = |seed| frame(quantizer, seed, &segments, &u);
        assert_eq!(frame(1), frame(1));
        let draws = !matches!(quantizer, Quantizer::Sign | Quantizer::Common { fit: Fit::LeastError, .. });
        assert!(draws || frame(1) == frame(2), "{quantizer:?}");
        if draws {
            assert_ne!(frame(1), frame(2), "{quantizer:?}");
        }
    }
}

#[test]
fn low_rank_is_exact_for_a_matrix_of_that_rank_but_for_half_precision() {
    let segments = segments(&[(64 * 48, 48), (48, 48)]);
    let u: Vec<f32> = (0..segments.len())
        .map(|i| (i / 48 % 7) as f32 * (i % 48 % 5) as f32 + (i / 48 % 3) as f32 * (i % 48 % 11) as f32)
        .collect();
    let frame = frame(Quantizer::LowRank { rank: 2 }, 1, &segments, &u);
    assert!(relative_error(&floats(&frame, &segments).unwrap(), &u) < 1e-6);
    assert!(frame.len() < 2 * (2 * (64 + 48) + 48) + 24, "{}", frame.len());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let refused = |density, quantizer| codec(density, quantizer, EntropyCoder::Auto).validate().unwrap_err();
    assert_eq!(refused(0.5, Quantizer::Sign), Error::NotWhole { density: 0.5 });
    assert_eq!(refused(1.0, Quantizer::Qsgd { levels: 0 }), Error::BadQuantizer { number: 0, least: 1, most: 127 });
    assert_eq!(refused(1.0, Quantizer::LowRank { rank: 65 }), Error::BadQuantizer { number: 65, least: 1, most: 64 });
    let eden = Quantizer::Eden { bits: 5, fit: Fit::Unbiased };
    let codebook = |bits| refused(0.1, Quantizer::Codebook { bits });
    assert_eq!([1, 5].map(codebook), [1, 5].map(|number| Error::BadQuantizer { number, least: 2, most: 4 }));
    assert_eq!(refused(1.0, eden), Error::BadQuantizer { number: 5, least: 1, most: 4 });
    for bits in [0.0, 0.09, 8.1, -1.0, f64::INFINITY] {
        assert_eq!(Rate::new(bits), Err(Error::BadRate { bits }));
    }
    assert!(Rate::new(f64::NAN).is_err());
}

#[test]
fn a_frame_says_which_scheme_it_has() {
    let u = gaussian(9, 3000);
    let kind = |quantizer| FrameHeader::parse(&frame(quantizer, 1, &one_segment(3000), &u)).unwrap().kind;
    assert_eq!(kind(rotated(1.0, Fit::Unbiased)), FrameKind::Whole(Scheme::Rotated));
    for quantizer in whole_quantizers() {
        assert_eq!(kind(quantizer), quantizer.kind());
    }
}

#[test]
fn a_value_that_is_not_finite_is_refused() {
    let segments = one_segment(1000);
    let mut u = gaussian(10, 1000);
    u[700] = f32::NAN;
    for quantizer in whole_quantizers() {
        let result = Encoder::new().encode(&codec(1.0, quantizer, EntropyCoder::Auto), &segments, &u);
        assert_eq!(result, Err(Error::NotFinite { index: 700, nan: true }));
    }
}
