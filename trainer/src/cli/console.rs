//! Hands what a run says to the journal, which shows it and writes it down.

use grug::error::Result;

use crate::config::RunConfig;
use crate::evaluate::Evaluation;
use crate::parallel::Place;
use crate::telemetry::{
    Journal, JournalOptions, Plan, RunFolder, TrainRecord, ValidationRecord, peak_flops, tell, units,
};
use crate::torch;
use crate::train::{Observer, StepReport};

/// The observer of the `train` command.
pub struct Console {
    run: RunConfig,
    folder: RunFolder,
    place: Place,
    journal: Option<Journal>,
}

impl Console {
    /// For a run in this folder.
    pub fn new(run: &RunConfig, folder: RunFolder, place: &Place) -> Console {
        Console { run: run.clone(), folder, place: place.clone(), journal: None }
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("a run starts before it says anything")
    }
}

/// An observer that the command holds on to until the run has ended.
pub trait Watcher {
    /// What the run tells.
    fn observer(&mut self) -> &mut dyn Observer;
    /// Comes when the run has ended.
    fn finish(&mut self) -> Result<()>;
}

impl Watcher for Console {
    fn observer(&mut self) -> &mut dyn Observer {
        self
    }

    /// Leaves the progress bar and draws the curves.
    fn finish(&mut self) -> Result<()> {
        if let Some(journal) = self.journal.take()
            && let Some(path) = journal.finish()?
        {
            tell(format_args!("the curves are in {}", path.display()));
        }
        Ok(())
    }
}

impl Observer for Console {
    fn start(&mut self, plan: &Plan, first_step: u64) -> Result<()> {
        let (run, ranks) = (&self.run, self.place.size());
        let device = match (torch::describe(self.place.device), ranks) {
            (device, 1) => device,
            (device, ranks) => format!("{ranks} ranks, the first on {device}"),
        };
        self.folder.describe(run, &device, &[("libtorch", torch::VERSION)], first_step)?;
        let name = torch::device_name(self.place.device).unwrap_or_default();
        let peak_flops = match run.telemetry.peak_tflops {
            0.0 => peak_flops(&name, run.training.precision, run.training.tf32),
            tflops => Some(tflops * 1e12),
        };
        let options = JournalOptions {
            name: run.name.clone(),
            total_steps: plan.total_steps,
            first_step,
            window_bytes: plan.window_bytes,
            flops_per_window: plan.flops_per_window,
            peak_flops: peak_flops.map(|peak| peak * ranks as f64),
            tensorboard: run.telemetry.tensorboard,
            plot: run.telemetry.plot,
            quiet: false,
        };
        let journal = Journal::start(&self.folder, options)?;
        journal.say(&format!(
            "{} {} in {} on {device}: {} parameters, {} steps of {} bytes",
            if first_step == 0 { "training" } else { "going on with" },
            run.name,
            self.folder.path().display(),
            units::count(plan.parameters as f64),
            plan.total_steps.saturating_sub(first_step),
            plan.batch_size * plan.window_bytes,
        ));
        self.journal = Some(journal);
        Ok(())
    }

    fn tick(&mut self, step: u64) {
        self.journal().tick(step);
    }

    fn steps(&mut self, report: &StepReport) -> Result<()> {
        let mut extra = vec![("grad_norm", report.grad_norm)];
        if let Some((scale, skipped)) = report.scaler {
            extra.extend([("loss_scale", scale), ("skipped_steps", skipped as f64)]);
        }
        extra.extend(report.spikes.map(|spikes| ("spikes", spikes as f64)));
        let record = TrainRecord {
            step: report.step,
            loss: report.nats,
            learning_rate: report.learning_rates.first().copied().unwrap_or_default(),
            steps: report.steps,
            windows: report.steps * self.run.training.batch_size as u64,
            seconds: report.seconds,
            device_memory: torch::cuda_memory(self.place.device).map(|memory| memory.peak),
            extra,
        };
        self.journal().train(&record)
    }

    fn validation(
        &mut self,
        step: u64,
        evaluation: &Evaluation,
        windows: u64,
        seconds: f64,
        best: bool,
    ) -> Result<()> {
        self.journal().validation(&ValidationRecord { step, loss: evaluation.nats, best, windows, seconds })
    }

    fn sample(&mut self, step: u64, prompt: &[u8], text: &[u8]) -> Result<()> {
        self.journal().sample(step, prompt, text)
    }

    fn note(&mut self, step: u64, text: &str) -> Result<()> {
        self.journal().event(step, text)
    }
}

/// The observer of every rank but the first.
pub struct Silent;

impl Watcher for Silent {
    fn observer(&mut self) -> &mut dyn Observer {
        self
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Observer for Silent {
    fn start(&mut self, _: &Plan, _: u64) -> Result<()> {
        Ok(())
    }

    fn tick(&mut self, _: u64) {}

    fn steps(&mut self, _: &StepReport) -> Result<()> {
        Ok(())
    }

    fn validation(&mut self, _: u64, _: &Evaluation, _: u64, _: f64, _: bool) -> Result<()> {
        Ok(())
    }

    fn sample(&mut self, _: u64, _: &[u8], _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn note(&mut self, _: u64, _: &str) -> Result<()> {
        Ok(())
    }
}
