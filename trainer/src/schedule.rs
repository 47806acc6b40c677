//! How the learning rate moves: a warmup, then one of four rules, each a small struct and a pure function.
//!
//! A schedule holds one learning rate for each group of parameters (AdamW's and Muon's differ) and moves them alike.
//! Its position is a [`ScheduleState`], which a checkpoint keeps, so that a resumed run goes on with the same bits.
//!
//! The rules are PyTorch's own arithmetic, not only its formulas: `CosineAnnealingLR` computes each learning rate
//! from the one before it, which differs from the closed form in the last digits and, where `T_max` is reached
//! during warmup or passed, in what happens after it.
//!
//! What must stay true: step s of training uses the learning rates that [`Schedule::learning_rates`] gives after s
//! calls of [`Schedule::advance`].

use std::f64::consts::PI;

use grug::error::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::config::{ScheduleConfig, ScheduleKind};

/// Linear warmup as published: from `init_factor` times the full learning rate at step 0 to all of it at `steps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    /// Steps until the full learning rate.
    pub steps: u64,
    /// Share of it at step 0.
    pub init_factor: f64,
}

impl Warmup {
    /// Share of the full learning rate at this step, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step >= self.steps {
            return 1.0;
        }
        self.init_factor + (1.0 - self.init_factor) * (step as f64 / self.steps as f64)
    }
}

/// PyTorch's `CosineAnnealingLR`, in its chainable form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine {
    /// Calls from the full learning rate to the lowest. After twice as many it is full again.
    pub t_max: u64,
    /// The lowest learning rate.
    pub eta_min: f64,
}

impl Cosine {
    /// The learning rate of call number `epoch` (from 1), from the one before it and the full one.
    pub fn next(&self, lr: f64, base_lr: f64, epoch: u64) -> f64 {
        let t_max = self.t_max as f64;
        // At the turning points 1 + cos is 0, which the recursion cannot divide by: PyTorch adds the first step up.
        if epoch > self.t_max && (epoch - 1 - self.t_max).is_multiple_of(2 * self.t_max) {
            return lr + (base_lr - self.eta_min) * (1.0 - (PI / t_max).cos()) / 2.0;
        }
        (1.0 + (PI * epoch as f64 / t_max).cos()) / (1.0 + (PI * (epoch - 1) as f64 / t_max).cos())
            * (lr - self.eta_min)
            + self.eta_min
    }
}

/// PyTorch's `ReduceLROnPlateau`: mode "min", relative threshold, no cooldown, eps 1e-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plateau {
    /// Validations without a better loss that are tolerated.
    pub patience: u64,
    /// What the learning rate is multiplied by after that.
    pub factor: f64,
    /// A loss is better when it is below best · (1 - threshold).
    pub threshold: f64,
    /// The lowest learning rate.
    pub min_learning_rate: f64,
}

/// What a plateau remembers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// The best loss so far; none before the first.
    pub best: Option<f64>,
    /// Validations since then.
    pub bad: u64,
}

impl Plateau {
    /// A reduction smaller than this is not made.
    const EPS: f64 = 1e-8;

    /// Takes a validation loss in; true when the learning rate is to be reduced.
    pub fn observe(&self, state: &mut PlateauState, loss: f64) -> bool {
        if loss < state.best.map_or(f64::INFINITY, |best| best * (1.0 - self.threshold)) {
            *state = PlateauState { best: Some(loss), bad: 0 };
        } else {
            state.bad += 1;
        }
        let reduce = state.bad > self.patience;
        if reduce {
            state.bad = 0;
        }
        reduce
    }

    /// The learning rate after a reduction.
    pub fn reduced(&self, lr: f64) -> f64 {
        let lower = (lr * self.factor).max(self.min_learning_rate);
        if lr - lower > Plateau::EPS { lower } else { lr }
    }
}

/// Warmup-stable-decay: full, then a straight line down to the end of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearDecay {
    /// Steps of the whole training.
    pub total_steps: u64,
    /// Share of them in which the learning rate falls.
    pub decay_fraction: f64,
    /// Share of the full learning rate after the last step.
    pub final_factor: f64,
}

impl LinearDecay {
    /// Share of the full learning rate at this step, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        let falling = self.total_steps as f64 * self.decay_fraction;
        let left = self.total_steps.saturating_sub(step) as f64;
        if left >= falling {
            return 1.0;
        }
        self.final_factor + (1.0 - self.final_factor) * left / falling
    }
}

/// The rule after warmup.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Constant,
    Cosine(Cosine),
    Plateau(Plateau),
    Linear(LinearDecay),
}

/// Where a schedule is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleState {
    /// Steps taken.
    pub step: u64,
    /// The full learning rate of each group.
    pub base: Vec<f64>,
    /// The present learning rate of each group.
    pub learning_rates: Vec<f64>,
    /// What a plateau remembers.
    pub plateau: PlateauState,
}

/// A warmup, a rule and where they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    warmup: Warmup,
    rule: Rule,
    state: ScheduleState,
}

impl Schedule {
    /// A schedule at step 0 for groups with these full learning rates, over a training of `total_steps`.
    pub fn new(config: &ScheduleConfig, base: &[f64], total_steps: u64) -> Schedule {
        let warmup = Warmup { steps: config.warmup_steps, init_factor: config.warmup_init_factor };
        let rule = match config.kind {
            ScheduleKind::Constant => Rule::Constant,
            ScheduleKind::Cosine => Rule::Cosine(Cosine {
                t_max: config.t_max.unwrap_or_else(|| total_steps.saturating_sub(config.warmup_steps).max(1)),
                eta_min: config.eta_min,
            }),
            ScheduleKind::Plateau => Rule::Plateau(Plateau {
                patience: config.patience,
                factor: config.factor,
                threshold: config.threshold,
                min_learning_rate: config.min_learning_rate,
            }),
            ScheduleKind::Linear => Rule::Linear(LinearDecay {
                total_steps,
                decay_fraction: config.decay_fraction,
                final_factor: config.final_factor,
            }),
        };
        let mut schedule = Schedule {
            warmup,
            rule,
            state: ScheduleState {
                step: 0,
                base: base.to_vec(),
                learning_rates: base.to_vec(),
                plateau: PlateauState::default(),
            },
        };
        schedule.set_factor(warmup.factor(0) * schedule.rule_factor());
        schedule
    }

    /// The learning rate of each group for the coming step.
    pub fn learning_rates(&self) -> &[f64] {
        &self.state.learning_rates
    }

    /// Goes on to the next step. Call once after every optimizer step.
    pub fn advance(&mut self) {
        self.state.step += 1;
        let step = self.state.step;
        if step <= self.warmup.steps {
            self.set_factor(self.warmup.factor(step) * self.rule_factor());
            return;
        }
        match self.rule {
            Rule::Constant | Rule::Plateau(_) => {}
            Rule::Linear(rule) => self.set_factor(rule.factor(step)),
            Rule::Cosine(rule) => self.follow(rule, step),
        }
    }

    /// Goes on to this step, which comes after warmup.
    fn follow(&mut self, rule: Cosine, step: u64) {
        for (lr, base) in self.state.learning_rates.iter_mut().zip(&self.state.base) {
            *lr = rule.next(*lr, *base, step - self.warmup.steps);
        }
    }

    /// Takes a validation loss in. Only a plateau acts on it, and only after warmup.
    /// True when the learning rates were reduced.
    pub fn validated(&mut self, loss: f64) -> bool {
        let Rule::Plateau(rule) = self.rule else { return false };
        if self.state.step < self.warmup.steps || !rule.observe(&mut self.state.plateau, loss) {
            return false;
        }
        for lr in &mut self.state.learning_rates {
            *lr = rule.reduced(*lr);
        }
        true
    }

    /// Where the schedule is, to keep in a checkpoint.
    pub fn state(&self) -> &ScheduleState {
        &self.state
    }

    /// Goes to where a checkpoint was. What follows from the step alone is what the present settings say, which may not
    /// be those of the checkpoint; only a plateau goes on from the learning rates that it had reached.
    pub fn restore(&mut self, state: ScheduleState) -> Result<()> {
        let groups = self.state.base.len();
        if state.base.len() != groups || state.learning_rates.len() != groups {
            return Err(Error::format(format!(
                "the schedule's state has {} groups of parameters, this run {groups}",
                state.base.len()
            )));
        }
        if !state.learning_rates.iter().chain(&state.base).all(|lr| lr.is_finite() && *lr >= 0.0) {
            return Err(Error::format("the schedule's state has a learning rate that is not a number"));
        }
        self.state = state;
        let step = self.state.step;
        match self.rule {
            Rule::Plateau(_) => {}
            Rule::Constant | Rule::Linear(_) => {
                self.set_factor(self.warmup.factor(step) * self.rule_factor())
            }
            Rule::Cosine(rule) => {
                self.set_factor(self.warmup.factor(step));
                (self.warmup.steps + 1..=step).for_each(|step| self.follow(rule, step));
            }
        }
        Ok(())
    }

    /// What the rule contributes as a factor; a decay may begin before warmup ends.
    fn rule_factor(&self) -> f64 {
        match self.rule {
            Rule::Linear(rule) => rule.factor(self.state.step),
            Rule::Constant | Rule::Cosine(_) | Rule::Plateau(_) => 1.0,
        }
    }

    fn set_factor(&mut self, factor: f64) {
        for (lr, base) in self.state.learning_rates.iter_mut().zip(&self.state.base) {
            *lr = base * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: ScheduleKind) -> ScheduleConfig {
        ScheduleConfig { kind, ..ScheduleConfig::default() }
    }

    #[test]
    fn warmup_goes_from_the_init_factor_to_one() {
        let mut schedule = Schedule::new(
            &ScheduleConfig { warmup_steps: 4, warmup_init_factor: 0.2, ..config(ScheduleKind::Constant) },
            &[1.0, 10.0],
            100,
        );
        for expected in [0.2, 0.4, 0.6, 0.8, 1.0, 1.0] {
            let lrs = schedule.learning_rates();
            assert!((lrs[0] - expected).abs() < 1e-12 && (lrs[1] - 10.0 * expected).abs() < 1e-11, "{lrs:?}");
            schedule.advance();
        }
    }

    #[test]
    fn linear_decay_ends_at_the_final_factor() {
        let config =
            ScheduleConfig { decay_fraction: 0.5, final_factor: 0.1, ..config(ScheduleKind::Linear) };
        let mut schedule = Schedule::new(&config, &[2.0], 10);
        let mut lrs = Vec::new();
        for _ in 0..=12 {
            lrs.push(schedule.learning_rates()[0]);
            schedule.advance();
        }
        assert_eq!(&lrs[..6], &[2.0; 6]);
        assert!((lrs[6] - 2.0 * (0.1 + 0.9 * 0.8)).abs() < 1e-12, "{lrs:?}");
        assert!((lrs[10] - 0.2).abs() < 1e-12 && lrs[12] == lrs[10], "{lrs:?}");
    }

    #[test]
    fn cosine_is_near_its_closed_form() {
        let mut schedule =
            Schedule::new(&ScheduleConfig { t_max: Some(100), ..config(ScheduleKind::Cosine) }, &[1e-3], 300);
        for step in 0..300 {
            let closed = 1e-6 + (1e-3 - 1e-6) * (1.0 + (PI * step as f64 / 100.0).cos()) / 2.0;
            assert!((schedule.learning_rates()[0] - closed).abs() < 1e-9, "step {step}");
            schedule.advance();
        }
    }

    #[test]
    fn plateau_counts_bad_validations_after_warmup() {
        let config = ScheduleConfig { patience: 1, warmup_steps: 2, ..config(ScheduleKind::Plateau) };
        let mut schedule = Schedule::new(&config, &[1.0], 100);
        assert!(!schedule.validated(0.001), "warmup is not over");
        schedule.advance();
        schedule.advance();
        let reduced: Vec<bool> =
            [3.0, 2.9999, 3.0, f64::NAN, 2.0].iter().map(|&loss| schedule.validated(loss)).collect();
        // 2.9999 is better by less than the threshold of 0.0003.
        assert_eq!(reduced, [false, false, true, false, false]);
        assert!((schedule.learning_rates()[0] - 0.1).abs() < 1e-15);
        assert_eq!(schedule.state().plateau, PlateauState { best: Some(2.0), bad: 0 });
    }

    #[test]
    fn a_restored_schedule_goes_on_with_the_same_bits() {
        for kind in
            [ScheduleKind::Constant, ScheduleKind::Cosine, ScheduleKind::Plateau, ScheduleKind::Linear]
        {
            let config = ScheduleConfig { warmup_steps: 7, patience: 0, factor: 0.7, ..config(kind) };
            let base = [3e-4, 0.02];
            let mut whole = Schedule::new(&config, &base, 200);
            let mut half = whole.clone();
            let go = |schedule: &mut Schedule, steps: std::ops::Range<u32>| {
                for step in steps {
                    schedule.advance();
                    schedule.validated(1.0 / f64::from(step % 17 + 1));
                }
            };
            go(&mut whole, 0..300);
            go(&mut half, 0..123);
            let text = serde_json::to_string(half.state()).unwrap();
            let mut resumed = Schedule::new(&config, &base, 200);
            resumed.restore(serde_json::from_str(&text).unwrap()).unwrap();
            go(&mut resumed, 123..300);
            assert_eq!(resumed.state(), whole.state());
            let mut other = Schedule::new(&config, &[1.0], 200);
            assert!(other.restore(whole.state().clone()).is_err());
        }
    }

    #[test]
    fn a_schedule_that_changed_is_followed_from_where_it_would_be() {
        use ScheduleKind::{Constant, Cosine, Linear};
        let with = |kind, warmup_steps| ScheduleConfig { warmup_steps, ..config(kind) };
        let at = |config: &ScheduleConfig, total_steps, step| {
            let mut schedule = Schedule::new(config, &[3e-4, 0.02], total_steps);
            (0..step).for_each(|_| schedule.advance());
            schedule
        };
        for (was, now) in [
            ((with(Constant, 100), 200), (with(Constant, 10), 200)),
            ((with(Constant, 100), 200), (with(Linear, 100), 90)),
            ((with(Linear, 0), 60), (with(Constant, 0), 60)),
            // A cosine that had come to its end, in a run that is made longer.
            ((with(Cosine, 5), 50), (with(Cosine, 5), 100)),
            ((with(Linear, 5), 50), (with(Cosine, 5), 100)),
        ] {
            let mut resumed = Schedule::new(&now.0, &[3e-4, 0.02], now.1);
            resumed.restore(at(&was.0, was.1, 50).state).unwrap();
            assert_eq!(resumed, at(&now.0, now.1, 50), "{was:?} {now:?}");
        }
    }
}
