//! The rotation: random signs, then a Hadamard transform. Only sums and differences in an order that is part of the
//! format, so every machine decodes the same floats.

use std::ops::Range;

/// Sets of coordinates that are rotated together: as many of 2^`log2` as fit, then smaller powers of two for what is left, so that nothing
/// is padded.
pub(super) fn blocks(n: usize, log2: u32) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = n - start;
        let len = 1 << left.checked_ilog2()?.min(log2);
        start += len;
        Some(start - len..start)
    })
}

/// Negates coordinates at random: `values` begin at the flat index `start`. Doing it again undoes it.
#[inline(always)]
pub(super) fn flip_signs(seed: u64, start: usize, values: &mut [f32]) {
    let mut at = start;
    let mut rest = values;
    while !rest.is_empty() {
        let from = at % 64;
        let (now, later) = rest.split_at_mut(rest.len().min(64 - from));
        let word = word(seed, (at / 64) as u64) >> from;
        for (i, value) in now.iter_mut().enumerate() {
            *value = f32::from_bits(value.to_bits() ^ ((word >> i) as u32 & 1) << 31);
        }
        at += now.len();
        rest = later;
    }
}

/// Random bits by number (SplitMix64, Steele et al. 2014): any of them without those before it.
#[inline(always)]
pub(crate) fn word(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The Hadamard transform in natural order, of a power of two of values; not divided by anything, so that doing it twice
/// multiplies by their number. For h = 1, 2, 4 …: (a, b) becomes (a + b, a − b) for all pairs h apart.
#[inline(always)]
pub(super) fn transform(values: &mut [f32]) {
    let n = values.len();
    let mut h = 1;
    if n >= 8 {
        for eight in values.as_chunks_mut().0 {
            transform_eight(eight);
        }
        h = 8;
    }
    // Two steps at a time: half the reading and writing, the same sums.
    while 4 * h <= n {
        for four in values.chunks_exact_mut(4 * h) {
            let (ab, cd) = four.split_at_mut(2 * h);
            let ((a, b), (c, d)) = (ab.split_at_mut(h), cd.split_at_mut(h));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (p, q, r, s) = (*a + *b, *a - *b, *c + *d, *c - *d);
                (*a, *b, *c, *d) = (p + r, q + s, p - r, q - s);
            }
        }
        h *= 4;
    }
    while 2 * h <= n {
        for two in values.chunks_exact_mut(2 * h) {
            let (a, b) = two.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        h *= 2;
    }
}

/// The steps of 1, 2 and 4 within a vector register: neighbours exchanged, added to what is negated where it was second.
#[inline(always)]
fn transform_eight(x: &mut [f32; 8]) {
    *x = step([x[1], x[0], x[3], x[2], x[5], x[4], x[7], x[6]], *x, 1);
    *x = step([x[2], x[3], x[0], x[1], x[6], x[7], x[4], x[5]], *x, 2);
    *x = step([x[4], x[5], x[6], x[7], x[0], x[1], x[2], x[3]], *x, 4);
}

#[inline(always)]
fn step(other: [f32; 8], own: [f32; 8], h: usize) -> [f32; 8] {
    std::array::from_fn(|i| {
        let negative = if i & h == 0 { 0 } else { 1 << 31 };
        other[i] + f32::from_bits(own[i].to_bits() ^ negative)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plainly(x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        let mut h = 1;
        while h < x.len() {
            for i in (0..x.len()).filter(|i| i & h == 0) {
                (x[i], x[i + h]) = (x[i] + x[i + h], x[i] - x[i + h]);
            }
            h *= 2;
        }
        x
    }

    #[test]
    fn the_transform_is_the_plain_one_to_the_bit() {
        for log2 in 0..15 {
            let x: Vec<f32> = (0..1 << log2).map(|i| (word(1, i) as u32 as f32 - 2e9) * 1e-9).collect();
            let mut fast = x.clone();
            crate::vectorised(
                #[inline(always)]
                || transform(&mut fast),
            );
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&fast), bits(&plainly(&x)), "{log2}");
        }
    }

    #[test]
    fn blocks_cover_everything_without_padding() {
        let lengths = |n, log2| blocks(n, log2).map(|block| block.len()).collect::<Vec<_>>();
        assert_eq!(lengths(0, 3), [0usize; 0]);
        assert_eq!(lengths(29, 3), [8, 8, 8, 4, 1]);
        assert_eq!(lengths(5, 13), [4, 1]);
        assert!(blocks(100_003, 13).fold(0, |end, block| if block.start == end { block.end } else { 0 }) == 100_003);
    }

    #[test]
    fn signs_depend_on_the_flat_index_only_and_undo_themselves() {
        let mut whole = vec![1.0; 1000];
        flip_signs(7, 0, &mut whole);
        let mut part = vec![1.0; 500];
        flip_signs(7, 333, &mut part);
        assert_eq!(part, whole[333..833]);
        flip_signs(7, 0, &mut whole);
        assert_eq!(whole, vec![1.0; 1000]);
    }

    #[test]
    fn random_words_are_those_of_splitmix64() {
        // The first outputs of the reference implementation for seed 1234567.
        assert_eq!(word(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(word(1_234_567, 1), 3_203_168_211_198_807_973);
    }
}
