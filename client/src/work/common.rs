//! Updates of the coordinates that all clients of a round send.

use dunlin_codec::{Codec, Encoded, Encoder, Error, Mask, Rest, Source};

/// Encodes what `sent`, a part of `mask`, takes of an update within `mask`. All else of the update is left, to be sent when
/// its turn comes.
///
/// # Errors
/// [`Error::NotFinite`] of any coordinate of the update, sent or not, and those of encoding.
pub(super) fn encode<S: Source + ?Sized>(
    encoder: &mut Encoder,
    codec: &Codec,
    (mask, sent): (&Mask, &Mask),
    update: &S,
    left: &mut impl Rest,
) -> Result<Encoded, Error> {
    let mut values = Vec::with_capacity(sent.len());
    let mut places = mask.places(sent).peekable();
    let mut buffer = [0.0; AT_ONCE];
    for start in (0..update.len()).step_by(AT_ONCE) {
        let end = update.len().min(start + AT_ONCE);
        let block = update.block(start, &mut buffer[..end - start]);
        if let Some(at) = block.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { index: start + at, nan: block[at].is_nan() });
        }
        left.take(start, block);
        while let Some(place) = places.next_if(|&place| (place as usize) < end) {
            values.push(block[place as usize - start]);
        }
    }
    let encoded = encoder.encode_with_feedback(codec, sent.segments(), &mut values)?;
    let places: Vec<u32> = mask.places(sent).collect();
    left.correct(&places, &values);
    Ok(encoded)
}

/// Values read at a time: they stay in the first-level cache.
const AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Residual;
    use dunlin_codec::{CommonGrid, Decoder, EntropyCoder, Fit, Limits, Quantizer, Segment, Segments};
    use std::sync::Arc;

    #[test]
    fn what_is_not_sent_stays_whole_and_what_is_sent_leaves_what_rounding_and_clipping_took() {
        let whole = Arc::new(Segments::new(vec![Segment { len: 2000, row: 50 }]).unwrap());
        let mask = Arc::new(Mask::new(Arc::clone(&whole), |index| index % 4 != 1).unwrap());
        let sent = mask.random_part(200, 5);
        let grid = CommonGrid::new(4, 0.5).unwrap();
        let quantizer = Quantizer::Common { grid, fit: Fit::LeastError };
        let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Raw };
        // Multiples of 2⁻⁷ of brain floats' eight digits, some of them beyond the bound of 7/16.
        let update: Vec<f32> = (0..mask.len()).map(|i| (i * 37 % 180) as f32 / 128.0 - 0.7109375).collect();
        let mut left = Residual { round: 1, mask: Arc::clone(&mask), values: Vec::new() };
        let encoded = encode(&mut Encoder::new(), &codec, (&mask, &sent), &update[..], &mut left).unwrap();
        let mut decoded = vec![0.0; sent.len()];
        Decoder::new()
            .decode(&encoded.frame, sent.segments(), &Limits::for_segments(sent.segments()), &mut decoded)
            .unwrap();
        let places: Vec<u32> = mask.places(&sent).collect();
        let mut expected = update.clone();
        for (&place, value) in places.iter().zip(&decoded) {
            assert!(value.abs() <= grid.largest() && (value / grid.step()).fract() == 0.0);
            expected[place as usize] -= value;
        }
        let got: Vec<f32> = left.values.iter().map(|value| value.to_f32()).collect();
        assert_eq!((left.values.len(), got), (mask.len(), expected));
        // A header, bits in a row, a checksum.
        assert_eq!(encoded.frame.len(), 3 + 2 + 2 + 2 + 100 + 4);
    }

    #[test]
    fn what_is_not_finite_is_refused_wherever_it_is() {
        let mask = Mask::all(Arc::new(Segments::new(vec![Segment { len: 600, row: 600 }]).unwrap()));
        let sent = mask.part(&[0, 599]).unwrap();
        let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
        for (value, nan) in [(f32::NAN, true), (f32::INFINITY, false)] {
            let mut update = vec![0.5; 600];
            update[550] = value;
            let refused = encode(&mut Encoder::new(), &codec, (&mask, &sent), &update[..], &mut ());
            assert_eq!(refused, Err(Error::NotFinite { index: 550, nan }));
        }
    }
}
