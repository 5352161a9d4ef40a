//! How close the coders come to the entropy. Run with `--nocapture` to see the table.
#![expect(clippy::print_stdout, reason = "the table is what these tests are read for")]

use constriction::stream::{
    Encode,
    model::{ContiguousCategoricalEntropyModel, DefaultContiguousCategoricalEntropyModel},
    queue::DefaultRangeEncoder,
};
use dunlin_codec::{Encoder, EntropyCoder, Quantizer, Segments, limit};

use crate::support::{CODERS, codec, one_segment, segments, signs};

const D: usize = 1 << 20;

fn bits_per_nonzero(coder: EntropyCoder, segments: &Segments, u: &[f32]) -> f64 {
    let encoded = Encoder::new().encode(&codec(1.0, Quantizer::Ternary, coder), segments, u).unwrap();
    8.0 * encoded.frame.len() as f64 / encoded.nonzeros as f64
}

#[test]
fn independent_coordinates_cost_their_entropy() {
    println!("density  entropy    auto  raw  rice  enumerative  adaptive (bits per non-zero)");
    for p in [0.1, 0.01, 0.0025, 0.001] {
        let u = signs(7, D, p);
        let sent = u.iter().filter(|&&x| x != 0.0).count() as f64 / D as f64;
        let entropy = limit::bits_per_nonzero(sent);
        let [auto, raw, rice, enumerative, adaptive] = CODERS.map(|c| bits_per_nonzero(c, &one_segment(D), &u));
        println!("{p:<8} {entropy:>7.3} {auto:>7.3} {raw:.3} {rice:.3} {enumerative:.3} {adaptive:.3}");
        // A frame's header, checksum and scale are 15 bytes.
        let overhead = 8.0 * 15.0 / (p * D as f64);
        assert!(auto <= 1.003 * entropy + overhead, "{auto} for {entropy} at {p}");
        assert!(enumerative <= 1.003 * entropy + overhead, "{enumerative} for {entropy} at {p}");
        assert!(adaptive <= 1.008 * entropy + overhead, "{adaptive} for {entropy} at {p}");
        let expected = limit::rice_bits_per_nonzero(sent, limit::best_rice_parameter(sent));
        assert!(((rice - overhead) / expected - 1.0).abs() < 0.005, "{rice} for {expected} at {p}");
    }
}

#[test]
fn layers_of_unequal_density_cost_far_less_than_their_mean_density() {
    let shapes = [(D / 2, 784), (D / 4, 512), (D / 4, 512)];
    let u = [signs(1, D / 2, 0.001), signs(2, D / 4, 0.002), signs(3, D / 4, 0.04)].concat();
    let sent = u.iter().filter(|&&x| x != 0.0).count() as f64 / D as f64;
    let ratio = bits_per_nonzero(EntropyCoder::Auto, &segments(&shapes), &u) / limit::bits_per_nonzero(sent);
    println!("skewed layers: {ratio:.3} of the entropy at the mean density");
    assert!(ratio < 0.86, "{ratio}");
}

#[test]
fn columns_that_never_change_cost_nothing_once_they_are_known() {
    let row = 784;
    let active = |i: usize| (i % row).is_multiple_of(4);
    let mut u = signs(5, 300 * row, 0.2);
    u.iter_mut().enumerate().filter(|(i, _)| !active(*i)).for_each(|(_, x)| *x = 0.0);
    let by_rows = bits_per_nonzero(EntropyCoder::Adaptive, &segments(&[(u.len(), row)]), &u);
    let without = bits_per_nonzero(EntropyCoder::Enumerative, &segments(&[(u.len(), row)]), &u);
    println!("active columns: {by_rows:.3} bits with rows, {without:.3} without");
    assert!(by_rows < 0.95 * without, "{by_rows} against {without}");
}

/// The same gaps under their true distribution by an independent range coder: the ideal model, without learning.
#[test]
fn the_adaptive_coder_is_within_one_percent_of_an_ideal_model_in_another_coder() {
    for p in [0.1, 0.01, 0.001] {
        let u = signs(11, D, p);
        let mut encoder = DefaultRangeEncoder::new();
        let model: DefaultContiguousCategoricalEntropyModel =
            ContiguousCategoricalEntropyModel::from_floating_point_probabilities_fast(
                &[1.0 - p, p / 2.0, p / 2.0],
                None,
            )
            .unwrap();
        let symbols = u.iter().map(|&x| {
            if x == 0.0 {
                0usize
            } else if x > 0.0 {
                1
            } else {
                2
            }
        });
        encoder.encode_iid_symbols(symbols, &model).unwrap();
        let ideal = encoder.num_bits() as f64 / 8.0;
        let ours = Encoder::new()
            .encode(&codec(1.0, Quantizer::Ternary, EntropyCoder::Adaptive), &one_segment(D), &u)
            .unwrap()
            .frame
            .len() as f64;
        println!("{p}: ours {ours} bytes, constriction with the true model {ideal}");
        assert!(ours <= 1.01 * ideal + 15.0, "{ours} against {ideal} at {p}");
    }
}

#[test]
fn the_limits_are_the_published_numbers() {
    let rounded = |x: f64| (x * 1000.0).round() / 1000.0;
    let densities = [0.1, 0.01, 0.0025, 0.001];
    assert_eq!(densities.map(|p| rounded(limit::bits_per_nonzero(p))), [5.690, 9.079, 11.085, 12.408]);
    let best = densities.map(|p| rounded(limit::rice_bits_per_nonzero(p, limit::best_rice_parameter(p))));
    assert_eq!(best, [5.756, 9.108, 11.114, 12.495]);
    for p in densities {
        let chosen = limit::rice_bits_per_nonzero(p, limit::best_rice_parameter(p));
        assert!((0..20).all(|b| chosen <= limit::rice_bits_per_nonzero(p, b)));
    }
}
