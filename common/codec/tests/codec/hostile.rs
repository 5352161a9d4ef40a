//! Tests of the part that the file is named after: hostile.

use dunlin_codec::{
    Encoder, EntropyCoder, Error, FrameHeader, Layout, Limits, Quantizer, Segments, Sink, decode, grid, verify,
};
use proptest::prelude::*;

use crate::support::{CODERS, QUANTIZERS, codec, gaussian, integers, segments, whole_quantizers};

/// Refuses what no sink should ever see.
struct Strict(usize);

impl Sink for Strict {
    fn add(&mut self, index: usize, value: f32) {
        assert!(index < self.0 && value.is_finite(), "{value} at {index} of {}", self.0);
    }
}

fn model() -> Segments {
    segments(&[(700, 25), (30, 30), (400, 400)])
}

/// A frame of every kind and layout.
fn frames(segments: &Segments) -> Vec<Vec<u8>> {
    let u = gaussian(1, segments.len());
    let mut encoder = Encoder::new();
    let mut frames = Vec::new();
    for density in [0.05, 0.6, 1.0] {
        for quantizer in QUANTIZERS {
            for coder in CODERS {
                frames.push(encoder.encode(&codec(density, quantizer, coder), segments, &u).unwrap().frame);
            }
        }
    }
    for quantizer in whole_quantizers() {
        frames.push(encoder.encode(&codec(1.0, quantizer, EntropyCoder::Auto), segments, &u).unwrap().frame);
    }
    let sparse: Vec<i32> = (0..segments.len() as i32).map(|i| if i % 7 == 0 { i % 3 * 100 - 100 } else { 0 }).collect();
    let dense: Vec<i32> = u.iter().map(|x| (x * 1e6) as i32).collect();
    frames.extend([sparse, dense].map(|values| encoder.encode_integers(segments, &values).unwrap().frame));
    frames
}

/// Whatever the bytes: no panic, nothing out of range, and what verifies also decodes, if it has values at all.
fn probe(frame: &[u8], segments: &Segments) {
    let limits = Limits::for_segments(segments);
    let verified = verify(frame, segments, &limits);
    let floats = decode(frame, segments, &limits, &mut Strict(segments.len()));
    let ints = integers(frame, segments);
    let mut grid = vec![0; segments.len()];
    let applied = grid::apply_update(frame, segments, &limits, &mut grid);
    match FrameHeader::parse(frame) {
        Ok(FrameHeader { kind, .. }) if !kind.has_values() => {
            // A mask is no update: whatever it holds, nobody who wants values takes it.
            assert!(floats.is_err() && ints.is_err() && applied.is_err(), "{kind:?}");
            if verified.is_ok() {
                assert_eq!(applied, Err(Error::WrongKind { got: kind }));
            }
        }
        _ => {
            assert_eq!(verified.is_ok(), floats.is_ok() || ints.is_ok());
            assert_eq!(verified.is_ok(), applied.is_ok());
        }
    }
}

/// Makes the checksum right, so that the decoder itself is tested.
fn reseal(frame: &mut [u8]) {
    if let Some((content, trailer)) = frame.split_last_chunk_mut::<4>() {
        *trailer = crc32c::crc32c(content).to_le_bytes();
    }
}

#[test]
fn every_truncation_is_refused() {
    let segments = model();
    for frame in frames(&segments) {
        for len in 0..frame.len() {
            assert!(verify(&frame[..len], &segments, &Limits::for_segments(&segments)).is_err());
            let mut resealed = frame[..len].to_vec();
            reseal(&mut resealed);
            probe(&resealed, &segments);
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let segments = model();
    let limits = Limits { max_frame_bytes: usize::MAX };
    for frame in frames(&segments) {
        let with_nine_more = |at: usize| {
            let mut longer = frame.clone();
            longer.splice(at..at, [0; 9]);
            reseal(&mut longer);
            verify(&longer, &segments, &limits)
        };
        // No header is longer than eight bytes.
        let (start, end) = (8, frame.len() - 4);
        if FrameHeader::parse(&frame).unwrap().layout == Layout::Adaptive {
            // Two streams, read from either end: what is left over lies where they meet.
            assert!(with_nine_more(end).is_err());
            assert!((start..=end).any(|at| with_nine_more(at) == Err(Error::TrailingBytes(9))));
        } else {
            assert_eq!(with_nine_more(end), Err(Error::TrailingBytes(9)));
        }
    }
}

#[test]
fn every_changed_byte_is_noticed_and_harmless_even_with_a_new_checksum() {
    let segments = model();
    let limits = Limits::for_segments(&segments);
    for frame in frames(&segments) {
        for i in 0..frame.len().min(600) {
            for change in [1, 0x80, 0xff] {
                let mut mutated = frame.clone();
                mutated[i] ^= change;
                assert!(verify(&mutated, &segments, &limits).is_err());
                reseal(&mut mutated);
                probe(&mutated, &segments);
            }
        }
    }
}

/// So many non-zeros that their gaps go by asymmetric numeral systems.
#[test]
fn many_gaps_that_are_cut_or_changed_are_refused_or_harmless() {
    let segments = segments(&[(60_000, 60_000)]);
    let sparse = codec(0.1, Quantizer::Ternary, EntropyCoder::Adaptive);
    let frame = Encoder::new().encode(&sparse, &segments, &gaussian(3, segments.len())).unwrap().frame;
    for len in (0..frame.len()).step_by(97) {
        let mut cut = frame[..len].to_vec();
        reseal(&mut cut);
        assert!(verify(&cut, &segments, &Limits::for_segments(&segments)).is_err(), "{len}");
        probe(&cut, &segments);
    }
    for at in (0..32).chain((32..frame.len()).step_by(89)) {
        for change in [1, 0x80, 0xff] {
            let mut changed = frame.clone();
            changed[at] ^= change;
            reseal(&mut changed);
            probe(&changed, &segments);
        }
    }
}

/// Found by random bodies: 102 of 1130 positions in Rice codes that happen to be whole.
#[test]
fn positions_to_prune_are_no_update() {
    let segments = model();
    let body = [227, 32, 44, 31, 128, 16, 0, 0, 62, 80, 20, 216, 19, 5, 23, 5, 1, 17, 5, 21, 47, 65, 1, 7, 65, 99, 19];
    let mut frame = [&[0xD7, 3, 22, 0xea, 0x08, 0xe6, 0], &body[..], &[29, 0, 0, 0, 0, 0]].concat();
    reseal(&mut frame);
    assert_eq!(verify(&frame, &segments, &Limits::for_segments(&segments)).map(|found| found.nonzeros), Ok(102));
    probe(&frame, &segments);
}

#[test]
fn a_claim_of_four_billion_coordinates_is_refused_from_the_header() {
    let segments = model();
    let frame = [0xD7, 3, 0x23, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0];
    assert_eq!(FrameHeader::parse(&frame).unwrap().coordinates, u32::MAX);
    let expected = Error::WrongCoordinates { expected: segments.len(), got: u32::MAX.into() };
    assert_eq!(verify(&frame, &segments, &Limits::for_segments(&segments)), Err(expected));
}

#[test]
fn a_frame_over_the_limit_is_not_looked_at() {
    let limit = Limits { max_frame_bytes: 10 };
    assert_eq!(verify(&[0; 11], &model(), &limit), Err(Error::TooLarge { got: 11, limit: 10 }));
}

#[test]
fn each_part_of_the_header_has_its_own_refusal() {
    let parse = |bytes: &[u8]| FrameHeader::parse(bytes).unwrap_err();
    assert_eq!(parse(&[]), Error::Truncated { got: 0 });
    assert_eq!(parse(&[1, 3, 0, 1, 0]), Error::NotAFrame(1));
    assert_eq!(parse(&[0xD7, 9, 0, 1, 0]), Error::UnknownVersion(9));
    assert_eq!(parse(&[0xD7, 3, 7, 1, 0]), Error::UnknownKind(7));
    assert_eq!(parse(&[0xD7, 3, 7 << 3 | 5, 1, 0]), Error::UnknownKind(0x3d));
    // Announced positions without a layout for them.
    assert_eq!(parse(&[0xD7, 3, 0x40 | 6, 1, 0]), Error::UnknownKind(0x46));
    assert_eq!(parse(&[0xD7, 3, 0x40 | 4 << 3 | 7, 1, 0]), Error::UnknownKind(0x67));
    assert_eq!(parse(&[0xD7, 3, 0x40 | 5, 1, 0]), Error::UnknownKind(0x45));
    assert_eq!(parse(&[0xD7, 3, 0x80, 1, 0]), Error::UnknownKind(0x80));
    assert_eq!(parse(&[0xD7, 3, 0, 1, 2]), Error::TooManyNonzeros { got: 2, limit: 1 });
    assert_eq!(parse(&[0xD7, 3, 0, 0x80]), Error::Truncated { got: 4 });
}

#[test]
fn a_frame_for_another_model_is_refused() {
    let frame = Encoder::new()
        .encode(&codec(0.1, QUANTIZERS[3], EntropyCoder::Auto), &model(), &gaussian(1, model().len()))
        .unwrap()
        .frame;
    let other = segments(&[(700, 25)]);
    let result = verify(&frame, &other, &Limits::for_segments(&other));
    assert_eq!(result, Err(Error::WrongCoordinates { expected: 700, got: 1130 }));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        probe(&bytes, &model());
    }

    #[test]
    fn random_bodies_behind_a_valid_header_never_panic(
        version in 2u8..=3,
        kind in any::<u8>(),
        nonzeros in 0u32..1200,
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let segments = model();
        let mut frame = vec![0xD7, version, kind, 0xea, 0x08, nonzeros as u8 | 0x80, (nonzeros >> 7) as u8];
        frame[5] = (nonzeros & 0x7f) as u8 | 0x80;
        if kind & 7 == 5 {
            // A whole vector, which says nothing of zeros.
            (frame[5], frame[6]) = (0xea, 0x08);
        }
        frame.extend(body);
        frame.extend([0; 4]);
        reseal(&mut frame);
        probe(&frame, &segments);
    }
}
