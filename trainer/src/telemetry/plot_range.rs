//! `lr-range.svg`: the loss over the learning rate, which grows by the same factor at every step.

use std::path::Path;

use grug::checkpoint::write_atomically;
use grug::error::{Error, Result};
use plotters::prelude::*;

use super::plot::{DrawResult, RATE, TRAIN, VALIDATION, margin, span};

/// One step of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RangePoint {
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The loss before the step, in nats.
    pub nats: f64,
    /// The same, averaged over the steps up to this one.
    pub smooth: f64,
}

/// Writes the picture of a sweep, with the learning rate that is suggested.
pub fn draw_range(path: &Path, title: &str, points: &[RangePoint], suggested: Option<f64>) -> Result<()> {
    let mut svg = String::new();
    render(&mut svg, title, points, suggested)
        .map_err(|e| Error::invalid(format!("drawing {}: {e}", path.display())))?;
    write_atomically(path, |out| std::io::Write::write_all(out, svg.as_bytes()))
}

fn render(svg: &mut String, title: &str, points: &[RangePoint], suggested: Option<f64>) -> DrawResult {
    let root = SVGBackend::with_string(svg, (960, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&format!("{title}: loss over learning rate"), ("sans-serif", 20))?;
    let rates = span(points.iter().map(|point| point.learning_rate));
    // Single steps may go far above; below, none is cut off.
    let highest = span(points.iter().map(|point| point.smooth)).end;
    let losses = margin(span(points.iter().flat_map(|point| [point.smooth, point.nats.min(highest)])));
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d((rates.start..rates.end * 1.0001).log_scale(), losses.clone())?;
    chart
        .configure_mesh()
        .x_desc("learning rate")
        .y_desc("loss (nats a byte)")
        .x_label_formatter(&|x| format!("{x:.0e}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let key = |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
    let single = points
        .iter()
        .filter(|point| point.nats.is_finite())
        .map(|point| (point.learning_rate, point.nats.clamp(losses.start, losses.end)));
    chart.draw_series(LineSeries::new(single, TRAIN.stroke_width(1)))?.label("each step").legend(key(TRAIN));
    let smooth = points.iter().map(|point| (point.learning_rate, point.smooth));
    chart
        .draw_series(LineSeries::new(smooth, VALIDATION.stroke_width(2)))?
        .label("averaged")
        .legend(key(VALIDATION));
    if let Some(rate) = suggested {
        chart
            .draw_series(LineSeries::new([(rate, losses.start), (rate, losses.end)], RATE.stroke_width(2)))?
            .label(format!("suggested: {rate:.1e}"))
            .legend(key(RATE));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_becomes_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("range.svg");
        let point =
            |i: i32, nats| RangePoint { learning_rate: 10f64.powi(i), nats, smooth: 2.0 + f64::from(-i) };
        let points = [point(-5, 7.0), point(-3, 5.0), point(-1, f64::INFINITY)];
        for suggested in [None, Some(1e-3)] {
            draw_range(&path, "a < b", &points, suggested).unwrap();
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(
                svg.contains("a &lt; b") && svg.contains("learning rate") && !svg.contains("inf"),
                "{svg}"
            );
            assert_eq!(svg.contains("suggested"), suggested.is_some());
        }
        draw_range(&path, "one point", &points[..1], None).unwrap();
    }
}
