//! A scale in 16 bits: the exponent of an f32 and the first eight bits of its fraction. It has the range of an f32, which
//! half precision lacks, and no sign.

use crate::Error;

/// The code nearest to a scale; what is too small becomes the least, so that only zero is zero.
pub(super) fn nearest(scale: f32) -> u16 {
    code(scale, 1 << (DROPPED - 1))
}

/// The code of the least scale that is not below.
pub(super) fn above(scale: f32) -> u16 {
    code(scale, (1 << DROPPED) - 1)
}

fn code(scale: f32, rounding: u32) -> u16 {
    if scale <= 0.0 {
        return 0;
    }
    ((scale.to_bits() + rounding) >> DROPPED).clamp(1, LARGEST.into()) as u16
}

/// The scale of a code, for the block that begins at `index`.
///
/// # Errors
/// [`Error::BadBlock`] for what would be infinite or not a number.
pub(super) fn value(code: u16, index: usize) -> Result<f32, Error> {
    if code > LARGEST {
        return Err(Error::BadBlock { index });
    }
    Ok(f32::from_bits(u32::from(code) << DROPPED))
}

const DROPPED: u32 = 15;
const LARGEST: u16 = 0xfeff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_significant_bits_are_kept() {
        for scale in [1.0, 7.0, 1e-30, 511.0, 0.75, f32::MIN_POSITIVE] {
            assert_eq!(
                value(nearest(scale), 0).unwrap(),
                value(above(scale), 0).unwrap().min(value(nearest(scale), 0).unwrap())
            );
            assert!((value(nearest(scale), 0).unwrap() / scale - 1.0).abs() <= 1.0 / 512.0);
            assert!(value(above(scale), 0).unwrap() >= scale);
        }
        assert_eq!(value(nearest(7.0), 0), Ok(7.0));
        assert_eq!(value(above(511.0), 0), Ok(511.0));
    }

    #[test]
    fn only_zero_is_zero_and_nothing_is_infinite() {
        assert_eq!(nearest(0.0), 0);
        assert_eq!(nearest(f32::from_bits(1)), 1);
        assert!(value(nearest(f32::MAX), 0).unwrap().is_finite());
        assert_eq!(value(0xff00, 3), Err(Error::BadBlock { index: 3 }));
    }
}
