//! What encoding and decoding cost beside reading and writing the memory that they are about, on 25 million parameters.
//! `cargo bench -p dunlin-codec --bench traffic [-- WORD]`; with a word, only the codecs whose name holds it.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and prints")]

use std::{hint::black_box, time::Instant};

use dunlin_codec::{
    Codec, Decoder, Encoder, EntropyCoder, Fit, Limits, Quantizer, Rate, Rest, Segment, Segments, Sink, Source,
    change_at, vectorised,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

const N: usize = 25_000_000;
const ROW: usize = 5000;
const TIMES: usize = 7;
/// Of the residual.
const BETA: f32 = 0.9;

/// u + β·e, read where it is used.
struct Update<'a> {
    u: &'a [f32],
    e: &'a [f32],
}

impl Source for Update<'_> {
    fn len(&self) -> usize {
        self.u.len()
    }

    #[inline(always)]
    fn block<'a>(&'a self, start: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        let range = start..start + buffer.len();
        for ((value, u), e) in buffer.iter_mut().zip(&self.u[range.clone()]).zip(&self.e[range]) {
            *value = u + BETA * e;
        }
        buffer
    }
}

/// The next residual, in memory that is there already.
struct Next<'a>(&'a mut [f32]);

impl Rest for Next<'_> {
    #[inline(always)]
    fn take(&mut self, start: usize, values: &[f32]) {
        self.0[start..start + values.len()].copy_from_slice(values);
    }

    fn correct(&mut self, places: &[u32], left: &[f32]) {
        change_at(self.0, places.iter().copied(), |value, i| *value = left[i]);
    }
}

struct Sum<'a>(&'a mut [f32]);

impl Sink for Sum<'_> {
    #[inline]
    fn add(&mut self, index: usize, value: f32) {
        self.0[index] += value;
    }

    fn add_dense(&mut self, start: usize, values: &[f32]) {
        for (sum, value) in self.0[start..].iter_mut().zip(values) {
            *sum += value;
        }
    }

    fn add_sparse(&mut self, start: usize, positions: &[u32], values: &[f32]) {
        change_at(&mut self.0[start..], positions.iter().copied(), |sum, i| *sum += values[i]);
    }
}

fn main() {
    let segments = Segments::new(vec![Segment { len: N, row: ROW }]).expect("one tensor");
    let limits = Limits::for_segments(&segments);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut noise =
        || (0..N).map(|_| 0.01 * Distribution::<f32>::sample(&StandardNormal, &mut rng)).collect::<Vec<f32>>();
    let (u, e) = (noise(), noise());
    let mut next = vec![0.0; N];
    let mut sum = vec![0.0; N];

    let memory = fastest(|| {
        vectorised(
            #[inline(always)]
            || {
                for ((next, u), e) in next.iter_mut().zip(&u).zip(&e) {
                    *next = u + BETA * e;
                }
            },
        );
        black_box(&mut next);
    });
    println!("{N} coordinates, fastest of {TIMES}, one core");
    println!("read u, read e, write e: {:.1} ms, {:.1} GB/s", 1e3 * memory, 12e-9 * N as f64 / memory);

    let auto = EntropyCoder::Auto;
    let ternary = |density, coder| Codec { density, quantizer: Quantizer::Ternary, coder };
    let whole = |quantizer| Codec { density: 1.0, quantizer, coder: auto };
    let rotated = |bits, fit| whole(Quantizer::Rotated { rate: Rate::nearest(bits), fit });
    println!(
        "{:28} {:>10} {:>10} {:>12} {:>12}",
        "encode, with feedback", "ms", "× memory", "decode ms", "M non-zeros/s"
    );
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for (name, codec) in [
        ("ternary 1 % auto", ternary(0.01, auto)),
        ("ternary 1 % enumerative", ternary(0.01, EntropyCoder::Enumerative)),
        ("ternary 1 % adaptive", ternary(0.01, EntropyCoder::Adaptive)),
        ("ternary 1 % rice", ternary(0.01, EntropyCoder::Rice)),
        ("ternary 1 % raw", ternary(0.01, EntropyCoder::Raw)),
        ("ternary 0.1 % auto", ternary(0.001, auto)),
        ("f32", Codec { coder: EntropyCoder::Raw, ..whole(Quantizer::F32) }),
        ("f16", Codec { coder: EntropyCoder::Raw, ..whole(Quantizer::F16) }),
        ("int8 plain", Codec { coder: EntropyCoder::Raw, ..whole(Quantizer::Int8) }),
        ("int8 coded", whole(Quantizer::Int8)),
        ("rotated 1 b, least error", rotated(1.0, Fit::LeastError)),
        ("rotated 0.25 b, least error", rotated(0.25, Fit::LeastError)),
        ("EDEN 1 b, least error", whole(Quantizer::Eden { bits: 1, fit: Fit::LeastError })),
        ("sign", whole(Quantizer::Sign)),
    ] {
        if !name.contains(&wanted) {
            continue;
        }
        let mut frame = Vec::new();
        let mut nonzeros = 0;
        let encoding = fastest(|| {
            let source = Update { u: &u, e: &e };
            encoder.recycle(std::mem::take(&mut frame));
            let encoded = encoder.encode_source(&codec, &segments, &source, &mut Next(&mut next)).expect("finite");
            (frame, nonzeros) = (encoded.frame, encoded.nonzeros);
        });
        let decoding =
            fastest(|| decoder.decode(&frame, &segments, &limits, &mut Sum(&mut sum)).expect("just encoded"));
        println!(
            "{name:28} {:10.1} {:10.2} {:12.2} {:12.0}",
            1e3 * encoding,
            encoding / memory,
            1e3 * decoding,
            1e-6 * nonzeros as f64 / decoding,
        );
    }

    if !"f32".contains(&wanted) {
        return;
    }
    let frame = encoder.encode(&Codec { coder: EntropyCoder::Raw, ..whole(Quantizer::F32) }, &segments, &u);
    let frame = frame.expect("finite").frame;
    let decoding = fastest(|| decoder.decode(&frame, &segments, &limits, &mut Sum(&mut sum)).expect("just encoded"));
    println!("f32 frames decoded and added: {:.2} GB/s of frames", 1e-9 * frame.len() as f64 / decoding);
}

fn fastest(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..TIMES).map(time).fold(f64::INFINITY, f64::min)
}
