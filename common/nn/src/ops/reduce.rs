//! Reductions in sixteen partial results, which a vector unit takes side by side.

use super::kernel::Float;

const LANES: usize = 16;

/// Σ f(xᵢ, yᵢ) of slices of equal length. To be called where it is vectorised.
#[inline(always)]
pub(super) fn sum<T: Float>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::zero(); LANES];
    let (x_rest, y_rest) = (x.chunks_exact(LANES).remainder(), y.chunks_exact(LANES).remainder());
    for (x, y) in x.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
        for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += f(x, y);
        }
    }
    for (sum, (&x, &y)) in sums.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *sum += f(x, y);
    }
    sums.into_iter().fold(T::zero(), |sum, part| sum + part)
}

/// The largest element; NaN is ignored. To be called where it is vectorised.
#[inline(always)]
pub(super) fn largest<T: Float>(x: &[T]) -> T {
    let mut most = [T::from_f64(f64::NEG_INFINITY); LANES];
    for x in x.chunks(LANES) {
        for (most, &x) in most.iter_mut().zip(x) {
            *most = if x > *most { x } else { *most };
        }
    }
    most.into_iter().fold(most[0], |most, x| if x > most { x } else { most })
}
