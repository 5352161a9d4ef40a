//! What half precision could save in training: `cargo bench -p dunlin-nn --bench half`.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector instructions are unsafe where they may not exist")
)]

use criterion::{Criterion, criterion_group, criterion_main};
use half::slice::HalfFloatSliceExt;
use std::hint::black_box;

/// Where products are taken in 32 bits, half precision could save only the reading of weights: this is what rounding a
/// model's weights to 16 bits and back costs, to be held against the time of a step (a sixth of
/// `examples/mcmahan-cnn/10` of the other bench) and of reading them twice.
fn weights(c: &mut Criterion) {
    let weights: Vec<f32> = (0..1_663_370).map(|i| (i * 7919 % 1024) as f32 / 1024.0 - 0.5).collect();
    let mut halves = vec![half::f16::ZERO; weights.len()];
    let mut back = vec![0f32; weights.len()];
    let mut group = c.benchmark_group("half precision of 1.66M weights");
    group.bench_function("to 16 bits", |bench| bench.iter(|| halves.convert_from_f32_slice(black_box(&weights))));
    group.bench_function("and back", |bench| bench.iter(|| black_box(&halves).convert_to_f32_slice(&mut back)));
    group.bench_function("reading 32 bits", |bench| {
        bench.iter(|| {
            let mut largest = [0f32; 16];
            for block in black_box(&weights).chunks_exact(16) {
                for (largest, &x) in largest.iter_mut().zip(block) {
                    *largest = if x > *largest { x } else { *largest };
                }
            }
            largest
        });
    });
    group.finish();
}

/// A tile as the kernels have it, of twelve rows by two vectors over a depth of 128, all in the first-level cache: products
/// of floats, and of pairs of brain floats that are added up in 32 bits.
#[cfg(target_arch = "x86_64")]
fn products(c: &mut Criterion) {
    use criterion::Throughput;
    const DEPTH: usize = 128;
    if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")) {
        return;
    }
    let (a, b) = (vec![0.5f32; ROWS * DEPTH], vec![0.5f32; 32 * DEPTH]);
    // Two brain floats of one half in each word.
    let (a_pairs, b_pairs) = (vec![0x3f00_3f00u32; ROWS * DEPTH / 2], vec![0x3f00_3f00u32; 32 * DEPTH / 2]);
    let mut group = c.benchmark_group("products of a tile");
    group.throughput(Throughput::Elements((ROWS * 32 * DEPTH) as u64));
    // SAFETY: the instructions exist, and both operands have as many elements as the depth asks for.
    group.bench_function("f32", |bench| bench.iter(|| unsafe { tile(black_box(&a), black_box(&b)) }));
    // SAFETY: as above.
    group.bench_function("bf16", |bench| bench.iter(|| unsafe { pairs(black_box(&a_pairs), black_box(&b_pairs)) }));
    group.finish();
}

#[cfg(not(target_arch = "x86_64"))]
fn products(_: &mut Criterion) {}

#[cfg(target_arch = "x86_64")]
const ROWS: usize = 12;

/// # Safety
/// `a` has [`ROWS`] rows, and `b` 32 elements for each of their columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile(a: &[f32], b: &[f32]) -> f32 {
    use std::arch::x86_64::*;
    let depth = a.len() / ROWS;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for step in 0..depth {
        // SAFETY: within the operands, as the caller says.
        unsafe {
            let b = [0, 16].map(|at| _mm512_loadu_ps(b.as_ptr().add(32 * step + at)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.as_ptr().add(row * depth + step));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        }
    }
    sums.into_iter().flatten().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// The same of pairs of brain floats.
///
/// # Safety
/// As [`tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs(a: &[u32], b: &[u32]) -> f32 {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    let depth = a.len() / ROWS;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for step in 0..depth {
        // SAFETY: within the operands, as the caller says; vectors of one size are transmuted.
        unsafe {
            let b = [0, 16]
                .map(|at| transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.as_ptr().add(32 * step + at).cast())));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_epi32((*a.as_ptr().add(row * depth + step)).cast_signed());
                let a = transmute::<__m512i, __m512bh>(a);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
    }
    sums.into_iter().flatten().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

criterion_group!(benches, weights, products);
criterion_main!(benches);
