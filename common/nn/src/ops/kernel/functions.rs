//! The transcendental functions of the layers, in steps that every vector unit has: no call, no branch, no table.
//!
//! Every step rounds, multiplication and addition apart, so results are the same bits on every machine. The `f64` twins
//! are those of the standard library and of candle, exact to rounding.

/// The functions for one of the float types, to be inlined where a loop is vectorised.
pub(in super::super) trait Transcendental: Sized {
    /// e^x; in `f32` within 2 units in the last place, with x held in ±87, where neither end is subnormal or infinite.
    fn exponential(self) -> Self;
    /// tanh x; in `f32` within 4 units in the last place.
    fn hyperbolic_tangent(self) -> Self;
    /// erf x = 2/√π·∫₀ˣ e^(−t²) dt; in `f32` within 4 units in the last place.
    fn error_function(self) -> Self;
    /// 1/(1 + e^(−x)); in `f32` within 4 units in the last place, also where it is small.
    fn logistic(self) -> Self;
}

impl Transcendental for f32 {
    /// 2^n·e^r with r within ±ln(2)/2 and Cephes' polynomial (S. Moshier, `expf`) for e^r.
    #[inline(always)]
    fn exponential(self) -> Self {
        // A float of this size has no fraction: adding it rounds to an integer, which its lowest bits then hold.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, of which the first has so few bits that its products are exact.
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        // Written so that NaN stays NaN.
        let x = if self > 87.0 { 87.0 } else { self };
        let x = if x < -87.0 { -87.0 } else { x };
        let rounded = x * std::f32::consts::LOG2_E + ROUND;
        let n = rounded - ROUND;
        let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
        let polynomial = [8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]
            .into_iter()
            .fold(1.987_569_1e-4 * r + 1.398_2e-3, |sum, coefficient| sum * r + coefficient);
        let scale = Self::from_bits((rounded.to_bits() << 23).wrapping_add(1f32.to_bits()));
        (polynomial * (r * r) + r + 1.0) * scale
    }

    /// The rational minimax approximation of Eigen (`generic_fast_tanh_float`); beyond 7.9 the result rounds to ±1.
    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        const BOUND: f32 = 7.905_311;
        let x = if self > BOUND { BOUND } else { self };
        let x = if x < -BOUND { -BOUND } else { x };
        let square = x * x;
        let numerator = [2.000_188e-13, -8.604_672e-11, 5.122_297_1e-8, 1.485_722_4e-5, 6.372_619e-4, 4.893_524_6e-3]
            .into_iter()
            .fold(-2.760_768_5e-16, |sum, coefficient| sum * square + coefficient);
        let denominator = [1.185_347e-4, 2.268_434_6e-3, 4.893_525e-3]
            .into_iter()
            .fold(1.198_258_4e-6, |sum, coefficient| sum * square + coefficient);
        x * numerator / denominator
    }

    /// The rational minimax approximation of Eigen (`generic_fast_erf_float`); beyond 4 the result rounds to ±1.
    #[inline(always)]
    fn error_function(self) -> Self {
        let x = if self > 4.0 { 4.0 } else { self };
        let x = if x < -4.0 { -4.0 } else { x };
        let square = x * x;
        let numerator = [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2]
            .into_iter()
            .fold(-2.726_142_3e-10, |sum, coefficient| sum * square + coefficient);
        let denominator = [-2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2]
            .into_iter()
            .fold(-1.456_607_2e-5, |sum, coefficient| sum * square + coefficient);
        x * numerator / denominator
    }

    #[inline(always)]
    fn logistic(self) -> Self {
        1.0 / (1.0 + (-self).exponential())
    }
}

impl Transcendental for f64 {
    fn exponential(self) -> Self {
        self.exp()
    }

    fn hyperbolic_tangent(self) -> Self {
        self.tanh()
    }

    fn error_function(self) -> Self {
        candle_core::cpu::erf::erf_f64(self)
    }

    fn logistic(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of both signs, dense where the functions bend, and out to ±86.
    fn arguments() -> impl Iterator<Item = f32> {
        (0..400_000).flat_map(|i| {
            let size = (i as f32 / 20_000.0 - 14.0).exp2() * 1.35;
            [size, -size]
        })
    }

    fn largest_error(single: impl Fn(f32) -> f32, double: impl Fn(f64) -> f64) -> f64 {
        arguments().fold(0.0, |largest, x| {
            let exact = double(f64::from(x));
            largest.max((f64::from(single(x)) - exact).abs() / exact.abs())
        })
    }

    #[test]
    fn functions_in_f32_are_within_a_few_units_in_the_last_place_of_those_in_f64() {
        let unit = f64::from(f32::EPSILON) / 2.0;
        let errors = [
            (largest_error(f32::exponential, f64::exp), 3.0),
            (largest_error(f32::hyperbolic_tangent, f64::tanh), 8.0),
            (largest_error(f32::error_function, candle_core::cpu::erf::erf_f64), 8.0),
            (largest_error(f32::logistic, f64::logistic), 8.0),
        ]
        .map(|(error, bound)| (error / unit, bound));
        assert!(errors.iter().all(|(error, bound)| error <= bound), "{errors:?} half units");
    }

    #[test]
    fn the_ends_are_finite_and_nan_stays() {
        assert!(f32::MAX.exponential().is_finite() && f32::MIN.exponential() > 0.0);
        let ends = [f32::MAX.hyperbolic_tangent(), -f32::MIN.hyperbolic_tangent()];
        assert!(ends.iter().all(|end| (0.999_999_9..=1.0).contains(end)), "{ends:?}");
        let ends = [f32::MAX.error_function(), -f32::MIN.error_function()];
        assert!(ends.iter().all(|end| (0.999_999_9..=1.0).contains(end)), "{ends:?}");
        assert_eq!(f32::MAX.logistic(), 1.0);
        let nan = f32::NAN;
        let all = [nan.exponential(), nan.hyperbolic_tangent(), nan.error_function(), nan.logistic()];
        assert!(all.iter().all(|value| value.is_nan()), "{all:?}");
    }
}
