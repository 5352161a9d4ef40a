//! Tests of the part that the file is named after: the same bits with every width of vectors.

use dunlin_codec::{Encoder, EntropyCoder, Limits, Quantizer, Vectors, decode, verify, with_vectors};

use crate::support::{CODERS, QUANTIZERS, codec, gaussian, segments, whole_quantizers};

/// A frame, what it leaves of the vector, and what it decodes to.
fn everything(quantizer: Quantizer, coder: EntropyCoder, density: f64) -> (Vec<u8>, Vec<u32>, Vec<u32>) {
    // Long enough for a sampled threshold and coded gaps; lengths that no vector divides.
    let segments = segments(&[(60_001, 100), (37, 37), (9_000, 90)]);
    let mut left = gaussian(7, segments.len());
    let mut encoder = Encoder::new();
    encoder.seed(3);
    let codec = codec(density, quantizer, coder);
    let frame = encoder.encode_with_feedback(&codec, &segments, &mut left).unwrap().frame;
    let limits = Limits::for_segments(&segments);
    let mut values = vec![0.0; segments.len()];
    decode(&frame, &segments, &limits, &mut values).unwrap();
    verify(&frame, &segments, &limits).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    (frame, bits(left), bits(values))
}

fn assert_alike(quantizer: Quantizer, coder: EntropyCoder, density: f64) {
    let widest = everything(quantizer, coder, density);
    for vectors in [Vectors::Avx2, Vectors::Baseline] {
        let narrower = with_vectors(vectors, || everything(quantizer, coder, density));
        assert!(narrower == widest, "{quantizer:?} {coder:?} {density} {vectors:?}");
    }
}

#[test]
fn sparse_frames_are_the_same_with_every_width() {
    for quantizer in QUANTIZERS {
        for coder in CODERS {
            for density in [0.003, 0.1, 0.4] {
                assert_alike(quantizer, coder, density);
            }
        }
    }
}

#[test]
fn dense_frames_are_the_same_with_every_width() {
    for quantizer in QUANTIZERS.into_iter().chain(whole_quantizers()) {
        assert_alike(quantizer, EntropyCoder::Auto, 1.0);
    }
}
