//! Refuses values out of range and settings that contradict each other, naming them.

use grug::error::{Error, Result};

use super::{
    DataConfig, GuardConfig, Objective, OptimizerConfig, RunConfig, SampleConfig, ScheduleConfig,
    ScheduleKind, TrainingConfig,
};

/// OpenMP never comes back from starting more than the system has room for.
pub(crate) const MAX_THREADS: usize = 1024;

/// Refuses a value for which `ok` is false.
fn check(ok: bool, setting: &str, value: impl std::fmt::Display, must_be: &str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::invalid(format!("{setting} = {value}: must be {must_be}"))) }
}

fn positive(setting: &str, value: f64) -> Result<()> {
    check(value.is_finite() && value > 0.0, setting, value, "a positive number")
}

fn not_negative(setting: &str, value: f64) -> Result<()> {
    check(value.is_finite() && value >= 0.0, setting, value, "0 or a positive number")
}

fn share(setting: &str, value: f64) -> Result<()> {
    check((0.0..=1.0).contains(&value), setting, value, "between 0 and 1")
}

fn below_one(setting: &str, value: f64) -> Result<()> {
    check((0.0..1.0).contains(&value), setting, value, "at least 0 and below 1")
}

impl RunConfig {
    /// Refuses values out of range and settings that contradict each other, naming them.
    pub fn validate(&self) -> Result<()> {
        let name_is_a_folder = !self.name.is_empty()
            && !self.name.starts_with('.')
            && !self.name.contains(['/', '\\', '\0'])
            && self.name.len() <= 200;
        check(name_is_a_folder, "name", format!("\"{}\"", self.name), "a word that can name a folder")?;
        self.model.validate().map_err(|e| e.at("[model]"))?;
        self.data.validate().map_err(|e| e.at("[data]"))?;
        self.training.validate().map_err(|e| e.at("[training]"))?;
        self.optimizer.validate().map_err(|e| e.at("[optimizer]"))?;
        self.schedule.validate().map_err(|e| e.at("[schedule]"))?;
        self.guard.validate().map_err(|e| e.at("[guard]"))?;
        self.sample.validate().map_err(|e| e.at("[sample]"))?;
        self.generate.validate().map_err(|e| e.at("[generate]"))?;
        not_negative("[telemetry]: peak_tflops", self.telemetry.peak_tflops)?;
        check(self.profiler.active > 0, "[profiler]: active", self.profiler.active, "at least 1")?;
        check(self.profiler.repeat > 0, "[profiler]: repeat", self.profiler.repeat, "at least 1")?;
        let timeout = self.parallel.timeout_seconds;
        check(
            (1..=86_400).contains(&timeout),
            "[parallel]: timeout_seconds",
            timeout,
            "between 1 and 86400",
        )?;
        self.contradictions()
    }

    /// Settings of different tables that cannot go together.
    fn contradictions(&self) -> Result<()> {
        let refuse = |text: &str| Err(Error::invalid(text));
        if self.objective() == Objective::Every && !self.model.is_causal() {
            return refuse(
                "training.objective = \"every\" needs model.attention = \"causal\": a bidirectional model sees \
                 the bytes it would have to predict",
            );
        }
        let validates = self.data.validation_fraction > 0.0;
        if self.schedule.kind == ScheduleKind::Plateau {
            if !validates {
                return refuse(
                    "schedule.type = \"plateau\" follows the validation loss, but data.validation_fraction is 0",
                );
            }
            if self.training.validate_every == 0 && !self.training.validate_epochs {
                return refuse(
                    "schedule.type = \"plateau\" follows the validation loss; set training.validate_every or \
                     training.validate_epochs",
                );
            }
        }
        if self.training.early_stop_patience > 0 && !validates {
            return refuse(
                "training.early_stop_patience follows the validation loss, but data.validation_fraction is 0",
            );
        }
        if self.data.legacy_split && self.data.guard_bytes.is_some_and(|bytes| bytes > 0) {
            return refuse(
                "data.guard_bytes: data.legacy_split mixes both parts and has no gap between them",
            );
        }
        if self.data.legacy_split && !validates {
            return refuse(
                "data.legacy_split splits off validation windows, but data.validation_fraction is 0",
            );
        }
        if self.data.stride.is_some_and(|stride| stride > self.window_bytes() + 1)
            && self.objective() == Objective::Every
        {
            return refuse("data.stride is longer than a window: bytes in between would never be trained on");
        }
        Ok(())
    }
}

impl DataConfig {
    fn validate(&self) -> Result<()> {
        below_one("validation_fraction", self.validation_fraction)?;
        check(self.stride != Some(0), "stride", 0, "at least 1")?;
        for source in &self.sources {
            check(!source.as_os_str().is_empty(), "sources", "\"\"", "files and folders")?;
        }
        if self.dummy_if_empty && self.sources.is_empty() {
            return Err(Error::invalid("dummy_if_empty needs a folder in sources to put the text in"));
        }
        Ok(())
    }
}

impl TrainingConfig {
    fn validate(&self) -> Result<()> {
        if self.steps.is_none() && self.epochs.is_none() {
            return Err(Error::invalid("steps or epochs must say how long to train"));
        }
        check(self.steps != Some(0), "steps", 0, "at least 1")?;
        check(self.epochs != Some(0), "epochs", 0, "at least 1")?;
        check(
            (1..=1 << 24).contains(&self.batch_size),
            "batch_size",
            self.batch_size,
            "between 1 and 16777216",
        )?;
        check(self.accumulation > 0, "accumulation", self.accumulation, "at least 1")?;
        if !self.batch_size.is_multiple_of(self.accumulation) {
            return Err(Error::invalid(format!(
                "batch_size = {} is not a multiple of accumulation = {}",
                self.batch_size, self.accumulation
            )));
        }
        check(self.threads <= MAX_THREADS, "threads", self.threads, &format!("at most {MAX_THREADS}"))?;
        not_negative("clip_grad_norm", self.clip_grad_norm)?;
        below_one("ema_decay", self.ema_decay)?;
        check(self.log_every > 0, "log_every", self.log_every, "at least 1")?;
        check(self.keep_last > 0, "keep_last", self.keep_last, "at least 1")
    }
}

impl OptimizerConfig {
    fn validate(&self) -> Result<()> {
        positive("learning_rate", self.learning_rate)?;
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        positive("eps", self.eps)?;
        not_negative("weight_decay", self.weight_decay)?;
        not_negative("embedding_lr_multiplier", self.embedding_lr_multiplier)?;
        not_negative("head_lr_multiplier", self.head_lr_multiplier)?;
        positive("muon_learning_rate", self.muon_learning_rate)?;
        below_one("muon_momentum", self.muon_momentum)?;
        below_one("muon_momentum_start", self.muon_momentum_start)
    }
}

impl ScheduleConfig {
    fn validate(&self) -> Result<()> {
        share("warmup_init_factor", self.warmup_init_factor)?;
        check(self.t_max != Some(0), "t_max", 0, "at least 1")?;
        not_negative("eta_min", self.eta_min)?;
        check((0.0..1.0).contains(&self.factor), "factor", self.factor, "at least 0 and below 1")?;
        below_one("threshold", self.threshold)?;
        not_negative("min_learning_rate", self.min_learning_rate)?;
        share("decay_fraction", self.decay_fraction)?;
        share("final_factor", self.final_factor)
    }
}

impl GuardConfig {
    fn validate(&self) -> Result<()> {
        positive("sigmas", self.sigmas)?;
        check((2..=1 << 20).contains(&self.window_steps), "window_steps", self.window_steps, "2 to 1048576")?;
        check(self.rollback_after > 0, "rollback_after", self.rollback_after, "at least 1")?;
        check(
            self.lr_factor > 0.0 && self.lr_factor <= 1.0,
            "lr_factor",
            self.lr_factor,
            "above 0 and at most 1",
        )
    }
}

impl SampleConfig {
    fn validate(&self) -> Result<()> {
        not_negative("temperature", self.temperature)?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")
    }
}
