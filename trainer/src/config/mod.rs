//! A training run as one TOML file: what to train, on what, how, and how fast.
//!
//! The `[model]` table is [`grug::config::ModelConfig`] itself, so that a run and a checkpoint describe a model with
//! the same words. Everything else is here. A key nobody knows is an error that suggests the nearest one we do, and
//! [`RunConfig::validate`] refuses settings that contradict each other by name: a run that starts is a run whose every
//! setting is used.
//!
//! The defaults stand in the `Default` implementations in `sections.rs`; `docs/training.md` lists them all.

mod load;
mod presets;
pub mod published;
mod sections;
mod validate;

pub use presets::{PRESETS, Preset, preset};
pub use sections::{
    DataConfig, GuardConfig, Objective, OptimizerConfig, OptimizerKind, ParallelConfig, Precision,
    ProfilerConfig, SampleConfig, ScheduleConfig, ScheduleKind, TelemetryConfig, TrainingConfig,
};

pub(crate) use validate::MAX_THREADS;

use std::path::{Path, PathBuf};

use grug::config::{Attention, ModelConfig};
use serde::{Deserialize, Serialize};

/// Everything that determines a training run, but the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run, and of its folder.
    pub name: String,
    /// Folder that holds the folders of runs.
    #[serde(default = "runs")]
    pub runs_dir: PathBuf,
    /// Where the text comes from and how it is cut into windows.
    #[serde(default)]
    pub data: DataConfig,
    /// How long and in what portions to train, and what to do meanwhile.
    #[serde(default)]
    pub training: TrainingConfig,
    /// The rule that changes weights.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the learning rate moves.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Steps that would spoil the model are skipped.
    #[serde(default)]
    pub guard: GuardConfig,
    /// Text drawn during training.
    #[serde(default)]
    pub sample: SampleConfig,
    /// Text drawn once, when training has ended; `bytes = 0` draws none.
    #[serde(default = "SampleConfig::none", deserialize_with = "SampleConfig::none_by_default")]
    pub generate: SampleConfig,
    /// What is shown and written.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// A trace of some steps.
    #[serde(default)]
    pub profiler: ProfilerConfig,
    /// What processes that train together exchange.
    #[serde(default)]
    pub parallel: ParallelConfig,
    /// What the model computes.
    pub model: ModelConfig,
}

fn runs() -> PathBuf {
    PathBuf::from("runs")
}

impl RunConfig {
    /// Where this run writes: `runs_dir/name`.
    pub fn run_dir(&self) -> PathBuf {
        self.runs_dir.join(&self.name)
    }

    /// Which positions of a window are trained: the setting, or every one for a causal model and the last one for a
    /// bidirectional model.
    pub fn objective(&self) -> Objective {
        self.training.objective.unwrap_or(match self.model.attention {
            Attention::Causal => Objective::Every,
            Attention::Bidirectional => Objective::Last,
        })
    }

    /// Bytes of input in a training window. A window holds one byte more, the last target.
    pub fn window_bytes(&self) -> usize {
        self.model.window_bytes()
    }

    /// Bytes from the start of a training window to the start of the next: the setting, or a window's length where
    /// every position is trained, or a quarter of it where only the last one is.
    pub fn stride(&self) -> usize {
        self.data.stride.unwrap_or(match self.objective() {
            Objective::Every => self.window_bytes(),
            Objective::Last => self.window_bytes().div_ceil(4),
        })
    }

    /// Bytes from the start of a validation window to the start of the next.
    pub fn validation_stride(&self) -> usize {
        match self.objective() {
            Objective::Every => self.window_bytes(),
            Objective::Last => self.stride(),
        }
    }

    /// Bytes between the end of the training span and the start of the validation span; the legacy split has no such
    /// spans.
    pub fn guard_bytes(&self) -> usize {
        if self.data.legacy_split {
            return 0;
        }
        self.data.guard_bytes.unwrap_or_else(|| self.window_bytes())
    }

    /// The byte file to train on: the setting; or the only source where that is a `.txt`, `.bin` or `.npy` file, which
    /// needs no preparation; or `corpus.bin` in the run's folder.
    pub fn prepared_path(&self) -> PathBuf {
        let is_corpus =
            |path: &Path| path.extension().is_some_and(|e| e == "txt" || e == "bin" || e == "npy");
        match (&self.data.prepared, &self.data.sources[..]) {
            (Some(path), _) => path.clone(),
            (None, [only]) if is_corpus(only) => only.clone(),
            (None, _) => self.run_dir().join("corpus.bin"),
        }
    }

    /// Whether the byte file is made from sources, rather than being one itself.
    pub fn needs_preparation(&self) -> bool {
        !self.data.sources.is_empty() && self.data.sources != [self.prepared_path()]
    }

    /// Windows of one forward and backward pass, over all ranks.
    pub fn micro_batch(&self) -> usize {
        self.training.batch_size / self.training.accumulation
    }

    /// The same run with every default that depends on another setting written out, as the run folder keeps it.
    pub fn resolved(&self) -> RunConfig {
        let mut run = self.clone();
        run.training.objective = Some(self.objective());
        run.data.stride = Some(self.stride());
        run.data.guard_bytes = Some(self.guard_bytes());
        run.data.prepared = Some(self.prepared_path());
        run
    }
}

#[cfg(test)]
mod tests;
