//! A sign for each coordinate and the mean magnitude of its tensor (Bernstein et al. 2018, scaled as by Karimireddy et
//! al. 2019).

use crate::{
    Error, Segments,
    bits::{BitReader, BitWriter, Stream},
    whole::{Each, dot, scale},
};

/// Appends a body to `out`.
pub(super) fn write(segments: &Segments, u: &[f32], out: &mut Vec<u8>) {
    let mut stream = BitWriter::new(out);
    for i in 0..segments.count() {
        let values = &u[segments.range(i)];
        let sum = dot(values, |i| if values[i] < 0.0 { -1.0 } else { 1.0 });
        let scale = scale::nearest((sum / values.len() as f64) as f32);
        stream.bits(scale.into(), 16);
        if scale > 0 {
            for values in values.chunks(16) {
                let word = values.iter().enumerate().fold(0, |word, (i, value)| word | u32::from(*value < 0.0) << i);
                stream.bits(word, values.len() as u32);
            }
        }
    }
    stream.finish();
}

/// Reads a body.
pub(super) fn read(body: &[u8], frame_bytes: usize, segments: &Segments, each: &mut impl Each) -> Result<(), Error> {
    let mut stream = BitReader::new(body);
    let mut values = [0.0; RUN];
    for i in 0..segments.count() {
        let range = segments.range(i);
        let scale = scale::value(stream.bits(0, 16) as u16, range.start)?;
        if scale == 0.0 {
            continue;
        }
        for start in range.clone().step_by(RUN) {
            let values = &mut values[..RUN.min(range.end - start)];
            for values in values.chunks_mut(16) {
                let word = stream.bits(0, values.len() as u32);
                for (i, value) in values.iter_mut().enumerate() {
                    *value = f32::from_bits(scale.to_bits() | (word >> i & 1) << 31);
                }
            }
            each(start, values)?;
        }
    }
    stream.finish(frame_bytes)
}

/// Values handed on at a time, a multiple of 16.
const RUN: usize = 1024;
