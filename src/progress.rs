//! How far a run has come: a bar on a terminal, elsewhere a line now and then. Logs go above the bar.

use crate::commands::{bytes, count, note, percent};
use dunlin::RoundSummary;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// The progress of one run's rounds.
pub(crate) enum Progress {
    /// A bar, at the bottom of the terminal.
    Bar(ProgressBar),
    /// A line a round, but not more than one a second.
    Lines {
        /// Most rounds of the run.
        count: u64,
        /// When the last line was written.
        last: Option<Instant>,
        /// A line that was held back.
        held: Option<String>,
    },
    /// Nothing.
    Quiet,
}

impl Progress {
    /// The progress of a run of at most `count` rounds.
    pub(crate) fn new(count: u64, quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if BARS.is_hidden() {
            return Self::Lines { count, last: None, held: None };
        }
        let style = ProgressStyle::with_template("round {pos}/{len} {bar:24} {msg}  {elapsed}, {eta} left");
        let bar = ProgressBar::new(count).with_style(style.expect("the template is well-formed"));
        let bar = BARS.add(bar);
        bar.enable_steady_tick(TICK);
        Self::Bar(bar)
    }

    /// The same where somebody sees it, and nothing elsewhere.
    pub(crate) fn on_terminal(count: u64) -> Self {
        Self::new(count, BARS.is_hidden())
    }

    /// Shows a round that has ended.
    pub(crate) fn round(&mut self, round: &RoundSummary) {
        match self {
            Self::Bar(bar) => {
                bar.set_position(round.round);
                bar.set_message(figures(round));
            }
            Self::Lines { count, last, held } => {
                let line = format!("round {}/{count}  {}", round.round, figures(round));
                if last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
                    note(&line);
                    (*last, *held) = (Some(Instant::now()), None);
                } else {
                    *held = Some(line);
                }
            }
            Self::Quiet => {}
        }
    }

    /// Takes the bar away, or writes the line that was held back.
    pub(crate) fn finish(self) {
        match self {
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Lines { held: Some(line), .. } => note(&line),
            Self::Lines { held: None, .. } | Self::Quiet => {}
        }
    }
}

/// A round in a few words.
pub(crate) fn figures(round: &RoundSummary) -> String {
    if round.cut_short {
        return format!("cut short: {} of {} updates were in when the run was stopped", round.clients, round.chosen);
    }
    if !round.published {
        return format!("abandoned: {} of {} clients reported", round.clients, round.chosen);
    }
    let quality = match (round.accuracy, round.loss) {
        (Some(accuracy), Some(loss)) => format!("accuracy {}  loss {loss:.4}", percent(accuracy)),
        _ => format!("training loss {:.4}", round.train_loss),
    };
    let own = round.federated.map(|own| format!("  on clients' data {}", percent(own.accuracy))).unwrap_or_default();
    let left = round.kept.map(|kept| format!("  {} left", count(kept))).unwrap_or_default();
    format!("{quality}{own}{left}  up {}  down {}", bytes(round.bytes.up), bytes(round.bytes.down))
}

/// A spinner with a message that changes, or nothing where there is no terminal.
pub(crate) fn spinner() -> ProgressBar {
    let spinner = BARS.add(ProgressBar::new_spinner());
    spinner.enable_steady_tick(TICK);
    spinner
}

/// Sends logs to stderr, at `level` unless `RUST_LOG` says otherwise.
pub(crate) fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(|| AboveBars).init();
}

/// Does something to the terminal while no bar is drawn on it.
pub(crate) fn above_bars(write: impl FnOnce()) {
    BARS.suspend(write);
}

/// Stderr, for logs.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// All that is drawn on the terminal, so that whoever writes to it can have it taken away meanwhile.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How often a bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// Shortest time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_without_a_model_says_whether_it_was_abandoned_or_cut_short() {
        let round = RoundSummary { chosen: 10, clients: 3, ..RoundSummary::default() };
        assert_eq!(figures(&round), "abandoned: 3 of 10 clients reported");
        let told = figures(&RoundSummary { cut_short: true, ..round });
        assert_eq!(told, "cut short: 3 of 10 updates were in when the run was stopped");
    }
}
