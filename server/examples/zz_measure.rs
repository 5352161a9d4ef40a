use bytes::Bytes;
use dunlin_codec::*;
use dunlin_core::message::UpdateHeader;
use dunlin_core::*;
use dunlin_server::aggregate::*;
use dunlin_server::broadcast::Broadcast;
use dunlin_server::store::*;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("store") => store(),
        _ => model(),
    }
}

fn accepted(round: u64, i: u64, size: usize) -> Record {
    let mut x = round * 1000 + i + 1;
    let frame: Vec<u8> = (0..size)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect();
    let header = UpdateHeader {
        client: ClientId::numbered("c", i as u32),
        round: RoundId { term: 1, number: round },
        base: ModelVersion(round - 1),
        examples: 5,
        loss: 0.5,
        frame_len: size as u64,
        digest: Digest::of(&frame),
    };
    Record::UpdateAccepted { header, frame: Bytes::from(frame) }
}

fn store() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir_in("/work").unwrap();
    let mut store = SqliteStore::open(dir.path(), rt.handle().clone()).unwrap();
    store
        .create(&RunRow {
            id: RunId([1; 8]),
            name: "x".into(),
            recipe: "".into(),
            recipe_digest: Digest([0; 32]),
            created_ms: 0,
            outcome: None,
            rounds: 0,
        })
        .unwrap();
    for (n, size) in [
        (1u64, 20_000usize),
        (10, 20_000),
        (1, 1000),
        (10, 1000),
        (1, 60_000),
        (10, 60_000),
        (1, 200_000),
        (10, 200_000),
    ] {
        let mut times = vec![];
        for round in 1..=60 {
            let batch: Vec<_> = (0..n).map(|i| accepted(round, i, size)).collect();
            let t = Instant::now();
            store.commit(&batch).unwrap();
            times.push(t.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{n} x {size}: median {:.2} ms p90 {:.2} ms", times[30], times[54]);
    }
    let state = Bytes::from(vec![3u8; 20_000_000]);
    for v in 1..5 {
        let t = Instant::now();
        store.commit(&[Record::Checkpoint { version: ModelVersion(v), state: state.clone() }]).unwrap();
        println!("checkpoint 20 MB: {:?}", t.elapsed());
    }
}

fn model() {
    let segs = vec![(800, 25), (32, 32), (51200, 800), (64, 64), (1605632, 3136), (512, 512), (5120, 512), (10, 10)];
    let segments = Arc::new(Segments::new(segs.iter().map(|&(len, row)| Segment { len, row }).collect()).unwrap());
    let n = segments.len();
    let limits = Limits::for_segments(&segments);
    let mut seed = 88172645463325252u64;
    let mut rnd = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 40) as f32 / 16777216.0 - 0.5
    };
    let row_scale: Vec<f32> = (0..n / 3136 + 1).map(|_| (rnd() * 4.0).exp()).collect();
    let mut update = || -> Vec<f32> {
        (0..n)
            .map(|i| {
                let x = rnd() + rnd() + rnd();
                x * x * x * row_scale[i / 3136] * 1e-3
            })
            .collect()
    };
    let scale = Scale::for_recipe(10, 1_000_000, 16.0);
    for (density, q) in
        [(0.01, Quantizer::Ternary), (1.0, Quantizer::F32), (1.0, Quantizer::F16), (1.0, Quantizer::Int8)]
    {
        let u = update();
        let codec = Codec { density, quantizer: q, coder: EntropyCoder::Auto };
        let t = Instant::now();
        let e = Encoder::new().encode(&codec, &segments, &u).unwrap();
        let enc = t.elapsed();
        let mut sum = ExactSum::new(n, scale);
        sum.add_frame(&e.frame, &segments, &limits, 3).unwrap();
        let t = Instant::now();
        for _ in 0..10 {
            sum.add_frame(&e.frame, &segments, &limits, 3).unwrap();
        }
        let add = t.elapsed() / 10;
        struct Nil(f32);
        impl Sink for Nil {
            fn add(&mut self, _: usize, v: f32) {
                self.0 += v;
            }
        }
        let mut nil = Nil(0.0);
        let t = Instant::now();
        for _ in 0..10 {
            decode(&e.frame, &segments, &limits, &mut nil).unwrap();
        }
        let dec = t.elapsed() / 10;
        let mut out = vec![0.0; n];
        let t = Instant::now();
        sum.aggregate(&mut out).unwrap();
        println!(
            "{density} {q:?}: frame {} encode {enc:?} add {add:?} (decode only {dec:?}, {}) mean {:?}",
            e.frame.len(),
            nil.0,
            t.elapsed()
        );
    }
    for density in [0.001, 0.01, 0.04] {
        let initial: Arc<Vec<i32>> = Arc::new(update().iter().map(|u| (u * 1e6) as i32).collect());
        let mut b = Broadcast::new(segments.clone(), initial.clone(), ModelVersion(0), initial.clone(), vec![], 64);
        let base = update();
        for _ in 0..40 {
            // half common, half fresh: rounds touch overlapping coordinates
            let u: Vec<f32> = update().iter().zip(&base).map(|(a, b)| a + 0.3 * b).collect();
            let codec = Codec { density, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
            let e = Encoder::new().encode(&codec, &segments, &u).unwrap();
            let mut g = b.grid().to_vec();
            grid::apply_update(&e.frame, &segments, &limits, &mut g).unwrap();
            let d = Digest(grid::digest(&g));
            b = b.advance(Arc::new(g), d, e.frame.into());
        }
        for behind in [1u64, 2, 3, 5, 10, 20, 39] {
            let t = Instant::now();
            let p = b.catch_up(Some(ModelVersion(40 - behind)));
            let time = t.elapsed();
            let packets: usize = (40 - behind + 1..=40).map(|_| 0).sum();
            let _ = packets;
            println!(
                "density {density} behind {behind}: {} frames {} bytes, {:?} {time:?}",
                p.frames.len(),
                p.catch_up.total_bytes(),
                p.catch_up.base
            );
        }
        let t = Instant::now();
        let p = b.catch_up(None);
        println!("  none: {} bytes {:?} {:?}", p.catch_up.total_bytes(), p.catch_up.base, t.elapsed());
        let mut zero = vec![0i32; n];
        for (z, (a, c)) in zero.iter_mut().zip(b.grid().iter().zip(initial.iter())) {
            *z = a - c;
        }
        let t = Instant::now();
        let e = Encoder::new().encode_integers(&segments, &zero).unwrap();
        println!(
            "  seeded merged: nnz {} bytes {} bits/nz {:.2} {:?}",
            e.nonzeros,
            e.frame.len(),
            e.frame.len() as f64 * 8.0 / e.nonzeros as f64,
            t.elapsed()
        );
        let p2 = b.catch_up(Some(ModelVersion(38)));
        println!("  two behind {} in {}", p2.catch_up.total_bytes(), p2.frames.len());
    }
}
