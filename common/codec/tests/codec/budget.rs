//! Frames of a wanted length.

use crate::support::{CODERS, codec, floats, gaussian, one_segment, segments};
use dunlin_codec::{Codec, Encoder, EntropyCoder, Error, FILL, Fit, Quantizer, Rate};
use proptest::prelude::*;

#[test]
fn a_frame_fills_what_it_may_and_no_byte_more() {
    let shapes = segments(&[(40_000, 200), (200, 200), (10_000, 100), (300, 300)]);
    let u: Vec<f32> = gaussian(1, shapes.len()).into_iter().map(|x| x * x * x).collect();
    for quantizer in [Quantizer::F32, Quantizer::F16, Quantizer::Int8, Quantizer::Ternary] {
        for coder in CODERS {
            for bytes in [200, 1000, 5000, 12_000] {
                let mut left = Values::default();
                let encoded = Encoder::new()
                    .encode_source_within(&codec(1.0, quantizer, coder), bytes, &shapes, u.as_slice(), &mut left)
                    .unwrap();
                let (len, bytes) = (encoded.frame.len() as f64, bytes as f64);
                // A dense layout may be shorter than any sparse one that would fill the rest.
                let is_all = encoded.nonzeros == shapes.len() || quantizer == Quantizer::Ternary && len < bytes;
                assert!(len <= bytes && (len >= FILL * bytes || is_all), "{quantizer:?} {coder:?}: {len} of {bytes}");
                let decoded = floats(&encoded.frame, &shapes).unwrap();
                assert!(u.iter().zip(&decoded).zip(&left.0).all(|((u, decoded), left)| u - decoded == *left));
            }
        }
    }
}

#[test]
fn the_rate_of_rotated_blocks_follows_the_length() {
    let shape = one_segment(20_000);
    let u = gaussian(2, 20_000);
    let codec = Codec {
        density: 1.0,
        quantizer: Quantizer::Rotated { rate: Rate::nearest(1.0), fit: Fit::LeastError },
        coder: EntropyCoder::Auto,
    };
    for bytes in [700, 2500, 9000] {
        let encoded = Encoder::new().encode_source_within(&codec, bytes, &shape, u.as_slice(), &mut ()).unwrap();
        let len = encoded.frame.len() as f64;
        assert!(len <= bytes as f64 && len >= FILL * bytes as f64, "{len} of {bytes}");
    }
}

#[test]
fn a_vector_that_fits_is_sent_whole() {
    let shape = one_segment(100);
    let u = gaussian(3, 100);
    let f32s = codec(0.1, Quantizer::F32, EntropyCoder::Auto);
    let encoded = Encoder::new().encode_source_within(&f32s, 10_000, &shape, u.as_slice(), &mut ()).unwrap();
    assert_eq!(floats(&encoded.frame, &shape).unwrap(), u);
    let zeros = vec![0.0; 100];
    let encoded = Encoder::new().encode_source_within(&f32s, 10_000, &shape, zeros.as_slice(), &mut ()).unwrap();
    assert_eq!(encoded.nonzeros, 0);
}

#[test]
fn too_little_room_and_fixed_lengths_are_refused() {
    let shape = one_segment(100);
    let u = gaussian(4, 100);
    let encode = |quantizer, bytes| {
        let codec = codec(1.0, quantizer, EntropyCoder::Auto);
        Encoder::new().encode_source_within(&codec, bytes, &shape, u.as_slice(), &mut ()).map(|encoded| encoded.frame)
    };
    assert!(matches!(encode(Quantizer::Ternary, 5), Err(Error::NoRoom { bytes: 5, least: 8.. })));
    assert_eq!(encode(Quantizer::Sign, 1000), Err(Error::NoRate));
    let none: &[f32] = &[];
    let empty = Encoder::new().encode_source_within(
        &codec(1.0, Quantizer::Ternary, EntropyCoder::Auto),
        1000,
        &shape,
        none,
        &mut (),
    );
    assert_eq!(empty, Err(Error::WrongLength { expected: 100, got: 0 }));
}

/// Takes what a frame leaves.
#[derive(Default)]
struct Values(Vec<f32>);

impl dunlin_codec::Rest for Values {
    fn take(&mut self, start: usize, values: &[f32]) {
        self.0.truncate(start);
        self.0.extend_from_slice(values);
    }

    fn correct(&mut self, places: &[u32], left: &[f32]) {
        for (&place, &left) in places.iter().zip(left) {
            self.0[place as usize] = left;
        }
    }
}

proptest! {
    #[test]
    fn no_frame_is_ever_longer_than_wanted(
        values in prop::collection::vec(prop_oneof![3 => Just(0.0), 1 => -10f32..10.0], 1..300),
        bytes in 1u64..1000,
    ) {
        let shape = one_segment(values.len());
        let ternary = codec(1.0, Quantizer::Ternary, EntropyCoder::Auto);
        match Encoder::new().encode_source_within(&ternary, bytes, &shape, values.as_slice(), &mut ()) {
            Ok(encoded) => prop_assert!(encoded.frame.len() as u64 <= bytes),
            Err(error) => prop_assert!(matches!(error, Error::NoRoom { least, .. } if least > bytes), "{error}"),
        }
    }
}
