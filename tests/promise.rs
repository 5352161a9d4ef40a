//! What the README promises of its first command, held against the report that the command wrote.

use serde_json::Value;

/// Least test accuracy of the default recipe.
const MIN_ACCURACY: f64 = 0.96;

/// Least factor by which updates are smaller than in 32-bit floats.
const MIN_UPLINK_FACTOR: f64 = 100.0;

/// Longest run on two cores. A slow machine breaks no promise, so it is only told.
const MAX_SECONDS: f64 = 60.0;

#[test]
#[ignore = "reads the report of a finished run, at the path in DUNLIN_REPORT"]
#[expect(clippy::print_stderr, reason = "the figures belong in the log of the checks")]
fn the_first_command_keeps_what_the_readme_promises() {
    let path = std::env::var("DUNLIN_REPORT").expect("DUNLIN_REPORT must be the path of a report.json");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} has no number at {pointer}"))
    };
    let accuracy = number("/accuracy");
    let factor = number("/bytes/up_dense") / number("/bytes/up");
    let seconds = number("/seconds");
    eprintln!("accuracy {accuracy:.4}, uplink {factor:.0} times smaller than dense, {seconds:.1} s");
    if seconds > MAX_SECONDS {
        eprintln!("warning: {seconds:.1} s is more than {MAX_SECONDS} s");
    }
    assert!(accuracy >= MIN_ACCURACY, "accuracy {accuracy} is below {MIN_ACCURACY}");
    assert!(factor >= MIN_UPLINK_FACTOR, "updates are only {factor:.1} times smaller, not {MIN_UPLINK_FACTOR}");
}
