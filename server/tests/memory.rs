//! How much memory adding up updates asks for. A program of its own, since it counts what its allocator gives.

use allocation_counter::measure;
use dunlin_codec::{Codec, Encoder, EntropyCoder, Limits, Quantizer, Segment, Segments};
use dunlin_server::aggregate::{Aggregator, ExactSum, Scale};

const N: usize = 100_000;

#[test]
fn a_sum_asks_for_nothing_however_many_updates_it_takes() {
    let segments = Segments::new(vec![Segment { len: N, row: 500 }]).unwrap();
    let limits = Limits::for_segments(&segments);
    let update: Vec<f32> = (0..N).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) * 1e-4).collect();
    for (density, quantizer) in [(0.01, Quantizer::Ternary), (0.1, Quantizer::Ternary), (1.0, Quantizer::F32)] {
        let codec = Codec { density, quantizer, coder: EntropyCoder::Auto };
        let frame = Encoder::new().encode(&codec, &segments, &update).unwrap().frame;
        let mut sum = ExactSum::new(N, Scale::for_recipe(1000, 100, 16.0));
        let mut mean = vec![0.0; N];
        // The first fills the buffers of the thread's decoder.
        sum.add_frame(&frame, &segments, &limits, 7).unwrap();
        let asked = measure(|| {
            for _ in 0..100 {
                sum.add_frame(&frame, &segments, &limits, 7).unwrap();
            }
            sum.aggregate(&mut mean).unwrap();
        });
        assert_eq!(asked.count_total, 0, "{codec:?}: {asked:?}");
    }
}
