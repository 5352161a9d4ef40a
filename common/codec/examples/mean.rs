//! Estimates the mean of ten vectors from their frames: how far off it is, and how many bits and nanoseconds it took.
//! `cargo run --release -p dunlin-codec --example mean`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and prints")]

use std::{error::Error, time::Instant};

use dunlin_codec::{Codec, Encoder, EntropyCoder, Fit, Limits, Quantizer, Rate, Segment, Segments, decode};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};

const CLIENTS: u64 = 10;
const COORDINATES: usize = 1 << 19;
const RUNS: u64 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let segments = Segments::new(vec![Segment { len: COORDINATES, row: COORDINATES }])?;
    let limits = Limits::for_segments(&segments);
    let fit = Fit::Unbiased;
    let mut rows = Vec::new();
    for bits in [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 8.0] {
        rows.push((format!("rotated, grid, coded, {bits} b"), Quantizer::Rotated { rate: Rate::new(bits)?, fit }));
    }
    rows.push(("DRIVE = EDEN 1 b".to_owned(), Quantizer::Eden { bits: 1, fit }));
    for bits in 2..=Quantizer::EDEN_MAX_BITS {
        rows.push((format!("EDEN {bits} b"), Quantizer::Eden { bits, fit }));
    }
    rows.push(("QSGD 7 levels".to_owned(), Quantizer::Qsgd { levels: 7 }));
    rows.push(("TernGrad".to_owned(), Quantizer::Terngrad));

    println!(
        "mean of {CLIENTS} lognormal(0, 1) vectors of {COORDINATES}; NMSE over the mean of their squares, {RUNS} runs"
    );
    println!("{:28} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "bits", "NMSE", "± of runs", "encode ns", "decode ns");
    for (name, quantizer) in rows {
        let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Auto };
        let mut errors = Vec::new();
        let (mut bytes, mut encoding, mut decoding) = (0, 0.0, 0.0);
        let mut encoder = Encoder::new();
        for run in 0..RUNS {
            let (mut sum, mut exact, mut squares) = (vec![0f32; COORDINATES], vec![0.0; COORDINATES], 0.0);
            for client in 0..CLIENTS {
                let mut rng = ChaCha8Rng::seed_from_u64(run * CLIENTS + client);
                let distribution = LogNormal::new(0.0, 1.0)?;
                let u: Vec<f32> = (0..COORDINATES).map(|_| distribution.sample(&mut rng)).collect();
                encoder.seed(run * CLIENTS + client);
                let start = Instant::now();
                let encoded = encoder.encode(&codec, &segments, &u)?;
                encoding += start.elapsed().as_secs_f64();
                bytes += encoded.frame.len();
                let start = Instant::now();
                decode(&encoded.frame, &segments, &limits, &mut sum)?;
                decoding += start.elapsed().as_secs_f64();
                for (exact, u) in exact.iter_mut().zip(&u) {
                    *exact += f64::from(*u);
                    squares += f64::from(*u).powi(2);
                }
            }
            let clients = CLIENTS as f64;
            let off: f64 = sum.iter().zip(&exact).map(|(sum, exact)| (f64::from(*sum) - exact).powi(2)).sum();
            errors.push(off / clients.powi(2) / (squares / clients));
        }
        let mean = errors.iter().sum::<f64>() / RUNS as f64;
        let spread = (errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / RUNS as f64).sqrt();
        let coordinates = (RUNS * CLIENTS) as f64 * COORDINATES as f64;
        println!(
            "{name:28} {:9.4} {mean:9.5} {spread:9.5} {:9.2} {:9.2}",
            8.0 * bytes as f64 / coordinates,
            1e9 * encoding / coordinates,
            1e9 * decoding / coordinates,
        );
    }
    Ok(())
}
