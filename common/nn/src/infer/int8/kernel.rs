//! Sums of products of signed and unsigned bytes, with VNNI or AVX2 where the machine has them.
#![expect(unsafe_code, reason = "vector instructions may be used only where they exist, and read memory by address")]

/// Bytes that go by together: rows have to be as long as a multiple of it.
pub(super) const LANES: usize = 16;

/// Σ w[row][i] · x[column][i] for each row of `w` and each of `x`, all of length `len`, a positive multiple of [`LANES`]:
/// `sums` has the columns of a row side by side. Sums are exact for lengths up to 2¹⁶.
pub(super) fn products(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
    assert!(len > 0 && len.is_multiple_of(LANES) && len <= 1 << 16, "rows of {len}");
    let (rows, columns) = (w.len() / len, x.len() / len);
    assert!(w.len() == rows * len && x.len() == columns * len && sums.len() == rows * columns, "whole rows");
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = x86::Kernel::best() {
        return kernel.products(w, x, len, sums);
    }
    portable(w, x, len, sums);
}

/// What the vector code is held to, and what runs elsewhere.
fn portable(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
    for (w, sums) in w.chunks_exact(len).zip(sums.chunks_exact_mut(x.len() / len)) {
        for (x, sum) in x.chunks_exact(len).zip(sums) {
            *sum = w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> impl Iterator<Item = u8> {
        let mut state = 1u32;
        (0..len).map(move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
    }

    #[test]
    fn the_vector_code_is_its_portable_twin_to_the_bit() {
        for (rows, columns, len) in [(4, 2, 16), (7, 5, 48), (1, 1, 800), (3, 2, 32), (9, 1, 64), (6, 9, 208)] {
            let w: Vec<i8> = bytes(rows * len).map(|byte| byte as i8).collect();
            let x: Vec<u8> = bytes(columns * len + 5).skip(5).collect();
            let (mut here, mut expected) = (vec![0; rows * columns], vec![0; rows * columns]);
            products(&w, &x, len, &mut here);
            portable(&w, &x, len, &mut expected);
            assert_eq!(here, expected);
            #[cfg(target_arch = "x86_64")]
            for kernel in x86::Kernel::here() {
                here.fill(0);
                kernel.products(&w, &x, len, &mut here);
                assert_eq!(here, expected, "{kernel:?}");
            }
        }
    }

    #[test]
    fn the_longest_rows_do_not_overflow() {
        let (w, x) = (vec![-128; 4 << 16], vec![255; 2 << 16]);
        let mut sums = [0; 8];
        products(&w, &x, 1 << 16, &mut sums);
        assert_eq!(sums, [(-128 * 255) << 16; 8]);
        #[cfg(target_arch = "x86_64")]
        for kernel in x86::Kernel::here() {
            kernel.products(&w, &x, 1 << 16, &mut sums);
            assert_eq!(sums, [(-128 * 255) << 16; 8], "{kernel:?}");
        }
    }
}
