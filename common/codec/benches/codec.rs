//! Speed on a model of 1.66 million parameters (the CNN of McMahan et al. 2017).

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dunlin_codec::{Codec, Encoder, EntropyCoder, Limits, Quantizer, Segment, Segments, decode, grid, verify};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

fn cnn() -> Segments {
    let shapes = [(800, 5), (32, 32), (51_200, 5), (64, 64), (1_605_632, 3136), (512, 512), (5120, 512), (10, 10)];
    Segments::new(shapes.map(|(len, row)| Segment { len, row }).to_vec()).unwrap()
}

fn update(segments: &Segments) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..segments.len())
        .map(|_| 0.01 * <StandardNormal as Distribution<f32>>::sample(&StandardNormal, &mut rng))
        .collect()
}

fn codec(density: f64, quantizer: Quantizer, coder: EntropyCoder) -> Codec {
    Codec { density, quantizer, coder }
}

fn encode(criterion: &mut Criterion) {
    let segments = cnn();
    let u = update(&segments);
    let mut encoder = Encoder::new();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(segments.len() as u64));
    for (name, codec) in [
        ("ternary 1 % auto", codec(0.01, Quantizer::Ternary, EntropyCoder::Auto)),
        ("ternary 1 % adaptive", codec(0.01, Quantizer::Ternary, EntropyCoder::Adaptive)),
        ("ternary 1 % enumerative", codec(0.01, Quantizer::Ternary, EntropyCoder::Enumerative)),
        ("ternary 1 % rice", codec(0.01, Quantizer::Ternary, EntropyCoder::Rice)),
        ("ternary 10 % auto", codec(0.1, Quantizer::Ternary, EntropyCoder::Auto)),
        ("f32 dense", codec(1.0, Quantizer::F32, EntropyCoder::Raw)),
        ("int8 dense auto", codec(1.0, Quantizer::Int8, EntropyCoder::Auto)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || u.clone(),
                |u| encoder.encode_with_feedback(&codec, &segments, black_box(u)).unwrap(),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let segments = cnn();
    let limits = Limits::for_segments(&segments);
    let u = update(&segments);
    let mut group = criterion.benchmark_group("decode and add");
    for (name, codec) in [
        ("ternary 1 % adaptive", codec(0.01, Quantizer::Ternary, EntropyCoder::Adaptive)),
        ("ternary 1 % enumerative", codec(0.01, Quantizer::Ternary, EntropyCoder::Enumerative)),
        ("ternary 1 % rice", codec(0.01, Quantizer::Ternary, EntropyCoder::Rice)),
        ("f32 dense", codec(1.0, Quantizer::F32, EntropyCoder::Raw)),
    ] {
        let encoded = Encoder::new().encode(&codec, &segments, &u).unwrap();
        let mut sum = vec![0f32; segments.len()];
        group.throughput(Throughput::Elements(encoded.nonzeros as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| decode(black_box(&encoded.frame), &segments, &limits, &mut sum).unwrap());
        });
        group.bench_function(format!("verify only, {name}"), |bencher| {
            bencher.iter(|| verify(black_box(&encoded.frame), &segments, &limits).unwrap());
        });
    }
    group.finish();
    let numbers: Vec<i32> = u.iter().map(|x| (x * 1e6) as i32).collect();
    criterion.bench_function("digest", |bencher| bencher.iter(|| grid::digest(black_box(&numbers))));
}

criterion_group!(benches, encode, read);
criterion_main!(benches);
