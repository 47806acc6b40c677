//! One step of training, and everything that it depends on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use grug::error::{Error, ErrorKind, Result};
use tch::{Device, Kind, Reduction, Tensor};

use crate::amp::GradScaler;
use crate::batch::{BatchSource, loss};
use crate::config::{Objective, Precision, RunConfig};
use crate::dataset::{Corpus, Layout};
use crate::evaluate::{Evaluation, evaluate};
use crate::model::Model;
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use crate::state::{Progress, SavedState, save_state};
use crate::telemetry::Plan;
use crate::torch::{self, Autocast};

/// A run at some step.
#[derive(Debug)]
pub struct Trainer<'a> {
    run: RunConfig,
    corpus: &'a Corpus,
    device: Device,
    model: Model,
    optimizer: Optimizer,
    scaler: Option<GradScaler>,
    schedule: Schedule,
    layout: Layout,
    source: BatchSource<'a>,
    progress: Progress,
    /// Learning rates of the last step.
    learning_rates: Vec<f64>,
    /// Loss of the steps since it was last read, summed on the device, and how many they are.
    loss_sum: Tensor,
    loss_count: u64,
    grad_norm: Tensor,
    /// Kept between steps, so that they do not allocate.
    offsets: Vec<u64>,
}

impl<'a> Trainer<'a> {
    /// A run at step 0.
    pub fn new(run: &RunConfig, corpus: &'a Corpus, device: Device) -> Result<Trainer<'a>> {
        run.validate()?;
        let t = &run.training;
        if t.threads > 0 {
            tch::set_num_threads(i32::try_from(t.threads).unwrap_or(i32::MAX));
        }
        let layout = Layout::new(run, corpus.len(), 0, 1).map_err(|e| e.in_file(corpus.path()))?;
        let total_steps = layout.total_steps;
        torch::set_switches(false, t.tf32, t.cudnn_benchmark)?;
        torch::seed_all(device, t.seed)?;
        let model = Model::new(&run.model, t.seed, device)?;
        let optimizer = Optimizer::new(&run.optimizer, model.specs(), model.parameters());
        let schedule = Schedule::new(&run.schedule, &optimizer.base_learning_rates(), total_steps);
        let progress = Progress {
            step: 0,
            validated_step: None,
            best_nats: None,
            validations_since_best: 0,
            last_nats: None,
            seconds: 0.0,
            schedule: schedule.state().clone(),
        };
        Ok(Trainer {
            run: run.clone(),
            corpus,
            device,
            optimizer,
            scaler: (t.precision == Precision::F16).then(|| GradScaler::new(device)),
            learning_rates: schedule.learning_rates().to_vec(),
            schedule,
            layout,
            source: BatchSource::new(corpus, run.window_bytes(), run.objective(), device),
            progress,
            loss_sum: Tensor::zeros([], (Kind::Float, device)),
            loss_count: 0,
            grad_norm: Tensor::zeros([], (Kind::Float, device)),
            offsets: Vec::new(),
            model,
        })
    }

    /// One step: forward and backward over the step's windows, clipping, the optimizer, the schedule.
    pub fn step(&mut self) -> Result<()> {
        let run = &self.run;
        self.layout.sampler.fill_batch(self.progress.step, &mut self.offsets);
        self.learning_rates.clear();
        self.learning_rates.extend_from_slice(self.schedule.learning_rates());
        let passes = run.training.accumulation;
        for offsets in self.offsets.chunks(run.micro_batch()) {
            let batch = self.source.gather(offsets);
            let autocast = Autocast::start(self.device, run.training.precision)?;
            let mut loss = loss(&self.model, &batch, true, Reduction::Mean)?;
            drop(autocast);
            if passes > 1 {
                loss /= passes as f64;
            }
            match &self.scaler {
                Some(scaler) => scaler.scale_loss(&loss).backward(),
                None => loss.backward(),
            }
            let _guard = tch::no_grad_guard();
            self.loss_sum += loss.detach();
        }
        self.loss_count += 1;

        let params = self.model.parameters();
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
        if let Some(scaler) = &mut self.scaler {
            scaler.unscale(&grads)?;
        }
        self.grad_norm = torch::norm(&grads)?;
        if run.training.clip_grad_norm > 0.0 {
            torch::clip(&grads, &self.grad_norm, run.training.clip_grad_norm)?;
        }
        let found_inf = self.scaler.as_ref().map(GradScaler::found_inf);
        self.optimizer.step(self.progress.step, &self.learning_rates, &grads, found_inf)?;
        if let Some(scaler) = &mut self.scaler {
            scaler.update()?;
        }
        drop(grads);
        torch::forget_gradients(params)?;
        self.schedule.advance();
        self.progress.step += 1;
        Ok(())
    }

    /// Mean loss of the steps since the last call, in nats, and the norm of the last gradient. Waits for the device.
    /// A loss that is not finite is an error: going on would only spread it.
    pub fn take_loss(&mut self) -> Result<(f64, f64)> {
        let nats = self.loss_sum.double_value(&[]) / self.loss_count.max(1) as f64;
        let _ = self.loss_sum.zero_();
        self.loss_count = 0;
        if !nats.is_finite() {
            return Err(self.not_finite("training", nats));
        }
        Ok((nats, self.grad_norm.double_value(&[])))
    }

    /// What to say when a loss is no number.
    pub fn not_finite(&self, what: &str, nats: f64) -> Error {
        Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "the {what} loss is {nats} at step {}: training has diverged. The last checkpoint is untouched; try a \
                 lower optimizer.learning_rate, a longer schedule.warmup_steps, a smaller training.clip_grad_norm or \
                 training.precision = \"f32\"",
                self.progress.step
            ),
        )
    }

    /// The loss over the validation windows; `None` where `stop` was raised meanwhile.
    pub fn validate(&mut self, stop: &AtomicBool) -> Result<Option<Evaluation>> {
        evaluate(&self.model, &mut self.source, &self.layout.validation, self.run.training.precision, stop)
    }

    /// Takes a validation into account: whether it was the best so far, and whether the learning rate was reduced.
    pub fn note_validation(&mut self, evaluation: &Evaluation) -> (bool, bool) {
        let progress = &mut self.progress;
        let best = progress.best_nats.is_none_or(|best| evaluation.nats < best);
        if best {
            progress.best_nats = Some(evaluation.nats);
            progress.validations_since_best = 0;
        } else {
            progress.validations_since_best += 1;
        }
        progress.last_nats = Some(evaluation.nats);
        progress.validated_step = Some(progress.step);
        (best, self.schedule.validated(evaluation.nats))
    }

    /// The model as it is.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How far the run is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Counts time spent training.
    pub fn add_seconds(&mut self, seconds: f64) {
        self.progress.seconds += seconds;
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.layout.total_steps
    }

    /// Learning rates that the last step used.
    pub fn last_learning_rates(&self) -> &[f64] {
        &self.learning_rates
    }

    /// Learning rates of the coming step.
    pub fn schedule_learning_rates(&self) -> &[f64] {
        self.schedule.learning_rates()
    }

    /// The windows of the run.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Windows to validate on.
    pub fn validation_windows(&self) -> u64 {
        self.layout.validation.len() as u64
    }

    /// What the run will be.
    pub fn plan(&self) -> Result<Plan> {
        Plan::new(&self.run, self.layout.total_steps, self.layout.sampler.windows_per_epoch(), 1)
    }

    /// The loss scale and the steps skipped so far, in half precision. Waits for the device.
    pub fn read_scaler(&self) -> Option<(f64, i64)> {
        self.scaler.as_ref().map(GradScaler::read)
    }

    /// Epochs completed.
    pub fn epoch(&self) -> u64 {
        self.layout.sampler.epochs_after(self.progress.step)
    }

    /// Whether an epoch was completed by the step that came before this one.
    pub fn ends_epoch(&self, step: u64) -> bool {
        step > 0 && self.layout.sampler.epochs_after(step) > self.layout.sampler.epochs_after(step - 1)
    }

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
