//! The tables of a run's configuration, each with its defaults.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

/// Which positions of a window count in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Every position predicts the byte after it; causal models only.
    Every,
    /// The last position alone, as published.
    Last,
}

/// The numbers that a pass computes with. Weights and optimizer state are f32 in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// Matrix products in bfloat16.
    Bf16,
    /// Matrix products in half precision, with a gradient scaler, as published; made for CUDA, slow on a CPU.
    F16,
}

/// The rule that turns gradients into changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (PyTorch's `AdamW`).
    Adamw,
    /// Adam with weight decay added to the gradient (PyTorch's `Adam`).
    Adam,
    /// Muon for the matrices inside the blocks, AdamW for everything else.
    Muon,
}

/// How the learning rate moves after warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// It stays.
    Constant,
    /// PyTorch's `CosineAnnealingLR`, once a step.
    Cosine,
    /// PyTorch's `ReduceLROnPlateau`, once a validation.
    Plateau,
    /// It stays, then falls in a straight line to the end (warmup-stable-decay).
    Linear,
}

/// `[data]`: where the text comes from and how it is cut into windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Folders and files of text, in order. The `.txt` files of a folder are taken in the order of their names.
    pub sources: Vec<PathBuf>,
    /// The byte file that preparation writes and training reads: flat bytes, or NumPy where it ends in `.npy`.
    /// Unset: the source itself where it is one `.txt`, `.bin` or `.npy` file, else `corpus.bin` in the run's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PathBuf>,
    /// Prepare again even where the byte file is as new as its sources.
    pub force_prepare: bool,
    /// Refuse text that is not UTF-8; otherwise such bytes are kept as they are, and counted.
    pub strict_utf8: bool,
    /// Make up five files of varied lines where the first folder has no `.txt` file.
    pub dummy_if_empty: bool,
    /// Share of the corpus, at its end, that validates and is never trained on. 0 = no validation.
    pub validation_fraction: f64,
    /// Bytes left out between the training span and the validation span. Unset: one window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard_bytes: Option<usize>,
    /// Bytes from the start of a training window to the start of the next. Unset: a window where every position is
    /// trained, a quarter of one where only the last is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Start the windows of each epoch at a random byte below the stride, so that no two epochs cut alike.
    pub shift_epochs: bool,
    /// Keep the corpus in the device's memory and cut windows there. Unset: on a GPU, where it takes at most half of
    /// the free memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_device: Option<bool>,
    /// Split overlapping windows at random, as published. Validation windows then share bytes with training windows,
    /// so the validation loss is too low: only for comparing with published numbers.
    pub legacy_split: bool,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            sources: Vec::new(),
            prepared: None,
            force_prepare: false,
            strict_utf8: false,
            dummy_if_empty: false,
            validation_fraction: 0.1,
            guard_bytes: None,
            stride: None,
            shift_epochs: true,
            on_device: None,
            legacy_split: false,
        }
    }
}

/// `[training]`: how long, in what portions, and what to do meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// `"every"` or `"last"`. Unset: every position for a causal model, the last for a bidirectional one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Steps to train. With `epochs` as well, the shorter counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Epochs to train; in each, every training window is used once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Windows of one step, over all ranks and passes.
    pub batch_size: usize,
    /// Passes that a step is divided into, to save memory; the result is the same but for rounding.
    pub accumulation: usize,
    /// Seed of the first weights, the order of windows, dropout and samples.
    pub seed: u64,
    /// What matrix products compute with: `"f32"`, `"bf16"` or `"f16"` (with a gradient scaler, as published). Weights
    /// and the optimizer's state are f32 in each case.
    pub precision: Precision,
    /// Gradients are scaled down to this global norm at most; 0 = as they are.
    pub clip_grad_norm: f64,
    /// Keep a running average of the weights with this decay per step, such as 0.999; it is what validates, writes
    /// samples and becomes the model files. 0 = none.
    pub ema_decay: f64,
    /// CUDA: products of f32 matrices in TF32, which rounds their inputs to 10 bits and is several times as fast.
    pub tf32: bool,
    /// CUDA: let cuDNN try which of its convolutions is fastest.
    pub cudnn_benchmark: bool,
    /// Blocks forget their activations and compute them again in the backward pass: the same result with memory for
    /// one block at a time, for about a third more work.
    pub recompute: bool,
    /// CPU threads; 0 = as many as there are cores.
    pub threads: usize,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// Steps between validations; 0 = none but those at the ends of epochs and of training.
    pub validate_every: u64,
    /// Validate at the end of every epoch.
    pub validate_epochs: bool,
    /// Validation windows to use, the same ones every time; 0 = all.
    pub validation_windows: usize,
    /// Steps between checkpoints of the state to resume from; 0 = only at validations and at the end.
    pub checkpoint_every: u64,
    /// Keep a model of every epoch beside the best and the last.
    pub checkpoint_epochs: bool,
    /// States to resume from that are kept, the newest ones; older ones are deleted.
    pub keep_last: usize,
    /// Steps between samples of text; 0 = none.
    pub sample_every: u64,
    /// Stop after this many validations in a row without a better loss; 0 = never.
    pub early_stop_patience: u64,
    /// When resuming, forget the best validation loss, so that the next one counts as the best.
    pub reset_best_on_resume: bool,
}

impl Default for TrainingConfig {
    fn default() -> TrainingConfig {
        TrainingConfig {
            objective: None,
            steps: None,
            epochs: None,
            batch_size: 16,
            accumulation: 1,
            seed: 1,
            precision: Precision::F32,
            clip_grad_norm: 1.0,
            ema_decay: 0.0,
            tf32: false,
            cudnn_benchmark: true,
            recompute: false,
            threads: 0,
            log_every: 10,
            validate_every: 250,
            validate_epochs: false,
            validation_windows: 0,
            checkpoint_every: 0,
            checkpoint_epochs: false,
            keep_last: 1,
            sample_every: 0,
            early_stop_patience: 0,
            reset_best_on_resume: false,
        }
    }
}

/// `[optimizer]`: the rule that changes weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// `"adamw"`, `"adam"` or `"muon"`.
    #[serde(rename = "type")]
    pub kind: OptimizerKind,
    /// Learning rate of Adam and AdamW after warmup.
    pub learning_rate: f64,
    /// Decay of the mean of gradients, per step.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, per step.
    pub beta2: f64,
    /// Added to the root of that mean.
    pub eps: f64,
    /// Weight decay, per unit of learning rate.
    pub weight_decay: f64,
    /// The embedding tables learn at `learning_rate` times this.
    pub embedding_lr_multiplier: f64,
    /// The output layer learns at `learning_rate` times this.
    pub head_lr_multiplier: f64,
    /// Learning rate of Muon after warmup.
    pub muon_learning_rate: f64,
    /// Momentum of Muon (Nesterov), per step.
    pub muon_momentum: f64,
    /// Momentum of Muon at the first step.
    pub muon_momentum_start: f64,
    /// Steps in which Muon's momentum goes from its start to its value; 0 = at once.
    pub muon_momentum_warmup_steps: u64,
}

impl Default for OptimizerConfig {
    fn default() -> OptimizerConfig {
        OptimizerConfig {
            kind: OptimizerKind::Adamw,
            learning_rate: 3e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.01,
            embedding_lr_multiplier: 1.0,
            head_lr_multiplier: 1.0,
            muon_learning_rate: 0.02,
            muon_momentum: 0.95,
            muon_momentum_start: 0.85,
            muon_momentum_warmup_steps: 300,
        }
    }
}

/// `[schedule]`: how the learning rate moves. See `schedule.rs` for the exact rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// `"constant"`, `"cosine"`, `"plateau"` or `"linear"`.
    #[serde(rename = "type")]
    pub kind: ScheduleKind,
    /// Steps of linear warmup before the schedule begins; 0 = none.
    pub warmup_steps: u64,
    /// The learning rate of the first step of warmup, as a share of the full one.
    pub warmup_init_factor: f64,
    /// Cosine: steps from the full learning rate to the lowest. Unset: the steps left after warmup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t_max: Option<u64>,
    /// Cosine: the lowest learning rate.
    pub eta_min: f64,
    /// Plateau: validations without a better loss that are tolerated.
    pub patience: u64,
    /// Plateau: what the learning rate is multiplied by when patience ends.
    pub factor: f64,
    /// Plateau: a loss is better when it is below the best times one minus this.
    pub threshold: f64,
    /// Plateau: the lowest learning rate.
    pub min_learning_rate: f64,
    /// Linear: share of all steps, at the end, in which the learning rate falls.
    pub decay_fraction: f64,
    /// Linear: the learning rate after the last step, as a share of the full one.
    pub final_factor: f64,
}

impl Default for ScheduleConfig {
    fn default() -> ScheduleConfig {
        ScheduleConfig {
            kind: ScheduleKind::Constant,
            warmup_steps: 0,
            warmup_init_factor: 0.01,
            t_max: None,
            eta_min: 1e-6,
            patience: 5,
            factor: 0.1,
            threshold: 1e-4,
            min_learning_rate: 0.0,
            decay_fraction: 0.6,
            final_factor: 0.01,
        }
    }
}

/// `[guard]`: steps whose loss or gradient is far above those before them are skipped. Counts are steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Whether to guard.
    pub enabled: bool,
    /// A step is far where its loss or the norm of its gradient is this many standard deviations above the mean.
    pub sigmas: f64,
    /// Steps that mean and deviation are taken over. Until so many are done, only what is not finite is skipped.
    pub window_steps: u64,
    /// After this many skipped steps in a row, training goes back to the last checkpoint from before them.
    pub rollback_after: u64,
    /// Times that training goes back before it gives up.
    pub max_rollbacks: u64,
    /// Each time it goes back, the learning rates are multiplied by this.
    pub lr_factor: f64,
}

impl Default for GuardConfig {
    fn default() -> GuardConfig {
        GuardConfig {
            enabled: false,
            sigmas: 6.0,
            window_steps: 128,
            rollback_after: 10,
            max_rollbacks: 3,
            lr_factor: 0.5,
        }
    }
}

/// `[sample]` and `[generate]`: text drawn from the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// What the text begins with.
    pub prompt: String,
    /// Bytes to draw; 0 = no text.
    pub bytes: usize,
    /// Logits are divided by this; 0 = the most likely byte.
    pub temperature: f64,
    /// Only this many of the most likely bytes may be drawn; 0 = all.
    pub top_k: usize,
    /// Only the most likely bytes whose probabilities reach this sum may be drawn; 1 = all.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SampleConfig {
    fn default() -> SampleConfig {
        SampleConfig { prompt: String::new(), bytes: 256, temperature: 0.8, top_k: 0, top_p: 1.0, seed: 1 }
    }
}

impl SampleConfig {
    /// No text.
    pub fn none() -> SampleConfig {
        SampleConfig { bytes: 0, ..SampleConfig::default() }
    }

    /// Reads a table in which `bytes` is 0 unless it says otherwise.
    pub(super) fn none_by_default<'de, D: Deserializer<'de>>(from: D) -> Result<SampleConfig, D::Error> {
        let mut table = toml::Table::deserialize(from)?;
        table.entry("bytes").or_insert(toml::Value::Integer(0));
        table.try_into().map_err(|e: toml::de::Error| serde::de::Error::custom(e.message()))
    }
}

/// `[telemetry]`: what a run shows and writes beside its checkpoints. `metrics.jsonl` is always written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Write TensorBoard event files.
    pub tensorboard: bool,
    /// Draw the losses and the learning rate as `loss.svg` at the end.
    pub plot: bool,
    /// What one device can do at most, in TFLOP/s, to compare with; 0 = as the device's name says, where it is known.
    pub peak_tflops: f64,
}

impl Default for TelemetryConfig {
    fn default() -> TelemetryConfig {
        TelemetryConfig { tensorboard: true, plot: true, peak_tflops: 0.0 }
    }
}

/// `[profiler]`: a trace of some steps, for Perfetto or `chrome://tracing`. Counts are steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProfilerConfig {
    /// Whether to trace.
    pub enabled: bool,
    /// The epoch to trace in, counted from 0.
    pub epoch: u64,
    /// Steps to pass over at the beginning of each cycle.
    pub wait: u64,
    /// Steps to run the profiler for without keeping what it sees.
    pub warmup: u64,
    /// Steps to keep.
    pub active: u64,
    /// Cycles; each leaves a file in the run's folder.
    pub repeat: u64,
}

impl Default for ProfilerConfig {
    fn default() -> ProfilerConfig {
        ProfilerConfig { enabled: false, epoch: 0, wait: 5, warmup: 5, active: 10, repeat: 1 }
    }
}

/// `[parallel]`: several processes that train together, started by a launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelConfig {
    /// Gradients travel in portions of at least so many bytes, while the backward pass goes on.
    pub bucket_bytes: usize,
    /// Seconds that a rank waits for the others before it gives up.
    pub timeout_seconds: u64,
}

impl Default for ParallelConfig {
    fn default() -> ParallelConfig {
        ParallelConfig { bucket_bytes: 25 << 20, timeout_seconds: 600 }
    }
}
