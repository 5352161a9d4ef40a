//! A split drawn as stacked bars, in SVG.

use super::show::Deal;
use crate::commands::Failure;
use plotters::prelude::*;

/// A picture of all clients from left to right: the height of a bar is the client's size, its colours are labels.
///
/// # Errors
/// When the picture cannot be drawn, which would be a fault of this program.
pub(super) fn draw(deal: &Deal) -> Result<String, Failure> {
    let mut picture = String::new();
    draw_into(deal, &mut picture).map_err(|error| Failure::other(format!("the picture cannot be drawn: {error}")))?;
    Ok(picture)
}

fn draw_into(deal: &Deal, picture: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let labels = if deal.targets > 1 { 1 } else { deal.labels };
    let root = if labels > 1 && labels <= MAX_LEGEND {
        let (bars, legend) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        draw_legend(labels, &legend)?;
        bars
    } else {
        root
    };
    let clients = deal.clients.len();
    let largest = deal.clients.iter().map(|part| deal.size(part)).max().unwrap_or(0).max(1);
    let title = format!("{}: {} of {clients} clients", deal.source, deal.unit());
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(-0.5..clients as f64 - 0.5, 0.0..largest as f64 * 1.04)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .x_labels(clients.min(20))
        .x_label_formatter(&|client| name(deal, *client))
        .x_desc("client")
        .y_label_formatter(&|size| format!("{size:.0}"))
        .y_desc(deal.unit())
        .draw()?;
    let mut floors = vec![0.0; clients];
    for label in 0..labels {
        let colour = colour(label, labels);
        let mut bars = Vec::new();
        for (client, part) in deal.clients.iter().enumerate() {
            let height = if deal.targets > 1 { deal.size(part) } else { part.labels[label] } as f64;
            let (left, right) = (client as f64 - BAR_WIDTH / 2.0, client as f64 + BAR_WIDTH / 2.0);
            if height > 0.0 {
                bars.push(Rectangle::new([(left, floors[client]), (right, floors[client] + height)], colour.filled()));
            }
            floors[client] += height;
        }
        chart.draw_series(bars)?;
    }
    root.present()?;
    Ok(())
}

/// The colour of each label, in the order in which they lie on each other.
fn draw_legend<B: DrawingBackend>(
    labels: usize,
    area: &DrawingArea<B, plotters::coord::Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    for label in 0..labels {
        let y = 40 + 20 * (labels - 1 - label) as i32;
        area.draw(&Rectangle::new([(4, y), (16, y + 12)], colour(label, labels).filled()))?;
        area.draw(&Text::new(label.to_string(), (22, y), ("sans-serif", 13)))?;
    }
    Ok(())
}

/// What stands below a bar: the client's key where it has one, as far as there is room, else its number.
fn name(deal: &Deal, client: f64) -> String {
    let room = SIZE.0 as usize / 9 / deal.clients.len().max(1);
    let part = (client >= 0.0).then(|| deal.clients.get(client.round() as usize)).flatten();
    part.map_or_else(String::new, |part| match &part.key {
        Some(key) => key.chars().take(room).collect(),
        None => part.client.to_string(),
    })
}

/// Hues around the circle; every second one is darker, so that neighbours differ.
fn colour(label: usize, labels: usize) -> HSLColor {
    HSLColor(label as f64 / labels as f64, 0.55, if label.is_multiple_of(2) { 0.62 } else { 0.45 })
}

/// Width and height in pixels.
const SIZE: (u32, u32) = (1000, 500);

/// Width of the labels' colours and numbers, to the right of the bars.
const LEGEND_WIDTH: u32 = 60;

/// Width of a bar, where 1 leaves no gap between clients.
const BAR_WIDTH: f64 = 0.86;

/// Most labels that a legend can name.
const MAX_LEGEND: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::data::show::tests::deal;

    #[test]
    fn each_client_has_a_bar_of_each_label_that_it_has() {
        let picture = draw(&deal(1, &[&[40, 0, 10], &[1, 20, 9]])).unwrap();
        assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{picture}");
        let bars_and_legend = |label| {
            let HSLColor(..) = colour(label, 3);
            let (r, g, b) = colour(label, 3).to_backend_color().rgb;
            picture.matches(&format!("fill=\"#{r:02X}{g:02X}{b:02X}\"")).count()
        };
        assert_eq!([0, 1, 2].map(bars_and_legend), [3, 2, 3]);
        assert!(picture.contains("test: examples of 2 clients"));
    }

    #[test]
    fn texts_have_one_bar_each_and_no_legend() {
        let picture = draw(&deal(2, &[&[40, 40], &[10, 10]])).unwrap();
        let (r, g, b) = colour(0, 1).to_backend_color().rgb;
        assert_eq!(picture.matches(&format!("fill=\"#{r:02X}{g:02X}{b:02X}\"")).count(), 2);
    }
}
