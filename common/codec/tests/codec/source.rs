//! Vectors that are computed where they are read.

use dunlin_codec::{Codec, Encoder, EntropyCoder, Error, Quantizer, Rest, Segment, Segments, Source};

/// `scale` times what lies in memory.
struct Scaled(Vec<f32>, f32);

impl Source for Scaled {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn block<'a>(&'a self, start: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        let end = start + buffer.len();
        for (value, x) in buffer.iter_mut().zip(&self.0[start..end]) {
            *value = x * self.1;
        }
        buffer
    }
}

#[derive(Default)]
pub(crate) struct Left(pub(crate) Vec<f32>);

impl Rest for Left {
    fn take(&mut self, start: usize, values: &[f32]) {
        self.0.truncate(start);
        assert_eq!(self.0.len(), start, "in order");
        self.0.extend_from_slice(values);
    }

    fn correct(&mut self, places: &[u32], left: &[f32]) {
        for (&place, &left) in places.iter().zip(left) {
            self.0[place as usize] = left;
        }
    }
}

/// Heavy tails, some zeros.
fn noise(n: u32) -> Vec<f32> {
    let uniform = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..n).map(|i| if i % 7 == 0 { 0.0 } else { uniform(i).powi(9) }).collect()
}

/// Everything large lies where a sample of the vector does not look.
fn hidden(n: u32) -> Vec<f32> {
    (0..n).zip(noise(n)).map(|(i, value)| if (i / 16) % 64 == 3 { value } else { 1e-9 }).collect()
}

fn halves(n: usize) -> Segments {
    Segments::new(vec![Segment { len: n / 2, row: 100 }, Segment { len: n - n / 2, row: 1 }]).unwrap()
}

#[test]
fn a_source_gives_the_frame_and_the_residual_of_the_vector_in_memory() {
    for u in [noise(100), noise(70_001), hidden(70_001)] {
        let segments = halves(u.len());
        let in_memory: Vec<f32> = u.iter().map(|x| x * 0.5).collect();
        let source = Scaled(u, 0.5);
        for quantizer in
            [Quantizer::Ternary, Quantizer::Codebook { bits: 2 }, Quantizer::F32, Quantizer::F16, Quantizer::Int8]
        {
            for (density, coder) in [(0.01, EntropyCoder::Auto), (0.6, EntropyCoder::Rice), (1.0, EntropyCoder::Auto)] {
                let codec = Codec { density, quantizer, coder };
                let mut residual = in_memory.clone();
                let expected = Encoder::new().encode_with_feedback(&codec, &segments, &mut residual).unwrap();
                let mut left = Left::default();
                let encoded = Encoder::new().encode_source(&codec, &segments, &source, &mut left).unwrap();
                assert_eq!(encoded, expected, "{codec:?}");
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&left.0), bits(&residual), "{codec:?}");
            }
        }
    }
}

#[test]
fn a_source_with_a_value_that_is_not_finite_is_refused() {
    let segments = halves(50_000);
    let mut u = noise(50_000);
    u[40_000] = f32::INFINITY;
    u[49_000] = f32::NAN;
    for (density, quantizer) in [(0.01, Quantizer::Ternary), (1.0, Quantizer::F32), (1.0, Quantizer::Int8)] {
        let codec = Codec { density, quantizer, coder: EntropyCoder::Auto };
        let refused = Encoder::new().encode_source(&codec, &segments, u.as_slice(), &mut ());
        assert_eq!(refused, Err(Error::NotFinite { index: 40_000, nan: false }), "{codec:?}");
    }
    let codec = Codec { density: 0.01, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    let short = Encoder::new().encode_source(&codec, &halves(10), u.as_slice(), &mut ());
    assert_eq!(short, Err(Error::WrongLength { expected: 10, got: 50_000 }));
}
