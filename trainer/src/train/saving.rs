//! What of a run becomes a file, and how a run goes on from one.

use std::collections::BTreeMap;
use std::path::Path;

use grug::error::{Error, ErrorKind, Result};
use tch::{Device, Tensor};

use super::Trainer;
use crate::amp::GradScaler;
use crate::config::{Objective, Precision, RunConfig};
use crate::state::{Progress, SavedState, save_state};
use crate::torch;

impl Trainer<'_> {
    /// Every tensor that a step depends on, with its name, sharing its storage; the random generators apart.
    fn state_tensors(&self) -> Vec<(String, Tensor)> {
        let params = self.model.specs().iter().zip(self.model.parameters());
        let mut list: Vec<_> =
            params.map(|(spec, tensor)| (format!("model.{}", spec.name), tensor.shallow_clone())).collect();
        list.extend(self.optimizer.state());
        list.extend(self.scaler.iter().flat_map(GradScaler::state));
        list
    }

    /// Devices whose random generators a step uses, with the names of their states.
    fn generators(&self) -> Vec<(&'static str, Device)> {
        let mut list = vec![("random.cpu", Device::Cpu)];
        if self.device != Device::Cpu {
            list.push(("random.device", self.device));
        }
        list
    }

    /// Writes everything that is needed to go on from here.
    pub fn save_state(&self, path: &Path) -> Result<()> {
        let progress = Progress { schedule: self.schedule.state().clone(), ..self.progress.clone() };
        let mut tensors = self.state_tensors();
        for (name, device) in self.generators() {
            tensors.push((name.to_string(), torch::random_state(device)?));
        }
        save_state(path, &self.run.resolved(), &progress, &tensors)
    }

    /// Goes to where a state file was. What changed in the configuration since is noted; what may not change is an
    /// error.
    pub fn restore(&mut self, mut saved: SavedState) -> Result<Vec<String>> {
        let notes = self.compare(&saved.run)?;
        saved.restore(&self.state_tensors())?;
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
        let mut state = saved.progress.schedule.clone();
        let base = self.optimizer.base_learning_rates();
        if base.len() == state.base.len() {
            // Another configured learning rate scales the one that the schedule had reached.
            for (now, (was, lr)) in base.iter().zip(state.base.iter_mut().zip(&mut state.learning_rates)) {
                if now != was {
                    *lr *= now / *was;
                    *was = *now;
                }
            }
        }
        self.schedule.restore(state)?;
        self.progress = saved.progress;
        if self.run.training.reset_best_on_resume {
            self.progress.best_nats = None;
            self.progress.validations_since_best = 0;
        }
        Ok(notes)
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
        self.model.save(path, &metadata)
    }
}
