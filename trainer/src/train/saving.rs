//! What of a run becomes a file, and how a run goes on from one.

use std::collections::BTreeMap;
use std::path::Path;

use grug::error::{Error, ErrorKind, Result};
use tch::{Device, Tensor};

use super::Trainer;
use crate::amp::GradScaler;
use crate::average::{self, WeightAverage};
use crate::config::{Objective, Precision, RunConfig};
use crate::guard::{self, SpikeGuard};
use crate::schedule::ScheduleState;
use crate::state::{Progress, SavedState, save_state};
use crate::torch;

impl Trainer<'_> {
    /// Every tensor that all runs depend on, with its name, sharing its storage; the random generators apart.
    pub(super) fn state_tensors(&self) -> Vec<(String, Tensor)> {
        let params = self.model.specs().iter().zip(self.model.parameters());
        let mut list: Vec<_> =
            params.map(|(spec, tensor)| (format!("model.{}", spec.name), tensor.shallow_clone())).collect();
        list.extend(self.optimizer.state());
        list.extend(self.scaler.iter().flat_map(GradScaler::state));
        list
    }

    /// Devices whose random generators a step uses, with the names of their states.
    pub(super) fn generators(&self) -> Vec<(&'static str, Device)> {
        let mut list = vec![("random.cpu", Device::Cpu)];
        if self.device != Device::Cpu {
            list.push(("random.device", self.device));
        }
        list
    }

    /// Writes everything that is needed to go on from here. All ranks take part; the first one writes.
    pub fn save_state(&self, path: &Path) -> Result<()> {
        let progress = Progress { schedule: self.schedule.state().clone(), ..self.progress.clone() };
        let mut tensors = self.state_tensors();
        tensors.extend(self.average.iter().flat_map(WeightAverage::state));
        tensors.extend(self.guard.iter().flat_map(SpikeGuard::state));
        for (name, device) in self.generators() {
            tensors.extend(self.random_states(name, device)?);
        }
        if !self.place.is_first() {
            return Ok(());
        }
        save_state(path, &self.run.resolved(), &progress, &tensors)
    }

    /// Goes to where a state file was, which rank 0 has read and the others have not. What changed in the configuration
    /// since is noted; what may not change is an error.
    pub fn restore(&mut self, saved: Option<SavedState>) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut random = Vec::new();
        if let Some(mut saved) = saved {
            random = saved.take_random_of_ranks();
            notes = self.restore_here(saved)?;
        }
        self.restore_everywhere(&random)?;
        Ok(notes)
    }

    fn restore_here(&mut self, mut saved: SavedState) -> Result<Vec<String>> {
        let notes = self.compare(&saved.run)?;
        let bytes = self.corpus.len();
        if let Some(was) = saved.progress.corpus_bytes.filter(|was| *was != bytes) {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the corpus {} has {bytes} bytes, and had {was} when this run began: other parts of it would train \
                     and validate, so it cannot be resumed exactly",
                    self.corpus.path().display()
                ),
            ));
        }
        saved.restore(&self.state_tensors())?;
        self.restore_options(&mut saved)?;
        for (name, device) in self.generators() {
            match saved.take(name) {
                Ok(state) => torch::set_random_state(device, &state)?,
                // A state from another kind of device has no such generator: dropout starts afresh.
                Err(_) if name == "random.device" => torch::seed_all(device, self.run.training.seed)?,
                Err(error) => return Err(error),
            }
        }
        let _ = saved.take("random.device");
        saved.expect_empty()?;
        self.progress = Progress { corpus_bytes: Some(bytes), ..saved.progress };
        self.restore_schedule(self.progress.schedule.clone())?;
        if self.run.training.reset_best_on_resume {
            self.progress.best_nats = None;
            self.progress.validations_since_best = 0;
        }
        Ok(notes)
    }

    /// What a run may begin or cease to have: an average begins with the weights, a guard with nothing.
    fn restore_options(&mut self, saved: &mut SavedState) -> Result<()> {
        if let Some(average) = &mut self.average {
            match saved.has(average::PREFIX) {
                true => saved.restore(&average.state())?,
                false => average.restart(&self.model)?,
            }
        }
        if let Some(guard) = &self.guard
            && saved.has(guard::PREFIX)
            && saved.run.guard.window_steps == self.run.guard.window_steps
        {
            saved.restore(&guard.state())?;
        }
        saved.discard(average::PREFIX);
        saved.discard(guard::PREFIX);
        Ok(())
    }

    /// Goes to where a schedule was. Another learning rate, in the configuration or because the guard went back, scales
    /// the one that it had reached.
    fn restore_schedule(&mut self, mut state: ScheduleState) -> Result<()> {
        let base = self.optimizer.base_learning_rates();
        let factor = self.run.guard.lr_factor.powi(self.progress.rollbacks as i32);
        if base.len() == state.base.len() {
            for (full, (was, lr)) in base.iter().zip(state.base.iter_mut().zip(&mut state.learning_rates)) {
                let now = full * factor;
                if now != *was {
                    // From 0 there is no way but to all of it.
                    *lr = if *was == 0.0 { now } else { *lr * (now / *was) };
                    *was = now;
                }
            }
        }
        self.schedule.restore(state)
    }

    /// Goes back to an earlier state of this run, and on from there with other windows and lower learning rates.
    pub fn roll_back(&mut self, saved: SavedState) -> Result<()> {
        let left = self.progress.clone();
        self.restore(Some(saved))?;
        let progress = &mut self.progress;
        progress.rollbacks = left.rollbacks + 1;
        progress.data_ahead = left.data_ahead + left.step.saturating_sub(progress.step);
        // The best model's file is still there.
        progress.best_nats = left.best_nats;
        progress.validations_since_best = left.validations_since_best;
        self.restore_schedule(self.progress.schedule.clone())
    }

    /// Refuses a configuration with which the saved run cannot go on, and names what else is different.
    fn compare(&self, saved: &RunConfig) -> Result<Vec<String>> {
        let (now, was) = (self.run.resolved(), saved.resolved());
        let must_agree: [(&str, bool); 10] = [
            ("[model]", now.model == was.model),
            ("optimizer.type", now.optimizer.kind == was.optimizer.kind),
            ("training.seed", now.training.seed == was.training.seed),
            ("training.batch_size", now.training.batch_size == was.training.batch_size),
            ("training.objective", now.training.objective == was.training.objective),
            (
                "training.precision",
                (now.training.precision == Precision::F16) == (was.training.precision == Precision::F16),
            ),
            ("data.validation_fraction", now.data.validation_fraction == was.data.validation_fraction),
            ("data.guard_bytes", now.data.guard_bytes == was.data.guard_bytes),
            ("data.stride", now.data.stride == was.data.stride),
            (
                "data.shift_epochs or data.legacy_split",
                now.data.shift_epochs == was.data.shift_epochs
                    && now.data.legacy_split == was.data.legacy_split,
            ),
        ];
        if let Some((name, _)) = must_agree.iter().find(|(_, same)| !same) {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{name} is not what this run began with, so it cannot be resumed exactly"),
            ));
        }
        let mut notes = Vec::new();
        for (name, changed) in [
            ("[training]", now.training != was.training),
            ("[optimizer]", now.optimizer != was.optimizer),
            ("[schedule]", now.schedule != was.schedule),
            ("[guard]", now.guard != was.guard),
        ] {
            if changed {
                notes
                    .push(format!("{name} differs from what this run began with; the new settings are used"));
            }
        }
        Ok(notes)
    }

    /// Writes the model with what a reader may want to know about its training.
    pub fn save_model(&self, path: &Path) -> Result<()> {
        let mut metadata = BTreeMap::new();
        let mut put = |key: &str, value: String| {
            metadata.insert(format!("grug.training.{key}"), value);
        };
        put("run", self.run.name.clone());
        put("step", self.progress.step.to_string());
        put("epoch", self.epoch().to_string());
        put("corpus", self.corpus.path().file_name().unwrap_or_default().to_string_lossy().into_owned());
        put("seconds", format!("{:.1}", self.progress.seconds));
        put("trainer", format!("grug-trainer {}", env!("CARGO_PKG_VERSION")));
        let objective = match self.run.objective() {
            Objective::Every => "every",
            Objective::Last => "last",
        };
        put("objective", objective.into());
        if let Some(nats) = self.progress.last_nats {
            put("validation_nats", nats.to_string());
            put("validation_step", self.progress.validated_step.unwrap_or_default().to_string());
        }
        if self.average.is_some() {
            put("ema_decay", self.run.training.ema_decay.to_string());
        }
        self.model().save(path, &metadata)
    }
}
