//! Products that go through the places of a matrix that are left, in lists; what is multiplied lies side by side.
#![expect(
    unsafe_code,
    reason = "vectors are loaded through pointers; the lists' extents are checked where they are run"
)]

use super::tile::FloatVector;
use super::{Float, Kernel};
use candle_core::WithDType;

/// Columns that are taken at once, at least: what all vectors' lengths divide.
pub(in super::super) const COLUMNS: usize = 16;

/// Lists of places, such as the inputs of each output.
#[derive(Debug)]
pub(in super::super) struct Lists {
    /// List i has the entries from `starts[i]` to `starts[i + 1]`.
    starts: Vec<u32>,
    entries: Vec<u32>,
    /// Entries are below it.
    places: usize,
}

impl Lists {
    /// Of the places below `places`, those of each list.
    ///
    /// # Panics
    /// When starts do not rise from 0 to the number of entries, or an entry is not below `places`.
    pub(in super::super) fn new(starts: Vec<u32>, entries: Vec<u32>, places: usize) -> Self {
        let ends = (starts.first(), starts.last());
        assert!(starts.is_sorted() && ends == (Some(&0), Some(&(entries.len() as u32))), "lists lie one after another");
        assert!(entries.iter().all(|&entry| (entry as usize) < places), "places are below {places}");
        Self { starts, entries, places }
    }

    /// How many lists there are.
    pub(in super::super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The entries of all lists.
    pub(in super::super) fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// Where the entries of a list are.
    #[inline(always)]
    pub(in super::super) fn range(&self, list: usize) -> std::ops::Range<usize> {
        self.starts[list] as usize..self.starts[list + 1] as usize
    }

    /// y[i] = Σ values[k] · x[entries[k]] over the entries k of each list i, where x[j] are the `columns` elements of `x`
    /// from `starts[j]` on, and those of y lie one after another.
    ///
    /// # Panics
    /// When a length is not that, or `columns` no multiple of [`COLUMNS`].
    pub(in super::super) fn multiply<T: Float>(
        &self,
        values: &[T],
        (x, starts): (&[T], &[usize]),
        columns: usize,
        y: &mut [T],
    ) {
        assert_eq!(values.len(), self.entries.len(), "a value for each entry");
        self.check(columns, (x.len(), starts), y.len());
        // SAFETY: the extents are checked.
        unsafe { T::run(Multiply { lists: self, values, x, starts, columns, y }) }
    }

    /// products[k] = ⟨y[i], x[entries[k]]⟩ for the entries k of each list i.
    ///
    /// # Panics
    /// As [`Self::multiply`].
    pub(in super::super) fn products<T: Float>(
        &self,
        y: &[T],
        (x, starts): (&[T], &[usize]),
        columns: usize,
        products: &mut [T],
    ) {
        assert_eq!(products.len(), self.entries.len(), "a product for each entry");
        self.check(columns, (x.len(), starts), y.len());
        // SAFETY: the extents are checked.
        unsafe { T::run(Products { lists: self, y, x, starts, columns, products }) }
    }

    fn check(&self, columns: usize, (x, starts): (usize, &[usize]), y: usize) {
        assert!(columns.is_multiple_of(COLUMNS), "columns come in blocks");
        assert_eq!((starts.len(), y), (self.places, self.len() * columns), "a row for each place and list");
        assert!(
            starts.iter().all(|&start| x.checked_sub(columns).is_some_and(|last| start <= last)),
            "rows end before the memory does"
        );
    }
}

struct Multiply<'a, T> {
    lists: &'a Lists,
    values: &'a [T],
    x: &'a [T],
    starts: &'a [usize],
    columns: usize,
    y: &'a mut [T],
}

impl<T: Float> Kernel<T> for Multiply<'_, T> {
    #[inline(always)]
    unsafe fn run<V: FloatVector<Element = T>>(self) {
        let Self { lists, values, x, starts, columns, y } = self;
        for list in 0..lists.len() {
            let range = lists.range(list);
            let (entries, values) = (&lists.entries[range.clone()], &values[range]);
            let mut first = 0;
            // SAFETY: `columns` elements follow each start in x, and each list has as many in y; entries have starts.
            unsafe {
                let (x, y) = (x.as_ptr(), y.as_mut_ptr().add(list * columns));
                while first + 2 * V::LANES <= columns {
                    sums::<V, 2>(entries, values, (x.add(first), starts), y.add(first));
                    first += 2 * V::LANES;
                }
                while first < columns {
                    sums::<V, 1>(entries, values, (x.add(first), starts), y.add(first));
                    first += V::LANES;
                }
            }
        }
    }
}

/// N vectors of a list's sums, which stay in registers. Four partial sums go side by side, since each addition waits for
/// the one before.
#[inline(always)]
unsafe fn sums<V: FloatVector, const N: usize>(
    entries: &[u32],
    values: &[V::Element],
    (x, starts): (*const V::Element, &[usize]),
    y: *mut V::Element,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::splat(zero()); N]; CHAINS];
        let whole = entries.len() / CHAINS * CHAINS;
        for k in (0..whole).step_by(CHAINS) {
            for (chain, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*values.get_unchecked(k + chain));
                let entry = *entries.get_unchecked(k + chain) as usize;
                let row = x.add(*starts.get_unchecked(entry));
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(row.add(i * V::LANES), V::LANES).multiply_add(value, *sum);
                }
            }
        }
        for (sums, k) in sums.iter_mut().zip(whole..entries.len()) {
            let (value, row) = (V::splat(values[k]), x.add(starts[entries[k] as usize]));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(row.add(i * V::LANES), V::LANES).multiply_add(value, *sum);
            }
        }
        let [first, second, third, fourth] = sums;
        for (i, ((a, b), (c, d))) in first.into_iter().zip(second).zip(third.into_iter().zip(fourth)).enumerate() {
            a.plus(b).plus(c.plus(d)).store(y.add(i * V::LANES), V::LANES);
        }
    }
}

const CHAINS: usize = 4;

struct Products<'a, T> {
    lists: &'a Lists,
    y: &'a [T],
    x: &'a [T],
    starts: &'a [usize],
    columns: usize,
    products: &'a mut [T],
}

impl<T: Float> Kernel<T> for Products<'_, T> {
    #[inline(always)]
    unsafe fn run<V: FloatVector<Element = T>>(self) {
        let Self { lists, y, x, starts, columns, products } = self;
        for list in 0..lists.len() {
            let range = lists.range(list);
            for (&entry, product) in lists.entries[range.clone()].iter().zip(&mut products[range]) {
                // SAFETY: `columns` elements follow each start in x, and each list has as many in y; entries have starts.
                *product = unsafe {
                    inner_product::<V>(y.as_ptr().add(list * columns), x.as_ptr().add(starts[entry as usize]), columns)
                };
            }
        }
    }
}

/// Sixteen sums side by side, and then halves added to halves: the same whatever a vector's length is.
#[inline(always)]
unsafe fn inner_product<V: FloatVector>(y: *const V::Element, x: *const V::Element, columns: usize) -> V::Element {
    // SAFETY: the caller's.
    unsafe {
        // Of these, `COLUMNS / V::LANES` are used.
        let mut sums = [V::splat(zero()); 4];
        let vectors = COLUMNS / V::LANES;
        for first in (0..columns).step_by(COLUMNS) {
            for (i, sum) in sums.iter_mut().enumerate().take(vectors) {
                let place = first + i * V::LANES;
                *sum = V::load(y.add(place), V::LANES).multiply_add(V::load(x.add(place), V::LANES), *sum);
            }
        }
        let sum = match vectors {
            1 => sums[0],
            2 => sums[0].plus(sums[1]),
            _ => sums[0].plus(sums[2]).plus(sums[1].plus(sums[3])),
        };
        sum.folded()
    }
}

fn zero<T: WithDType>() -> T {
    T::zero()
}
