//! Tests of the part that the file is named after: frames decoded together.

use dunlin_codec::{
    Encoder, EntropyCoder, Error, Limits, Quantizer, Segments, Sink, Sinks, decode, decode_together, is_plain_dense,
};

use crate::support::{codec, gaussian, segments};

/// Long enough for several turns, with runs that end in the middle of a tensor and tensors shorter than one.
fn model() -> Segments {
    segments(&[(20_000, 100), (3, 3), (1024, 32), (9_001, 1)])
}

fn dense_frames(segments: &Segments) -> Vec<Vec<u8>> {
    let of = |(seed, quantizer)| {
        let u = gaussian(seed, segments.len());
        Encoder::new().encode(&codec(1.0, quantizer, EntropyCoder::Raw), segments, &u).unwrap().frame
    };
    (1..).zip([Quantizer::F32, Quantizer::Int8, Quantizer::F16, Quantizer::F32]).map(of).collect()
}

fn together(frames: &[Vec<u8>], segments: &Segments) -> Result<Vec<Vec<f32>>, (usize, Error)> {
    let mut decoded = vec![vec![0.0; segments.len()]; frames.len()];
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    decode_together(&frames, segments, &Limits::for_segments(segments), &mut Apart(&mut decoded))?;
    Ok(decoded)
}

/// A vector for each frame.
struct Apart<'a>(&'a mut [Vec<f32>]);

impl Sinks for Apart<'_> {
    fn of(&mut self, frame: usize) -> impl Sink {
        Borrowed(&mut self.0[frame])
    }
}

struct Borrowed<'a>(&'a mut [f32]);

impl Sink for Borrowed<'_> {
    fn add(&mut self, index: usize, value: f32) {
        self.0[index] += value;
    }
}

#[test]
fn frames_decode_together_as_they_do_alone() {
    let segments = model();
    let frames = dense_frames(&segments);
    let alone = |frame: &Vec<u8>| {
        let mut values = vec![0.0; segments.len()];
        decode(frame, &segments, &Limits::for_segments(&segments), &mut values).unwrap();
        values
    };
    assert!(frames.iter().all(|frame| is_plain_dense(frame)));
    assert_eq!(together(&frames, &segments), Ok(frames.iter().map(alone).collect()));
    assert_eq!(together(&[], &segments), Ok(Vec::new()));
}

#[test]
fn one_that_is_damaged_or_of_another_kind_is_named() {
    let segments = model();
    let frames = dense_frames(&segments);
    let with = |i: usize, frame: Vec<u8>| {
        let mut frames = frames.clone();
        frames[i] = frame;
        together(&frames, &segments).unwrap_err()
    };
    let mut flipped = frames[2].clone();
    flipped[30_000] ^= 0x40;
    assert!(matches!(with(2, flipped), (2, Error::Checksum { .. })));
    let not_a_number: [u8; 4] = f32::NAN.to_le_bytes();
    let mut damaged = frames[3].clone();
    damaged[40_000..40_004].copy_from_slice(&not_a_number);
    assert!(matches!(with(3, damaged), (3, Error::Checksum { .. })), "what was damaged on the way is that");
    assert!(matches!(with(1, frames[1][..99].to_vec()), (1, Error::Truncated { .. })));

    let u = gaussian(9, segments.len());
    for (density, quantizer, coder) in [
        (0.01, Quantizer::F32, EntropyCoder::Auto),
        (1.0, Quantizer::Int8, EntropyCoder::Adaptive),
        (1.0, Quantizer::Sign, EntropyCoder::Auto),
    ] {
        let frame = Encoder::new().encode(&codec(density, quantizer, coder), &segments, &u).unwrap().frame;
        assert!(!is_plain_dense(&frame), "{quantizer:?}");
        assert!(matches!(with(0, frame), (0, Error::WrongKind { .. })));
    }
    let integers = Encoder::new().encode_integers_plainly(&segments, &vec![7; segments.len()]).unwrap().frame;
    assert!(!is_plain_dense(&integers));
    assert!(matches!(with(0, integers), (0, Error::WrongKind { .. })));
}
