//! Plots as inline SVG, whose colours are those of the page's style sheet. Each tells its numbers without a script: what
//! the pointer is over has a title.

use super::scale::{LogScale, Scale};
use crate::commands::output::{bytes, count, percent};
use maud::{Markup, html};

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Whole things, such as rounds.
    Count,
    Number,
    /// Shares of one.
    Percent,
    Bytes,
}

impl Unit {
    /// A value by itself.
    fn value(self, value: f64) -> String {
        match self {
            Self::Count => count(value.round() as u64),
            Self::Number => format!("{value:.4}"),
            Self::Percent => percent(value),
            Self::Bytes => bytes(value.round() as u64),
        }
    }

    /// A value at an axis, with no more digits than its neighbours need, in the unit of the largest.
    fn tick(self, value: f64, scale: &Scale) -> String {
        match self {
            Self::Count => count(value.round() as u64),
            Self::Number => format!("{value:.*}", scale.decimals(1.0)),
            Self::Percent => format!("{:.*} %", scale.decimals(100.0), 100.0 * value),
            Self::Bytes => {
                let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")];
                let (size, unit) = units.into_iter().find(|(size, _)| scale.high() >= *size).unwrap_or((1.0, "B"));
                format!("{:.*} {unit}", scale.decimals(1.0 / size), value / size)
            }
        }
    }
}

/// The colours of series, by what they stand for on the whole page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    First,
    Second,
    Third,
    Fourth,
    Fifth,
    /// For what is there to compare with.
    Quiet,
}

impl Colour {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::First => "c1",
            Self::Second => "c2",
            Self::Third => "c3",
            Self::Fourth => "c4",
            Self::Fifth => "c5",
            Self::Quiet => "c0",
        }
    }
}

/// A line through points of rising x.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) colour: Colour,
    pub(super) points: Vec<(f64, f64)>,
}

impl Series<'_> {
    /// The means of the points up to each of these x and beyond the one before; those without a point are left out.
    fn averaged(&self, xs: &[f64]) -> Self {
        let mut rest = self.points.as_slice();
        let mut points = Vec::with_capacity(xs.len());
        for &x in xs {
            let (group, later) = rest.split_at(rest.partition_point(|point| point.0 <= x));
            rest = later;
            if !group.is_empty() {
                points.push((x, group.iter().map(|point| point.1).sum::<f64>() / group.len() as f64));
            }
        }
        Self { points, ..*self }
    }
}

/// What a plot's axes are.
pub(super) struct Axes {
    pub(super) x: (&'static str, Unit),
    pub(super) y: Unit,
    /// Whether lengths are compared, so that the axis has to begin at zero.
    pub(super) from_zero: bool,
}

/// Lines over a common axis, with a legend where there are several; nothing without a point. Where there are more points
/// than can be told apart, neighbours are averaged.
pub(super) fn lines(title: &str, axes: &Axes, series: &[Series<'_>]) -> Option<Markup> {
    let mut xs: Vec<f64> = series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    xs.sort_unstable_by(f64::total_cmp);
    xs.dedup();
    let (&first, &last) = (xs.first()?, xs.last()?);
    let every = xs.len().div_ceil(MAX_POINTS);
    let xs: Vec<f64> = xs.chunks(every).map(|neighbours| neighbours[neighbours.len() - 1]).collect();
    let series: Vec<_> = series.iter().filter(|it| !it.points.is_empty()).map(|it| it.averaged(&xs)).collect();
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let (x_name, x_unit) = axes.x;
    let x = if x_unit == Unit::Count { Scale::exactly(first, last) } else { Scale::from_zero([last]) };
    let ys = points().map(|point| point.1);
    let y = if axes.from_zero { Scale::from_zero(ys) } else { Scale::around(ys) };
    let y = if matches!(axes.y, Unit::Count | Unit::Bytes) { y.whole() } else { y };
    let at_x = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
    let at_y = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
    let floor = HEIGHT - BOTTOM;
    Some(html! {
        figure {
            figcaption {
                (title)
                @if series.len() > 1 { (legend(series.iter().map(|it| (it.name, it.colour)))) }
                @if every > 1 { small { "means of " (every) " rounds" } }
            }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                @for tick in y.ticks() {
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(px(at_y(tick))) y2=(px(at_y(tick))) {}
                    text.end x=(LEFT - 8.0) y=(px(at_y(tick) + 4.0)) { (axes.y.tick(tick, &y)) }
                }
                line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(floor) y2=(floor) {}
                @for tick in x.ticks() {
                    line.axis x1=(px(at_x(tick))) x2=(px(at_x(tick))) y1=(floor) y2=(floor + 4.0) {}
                    text.middle x=(px(at_x(tick))) y=(floor + 18.0) { (x_unit.tick(tick, &x)) }
                }
                text.middle.name x=(f64::midpoint(LEFT, WIDTH - RIGHT)) y=(HEIGHT - 3.0) { (x_name) }
                @for series in &series {
                    g class=(series.colour.class()) {
                        path.line d=(path(series, at_x, at_y)) {}
                        @if series.points.len() <= MAX_MARKS {
                            @for &(x, y) in series.points.iter().filter(|point| point.1.is_finite()) {
                                circle.mark cx=(px(at_x(x))) cy=(px(at_y(y))) r="3" {}
                            }
                        }
                    }
                }
                @for (left, right, at) in bands(&xs, at_x) {
                    rect.band x=(px(left)) y=(TOP) width=(px(right - left)) height=(floor - TOP) {
                        title { (told(axes, &series, at)) }
                    }
                }
            }
        }
    })
}

/// Connects neighbours; a value that is no number leaves a gap.
fn path(series: &Series<'_>, at_x: impl Fn(f64) -> f64, at_y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for &(x, y) in &series.points {
        if !y.is_finite() {
            pen = 'M';
            continue;
        }
        path.push_str(&format!("{pen}{} {}", px(at_x(x)), px(at_y(y))));
        pen = 'L';
    }
    path
}

/// Where the pointer meets which x: from left to right, as far from each x as from the next.
fn bands(xs: &[f64], at_x: impl Fn(f64) -> f64) -> Vec<(f64, f64, f64)> {
    let border = |i: usize| match i {
        0 => LEFT,
        i if i == xs.len() => WIDTH - RIGHT,
        i => f64::midpoint(at_x(xs[i - 1]), at_x(xs[i])),
    };
    xs.iter().enumerate().map(|(i, &x)| (border(i), border(i + 1), x)).collect()
}

fn told(axes: &Axes, series: &[Series<'_>], x: f64) -> String {
    let values = series.iter().filter_map(|series| {
        let at = series.points.binary_search_by(|point| point.0.total_cmp(&x)).ok()?;
        Some(format!("{}: {}", series.name, axes.y.value(series.points[at].1)))
    });
    std::iter::once(format!("{} {}", axes.x.0, axes.x.1.value(x))).chain(values).collect::<Vec<_>>().join("\n")
}

/// Colours and what they stand for.
pub(super) fn legend<'a>(entries: impl Iterator<Item = (&'a str, Colour)>) -> Markup {
    html! {
        span.legend {
            @for (name, colour) in entries { span class=(colour.class()) { i {} (name) } }
        }
    }
}

/// A value with its name and a remark.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) colour: Colour,
    pub(super) value: u64,
    pub(super) remark: String,
}

/// Bytes that differ by orders of magnitude.
pub(super) fn magnitudes(title: &str, scale: &LogScale, rows: &[Row]) -> Markup {
    let (left, right) = (NAMES, ROW_WIDTH - VALUES);
    let at = |value: f64| left + scale.place(value) * (right - left);
    let height = rows.len() as f64 * ROW + 24.0;
    html! {
        figure {
            figcaption { (title) small { "logarithmic: each line is ten times the one before" } }
            svg viewBox={ "0 0 " (ROW_WIDTH) " " (height) } role="img" aria-label=(title) {
                @for tick in scale.ticks() {
                    line.grid x1=(px(at(tick))) x2=(px(at(tick))) y1="0" y2=(height - 20.0) {}
                    text.middle x=(px(at(tick))) y=(height - 5.0) { (power(tick)) }
                }
                @for (i, row) in rows.iter().enumerate() {
                    @let y = i as f64 * ROW + ROW / 2.0;
                    text.end.strong x=(left - 10.0) y=(y + 4.0) { (row.name) }
                    g class=(row.colour.class()) {
                        line.stem x1=(left) x2=(px(at(row.value as f64))) y1=(y) y2=(y) {}
                        circle.dot cx=(px(at(row.value as f64))) cy=(y) r="5" {}
                    }
                    text.strong x=(right + 14.0) y=(y + 4.0) { (bytes(row.value)) tspan.quiet dx="8" { (row.remark) } }
                }
            }
        }
    }
}

/// Sizes that each take something away from the one before: what is left, and, paler, what went.
pub(super) fn waterfall(title: &str, rows: &[Row]) -> Markup {
    let top = rows.iter().map(|row| row.value).max().unwrap_or(0).max(1) as f64;
    let (left, right) = (NAMES, ROW_WIDTH - VALUES);
    let at = |value: u64| left + value as f64 / top * (right - left);
    let height = rows.len() as f64 * WIDE_ROW;
    html! {
        figure {
            figcaption { (title) }
            svg viewBox={ "0 0 " (ROW_WIDTH) " " (height) } role="img" aria-label=(title) {
                line.axis x1=(left) x2=(left) y1="0" y2=(height) {}
                @for (i, row) in rows.iter().enumerate() {
                    @let y = i as f64 * WIDE_ROW + 4.0;
                    @let before = if i > 0 { rows[i - 1].value } else { row.value };
                    text.end.strong x=(left - 10.0) y=(y + 16.0) { (row.name) }
                    g class=(row.colour.class()) {
                        @if before > row.value {
                            rect.gone x=(px(at(row.value))) y=(y) width=(px(at(before) - at(row.value))) height=(BAR) {
                                title { "saves " (bytes(before - row.value)) }
                            }
                            line.step x1=(px(at(before))) x2=(px(at(before))) y1=(y + BAR - WIDE_ROW) y2=(y) {}
                        }
                        rect.bar x=(left) y=(y) width=(px((at(row.value) - left).max(1.0))) height=(BAR) {
                            title { (row.name) ": " (count(row.value)) " bytes" }
                        }
                    }
                    text.strong x=(right + 14.0) y=(y + 16.0) { (bytes(row.value)) tspan.quiet dx="8" { (row.remark) } }
                }
            }
        }
    }
}

/// Some shares of each name, as dots on a common axis that begins at zero.
pub(super) fn dots(title: &str, series: &[(&'static str, Colour)], rows: &[(&str, Vec<f64>)]) -> Markup {
    let scale = Scale::from_zero(rows.iter().flat_map(|row| row.1.iter().copied()));
    let longest = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
    let left = (longest as f64 * CHARACTER + 14.0).clamp(60.0, ROW_WIDTH / 2.0);
    let at = |value: f64| left + scale.place(value) * (ROW_WIDTH - 30.0 - left);
    let height = rows.len() as f64 * ROW + 24.0;
    html! {
        figure {
            figcaption { (title) (legend(series.iter().copied())) }
            svg viewBox={ "0 0 " (ROW_WIDTH) " " (height) } role="img" aria-label=(title) {
                @for tick in scale.ticks() {
                    line.grid x1=(px(at(tick))) x2=(px(at(tick))) y1="0" y2=(height - 20.0) {}
                    text.middle x=(px(at(tick))) y=(height - 5.0) { (Unit::Percent.tick(tick, &scale)) }
                }
                @for (i, (name, values)) in rows.iter().enumerate() {
                    @let y = i as f64 * ROW + ROW / 2.0;
                    text.end x=(left - 10.0) y=(y + 4.0) { (last_of(name, left)) }
                    line.grid x1=(left) x2=(ROW_WIDTH - 30.0) y1=(y) y2=(y) {}
                    @for ((series, colour), &value) in series.iter().zip(values) {
                        circle class={ "dot " (colour.class()) } cx=(px(at(value))) cy=(y) r="5" {
                            title { (name) ", " (series) ": " (percent(value)) }
                        }
                    }
                }
            }
        }
    }
}

/// A small histogram, with marks at some places of its axis from 0 to 1.
pub(super) fn histogram(bins: &[u64], marks: &[(f64, String)], told: impl Fn(usize) -> String) -> Markup {
    let most = bins.iter().copied().max().unwrap_or(0).max(1) as f64;
    let width = HISTOGRAM.0 / bins.len().max(1) as f64;
    html! {
        svg.histogram viewBox={ "0 0 " (HISTOGRAM.0) " " (HISTOGRAM.1) } {
            @for (i, &n) in bins.iter().enumerate() {
                @let height = if n == 0 { 0.0 } else { (n as f64 / most * (HISTOGRAM.1 - 2.0)).max(1.0) };
                @let left = i as f64 * width;
                g.c1 {
                    rect.band x=(px(left)) y="0" width=(px(width)) height=(HISTOGRAM.1) { title { (told(i)) } }
                    rect.column x=(px(left + 0.5)) y=(px(HISTOGRAM.1 - height)) width=(px(width - 1.0)) height=(px(height)) {}
                }
            }
            line.axis x1="0" x2=(HISTOGRAM.0) y1=(HISTOGRAM.1) y2=(HISTOGRAM.1) {}
            @for (place, name) in marks {
                line.cut x1=(px(place * HISTOGRAM.0)) x2=(px(place * HISTOGRAM.0)) y1="0" y2=(HISTOGRAM.1) { title { (name) } }
            }
        }
    }
}

/// A share as a bar in a table's cell.
pub(super) fn share(share: f64) -> Markup {
    html! { span.share { i style={ "width:" (px(100.0 * share.clamp(0.0, 1.0))) "%" } {} } }
}

/// As much of a name as fits beside an axis that begins at `left`; its end tells more than its beginning.
fn last_of(name: &str, left: f64) -> String {
    let (fits, len) = ((left - 10.0) / CHARACTER, name.chars().count());
    if len as f64 <= fits {
        return name.to_owned();
    }
    let end = name.chars().skip(len + 1 - fits as usize);
    std::iter::once('…').chain(end).collect()
}

/// A power of ten bytes, without digits that say nothing.
fn power(value: f64) -> String {
    let text = bytes(value.round() as u64);
    text.replace(".00", "").replace(".0", "")
}

/// A place in pixels: more than one digit behind the point cannot be seen.
fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Size and margins of a plot of lines, in pixels; the page scales them to its columns.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 40.0;

/// Width of a plot of rows, and of the names and values on both sides of it.
const ROW_WIDTH: f64 = 560.0;
const NAMES: f64 = 96.0;
const VALUES: f64 = 180.0;
/// Height of a row, of one with bars, and of a bar in it.
const ROW: f64 = 26.0;
const WIDE_ROW: f64 = 34.0;
const BAR: f64 = 22.0;
/// About the width of a character of a row's name.
const CHARACTER: f64 = 7.2;

/// Width and height of a histogram in a table.
const HISTOGRAM: (f64, f64) = (180.0, 40.0);

/// Most points of a line that are marked one by one.
const MAX_MARKS: usize = 30;

/// Most points of a line: more of them would be closer than a pointer can be held, and hide each other.
const MAX_POINTS: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(f64, f64)]) -> Vec<Series<'static>> {
        vec![Series { name: "accuracy", colour: Colour::First, points: points.to_vec() }]
    }

    const AXES: Axes = Axes { x: ("round", Unit::Count), y: Unit::Percent, from_zero: true };

    #[test]
    fn a_plot_has_its_points_its_ticks_and_its_titles() {
        let drawn = lines("learning", &AXES, &series(&[(1.0, 0.25), (2.0, f64::NAN), (3.0, 0.5)])).unwrap().0;
        assert!(drawn.contains(r#"d="M62 109M544 8""#), "{drawn}");
        for part in ["<text class=\"end\" x=\"54\" y=\"12\">50 %</text>", "round 3\naccuracy: 50.00 %", ">2</text>"] {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
        assert!(lines("nothing", &AXES, &series(&[])).is_none());
    }

    #[test]
    fn bands_cover_the_axis() {
        let xs = [1.0, 2.0, 10.0];
        assert_eq!(bands(&xs, |x| 100.0 * x), [(LEFT, 150.0, 1.0), (150.0, 600.0, 2.0), (600.0, WIDTH - RIGHT, 10.0)]);
    }

    #[test]
    fn of_very_many_rounds_neighbours_are_averaged() {
        let each = Series { name: "each", colour: Colour::First, points: vec![(1.0, 4.0), (2.0, 6.0), (3.0, 1.0)] };
        let some = Series { name: "some", colour: Colour::First, points: vec![(2.0, 7.0)] };
        assert_eq!(each.averaged(&[2.0, 3.0]).points, [(2.0, 5.0), (3.0, 1.0)]);
        assert_eq!(some.averaged(&[2.0, 3.0]).points, [(2.0, 7.0)]);
        let many: Vec<_> = (1..=1000).map(|round| (f64::from(round), 0.5)).collect();
        let drawn = lines("learning", &AXES, &series(&many)).unwrap().0;
        assert!(drawn.contains("<small>means of 7 rounds</small>"), "{drawn}");
        assert_eq!(drawn.matches("class=\"band\"").count(), 143);
    }

    #[test]
    fn ticks_share_the_unit_of_the_largest() {
        let scale = Scale::from_zero([1_200_000.0]);
        let ticks: Vec<_> = scale.ticks().into_iter().map(|tick| Unit::Bytes.tick(tick, &scale)).collect();
        assert_eq!(ticks, ["0.0 MB", "0.5 MB", "1.0 MB", "1.5 MB"]);
        assert_eq!([1.0, 1000.0, 1e7].map(power), ["1 B", "1 kB", "10 MB"]);
    }

    #[test]
    fn of_a_long_name_the_end_is_shown() {
        let name = "a.very.long.name.of.a.layer.in.the.middle.of.some.model.weight";
        let drawn = dots("errors", &[("int8", Colour::First)], &[(name, vec![0.1]), ("short", vec![0.2])]).0;
        assert!(drawn.contains(">…r.in.the.middle.of.some.model.weight</text>"), "{drawn}");
        assert!(drawn.contains(">short</text>"), "{drawn}");
    }

    #[test]
    fn a_waterfall_shows_what_is_left_and_what_went() {
        let row = |name: &str, value| Row { name: name.into(), colour: Colour::First, value, remark: String::new() };
        let drawn = waterfall("sizes", &[row("dense", 400), row("coded", 100)]).0;
        // Of 284 pixels a quarter is left.
        for part in [r#"x="96" y="4" width="284""#, r#"x="96" y="38" width="71""#, r#"x="167" y="38" width="213""#] {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
    }
}
