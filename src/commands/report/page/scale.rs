//! Numbers to places on paper: scales, and the round numbers at which an axis is labelled.

/// A linear axis from a value at 0 to one at 1, both of them labelled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    /// The axis that holds all finite values, from one multiple of its step to another.
    pub(super) fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (low, high) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
        if low > high {
            return Self { low: 0.0, high: 1.0, step: 0.2 };
        }
        // A single value stands above zero, wherever it is.
        let (low, high) = if high > low { (low, high) } else { (low.min(0.0), high.max(0.0)) };
        let high = if high > low { high } else { 1.0 };
        let step = round_step((high - low) / TICKS);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// The axis that holds zero, too.
    pub(super) fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        Self::around(values.into_iter().chain([0.0]))
    }

    /// The axis that ends where the values do, for rounds, which have no meaning beyond.
    pub(super) fn exactly(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, step: round_step((high - low) / TICKS).max(1.0) }
    }

    /// The same axis for what has no fractions.
    pub(super) fn whole(self) -> Self {
        let step = self.step.max(1.0);
        Self { low: (self.low / step).floor() * step, high: (self.high / step).ceil() * step, step }
    }

    /// Where a value stands, from 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The multiples of the step on the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (first, last) =
            ((self.low / self.step - 1e-6).ceil() as i64, (self.high / self.step + 1e-6).floor() as i64);
        (first..=last).map(|multiple| multiple as f64 * self.step).collect()
    }

    /// Digits behind the point that tell one tick from the next, when each is multiplied with `factor`.
    pub(super) fn decimals(&self, factor: f64) -> usize {
        (-(self.step * factor * 1.000_001).log10().floor()).max(0.0) as usize
    }

    pub(super) const fn high(&self) -> f64 {
        self.high
    }
}

/// A logarithmic axis between powers of ten.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogScale {
    low: i32,
    high: i32,
}

impl LogScale {
    /// The axis that holds all positive values, with at least half a decade below the least.
    pub(super) fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let logs = values.into_iter().filter(|&value| value > 0.0 && value.is_finite()).map(f64::log10);
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
        if low > high {
            return Self { low: 0, high: 1 };
        }
        let low = (low - 0.5).floor() as i32;
        Self { low, high: (high.ceil() as i32).max(low + 1) }
    }

    /// Where a value stands, from 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        if value <= 0.0 {
            return 0.0;
        }
        ((value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The powers of ten.
    pub(super) fn ticks(&self) -> Vec<f64> {
        (self.low..=self.high).map(|power| 10f64.powi(power)).collect()
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= least * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// Steps that an axis has at most, unless it is rounded up to whole ones.
const TICKS: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_begins_and_ends_at_round_numbers() {
        let axis = |values: &[f64]| {
            let scale = Scale::around(values.iter().copied());
            (scale.low, scale.high, scale.ticks().len())
        };
        assert_eq!(axis(&[12.0, 97.0]), (0.0, 100.0, 6));
        assert_eq!(axis(&[3.0]), (0.0, 3.0, 4));
        assert_eq!(axis(&[0.0]), (0.0, 1.0, 6));
        assert_eq!(axis(&[]), (0.0, 1.0, 6));
        assert_eq!(axis(&[f64::NAN, 1.0, f64::INFINITY, 6.0]), (1.0, 6.0, 6));
        assert_eq!(Scale::from_zero([80.0, 177.0]).ticks(), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(Scale::from_zero([2.0]).whole().ticks(), [0.0, 1.0, 2.0]);
        assert_eq!(Scale::exactly(1.0, 80.0).ticks(), [20.0, 40.0, 60.0, 80.0]);
        assert_eq!(Scale::exactly(1.0, 1.0).ticks(), [1.0, 2.0]);
    }

    #[test]
    fn values_stand_between_the_ends() {
        let scale = Scale::around([0.0, 10.0]);
        assert_eq!([-1.0, 0.0, 2.5, 10.0, 11.0].map(|value| scale.place(value)), [0.0, 0.0, 0.25, 1.0, 1.0]);
        let scale = LogScale::around([700.0, 90_000.0]);
        assert_eq!(scale.ticks(), [100.0, 1000.0, 10_000.0, 100_000.0]);
        assert_eq!([0.0, 100.0, 100_000.0].map(|value| scale.place(value)), [0.0, 0.0, 1.0]);
        assert!((scale.place(1000.0) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn ticks_have_the_digits_that_tell_them_apart() {
        let decimals = |high: f64| Scale::from_zero([high]).decimals(1.0);
        assert_eq!([500.0, 5.0, 1.0, 0.1, 0.03].map(decimals), [0, 0, 1, 2, 2]);
        assert_eq!(Scale::from_zero([0.03]).decimals(100.0), 0);
    }
}
