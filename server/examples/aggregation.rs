//! The mean of ten updates on one core: `cargo run --release -p dunlin-server --example aggregation [COORDINATES [KIND]]`. A
//! line for each way in which updates may be written, or for that one: its name, milliseconds for all ten, the gigabytes
//! a second that they would have as f32, and what one update adds to the milliseconds, without the mean, which is taken
//! once. Median of 21 rounds. From whole frames, checksums included, to the mean as floats.
#![allow(clippy::print_stdout, reason = "a program that reports on the terminal")]

use dunlin_codec::{Codec, Encoder, EntropyCoder, Limits, Quantizer, Segment, Segments};
use dunlin_server::aggregate::{Aggregator, ExactSum, Scale};
use std::time::Instant;

const UPDATES: usize = 10;
const ROUNDS: usize = 21;
const EXAMPLES: u32 = 600;
const TOGETHER: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n = std::env::args().nth(1).map_or(Ok(1_663_370), |n| n.parse())?;
    let only = std::env::args().nth(2);
    let segments = Segments::new(vec![Segment { len: n, row: n }])?;
    let limits = Limits::for_segments(&segments);
    let scale = Scale::for_recipe(UPDATES as u32, 1_000_000, 16.0);
    let mut sum = ExactSum::new(n, scale);
    let mut mean = vec![0.0; n];
    for (name, density, quantizer, coder) in [
        ("f32", 1.0, Quantizer::F32, EntropyCoder::Raw),
        ("f16", 1.0, Quantizer::F16, EntropyCoder::Raw),
        ("int8", 1.0, Quantizer::Int8, EntropyCoder::Raw),
        ("ternary-1%", 0.01, Quantizer::Ternary, EntropyCoder::Auto),
        ("ternary-1%-rice", 0.01, Quantizer::Ternary, EntropyCoder::Rice),
    ] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let codec = Codec { density, quantizer, coder };
        let frames = (0..UPDATES as u32)
            .map(|client| Ok(Encoder::new().encode(&codec, &segments, &noise(client, n))?.frame))
            .collect::<Result<Vec<_>, dunlin_codec::Error>>()?;
        let mut seconds = Vec::new();
        for _ in 0..ROUNDS {
            let timer = Instant::now();
            for frames in frames.chunks(TOGETHER) {
                if frames.iter().all(|frame| dunlin_codec::is_plain_dense(frame)) {
                    let updates: Vec<_> = frames.iter().map(|frame| (&**frame, EXAMPLES)).collect();
                    sum.add_dense(&updates, &segments, &limits)?;
                } else {
                    for frame in frames {
                        sum.add_frame(frame, &segments, &limits, EXAMPLES)?;
                    }
                }
            }
            let adding = timer.elapsed().as_secs_f64();
            sum.aggregate(&mut mean)?;
            seconds.push((timer.elapsed().as_secs_f64(), adding));
        }
        let [all, adding] = [|x: &(f64, f64)| x.0, |x: &(f64, f64)| x.1].map(|part| median(seconds.iter().map(part)));
        let rate = (4 * n * UPDATES) as f64 / all / 1e9;
        println!("{name} {:.3} {rate:.3} {:.3}", 1e3 * all, 1e3 * adding / UPDATES as f64);
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nothing that could be coded well.
fn noise(client: u32, n: usize) -> Vec<f32> {
    let mut state = client.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..n).map(|_| (next() + next() + next()) * 0.01).collect()
}
