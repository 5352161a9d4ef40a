//! CRC-32C (Castagnoli, the CRC of iSCSI, RFC 3720 appendix B.4).

use crc_fast::{CrcAlgorithm::Crc32Iscsi, Digest};

/// The checksum of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> u32 {
    append(0, bytes)
}

/// The checksum of what `before` is of, followed by `bytes`. The checksum of nothing is 0.
pub(crate) fn append(before: u32, bytes: &[u8]) -> u32 {
    // The library's state is the checksum before its last step, which inverts it.
    let mut digest = Digest::new_with_init_state(Crc32Iscsi, u64::from(!before));
    digest.update(bytes);
    digest.finalize() as u32
}

/// The checksum of what `before` is of, followed by the `bytes` bytes that `after` is of: `before` times x⁸ⁿ plus `after`,
/// as polynomials. (The library squares matrices for it, which takes 60 µs.)
pub(crate) fn combine(before: u32, after: u32, mut bytes: usize) -> u32 {
    // x⁸, and its powers by squaring. The first bit is that of the highest power, so 1 is at the other end.
    let (mut power, mut shifted) = (1 << (31 - 8), before);
    while bytes > 0 {
        if bytes & 1 == 1 {
            shifted = times(shifted, power);
        }
        power = times(power, power);
        bytes >>= 1;
    }
    shifted ^ after
}

/// The product of two polynomials modulo Castagnoli's.
fn times(a: u32, mut b: u32) -> u32 {
    (0..32).rev().fold(0, |product, bit| {
        let sum = if a >> bit & 1 == 1 { product ^ b } else { product };
        b = if b & 1 == 1 { b >> 1 ^ CASTAGNOLI } else { b >> 1 };
        sum
    })
}

const CASTAGNOLI: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_other_librarys_in_one_piece_and_in_any_two() {
        assert_eq!(of(b"123456789"), 0xe306_9283, "the check value of the catalogue of CRCs");
        assert_eq!(of(b""), 0);
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for end in [1, 7, 16, 255, 256, 1000, 2048, 4999, 5000] {
            let (bytes, whole) = (&bytes[..end], crc32c::crc32c(&bytes[..end]));
            assert_eq!(of(bytes), whole, "{end} bytes");
            for split in [0, 1, end / 3, end / 2, end - 1, end] {
                let (a, b) = bytes.split_at(split);
                assert_eq!(append(of(a), b), whole, "{split} of {end} bytes");
                assert_eq!(combine(of(a), of(b), b.len()), whole, "{split} of {end} bytes");
            }
        }
    }
}
