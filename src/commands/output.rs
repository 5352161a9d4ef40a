//! What a command prints: results to stdout, everything else to stderr, numbers as people read them.

use serde::Serialize;
use std::io::{self, Write};

/// Prints a line of the result. A reader that has gone away, such as `head`, ends the process quietly.
pub(crate) fn line(text: impl std::fmt::Display) {
    raw(&format!("{text}\n"));
}

/// Prints a part of the result as it is.
pub(crate) fn raw(text: &str) {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if written.is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).expect("results hold only numbers, strings and lists"));
}

/// Prints a value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) {
    line(serde_json::to_string(value).expect("results hold only numbers, strings and lists"));
}

/// Tells why the command failed.
pub(crate) fn error(message: &str) {
    note(&format!("error: {message}"));
}

/// Tells something that is no part of the result.
pub(crate) fn note(text: &str) {
    crate::progress::above_bars(|| {
        // When nobody can be told, there is nothing left to do.
        let _ = writeln!(io::stderr(), "{text}");
    });
}

/// A number of bytes, in decimal units and three digits.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1000.0, 0);
    // What would be rounded to four digits is written in the next unit.
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    format!("{} {}", three_digits(value), units[unit])
}

/// How many times smaller `small` is than `large`.
pub(crate) fn factor(large: u64, small: u64) -> String {
    if small == 0 { "–".into() } else { format!("{} ×", three_digits(large as f64 / small as f64)) }
}

/// A share, in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A whole number, its digits in groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time span, in the unit that fits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_999_5 => format!("{} µs", three_digits(1e6 * s)),
        s if s < 0.999_5 => format!("{} ms", three_digits(1000.0 * s)),
        s if s < 120.0 => format!("{} s", three_digits(s)),
        s if s < 7200.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
        s if s < 172_800.0 => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
        s => format!("{:.0} d {:02.0} h", (s / 86_400.0).floor(), (s % 86_400.0 / 3600.0).floor()),
    }
}

/// Heights of the values between `low` and `high`, in at most `width` characters; neighbours are averaged to fit.
pub(crate) fn curve(values: &[f64], low: f64, high: f64, width: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = values.len().min(width);
    let column = |i: usize| {
        let part = &values[i * values.len() / columns..(i + 1) * values.len() / columns];
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        let share = if high > low { (mean - low) / (high - low) } else { 1.0 };
        STEPS[((share * 8.0) as usize).min(7)]
    };
    (0..columns).map(column).collect()
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_three_digits_and_a_unit() {
        let sizes = [0, 999, 1000, 12_345, 999_499, 999_500, 1_500_000_000].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.00 kB", "12.3 kB", "999 kB", "1.00 MB", "1.50 GB"]);
        assert_eq!([(1000, 3), (5, 0), (7, 7)].map(|(a, b)| factor(a, b)), ["333 ×", "–", "1.00 ×"]);
        assert_eq!([0, 999, 1000, 1_663_370].map(count), ["0", "999", "1,000", "1,663,370"]);
        assert_eq!(
            [0.000_012, 0.0125, 1.0, 119.0, 125.0, 7260.0, 180_000.0].map(seconds),
            ["12.0 µs", "12.5 ms", "1.00 s", "119 s", "2 min 05 s", "2 h 01 min", "2 d 02 h"],
        );
    }

    #[test]
    fn a_curve_is_as_wide_as_its_values_or_as_allowed() {
        assert_eq!(curve(&[0.0, 0.5, 1.0], 0.0, 1.0, 10), "▁▅█");
        assert_eq!(curve(&[0.0, 0.0, 1.0, 1.0], 0.0, 1.0, 2), "▁█");
        assert_eq!(curve(&[0.3], 0.3, 0.3, 10), "█");
        assert_eq!(curve(&[], 0.0, 1.0, 10), "");
    }
}
