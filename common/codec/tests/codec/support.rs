//! Shapes, vectors and sinks that the tests share.

use dunlin_codec::{
    Codec, CommonGrid, Encoder, EntropyCoder, Error, Fit, IntegerSink, Limits, Quantizer, Rate, Segment, Segments,
    Sink, decode, decode_integers, verify,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

pub(crate) const QUANTIZERS: [Quantizer; 5] =
    [Quantizer::F32, Quantizer::F16, Quantizer::Int8, Quantizer::Ternary, Quantizer::Codebook { bits: 3 }];
/// One of each quantizer that takes whole vectors.
pub(crate) fn whole_quantizers() -> Vec<Quantizer> {
    let rate = |bits| Rate::new(bits).unwrap();
    let mut quantizers = vec![
        Quantizer::Qsgd { levels: 7 },
        Quantizer::Qsgd { levels: Quantizer::QSGD_MAX_LEVELS },
        Quantizer::Terngrad,
        Quantizer::Sign,
        Quantizer::LowRank { rank: 2 },
    ];
    for fit in [Fit::Unbiased, Fit::LeastError] {
        quantizers.extend([0.3, 2.0, 8.0].map(|bits| Quantizer::Rotated { rate: rate(bits), fit }));
        quantizers.extend([1, 3].map(|bits| Quantizer::Eden { bits, fit }));
        quantizers.extend([(3, 1.5), (8, 100.0)].map(|(bits, clip)| common(bits, clip, fit)));
    }
    quantizers
}

pub(crate) fn common(bits: u8, clip: f64, fit: Fit) -> Quantizer {
    Quantizer::Common { grid: CommonGrid::new(bits, clip).unwrap(), fit }
}

pub(crate) const CODERS: [EntropyCoder; 5] =
    [EntropyCoder::Auto, EntropyCoder::Raw, EntropyCoder::Rice, EntropyCoder::Enumerative, EntropyCoder::Adaptive];

pub(crate) struct Floats(pub(crate) Vec<f32>);

impl Sink for Floats {
    fn add(&mut self, index: usize, value: f32) {
        self.0[index] += value;
    }
}

pub(crate) struct Integers(pub(crate) Vec<i32>);

impl IntegerSink for Integers {
    fn add(&mut self, index: usize, value: i32) {
        self.0[index] += value;
    }
}

pub(crate) fn codec(density: f64, quantizer: Quantizer, coder: EntropyCoder) -> Codec {
    Codec { density, quantizer, coder }
}

/// Each pair is a tensor's length and row.
pub(crate) fn segments(shapes: &[(usize, usize)]) -> Segments {
    Segments::new(shapes.iter().map(|&(len, row)| Segment { len, row }).collect()).unwrap()
}

pub(crate) fn one_segment(len: usize) -> Segments {
    segments(&[(len, len)])
}

pub(crate) fn floats(frame: &[u8], segments: &Segments) -> Result<Vec<f32>, Error> {
    let mut sink = Floats(vec![0.0; segments.len()]);
    decode(frame, segments, &Limits::for_segments(segments), &mut sink)?;
    Ok(sink.0)
}

pub(crate) fn integers(frame: &[u8], segments: &Segments) -> Result<Vec<i32>, Error> {
    let mut sink = Integers(vec![0; segments.len()]);
    decode_integers(frame, segments, &Limits::for_segments(segments), &mut sink)?;
    Ok(sink.0)
}

pub(crate) fn gaussian(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| StandardNormal.sample(&mut rng)).collect()
}

/// ±1 with probability `p`, independently.
pub(crate) fn signs(seed: u64, len: usize, p: f64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| if rng.random_bool(p) { if rng.random() { 1.0 } else { -1.0 } } else { 0.0 }).collect()
}

/// Encodes with feedback, verifies, decodes, and checks the residual against the decoded values.
pub(crate) fn round_trip(codec: &Codec, segments: &Segments, u: &[f32]) -> Vec<f32> {
    let mut residual = u.to_vec();
    let encoded = Encoder::new().encode_with_feedback(codec, segments, &mut residual).unwrap();
    let limits = Limits::for_segments(segments);
    let verified = verify(&encoded.frame, segments, &limits).unwrap();
    let decoded = floats(&encoded.frame, segments).unwrap();
    assert_eq!(verified.nonzeros, encoded.nonzeros);
    if codec.quantizer.is_whole() {
        assert_eq!(verified.nonzeros, u.len());
    } else {
        assert_eq!(verified.nonzeros, decoded.iter().filter(|&&value| value != 0.0).count());
    }
    assert_eq!(verified.max_abs, decoded.iter().fold(0.0, |most: f32, value| most.max(value.abs())));
    assert_eq!(encoded.stages.coded, encoded.frame.len() as u64);
    for (i, ((&u, &residual), &decoded)) in u.iter().zip(&residual).zip(&decoded).enumerate() {
        assert_eq!(residual, u - decoded, "coordinate {i} of {codec:?}");
    }
    decoded
}
