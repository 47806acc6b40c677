//! The self-check that finds most mistakes in a minute: a model that cannot learn a few windows by heart will learn
//! nothing from many.

use std::sync::atomic::{AtomicBool, Ordering};

use grug::config::Dropout;
use grug::error::{Error, ErrorKind, Result};
use tch::Tensor;

use super::Trainer;
use crate::config::{GuardConfig, RunConfig, ScheduleConfig};

/// How the check is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OverfitOptions {
    /// Windows to learn.
    pub windows: usize,
    /// Steps to learn them in.
    pub steps: u64,
    /// The loss that counts as learned, in nats.
    pub below: f64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Overfit {
    /// The loss before the first step, in nats.
    pub first: f64,
    /// The loss before the last step; it may be no number.
    pub last: f64,
    /// The lowest of all.
    pub lowest: f64,
    /// Steps taken.
    pub steps: u64,
    /// Whether it was learned.
    pub learned: bool,
    /// Tensors of the model that did not change at all.
    pub unmoved: Vec<String>,
}

/// The run for the check: these windows alone, with the model, the optimizer and the precision of `run` and without what
/// is there to keep a model from learning by heart.
pub fn overfit_run(run: &RunConfig, options: OverfitOptions) -> RunConfig {
    let mut run = run.clone();
    run.model.dropout = Dropout::default();
    run.training.steps = Some(options.steps);
    run.training.epochs = None;
    run.training.batch_size = options.windows;
    run.training.accumulation = 1;
    run.training.ema_decay = 0.0;
    run.training.early_stop_patience = 0;
    run.optimizer.weight_decay = 0.0;
    run.schedule = ScheduleConfig::default();
    run.guard = GuardConfig::default();
    run
}

/// Trains a run of [`overfit_run`] on its first windows, over and over. The learning rates rise in the first tenth of
/// the steps and stay. `each` sees the loss of every step; `stop` ends it with an error.
pub fn overfit(
    trainer: &mut Trainer<'_>,
    options: OverfitOptions,
    stop: &AtomicBool,
    mut each: impl FnMut(u64, f64),
) -> Result<Overfit> {
    let values = |trainer: &Trainer<'_>| -> Vec<Tensor> {
        trainer.model.parameters().iter().map(|tensor| tensor.detach().copy()).collect()
    };
    let before = values(trainer);
    let base = trainer.base_learning_rates();
    let warmup = (options.steps / 10).max(1) as f64;
    let mut found = Overfit {
        first: f64::NAN,
        last: f64::NAN,
        lowest: f64::INFINITY,
        steps: 0,
        learned: false,
        unmoved: Vec::new(),
    };
    while found.steps < options.steps && !found.learned {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Canceled, "stopped"));
        }
        let share = ((found.steps + 1) as f64 / warmup).min(1.0);
        trainer.step_on(0, base.iter().map(|lr| lr * share).collect())?;
        found.last = trainer.read_loss()?;
        found.steps += 1;
        if found.steps == 1 {
            found.first = found.last;
        }
        found.lowest = found.lowest.min(found.last);
        found.learned = found.last < options.below;
        each(found.steps, found.last);
        if !found.last.is_finite() {
            break;
        }
    }
    let specs = trainer.model.specs().iter();
    for ((spec, before), after) in specs.zip(&before).zip(&values(trainer)) {
        if before == after {
            found.unmoved.push(spec.name.clone());
        }
    }
    Ok(found)
}

impl Overfit {
    /// What to look at where it failed, a sentence each.
    pub fn advice(&self, run: &RunConfig) -> Vec<String> {
        let lr = run.optimizer.learning_rate;
        let mut advice = Vec::new();
        if !self.last.is_finite() {
            advice.push(format!(
                "the loss is {}: lower optimizer.learning_rate (now {lr}), or use training.precision = \"f32\"",
                self.last
            ));
        } else if self.last > 0.9 * self.first {
            advice.push(format!(
                "the loss hardly fell: optimizer.learning_rate (now {lr}) is much too low or much too high; \
                 `grug-trainer lr-range` finds one that is not"
            ));
        } else if self.last > 1.5 * self.lowest {
            advice.push(format!(
                "the loss had been {:.4} and rose again: lower optimizer.learning_rate (now {lr})",
                self.lowest
            ));
        } else {
            advice.push(format!(
                "the loss fell, but not far enough: more --steps, or another optimizer.learning_rate (now {lr})"
            ));
        }
        if !self.unmoved.is_empty() && self.last.is_finite() {
            let count = self.unmoved.len();
            let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
            advice.push(format!(
                "no step changed {}{more}: is a learning rate or its multiplier 0?",
                self.unmoved[..count.min(3)].join(", ")
            ));
        }
        if run.training.clip_grad_norm > 0.0 && run.training.clip_grad_norm < 0.1 {
            advice.push(format!("training.clip_grad_norm = {} is very low", run.training.clip_grad_norm));
        }
        advice
    }
}
