//! `loss.svg`: the losses and the learning rate of a run, over its steps.

use std::ops::Range;
use std::path::Path;

use grug::checkpoint::write_atomically;
use grug::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Series, units};

/// What is drawn.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    /// Above both charts.
    pub title: String,
    /// The numbers.
    pub series: Series,
}

const SIZE: (u32, u32) = (960, 640);
pub(super) const TRAIN: RGBColor = RGBColor(120, 160, 210);
pub(super) const VALIDATION: RGBColor = RGBColor(190, 60, 40);
pub(super) const RATE: RGBColor = RGBColor(60, 130, 70);
/// More points than a line of this width can show are thinned out.
const MAX_POINTS: usize = 2000;

/// Writes the picture. Without any point there is nothing to draw, and no file.
pub fn draw(path: &Path, curves: &Curves) -> Result<bool> {
    if curves.series.train.is_empty() && curves.series.validation.is_empty() {
        return Ok(false);
    }
    let mut svg = String::new();
    render(&mut svg, curves).map_err(|e| Error::invalid(format!("drawing {}: {e}", path.display())))?;
    write_atomically(path, |out| std::io::Write::write_all(out, svg.as_bytes()))?;
    Ok(true)
}

pub(super) type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

fn render(svg: &mut String, curves: &Curves) -> DrawResult {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&curves.title, ("sans-serif", 20))?;
    let (losses, rates) = root.split_vertically(420);
    let series = &curves.series;
    let steps = 0..span(series.train.iter().chain(&series.validation).map(|p| p.0 as f64)).end as u64 + 1;
    draw_losses(&losses, series, steps.clone())?;
    draw_rates(&rates, series, steps)?;
    root.present()?;
    Ok(())
}

fn draw_losses(area: &DrawingArea<SVGBackend<'_>, Shift>, series: &Series, steps: Range<u64>) -> DrawResult {
    let range = margin(span(series.train.iter().chain(&series.validation).map(|p| p.1)));
    let bits = range.start * units::BITS_PER_NAT..range.end * units::BITS_PER_NAT;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .right_y_label_area_size(64)
        .build_cartesian_2d(steps.clone(), range)?
        .set_secondary_coord(steps, bits);
    chart
        .configure_mesh()
        .y_desc("loss (nats a byte)")
        .y_label_formatter(&|y| format!("{y:.2}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("bits a byte")
        .y_label_formatter(&|y| format!("{y:.2}"))
        .draw()?;
    let key = |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
    chart
        .draw_series(LineSeries::new(thinned(&series.train), TRAIN.stroke_width(1)))?
        .label("training")
        .legend(key(TRAIN));
    if !series.validation.is_empty() {
        let style = VALIDATION.stroke_width(2);
        chart
            .draw_series(LineSeries::new(thinned(&series.validation), style).point_size(2))?
            .label("validation")
            .legend(key(VALIDATION));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn draw_rates(area: &DrawingArea<SVGBackend<'_>, Shift>, series: &Series, steps: Range<u64>) -> DrawResult {
    let top = span(series.learning_rate.iter().map(|p| p.1)).end.max(1e-30);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(8 + 64)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(steps, 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("learning rate")
        .y_labels(5)
        .y_label_formatter(&|y| if *y == 0.0 { "0".into() } else { format!("{y:.1e}") })
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(LineSeries::new(thinned(&series.learning_rate), RATE.stroke_width(2)))?;
    Ok(())
}

/// The smallest range that holds all finite values; 0 to 1 for none.
pub(super) fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let range = values
        .filter(|v| v.is_finite())
        .fold(f64::INFINITY..f64::NEG_INFINITY, |range, v| range.start.min(v)..range.end.max(v));
    if range.start <= range.end { range } else { 0.0..1.0 }
}

/// A little air around a range, and never nothing.
pub(super) fn margin(range: Range<f64>) -> Range<f64> {
    let air = ((range.end - range.start) * 0.05).max(range.end.abs() * 1e-3).max(1e-9);
    range.start - air..range.end + air
}

/// Finite points, evenly thinned out to what can be seen; the last one stays.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points
        .iter()
        .enumerate()
        .filter(|(i, (_, value))| value.is_finite() && (i % every == 0 || *i == last))
        .map(|(_, point)| *point)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_become_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.svg");
        let mut series = Series::default();
        for step in 0..10_000u64 {
            series.train.push((step, 5.0 / (1.0 + step as f64 / 500.0)));
            series.learning_rate.push((step, 1e-3));
        }
        series.train.push((10_000, f64::NAN));
        series.validation = vec![(5000, 0.6), (9999, 0.4)];
        let curves = Curves { title: "a < b & \"c\"".into(), series };
        assert!(draw(&path, &curves).unwrap());
        let svg = std::fs::read_to_string(&path).unwrap();
        for part in ["<svg", "</svg>", "training", "validation", "learning rate", "a &lt; b &amp;"] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("NaN") && svg.len() < 200_000, "{} bytes", svg.len());
        assert!(!draw(&path, &Curves::default()).unwrap());
    }

    #[test]
    fn one_point_and_no_finite_point_are_drawn_too() {
        let dir = tempfile::tempdir().unwrap();
        for value in [3.0, 0.0, f64::INFINITY] {
            let series = Series { train: vec![(1, value)], ..Series::default() };
            let path = dir.path().join("one.svg");
            assert!(draw(&path, &Curves { title: String::new(), series }).unwrap());
        }
    }
}
