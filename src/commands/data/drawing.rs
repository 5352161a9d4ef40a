//! Splits drawn with characters: who has how much of what.

use super::show::Deal;
use crate::commands::output::{count, curve};
use std::fmt::Write as _;

/// A histogram as one bar a label; a label that is missing is a dot. Neighbours share a bar when there are too many.
pub(super) fn bars(histogram: &[u64]) -> String {
    let sums = columns(histogram);
    let most = sums.iter().copied().max().unwrap_or(0) as f64;
    sums.iter().map(|&sum| if sum == 0 { "·".to_owned() } else { curve(&[sum as f64], 0.0, most, 1) }).collect()
}

/// The first `shown` clients as rows: shades for how many examples of each label they have, compared to the most that
/// any has of one, and a bar for their size. Where every character has a label, the bar alone.
pub(super) fn map(deal: &Deal, shown: usize) -> String {
    let parts = &deal.clients[..shown];
    let names: Vec<String> = parts.iter().map(|part| part.name().chars().take(MAX_NAME).collect()).collect();
    let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let largest = parts.iter().map(|part| deal.size(part)).max().unwrap_or(0);
    let cells: Vec<Vec<u64>> = match deal.targets {
        1 => parts.iter().map(|part| columns(&part.labels)).collect(),
        _ => vec![Vec::new(); parts.len()],
    };
    let darkest = cells.iter().flatten().copied().max().unwrap_or(0);
    let width = if cells.first().is_some_and(|cells| cells.len() <= WIDE_LABELS) { 2 } else { 1 };

    let mut text = String::new();
    if deal.targets == 1 {
        let _ = writeln!(
            text,
            "labels 0 to {} from left to right, █ = {}; then the size of the client, ━ up to {} {}",
            deal.labels.saturating_sub(1),
            count(darkest),
            count(largest),
            deal.unit(),
        );
    } else {
        let _ = writeln!(text, "the size of each client, ━ up to {} {}", count(largest), deal.unit());
    }
    for ((name, part), cells) in names.iter().zip(parts).zip(cells) {
        let _ = write!(text, "{name:<name_width$} ");
        if !cells.is_empty() {
            text.push('▕');
            for cell in cells {
                text.extend(std::iter::repeat_n(shade(cell, darkest), width));
            }
        }
        text.push('▏');
        let length = (deal.size(part) * MAX_SIZE_BAR).div_ceil(largest.max(1));
        text.extend((0..length).map(|_| '━'));
        text.push('\n');
    }
    text
}

/// The sums over neighbouring labels, at most [`MAX_COLUMNS`] of them.
fn columns(histogram: &[u64]) -> Vec<u64> {
    let columns = histogram.len().min(MAX_COLUMNS);
    let bounds = |column: usize| column * histogram.len() / columns;
    (0..columns).map(|column| histogram[bounds(column)..bounds(column + 1)].iter().sum()).collect()
}

/// A quarter of the largest for each shade; what is there at all is seen.
fn shade(value: u64, largest: u64) -> char {
    const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
    SHADES[(value * 4).div_ceil(largest.max(1)).min(4) as usize]
}

/// Most characters of a histogram.
const MAX_COLUMNS: usize = 62;

/// Most labels that get two characters each, so that a cell is about square.
const WIDE_LABELS: usize = 31;

/// Most characters of a client's name, and of the bar for its size.
const MAX_NAME: usize = 32;
const MAX_SIZE_BAR: u64 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::data::show::tests::deal;

    #[test]
    fn a_histogram_shows_which_labels_are_missing() {
        assert_eq!(bars(&[8, 0, 4, 1]), "█·▅▂");
        assert_eq!(bars(&[1; 124]).chars().count(), MAX_COLUMNS);
        assert_eq!(bars(&[]), "");
    }

    #[test]
    fn clients_are_rows_and_labels_are_shades() {
        let drawn = map(&deal(1, &[&[40, 0, 10], &[1, 20, 9]]), 2);
        assert_eq!(
            drawn,
            "labels 0 to 2 from left to right, █ = 40; then the size of the client, ━ up to 50 examples\n\
             0 ▕██  ░░▏━━━━━━━━━━━━━━━━━━━━━━━━\n\
             1 ▕░░▒▒░░▏━━━━━━━━━━━━━━━\n"
        );
    }

    #[test]
    fn texts_are_drawn_by_their_size() {
        let drawn = map(&deal(2, &[&[40, 40], &[10, 10], &[2, 0]]), 2);
        assert_eq!(drawn, "the size of each client, ━ up to 80 characters\n0 ▏━━━━━━━━━━━━━━━━━━━━━━━━\n1 ▏━━━━━━\n");
    }
}
