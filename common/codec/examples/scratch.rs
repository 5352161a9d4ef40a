use dunlin_codec::*;
use rand::SeedableRng; use rand_chacha::ChaCha8Rng; use rand_distr::{Distribution, StandardNormal};
fn gaussian(seed: u64, len: usize) -> Vec<f32> { let mut rng = ChaCha8Rng::seed_from_u64(seed); (0..len).map(|_| StandardNormal.sample(&mut rng)).collect() }
fn lc(n: usize, k: usize) -> f64 { (0..k).map(|i| ((n - i) as f64 / (k - i) as f64).log2()).sum() }
fn main() {
    let nn2 = vec![(156800, 784), (200, 200), (40000, 200), (200, 200), (2000, 200), (10, 10)];
    let cnn = vec![(800, 5), (32, 32), (51_200, 5), (64, 64), (1_605_632, 3136), (512, 512), (5120, 512), (10, 10)];
    let lenet = vec![(150,5),(6,6),(2400,5),(16,16),(30720,256),(120,120),(10080,120),(84,84),(840,84),(10,10)];
    let mut deep = vec![]; for i in 0..20 { let c = 16 << (i / 7); deep.push((c * c * 9, 3)); deep.push((c, c)); deep.push((c, c)); }
    for (name, shapes) in [("2nn", nn2), ("cnn", cnn), ("lenet", lenet), ("deep60", deep)] {
        let segments = Segments::new(shapes.iter().map(|&(len, row)| Segment { len, row }).collect()).unwrap();
        for skew in [false, true] {
        let mut u = gaussian(1, segments.len());
        if skew { for i in 0..segments.count() { let f = 2f32.powi((i as i32 * 7) % 5 - 2); u[segments.range(i)].iter_mut().for_each(|x| *x *= f * 0.01); } }
        println!("{name} {} tensors, {} params skew {skew}", segments.count(), segments.len());
        for p in [0.1, 0.04, 0.01, 0.001] {
            let mut line = format!("  p={p}");
            for coder in [EntropyCoder::Auto, EntropyCoder::Rice, EntropyCoder::Enumerative, EntropyCoder::Adaptive] {
                let e = Encoder::new().encode(&Codec { density: p, quantizer: Quantizer::Ternary, coder }, &segments, &u).unwrap();
                struct C(Vec<usize>, Vec<usize>);
                impl Sink for C { fn add(&mut self, i: usize, _: f32) { let s = self.0.partition_point(|&end| end <= i); self.1[s] += 1; } }
                let ends: Vec<usize> = (0..segments.count()).map(|i| segments.range(i).end).collect();
                let mut c = C(ends, vec![0; segments.count()]);
                decode(&e.frame, &segments, &Limits::for_segments(&segments), &mut c).unwrap();
                let ideal: f64 = (0..segments.count()).map(|i| { let k = c.1[i]; if k == 0 { 0.0 } else { lc(segments.range(i).len(), k) + k as f64 + 16.0 } }).sum();
                let used = c.1.iter().filter(|&&k| k > 0).count();
                let over = 8.0 * e.frame.len() as f64 - ideal - 8.0 * 13.0;
                line += &format!(" | {coder:?} {} B, {:.3} b/nz, over ideal {over:.0} bits = {:.1}/used tensor ({used})", e.frame.len(), 8.0 * e.frame.len() as f64 / e.nonzeros as f64, over / used as f64);
            }
            println!("{line}");
        }
        for (q, d) in [(Quantizer::Int8, 1.0), (Quantizer::Int8, 0.1), (Quantizer::F16, 0.01)] {
            let t = std::time::Instant::now();
            let e = Encoder::new().encode(&Codec { density: d, quantizer: q, coder: EntropyCoder::Auto }, &segments, &u).unwrap();
            println!("  {q:?} {d}: {} B {:?}", e.frame.len(), t.elapsed());
        }
        }
    }
}
