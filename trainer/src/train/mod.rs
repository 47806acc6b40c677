//! The training loop.
//!
//! What must stay true: a run that is stopped anywhere and resumed takes the same steps, bit for bit on the CPU, as one
//! that was never stopped. So everything that a step depends on is in the state file, and what happens between steps
//! (validation, plateau, checkpoints) depends on the step's number and on that state alone.

mod files;
mod lr_range;
mod overfit;
mod ranks;
mod saving;
mod step;

pub use files::Files;
pub use lr_range::{RangeResult, Sweep, lr_range};
pub use overfit::{Overfit, OverfitOptions, overfit, overfit_run};
pub use step::Trainer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use grug::checkpoint::Checkpoint;
use grug::error::{Error, ErrorKind, Result};
use grug::sampler::{Sampler, SamplerOptions};

use crate::config::{RunConfig, SampleConfig};
use crate::dataset::Corpus;
use crate::evaluate::Evaluation;
use crate::generate::{generate, runtime_model};
use crate::guard::Spikes;
use crate::parallel::Place;
use crate::profile::StepProfiler;
use crate::state::load_state;
use crate::telemetry::Plan;

/// Some steps of training, as a person or a file of metrics sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps since the last report.
    pub steps: u64,
    /// Seconds that those took, without validations, samples and checkpoints.
    pub seconds: f64,
    /// Their mean training loss, in nats.
    pub nats: f64,
    /// Norm of the last step's gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of each group of parameters in the last step.
    pub learning_rates: Vec<f64>,
    /// The loss scale and the steps skipped so far; half precision only.
    pub scaler: Option<(f64, i64)>,
    /// Steps that the guard skipped so far; only with a guard.
    pub spikes: Option<u64>,
}

/// What a run tells whoever watches it. Nothing it does changes the run.
pub trait Observer {
    /// Before the first step, which comes after `first_step` steps of an earlier part of the run.
    fn start(&mut self, plan: &Plan, first_step: u64) -> Result<()>;
    /// After every step.
    fn tick(&mut self, step: u64);
    /// Every `log_every` steps.
    fn steps(&mut self, report: &StepReport) -> Result<()>;
    /// After a validation over so many windows.
    fn validation(
        &mut self,
        step: u64,
        evaluation: &Evaluation,
        windows: u64,
        seconds: f64,
        best: bool,
    ) -> Result<()>;
    /// Text drawn from the model: its prompt and what follows.
    fn sample(&mut self, step: u64, prompt: &[u8], text: &[u8]) -> Result<()>;
    /// Something that happened and a person should know.
    fn note(&mut self, step: u64, text: &str) -> Result<()>;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop; `--resume` goes on.
    Stopped,
    /// The validation loss no longer improved.
    StoppedEarly,
}

/// Trains until the end, or until `stop` is raised, whereupon it finishes its step and saves.
///
/// With several ranks, each of them calls this with the same run. Rank 0 alone writes files, so the others need none;
/// a stop that any of them was asked for is one that all agree on.
pub fn train(
    run: &RunConfig,
    corpus: &Corpus,
    place: impl Into<Place>,
    files: &Files,
    resume: bool,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let place = place.into();
    if !resume && place.is_first() && !files.states()?.is_empty() {
        return Err(Error::new(
            ErrorKind::Io,
            format!(
                "{} holds a run already: --resume continues it, --run-dir chooses another folder",
                files.folder().display()
            ),
        ));
    }
    let mut trainer = Trainer::new(run, corpus, place.clone())?;
    let mut notes = Vec::new();
    if resume {
        let saved = place.is_first().then(|| files.newest_state()).transpose()?;
        let (saved, about_files) = saved.unzip();
        notes.extend(about_files.unwrap_or_default());
        let path = saved.as_ref().map(|state| files.state(state.progress.step));
        notes.extend(trainer.restore(saved).map_err(|e| path.map_or(e.clone(), |path| e.in_file(&path)))?);
    }
    let first_step = trainer.progress().step;
    observer.start(&trainer.plan()?, first_step)?;
    for note in trainer.layout().warnings.iter().cloned().chain(notes) {
        observer.note(first_step, &note)?;
    }
    let skipped = trainer.spikes().map_or(0, |spikes| spikes.skipped);
    let clock = Clock::default();
    let profiler = StepProfiler::new(&run.profiler, place.device, files.folder());
    let outcome = Loop {
        run,
        trainer: &mut trainer,
        files,
        stop,
        observer: &mut *observer,
        clock,
        resumed: resume,
        saved_step: first_step,
        skipped,
        profiler,
    }
    .run()?;
    if outcome != Outcome::Stopped && run.generate.bytes > 0 && place.is_first() {
        let text = draw(&trainer, &run.generate)?;
        observer.sample(trainer.progress().step, run.generate.prompt.as_bytes(), &text)?;
    }
    Ok(outcome)
}

/// Text as a run's configuration asks for it, written by the runtime.
fn draw(trainer: &Trainer<'_>, sample: &SampleConfig) -> Result<Vec<u8>> {
    let mut sampler = Sampler::new(&SamplerOptions {
        seed: sample.seed,
        temperature: sample.temperature as f32,
        top_k: sample.top_k as u32,
        top_p: sample.top_p as f32,
        ..SamplerOptions::default()
    })?;
    let mut text = Vec::with_capacity(sample.bytes);
    let model = runtime_model(trainer.model())?;
    generate(&model, sample.prompt.as_bytes(), sample.bytes, &mut sampler, |byte| {
        text.push(byte);
        true
    })?;
    Ok(text)
}

/// Time spent on the steps since the last report; it stands still during everything else.
#[derive(Debug, Default)]
struct Clock {
    seconds: f64,
    running: Option<Instant>,
    steps: u64,
}

impl Clock {
    fn run(&mut self) {
        self.running.get_or_insert_with(Instant::now);
        self.steps += 1;
    }

    fn pause(&mut self) {
        self.seconds += self.running.take().map_or(0.0, |start| start.elapsed().as_secs_f64());
    }

    /// Steps and seconds since the last call.
    fn take(&mut self) -> (u64, f64) {
        self.pause();
        let taken = std::mem::take(self);
        (taken.steps, taken.seconds)
    }
}

struct Loop<'a, 'b> {
    run: &'a RunConfig,
    trainer: &'a mut Trainer<'b>,
    files: &'a Files,
    stop: &'a AtomicBool,
    observer: &'a mut dyn Observer,
    clock: Clock,
    profiler: StepProfiler,
    /// Whether it began with a checkpoint.
    resumed: bool,
    /// The step of the last checkpoint.
    saved_step: u64,
    /// Steps that the guard skipped, as said so far.
    skipped: u64,
}

impl Loop<'_, '_> {
    fn stopped(&self) -> bool {
        self.trainer.stops(self.stop.load(Ordering::Relaxed))
    }

    /// Says where the profiler left a trace, if it did.
    fn traced(&mut self, path: Option<PathBuf>) -> Result<()> {
        let step = self.trainer.progress().step;
        match path {
            Some(path) => self
                .observer
                .note(step, &format!("{} shows what ran when; ui.perfetto.dev opens it", path.display())),
            None => Ok(()),
        }
    }

    fn run(&mut self) -> Result<Outcome> {
        let outcome = self.steps()?;
        let path = self.profiler.finish()?;
        self.traced(path)?;
        Ok(outcome)
    }

    fn steps(&mut self) -> Result<Outcome> {
        if (self.run.guard.enabled || self.stopped()) && self.files.states()?.is_empty() {
            // Something to go back to, or on with.
            self.save()?;
        } else if self.resumed && self.trainer.place().is_first() {
            self.complete_models()?;
        }
        let total = self.trainer.total_steps();
        loop {
            let step = self.trainer.progress().step;
            let validated = self.validation_due(step) && !self.stopped() && self.validate()?;
            let gave_up = validated && self.gave_up();
            let every = self.run.training.checkpoint_every;
            let due = validated
                || (every > 0 && step.is_multiple_of(every))
                || (self.run.training.checkpoint_epochs && self.trainer.ends_epoch(step));
            if validated || step > self.saved_step && (due || step >= total || self.stopped()) {
                self.save()?;
            }
            if gave_up && step < total {
                let bad = self.trainer.progress().validations_since_best;
                self.observer.note(step, &format!("stopping early: no better loss in {bad} validations"))?;
                return Ok(Outcome::StoppedEarly);
            }
            let interrupted = self.stopped() && self.validation_due(step);
            if step >= total && !interrupted {
                return Ok(Outcome::Finished);
            }
            if self.stopped() {
                return Ok(Outcome::Stopped);
            }
            self.step()?;
        }
    }

    /// One step, its report and its sample.
    fn step(&mut self) -> Result<()> {
        if self.run.profiler.enabled && self.trainer.place().is_first() {
            let path = self.profiler.before(self.trainer.progress().step, self.trainer.epoch())?;
            self.traced(path)?;
        }
        self.clock.run();
        self.trainer.propose_stop(self.stop.load(Ordering::Relaxed));
        self.trainer.step()?;
        let path = self.profiler.after(self.trainer.progress().step)?;
        self.traced(path)?;
        let step = self.trainer.progress().step;
        self.observer.tick(step);
        let t = &self.run.training;
        if step.is_multiple_of(t.log_every) || step == self.trainer.total_steps() || self.stopped() {
            // This waits for the device, so the clock is right.
            let (nats, grad_norm) = self.trainer.take_loss()?;
            let (steps, seconds) = self.clock.take();
            self.trainer.add_seconds(seconds);
            self.observer.steps(&StepReport {
                step,
                steps,
                seconds,
                nats,
                grad_norm,
                learning_rates: self.trainer.last_learning_rates().to_vec(),
                scaler: self.trainer.read_scaler(),
                spikes: self.trainer.spikes().map(|spikes| spikes.skipped),
            })?;
            // Not because of a stop: a resumed run would have gone back at another step than one never stopped.
            if step.is_multiple_of(t.log_every)
                && let Some(spikes) = self.trainer.spikes()
                && self.heed(spikes)?
            {
                return Ok(());
            }
        }
        if t.sample_every > 0 && step.is_multiple_of(t.sample_every) && self.run.sample.bytes > 0 {
            self.clock.pause();
            if self.trainer.place().is_first() {
                let text = draw(self.trainer, &self.run.sample)?;
                self.observer.sample(step, self.run.sample.prompt.as_bytes(), &text)?;
            }
        }
        Ok(())
    }

    /// Says what the guard did, and goes back where so many steps in a row were skipped that the weights themselves must
    /// be spoiled: to the last checkpoint from before them. True where it did.
    fn heed(&mut self, spikes: Spikes) -> Result<bool> {
        let step = self.trainer.progress().step;
        let new = spikes.skipped.saturating_sub(self.skipped);
        self.skipped = spikes.skipped;
        if new > 0 {
            let are = if new == 1 { "step was" } else { "steps were" };
            let text = format!(
                "{new} {are} skipped: the loss or the gradient was far above that of the steps before"
            );
            self.observer.note(step, &text)?;
        }
        let guard = &self.run.guard;
        if spikes.in_a_row < guard.rollback_after {
            return Ok(false);
        }
        let rollbacks = self.trainer.progress().rollbacks;
        if rollbacks >= guard.max_rollbacks {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "training has diverged: the last {} steps were skipped, and it went back {rollbacks} times \
                     already (guard.max_rollbacks). Try a lower optimizer.learning_rate, or look at the text",
                    spikes.in_a_row
                ),
            ));
        }
        let first_bad = step.saturating_sub(spikes.in_a_row);
        let states = self.files.states()?;
        let (_, path) = states
            .iter()
            .find(|(saved, _)| *saved < first_bad)
            .or(states.last())
            .ok_or_else(|| Error::new(ErrorKind::Io, "there is no checkpoint to go back to"))?;
        self.trainer.roll_back(load_state(path)?).map_err(|e| e.in_file(path))?;
        self.saved_step = self.trainer.progress().step;
        self.skipped = self.trainer.spikes().map_or(0, |spikes| spikes.skipped);
        let rate = self.trainer.schedule_learning_rates().first().copied().unwrap_or_default();
        let text = format!(
            "{} steps in a row were skipped: back to step {}, on with other windows and a learning rate of {rate:.3e}",
            spikes.in_a_row, self.saved_step
        );
        self.observer.note(step, &text)?;
        Ok(true)
    }

    /// Whether the model of this step is to be validated and was not yet.
    fn validation_due(&self, step: u64) -> bool {
        let t = &self.run.training;
        let progress = self.trainer.progress();
        if step == 0 || progress.validated_step == Some(step) || self.trainer.validation_windows() == 0 {
            return false;
        }
        (t.validate_every > 0 && step.is_multiple_of(t.validate_every))
            || (t.validate_epochs && self.trainer.ends_epoch(step))
            || step == self.trainer.total_steps()
    }

    /// Validates, which moves a plateau and may give the best model. False where it was interrupted, so that the resumed
    /// run begins with it, and where a guard has to go back.
    fn validate(&mut self) -> Result<bool> {
        self.clock.pause();
        let start = Instant::now();
        let Some(evaluation) = self.trainer.validate(self.stop)? else { return Ok(false) };
        let step = self.trainer.progress().step;
        if !evaluation.nats.is_finite() && self.run.guard.enabled {
            // The steps from here on are skipped, and the guard goes back.
            self.observer
                .note(step, &format!("the validation loss is {}: no model to keep", evaluation.nats))?;
            return Ok(false);
        }
        if !evaluation.nats.is_finite() {
            return Err(self.trainer.not_finite("validation loss", evaluation.nats));
        }
        let (best, reduced) = self.trainer.note_validation(&evaluation);
        let (windows, seconds) = (self.trainer.validation_windows(), start.elapsed().as_secs_f64());
        self.observer.validation(step, &evaluation, windows, seconds, best)?;
        if reduced {
            let rate = self.trainer.schedule_learning_rates().first().copied().unwrap_or_default();
            self.observer.note(step, &format!("plateau: the learning rate is now {rate:.3e}"))?;
        }
        if best && self.trainer.place().is_first() {
            self.trainer.save_model(&self.files.best)?;
        }
        Ok(true)
    }

    fn gave_up(&self) -> bool {
        let patience = self.run.training.early_stop_patience;
        patience > 0 && self.trainer.progress().validations_since_best >= patience
    }

    /// The state first: whoever finds the model finds a state that is as new. Older states go when it is on the disk.
    fn save(&mut self) -> Result<()> {
        self.clock.pause();
        let step = self.trainer.progress().step;
        self.trainer.check_weights()?;
        self.trainer.save_state(&self.files.state(step))?;
        self.saved_step = step;
        if !self.trainer.place().is_first() {
            return Ok(());
        }
        // What the guard may have to go back to stays while it doubts the weights, and one more than the newest.
        let (keep, doubtful) = match self.trainer.spikes() {
            Some(spikes) => (self.run.training.keep_last.max(2), spikes.in_a_row > 0),
            None => (self.run.training.keep_last, false),
        };
        if !doubtful && let Err(error) = self.files.prune(step, keep) {
            self.observer.note(step, &format!("old checkpoints stay: {error}"))?;
        }
        self.models().iter().try_for_each(|path| self.trainer.save_model(path))
    }

    /// The models of this step: the last one, and that of an epoch's end.
    fn models(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.files.last.clone()];
        if self.run.training.checkpoint_epochs && self.trainer.ends_epoch(self.trainer.progress().step) {
            paths.push(self.files.epoch(self.trainer.epoch()));
        }
        paths
    }

    /// Writes what models of this step are missing: the part of the run before may have ended after it saved its state.
    fn complete_models(&self) -> Result<()> {
        let step = self.trainer.progress().step.to_string();
        let missing = |path: &&PathBuf| {
            !Checkpoint::open(path)
                .is_ok_and(|model| model.metadata().get("grug.training.step") == Some(&step))
        };
        self.models().iter().filter(missing).try_for_each(|path| self.trainer.save_model(path))
    }
}
