//! Frames of a wanted length: the density that fills it is searched for by encoding.

use crate::{Codec, Encoded, Encoder, Error, Quantizer, Rate, Rest, Segments, Source, encode::check_length};

impl Encoder {
    /// Encodes as [`Self::encode_source`] does, but with as many coordinates as fit into a frame of `bytes`, headers and
    /// checksum included; the codec's density plays no part. For [`Quantizer::Rotated`] the rate is chosen instead.
    ///
    /// The frame is never longer, and at least [`FILL`] of it long unless the vector has no more to send, or one
    /// coordinate more would be too many. A few frames are written for it, as real lengths are all that counts.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when not even one coordinate fits, [`Error::NoRate`] for a quantizer whose frames have one length
    /// only, and those of [`Self::encode_source`].
    pub fn encode_source_within<S: Source + ?Sized>(
        &mut self,
        codec: &Codec,
        bytes: u64,
        segments: &Segments,
        u: &S,
        rest: &mut impl Rest,
    ) -> Result<Encoded, Error> {
        check_length(segments, u.len())?;
        if !codec.quantizer.fits_lengths() {
            return Err(Error::NoRate);
        }
        let is_rotated = codec.quantizer.is_whole();
        let (least, most) = if is_rotated {
            ((Rate::LEAST * 1000.0) as u64, (Rate::MOST * 1000.0) as u64)
        } else {
            (1, u.len() as u64)
        };
        let with = |amount: u64| match codec.quantizer {
            Quantizer::Rotated { fit, .. } => {
                Codec { quantizer: Quantizer::Rotated { rate: Rate::nearest(amount as f64 / 1000.0), fit }, ..*codec }
            }
            _ => Codec { density: amount as f64 / u.len() as f64, ..*codec },
        };
        // Sent coordinates, or thousandths of a bit: the most that is known to fit, and the least that is known not to.
        let (mut fits, mut over) = (None, most + 1);
        let bits = bytes.saturating_mul(8);
        let first = if is_rotated { bits.saturating_mul(1000) / u.len() as u64 } else { bits / FIRST_GUESS_BITS };
        let mut amount = first.clamp(least, most);
        for _ in 0..MOST_TRIES {
            let encoded = self.encode_source(&with(amount), segments, u, rest)?;
            let len = encoded.frame.len() as u64;
            if len <= bytes {
                // Of a vector that is mostly zeros fewer coordinates are sent than asked for.
                let is_all = amount == most || (!is_rotated && (encoded.nonzeros as u64) < amount);
                if is_all || amount + 1 == over || len as f64 >= FILL * bytes as f64 {
                    return Ok(encoded);
                }
                fits = Some(amount);
                self.recycle(encoded.frame);
            } else if amount == least {
                return Err(Error::NoRoom { bytes, least: len });
            } else {
                over = amount;
                self.recycle(encoded.frame);
            }
            let floor = fits.map_or(least, |fits| fits + 1);
            let wanted = (amount as f64 * AIM * bytes as f64 / len as f64) as u64;
            amount = if (floor..over).contains(&wanted) { wanted } else { floor.midpoint(over - 1) };
        }
        let encoded = self.encode_source(&with(fits.unwrap_or(least)), segments, u, rest)?;
        let len = encoded.frame.len() as u64;
        if len <= bytes { Ok(encoded) } else { Err(Error::NoRoom { bytes, least: len }) }
    }
}

/// Share of the wanted length that a frame has at least.
pub const FILL: f64 = 0.98;

/// Share of it that is aimed at: half of what may be missing.
const AIM: f64 = 0.99;

/// Bits of a non-zero that the search begins with.
const FIRST_GUESS_BITS: u64 = 10;

/// Frames that are written at most; the length is nearly proportional to the amount, so two or three do.
const MOST_TRIES: usize = 24;
