//! One step of training, and everything that it depends on.

use std::sync::atomic::AtomicBool;

use grug::error::{Error, ErrorKind, Result};
use tch::{Device, Kind, Reduction, Tensor};

use crate::amp::GradScaler;
use crate::average::WeightAverage;
use crate::batch::{BatchSource, loss};
use crate::config::{Precision, RunConfig};
use crate::dataset::{Corpus, Layout};
use crate::evaluate::{Evaluation, evaluate};
use crate::guard::{SpikeGuard, Spikes};
use crate::model::Model;
use crate::optimizer::Optimizer;
use crate::parallel::Place;
use crate::schedule::Schedule;
use crate::state::Progress;
use crate::telemetry::Plan;
use crate::torch::{self, Autocast, Span};

/// A run at some step.
#[derive(Debug)]
pub struct Trainer<'a> {
    pub(super) run: RunConfig,
    pub(super) corpus: &'a Corpus,
    pub(super) device: Device,
    pub(super) place: Place,
    /// Whether this rank was asked to stop, and whether the ranks have agreed to.
    stop: (bool, bool),
    /// The weights that train.
    pub(super) model: Model,
    pub(super) average: Option<WeightAverage>,
    pub(super) optimizer: Optimizer,
    pub(super) scaler: Option<GradScaler>,
    pub(super) guard: Option<SpikeGuard>,
    pub(super) schedule: Schedule,
    pub(super) layout: Layout,
    pub(super) source: BatchSource<'a>,
    pub(super) progress: Progress,
    /// Learning rates of the last step.
    pub(super) learning_rates: Vec<f64>,
    /// Loss of the steps since it was last read, summed on the device, and how many they are; without skipped ones.
    pub(super) loss_sum: Tensor,
    pub(super) loss_count: Tensor,
    pub(super) grad_norm: Tensor,
    /// Kept between steps, so that they do not allocate.
    pub(super) offsets: Vec<u64>,
}

impl<'a> Trainer<'a> {
    /// A run at step 0, on a device, or on one of several ranks.
    pub fn new(run: &RunConfig, corpus: &'a Corpus, place: impl Into<Place>) -> Result<Trainer<'a>> {
        run.validate()?;
        let place = place.into();
        let (device, rank, size) = (place.device, place.rank(), place.size());
        let t = &run.training;
        if t.threads > 0 {
            tch::set_num_threads(i32::try_from(t.threads).unwrap_or(i32::MAX));
        }
        let layout = Layout::new(run, corpus.len(), rank, size).map_err(|e| e.in_file(corpus.path()))?;
        let total_steps = layout.total_steps;
        torch::set_switches(false, t.tf32, t.cudnn_benchmark)?;
        // Dropout differs from rank to rank, the first weights do not.
        torch::seed_all(device, t.seed.wrapping_add(rank as u64))?;
        let mut model = Model::new(&run.model, t.seed, device)?;
        model.recompute_blocks(t.recompute);
        if let Some(team) = &place.team {
            if run.guard.enabled {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "guard.enabled = true: the guard judges the loss of one process, and there are several ranks",
                ));
            }
            if !t.batch_size.is_multiple_of(t.accumulation * size) {
                return Err(Error::invalid(format!(
                    "training.batch_size = {} cannot be shared by {size} ranks with training.accumulation = {}; it must be \
                     a multiple of {}",
                    t.batch_size,
                    t.accumulation,
                    t.accumulation * size
                )));
            }
            team.broadcast(model.parameters())?;
            team.watch_gradients(model.parameters(), run.parallel.bucket_bytes)?;
        }
        let optimizer = Optimizer::new(&run.optimizer, model.specs(), model.parameters());
        let schedule = Schedule::new(&run.schedule, &optimizer.base_learning_rates(), total_steps);
        let progress = Progress {
            step: 0,
            validated_step: None,
            best_nats: None,
            validations_since_best: 0,
            last_nats: None,
            seconds: 0.0,
            rollbacks: 0,
            data_ahead: 0,
            schedule: schedule.state().clone(),
            corpus_bytes: Some(corpus.len()),
        };
        let average = match t.ema_decay {
            0.0 => None,
            decay => Some(WeightAverage::new(Model::new(&run.model, t.seed, device)?, decay)),
        };
        Ok(Trainer {
            run: run.clone(),
            corpus,
            device,
            stop: (false, false),
            optimizer,
            scaler: (t.precision == Precision::F16).then(|| GradScaler::new(device)),
            guard: run.guard.enabled.then(|| SpikeGuard::new(&run.guard, device)),
            average,
            learning_rates: schedule.learning_rates().to_vec(),
            schedule,
            layout,
            source: BatchSource::new(corpus, run.window_bytes(), run.objective(), device)
                .keep_on_device(run.data.on_device)?,
            progress,
            loss_sum: Tensor::zeros([], (Kind::Float, device)),
            loss_count: Tensor::zeros([], (Kind::Float, device)),
            grad_norm: Tensor::zeros([], (Kind::Float, device)),
            offsets: Vec::new(),
            place,
            model,
        })
    }

    /// The next step of the run.
    pub fn step(&mut self) -> Result<()> {
        let rates = self.schedule.learning_rates().to_vec();
        self.step_on(self.progress.step + self.progress.data_ahead, rates)
    }

    /// One step on the windows of step number `windows`, with these learning rates: forward and backward, clipping, the
    /// optimizer, the average.
    pub fn step_on(&mut self, windows: u64, learning_rates: Vec<f64>) -> Result<()> {
        let run = &self.run;
        self.layout.sampler.fill_batch(windows, &mut self.offsets);
        self.learning_rates = learning_rates;
        let passes = run.training.accumulation;
        let mut step_loss: Option<Tensor> = None;
        let share = run.micro_batch() / self.place.size();
        for (pass, offsets) in self.offsets.chunks(share).enumerate() {
            let span = Span::begin("batch");
            let batch = self.source.gather(offsets)?;
            drop(span);
            let span = Span::begin("forward");
            let autocast = Autocast::start(self.device, run.training.precision)?;
            let mut loss = loss(&self.model, &batch, true, Reduction::Mean)?;
            drop(autocast);
            drop(span);
            let _span = Span::begin("backward");
            if passes > 1 {
                loss /= passes as f64;
            }
            if let Some(team) = self.place.team.as_ref().filter(|_| pass + 1 == passes) {
                team.expect(self.stop.0)?;
            }
            match &self.scaler {
                Some(scaler) => scaler.scale_loss(&loss).backward(),
                None => loss.backward(),
            }
            let part = loss.detach();
            step_loss = Some(match step_loss {
                Some(sum) => sum + part,
                None => part,
            });
        }
        if let Some(team) = &self.place.team {
            self.stop.1 |= team.finish()?;
        }
        let step_loss = step_loss.expect("a step has windows");

        let _span = Span::begin("optimizer");
        let params = self.model.parameters();
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
        if let Some(scaler) = &mut self.scaler {
            scaler.unscale(&grads)?;
        }
        self.grad_norm = torch::norm(&grads)?;
        if run.training.clip_grad_norm > 0.0 {
            torch::clip(&grads, &self.grad_norm, run.training.clip_grad_norm)?;
        }
        let overflow = self.scaler.as_ref().map(GradScaler::found_inf);
        let spike = self.guard.as_mut().map(|guard| guard.judge(&step_loss, &self.grad_norm, overflow));
        let skip = match (overflow, spike) {
            (Some(overflow), Some(spike)) => Some(overflow.maximum(spike)),
            (one, other) => one.or(other).map(Tensor::shallow_clone),
        };
        self.optimizer.step(self.progress.step, &self.learning_rates, &grads, skip.as_ref())?;
        match spike {
            None => {
                self.loss_sum += step_loss;
                self.loss_count += 1.0;
            }
            Some(spike) => {
                self.loss_sum += step_loss.masked_fill(&spike.to_kind(Kind::Bool), 0.0);
                self.loss_count += 1.0 - spike;
            }
        }
        if let Some(scaler) = &mut self.scaler {
            scaler.update()?;
        }
        drop(grads);
        torch::forget_gradients(params)?;
        if let Some(average) = &self.average {
            average.update(&self.model, self.progress.step)?;
        }
        self.schedule.advance();
        self.progress.step += 1;
        Ok(())
    }

    /// Mean loss of the steps since the last call, in nats, and the norm of the last gradient. Waits for the device.
    /// A loss that is not finite is an error: going on would only spread it. With a guard the mean is over the steps
    /// that were not skipped, and no number where there are none.
    pub fn take_loss(&mut self) -> Result<(f64, f64)> {
        let nats = self.read_loss()?;
        if !nats.is_finite() && self.guard.is_none() {
            return Err(self.not_finite("training loss", nats));
        }
        Ok((nats, self.grad_norm.double_value(&[])))
    }

    /// Mean loss of the steps since it was last read, in nats; it may be no number. Waits for the device.
    pub fn read_loss(&mut self) -> Result<f64> {
        let mut nats = [self.loss_sum.double_value(&[]) / self.loss_count.double_value(&[])];
        if let Some(team) = &self.place.team {
            team.sum(&mut nats)?;
        }
        let nats = nats[0] / self.place.size() as f64;
        let _ = self.loss_sum.zero_();
        let _ = self.loss_count.zero_();
        Ok(nats)
    }

    /// Refuses weights that are no numbers: a checkpoint of them would take the place of the last good one. A guard has
    /// older checkpoints to go back to. Waits for the device.
    pub fn check_weights(&self) -> Result<()> {
        let norm = torch::norm(self.model.parameters())?.double_value(&[]);
        if norm.is_finite() || self.guard.is_some() {
            return Ok(());
        }
        Err(self.not_finite("norm of the weights", norm))
    }

    /// What to say when a loss is no number.
    pub fn not_finite(&self, what: &str, value: f64) -> Error {
        Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "the {what} is {value} at step {}: training has diverged. The last checkpoint is untouched; try a \
                 lower optimizer.learning_rate, a longer schedule.warmup_steps, a smaller training.clip_grad_norm or \
                 training.precision = \"f32\"",
                self.progress.step
            ),
        )
    }

    /// The loss over the validation windows; `None` where `stop` was raised meanwhile.
    pub fn validate(&mut self, stop: &AtomicBool) -> Result<Option<Evaluation>> {
        let (precision, all) = (self.run.training.precision, &self.layout.validation);
        let model = self.average.as_ref().map_or(&self.model, WeightAverage::model);
        let Some(team) = &self.place.team else {
            return evaluate(model, &mut self.source, all, precision, stop);
        };
        // Each rank takes its share; where one was interrupted, all were.
        let share: Vec<u64> = all.iter().skip(team.rank()).step_by(team.size()).copied().collect();
        let part = evaluate(model, &mut self.source, &share, precision, stop)?;
        let targets = part.map_or(0.0, |part| part.targets as f64);
        let nats = part.filter(|part| part.targets > 0).map_or(0.0, |part| part.nats * targets);
        let mut sums = [nats, targets, part.is_none() as u8 as f64];
        team.sum(&mut sums)?;
        if sums[2] > 0.0 {
            self.stop.1 = true;
            return Ok(None);
        }
        Ok(Some(Evaluation { nats: sums[0] / sums[1], targets: sums[1] as u64 }))
    }

    /// Where the run computes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Tells the other ranks, with the coming step, that this one was asked to stop.
    pub fn propose_stop(&mut self, asked: bool) {
        self.stop.0 = asked;
    }

    /// Whether to stop, where this process was `asked` to or not: with several ranks, only when all know of it.
    pub fn stops(&self, asked: bool) -> bool {
        if self.place.team.is_some() { self.stop.1 } else { asked }
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

    /// The model that the run makes: with averaged weights where it averages.
    pub fn model(&self) -> &Model {
        self.average.as_ref().map_or(&self.model, WeightAverage::model)
    }

    /// What the guard has seen, where there is one. Waits for the device.
    pub fn spikes(&self) -> Option<Spikes> {
        self.guard.as_ref().map(SpikeGuard::read)
    }

    /// The full learning rate of each group of parameters.
    pub fn base_learning_rates(&self) -> Vec<f64> {
        self.optimizer.base_learning_rates()
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
        let windows = self.layout.sampler.windows_per_epoch();
        Plan::new(&self.run, self.layout.total_steps, windows, self.place.size())
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
}
