//! Sums of products of bytes, four of them to a word: exact, and so the same on every machine.
#![expect(unsafe_code, reason = "picks the inner loops for the machine's instructions")]

use super::tile::{Operands, Vector};
use super::{Multiply, Strided, Sum};

/// Σₛ Σₚ image[s, p, j]·weights[s, p, o] for each pixel `j` and output `o`, where an element is a word of four bytes, of
/// which those of the image are unsigned and those of the weights signed, and its product the sum of the four. Sums have
/// the bits of an `i32`.
#[derive(Clone, Copy)]
pub(crate) struct ByteProducts<'a> {
    pub(crate) outputs: usize,
    /// Side by side in the image.
    pub(crate) pixels: usize,
    pub(crate) depth: usize,
    pub(crate) segments: usize,
    /// For each segment and step of the depth a row of `outputs`.
    pub(crate) weights: &'a [u32],
    pub(crate) image: &'a [u32],
    /// Words of the image from one step of the depth to the next.
    pub(crate) step: usize,
    /// And from one segment to the next.
    pub(crate) segment: usize,
}

impl ByteProducts<'_> {
    /// Writes a row of sums for each output: vectors are of pixels.
    ///
    /// # Panics
    /// When an operand is too short or the result has another length.
    pub(crate) fn by_output(self, sums: &mut [u32]) {
        let Self { outputs, pixels, depth, segments, weights, image, step, segment } = self;
        let weights = bytemuck::cast_slice::<u32, i32>(weights);
        let a = Strided { data: weights, row: 1, column: outputs, segment: depth * outputs };
        let b = Strided { data: bytemuck::cast_slice(image), row: step, column: 1, segment };
        Sum { segments, ..Sum::product((outputs, depth, pixels), a, b) }.run(bytemuck::cast_slice_mut(sums));
    }

    /// Writes a row of sums for each pixel: vectors are of outputs.
    ///
    /// # Panics
    /// When an operand is too short or the result has another length.
    pub(crate) fn by_pixel(self, sums: &mut [u32]) {
        let Self { outputs, pixels, depth, segments, weights, image, step, segment } = self;
        let a = Strided { data: image, row: 1, column: step, segment };
        let b = Strided { data: weights, row: outputs, column: 1, segment: depth * outputs };
        Sum { segments, ..Sum::product((pixels, depth, outputs), a, b) }.run(sums);
    }
}

/// Words as elements: of which factor the bytes are unsigned.
pub(super) trait Bytes: Multiply {
    /// A vector of them, from one whose first factor has the unsigned bytes.
    type In<V: Vector<Element = u32>>: Vector<Element = Self>;
}

/// The bytes of `a` are unsigned, those of `b` signed.
impl Bytes for u32 {
    type In<V: Vector<Element = Self>> = V;
}

/// The other way about: the bytes of `a` are signed, those of `b` unsigned.
impl Bytes for i32 {
    type In<V: Vector<Element = u32>> = Swapped<V>;
}

impl Multiply for u32 {
    fn panel_width() -> usize {
        PANEL_WIDTH
    }

    unsafe fn sum_of_products(operands: &Operands<Self>) {
        // SAFETY: the caller's.
        unsafe { sum_of_bytes(operands) }
    }
}

impl Multiply for i32 {
    fn panel_width() -> usize {
        PANEL_WIDTH
    }

    unsafe fn sum_of_products(operands: &Operands<Self>) {
        // SAFETY: the caller's.
        unsafe { sum_of_bytes(operands) }
    }
}

const PANEL_WIDTH: usize = 32;

/// # Safety
/// As for [`Multiply::sum_of_products`].
unsafe fn sum_of_bytes<T: Bytes>(operands: &Operands<T>) {
    // SAFETY: the instructions exist, and the caller vouches for the operands.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        {
            use super::x86;
            if is_x86_feature_detected!("avx512vnni") {
                return x86::sum_of_bytes_avx512(operands);
            }
            if is_x86_feature_detected!("avxvnni") {
                return x86::sum_of_bytes_vnni(operands);
            }
            if is_x86_feature_detected!("avx2") {
                return x86::sum_of_bytes_avx2(operands);
            }
        }
        super::tile::sum_of_products::<T::In<Words>>(operands);
    }
}

/// Vectors whose first factor takes the place of the second.
#[derive(Clone, Copy)]
pub(super) struct Swapped<V>(V);

// SAFETY of all methods: the inner vector's; an i32 has the size of a u32.
impl<V: Vector<Element = u32>> Vector for Swapped<V> {
    type Element = i32;
    const LANES: usize = V::LANES;
    const ROWS: usize = V::ROWS;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { V::splat(value.cast_unsigned()) })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { V::load(from.cast(), count) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32, count: usize) {
        // SAFETY: see the impl.
        unsafe { self.0.store(to.cast(), count) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { factor.0.multiply_add(self.0, term.0) })
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { self.multiply_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { self.0.rectified() })
    }
}

/// Four words in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Words([u32; 4]);

// SAFETY of all methods: the trait says with how much memory they are called.
impl Vector for Words {
    type Element = u32;
    const LANES: usize = 4;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const u32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(std::array::from_fn(|lane| if lane < count { unsafe { *from.add(lane) } } else { 0 }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32, count: usize) {
        for (lane, &value) in self.0.iter().enumerate().take(count) {
            // SAFETY: see the impl.
            unsafe { *to.add(lane) = value };
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        let product = |a: u32, b: u32| -> i32 {
            a.to_le_bytes()
                .into_iter()
                .zip(b.to_le_bytes())
                .map(|(a, b)| i32::from(a) * i32::from(b.cast_signed()))
                .sum()
        };
        let sum = |lane: usize| term.0[lane].wrapping_add(product(self.0[lane], factor.0[lane]).cast_unsigned());
        Self(std::array::from_fn(sum))
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { self.multiply_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        Self(self.0.map(|sum| sum.cast_signed().max(0).cast_unsigned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Implementation<T> = unsafe fn(&Operands<T>);

    fn implementations<T: Bytes>() -> Vec<(&'static str, Implementation<T>)> {
        let mut list: Vec<(&str, Implementation<T>)> = vec![
            ("portable", super::super::tile::sum_of_products::<T::In<Words>>),
            ("the best", <T as Multiply>::sum_of_products),
        ];
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::x86;
            if is_x86_feature_detected!("avx512vnni") {
                list.push(("avx512", x86::sum_of_bytes_avx512));
            }
            if is_x86_feature_detected!("avxvnni") {
                list.push(("avx-vnni", x86::sum_of_bytes_vnni));
            }
            if is_x86_feature_detected!("avx2") {
                list.push(("avx2", x86::sum_of_bytes_avx2));
            }
        }
        list
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
    }

    #[test]
    fn sums_are_those_of_the_bytes_however_they_are_taken() {
        for (pixels, outputs, depth, segments, step) in [
            (14, 64, 40, 5, 1),
            (7, 33, 3, 2, 4),
            (1, 1, 1, 1, 1),
            (28, 6, 7, 1, 4),
            (3, 17, 300, 1, 3),
            (70, 20, 5, 3, 1),
        ] {
            let segment = pixels + depth * step + 2;
            let (image, weights) = (bytes(4 * segments * segment), bytes(4 * segments * depth * outputs));
            let mut expected = vec![0; pixels * outputs];
            for (at, sum) in expected.iter_mut().enumerate() {
                let (pixel, output) = (at / outputs, at % outputs);
                for of_segment in 0..segments {
                    for word in 0..depth {
                        for byte in 0..4 {
                            let a = image[4 * (of_segment * segment + pixel + word * step) + byte];
                            let b = weights[4 * ((of_segment * depth + word) * outputs + output) + byte];
                            *sum += i32::from(a) * i32::from(b.cast_signed());
                        }
                    }
                }
            }
            let (image, weights) = (words(&image), words(&weights));
            for (name, implementation) in implementations::<u32>() {
                let mut sums = vec![7u32; pixels * outputs];
                let operands = Operands {
                    rows: pixels,
                    columns: outputs,
                    depth,
                    segments,
                    a: image.as_ptr(),
                    a_row: 1,
                    a_column: step,
                    a_segment: segment,
                    b: weights.as_ptr(),
                    b_row: outputs,
                    b_segment: depth * outputs,
                    c: sums.as_mut_ptr(),
                    c_row: outputs,
                    start: std::ptr::null(),
                    start_row: 0,
                    rectify: false,
                };
                // SAFETY: all of it exists, and so do the instructions.
                unsafe { implementation(&operands) };
                let sums: Vec<i32> = sums.into_iter().map(u32::cast_signed).collect();
                assert_eq!(sums, expected, "{name}: {pixels}×{outputs}, {segments} of {depth}");
            }
            let (image, weights) = (&*image, &*weights);
            let products = ByteProducts { outputs, pixels, depth, segments, weights, image, step, segment };
            let (mut by_pixel, mut by_output) = (vec![7u32; pixels * outputs], vec![7u32; pixels * outputs]);
            products.by_pixel(&mut by_pixel);
            products.by_output(&mut by_output);
            for (at, expected) in expected.into_iter().enumerate() {
                let (pixel, output) = (at / outputs, at % outputs);
                assert_eq!(by_pixel[at].cast_signed(), expected, "pixel {pixel}, output {output}");
                assert_eq!(
                    by_output[output * pixels + pixel].cast_signed(),
                    expected,
                    "pixel {pixel}, output {output}"
                );
            }
        }
    }

    #[test]
    fn every_kind_of_vector_may_be_swapped() {
        let (rows, columns, depth) = (9, 37, 6);
        let (signed, unsigned) = (words(&bytes(4 * rows * depth)), words(&bytes(4 * depth * columns)));
        let a: &[i32] = bytemuck::cast_slice(&signed);
        let b: &[i32] = bytemuck::cast_slice(&unsigned);
        let product = |a: u32, b: u32| -> i32 {
            let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            pairs.map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b)).sum()
        };
        for (name, implementation) in implementations::<i32>() {
            let mut sums = vec![7; rows * columns];
            let operands = Operands {
                rows,
                columns,
                depth,
                segments: 1,
                a: a.as_ptr(),
                a_row: depth,
                a_column: 1,
                a_segment: 0,
                b: b.as_ptr(),
                b_row: columns,
                b_segment: 0,
                c: sums.as_mut_ptr(),
                c_row: columns,
                start: std::ptr::null(),
                start_row: 0,
                rectify: false,
            };
            // SAFETY: all of it exists, and so do the instructions.
            unsafe { implementation(&operands) };
            for (at, sum) in sums.into_iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let expected: i32 =
                    (0..depth).map(|p| product(signed[row * depth + p], unsigned[p * columns + column])).sum();
                assert_eq!(sum, expected, "{name}: row {row}, column {column}");
            }
        }
    }
}
