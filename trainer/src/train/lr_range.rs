//! The learning-rate range test: a short training in which the learning rate grows from step to step, to see where the
//! loss falls fastest and where training breaks.

use std::sync::atomic::{AtomicBool, Ordering};

use grug::error::{Error, ErrorKind, Result};

use super::Trainer;
use crate::telemetry::RangePoint;

/// What is swept: learning rates from `from` to `to`, in `steps` equal factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sweep {
    /// The first learning rate.
    pub from: f64,
    /// The last one.
    pub to: f64,
    /// Steps of training.
    pub steps: u64,
}

impl Sweep {
    /// Refuses what is no sweep.
    pub fn validate(&self) -> Result<()> {
        if !(self.from > 0.0 && self.to > self.from && self.to.is_finite()) {
            return Err(Error::invalid(format!(
                "from {} to {}: must be two positive learning rates, the second one higher",
                self.from, self.to
            )));
        }
        if self.steps < 10 {
            return Err(Error::invalid(format!("{} steps: a sweep needs 10 at least", self.steps)));
        }
        Ok(())
    }

    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        self.from * (self.to / self.from).powf(step as f64 / (self.steps - 1) as f64)
    }
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeResult {
    /// The steps, up to the one where training broke. Their learning rate is that of Adam and AdamW; those of the other
    /// groups had the same ratio to it as configured.
    pub points: Vec<RangePoint>,
    /// Where the loss fell fastest, per factor of learning rate: a good learning rate. None where it never fell.
    pub suggested: Option<f64>,
    /// The learning rate with the lowest loss, which is the highest that might do.
    pub lowest: f64,
    /// Whether the sweep ended early, because the loss had risen again or was no number.
    pub broke: bool,
}

/// Share of the old in each average of losses.
const SMOOTHING: f64 = 0.9;

/// Takes the steps, at most until the loss has clearly risen again. `each` sees every point; `stop` ends the sweep with
/// an error.
pub fn lr_range(
    trainer: &mut Trainer<'_>,
    sweep: Sweep,
    stop: &AtomicBool,
    mut each: impl FnMut(u64, &RangePoint) -> Result<()>,
) -> Result<RangeResult> {
    sweep.validate()?;
    let base = trainer.base_learning_rates();
    let reference = trainer.run.optimizer.learning_rate;
    let mut curve = Curve::default();
    let mut broke = false;
    for step in 0..sweep.steps {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Canceled, "stopped"));
        }
        let learning_rate = sweep.at(step);
        trainer.step_on(step, base.iter().map(|lr| lr * learning_rate / reference).collect())?;
        let nats = trainer.read_loss()?;
        if !nats.is_finite() || curve.push(learning_rate, nats) {
            broke = true;
        }
        if let Some(point) = curve.points.last() {
            each(step + 1, point)?;
        }
        if broke {
            break;
        }
    }
    let lowest = curve.points.iter().min_by(|a, b| a.smooth.total_cmp(&b.smooth));
    let Some(lowest) = lowest.map(|point| point.learning_rate) else {
        return Err(Error::invalid("the loss is no number at the lowest learning rate already"));
    };
    Ok(RangeResult { suggested: curve.steepest(), lowest, broke, points: curve.points })
}

/// Losses over learning rates.
#[derive(Debug, Default)]
struct Curve {
    points: Vec<RangePoint>,
    /// The running average before its correction for having begun at 0.
    average: f64,
}

impl Curve {
    /// Adds a loss; true where it has clearly risen again: above the first one, or halfway back to it.
    fn push(&mut self, learning_rate: f64, nats: f64) -> bool {
        self.average = SMOOTHING * self.average + (1.0 - SMOOTHING) * nats;
        let smooth = self.average / (1.0 - SMOOTHING.powi(self.points.len() as i32 + 1));
        self.points.push(RangePoint { learning_rate, nats, smooth });
        let first = self.points[0].smooth;
        let lowest = self.points.iter().map(|point| point.smooth).fold(f64::INFINITY, f64::min);
        smooth > 1.1 * first || (lowest < 0.9 * first && smooth > (first + lowest) / 2.0)
    }

    /// The learning rate at which the smoothed loss falls fastest over the logarithm of the rate, before its lowest
    /// point. Slopes are taken over a tenth of the points, since single ones are noise.
    fn steepest(&self) -> Option<f64> {
        let points = &self.points;
        let lowest = (0..points.len()).min_by(|&a, &b| points[a].smooth.total_cmp(&points[b].smooth))?;
        let reach = (points.len() / 20).max(1);
        let slope = |i: usize| {
            let (a, b) = (&points[i - reach], &points[i + reach]);
            (b.smooth - a.smooth) / (b.learning_rate / a.learning_rate).ln()
        };
        (reach..(lowest + 1).min(points.len().saturating_sub(reach)))
            .map(|i| (slope(i), points[i].learning_rate))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(slope, _)| *slope < 0.0)
            .map(|(_, rate)| rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that falls around 1e-3 and rises from 1e-1 on.
    fn curve(sweep: Sweep) -> (Curve, bool) {
        let mut curve = Curve::default();
        for step in 0..sweep.steps {
            let x = sweep.at(step).log10();
            let nats = 5.5 - 3.0 / (1.0 + (-(x + 3.0) * 4.0).exp()) + (x + 1.0).max(0.0) * 20.0;
            if curve.push(sweep.at(step), nats) {
                return (curve, true);
            }
        }
        (curve, false)
    }

    #[test]
    fn the_steepest_place_is_found_and_the_rise_ends_it() {
        let (found, broke) = curve(Sweep { from: 1e-7, to: 10.0, steps: 400 });
        assert!(broke && found.points.len() < 400);
        let suggested = found.steepest().unwrap();
        // The average lags behind the loss by some steps.
        assert!((1e-3..4e-3).contains(&suggested), "{suggested}");
        let (flat, broke) = curve(Sweep { from: 1e-9, to: 1e-8, steps: 50 });
        assert!(!broke && flat.points.len() == 50);
        let mut rising = Curve::default();
        for i in 0..20 {
            assert!(!rising.push(f64::from(i + 1), 1.0 + f64::from(i) * 1e-3));
        }
        assert_eq!(rising.steepest(), None);
    }

    #[test]
    fn a_sweep_is_geometric() {
        let sweep = Sweep { from: 1e-6, to: 1.0, steps: 61 };
        assert!((sweep.at(0) / 1e-6 - 1.0).abs() < 1e-12 && (sweep.at(60) - 1.0).abs() < 1e-12);
        assert!((sweep.at(10) / 1e-5 - 1.0).abs() < 1e-9);
        for (from, to, steps) in [(0.0, 1.0, 50), (1.0, 0.5, 50), (1e-3, f64::NAN, 50), (1e-3, 1.0, 3)] {
            assert!(Sweep { from, to, steps }.validate().is_err());
        }
    }
}
