//! From the published project's flat configuration to a run of ours.
//!
//! [`COUNTERPARTS`] says for every published key which setting of ours it becomes, or why there is none; the table in
//! `docs/training.md` is this one, and a test changes each key and sees that its setting changes, and only where one
//! is named.

use std::path::{Path, PathBuf};

use grug::error::{Error, Result};
use grug::import::{Generation, PublishedConfig, read_pth};

use super::{
    DataConfig, GuardConfig, Objective, OptimizerConfig, OptimizerKind, ParallelConfig, Precision,
    ProfilerConfig, RunConfig, SampleConfig, ScheduleConfig, ScheduleKind, TelemetryConfig, TrainingConfig,
};

/// What becomes of a published key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counterpart {
    /// The setting or settings of ours that it decides.
    Setting(&'static str),
    /// Why there is none.
    None(&'static str),
}

use Counterpart::{None as No, Setting as To};

/// Every published key, in the published order.
pub const COUNTERPARTS: &[(&str, Counterpart)] = &[
    ("data_dir", To("data.sources")),
    ("processed_data_dir", To("data.prepared")),
    ("checkpoint_dir", To("runs_dir")),
    ("model_name", To("name")),
    ("resume_from_checkpoint", No("--resume goes on with a run")),
    ("sequence_length", To("model.context_bytes")),
    ("batch_size", To("training.batch_size")),
    ("vocab_size", No("a byte has 256 values")),
    ("val_split_ratio", To("data.validation_fraction")),
    ("num_workers", No("windows are cut from a mapped file; there is nothing for workers to do")),
    ("generate_dummy_data_if_empty", To("data.dummy_if_empty")),
    ("force_reprocess_data", To("data.force_prepare")),
    ("data_stride", To("data.stride")),
    ("embedding_dim", To("model.embedding_dim")),
    ("use_parallel_stream_model", To("model.aggregated_stream")),
    ("use_cnn_frontend", To("model.conv_frontend")),
    ("cnn_out_channels_list", To("model.conv_frontend.channels")),
    ("cnn_kernel_sizes", To("model.conv_frontend.kernels")),
    ("cnn_stride", To("model.conv_frontend.stride")),
    ("cnn_padding_mode", To("model.conv_frontend.padding")),
    ("cnn_activation", To("model.conv_frontend.activation")),
    ("cnn_dropout", To("model.dropout.conv")),
    ("cnn_use_layernorm", To("model.conv_frontend.layer_norm")),
    ("num_byte_stream_layers", To("model.n_layers (parallel streams)")),
    ("num_agg_stream_layers", To("model.aggregated_stream.n_layers")),
    ("agg_cnn_kernel_size", To("model.aggregated_stream.kernel")),
    ("agg_cnn_stride", To("model.aggregated_stream.stride")),
    ("agg_cnn_out_dim", To("model.aggregated_stream.d_model")),
    ("num_attention_layers", To("model.n_layers (single stream)")),
    ("max_positional_encoding_len", To("model.max_positions (generations 1 and 2a)")),
    ("pe_dropout", To("model.dropout.positions")),
    ("attention_d_model", To("model.d_model (generations 2b and 3; the others take the width that arrives)")),
    ("attention_num_heads", To("model.n_heads")),
    ("attention_dropout", No("the published model has no place for it either; transformer_dropout counts")),
    ("use_curved_ffn", To("model.ffn_gamma")),
    ("ffn_gamma", To("model.ffn_gamma")),
    ("ffn_dim_multiply", To("model.ffn_multiplier")),
    ("transformer_dropout", To("model.dropout.transformer")),
    ("transformer_norm_first", To("model.norm_first")),
    ("output_dropout", To("model.dropout.output")),
    ("num_epochs", To("training.epochs")),
    ("learning_rate", To("optimizer.learning_rate")),
    ("optimizer_type", To("optimizer.type")),
    ("adam_beta1", To("optimizer.beta1")),
    ("adam_beta2", To("optimizer.beta2")),
    ("adam_eps", To("optimizer.eps")),
    ("weight_decay", To("optimizer.weight_decay")),
    ("scheduler_type", To("schedule.type")),
    ("lr_scheduler_T_max", To("schedule.t_max")),
    ("lr_scheduler_eta_min", To("schedule.eta_min")),
    ("lr_scheduler_patience", To("schedule.patience")),
    ("lr_scheduler_factor", To("schedule.factor")),
    ("clip_grad_norm_value", To("training.clip_grad_norm")),
    ("print_every", To("training.log_every")),
    ("test_every_batches", To("training.sample_every")),
    ("validate_and_checkpoint_best_every_batches", To("training.validate_every")),
    ("val_samples_to_use", To("training.validation_windows")),
    ("reset_best_val_loss_on_resume", To("training.reset_best_on_resume")),
    ("use_lr_warmup", To("schedule.warmup_steps (0 = none)")),
    ("lr_warmup_steps", To("schedule.warmup_steps")),
    ("lr_warmup_init_factor", To("schedule.warmup_init_factor")),
    ("use_amp", To("training.precision")),
    ("generation_temperature", To("generate.temperature")),
    ("generation_top_k", To("generate.top_k")),
    ("interim_test_temperature", To("sample.temperature")),
    ("interim_test_top_k", To("sample.top_k")),
    ("enable_profiler", To("profiler.enabled")),
    ("profiler_log_dir", No("traces are written to the run's folder")),
    ("profile_epoch_target", To("profiler.epoch")),
    ("profiler_schedule_wait", To("profiler.wait")),
    ("profiler_schedule_warmup", To("profiler.warmup")),
    ("profiler_schedule_active", To("profiler.active")),
    ("profiler_schedule_repeat", To("profiler.repeat")),
    ("DO_TRAINING", No("the commands train and generate say what to do")),
    ("DO_PREDICTION", To("generate.bytes (0 = none)")),
    ("cudnn_benchmark", To("training.cudnn_benchmark")),
    ("use_torch_compile", No("there is no Python to compile")),
];

/// A run made from a published configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedRun {
    /// The run.
    pub run: RunConfig,
    /// What a person should know, such as keys without a counterpart.
    pub notes: Vec<String>,
}

impl ImportedRun {
    /// The run as TOML, with the notes as comments at the top.
    pub fn to_toml(&self) -> String {
        let notes: String =
            self.notes.iter().map(|note| format!("# {}\n", note.replace('\n', " "))).collect();
        format!("# Made from a published configuration.\n{notes}\n{}", self.run.to_toml())
    }
}

/// Reads the configuration inside a published checkpoint (`.pth`), or a published configuration as JSON (`.json`).
pub fn import(path: &Path) -> Result<ImportedRun> {
    let config = match path.extension().is_some_and(|e| e == "json") {
        true => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("reading", path, e))?;
            PublishedConfig::from_json(&text)
        }
        false => read_pth(path).map(|imported| imported.config),
    };
    config.and_then(|config| from_published(&config)).map_err(|e| match e.message().contains("reading") {
        true => e,
        false => e.in_file(path),
    })
}

/// The run that the published trainer would make of this configuration.
///
/// What it never writes down is taken from its code: the loss on the last position, windows that begin at multiples
/// of the stride, validation and a checkpoint at the end of every epoch. The split is the exception: see the notes.
pub fn from_published(config: &PublishedConfig) -> Result<ImportedRun> {
    let unknown = |key: &str, value: &str, choices: &str| {
        Err(Error::format(format!("published configuration: {key} = {value:?}: must be {choices}")))
    };
    let kind = match config.optimizer_type.as_str() {
        "AdamW" => OptimizerKind::Adamw,
        "Adam" => OptimizerKind::Adam,
        other => return unknown("optimizer_type", other, "AdamW or Adam"),
    };
    let schedule_kind = match config.scheduler_type.as_str() {
        "ReduceLROnPlateau" => ScheduleKind::Plateau,
        "CosineAnnealingLR" => ScheduleKind::Cosine,
        other => return unknown("scheduler_type", other, "ReduceLROnPlateau or CosineAnnealingLR"),
    };
    let count = |key: &str, value: u64| {
        usize::try_from(value)
            .map_err(|_| Error::format(format!("published configuration: {key} = {value} is too large")))
    };
    let text = |temperature: f64, top_k: u64| -> Result<SampleConfig> {
        Ok(SampleConfig { temperature, top_k: count("top_k", top_k)?, ..SampleConfig::default() })
    };
    let generate = text(config.generation_temperature, config.generation_top_k)?;
    let run = RunConfig {
        name: config.model_name.clone().unwrap_or_else(|| "grug-v3".into()),
        runs_dir: PathBuf::from(&config.checkpoint_dir),
        data: DataConfig {
            sources: vec![PathBuf::from(&config.data_dir)],
            prepared: Some(Path::new(&config.processed_data_dir).join("all_bytes_grug_v3.npy")),
            force_prepare: config.force_reprocess_data,
            strict_utf8: false,
            dummy_if_empty: config.generate_dummy_data_if_empty,
            validation_fraction: config.val_split_ratio,
            guard_bytes: None,
            stride: Some(config.data_stride),
            shift_epochs: false,
            on_device: None,
            legacy_split: false,
        },
        training: TrainingConfig {
            objective: Some(Objective::Last),
            epochs: Some(config.num_epochs),
            batch_size: config.batch_size,
            precision: if config.use_amp { Precision::F16 } else { Precision::F32 },
            clip_grad_norm: config.clip_grad_norm_value,
            cudnn_benchmark: config.cudnn_benchmark,
            log_every: config.print_every,
            validate_every: config.validate_and_checkpoint_best_every_batches,
            validate_epochs: true,
            validation_windows: count("val_samples_to_use", config.val_samples_to_use.unwrap_or(0))?,
            checkpoint_epochs: true,
            sample_every: config.test_every_batches,
            reset_best_on_resume: config.reset_best_val_loss_on_resume,
            ..TrainingConfig::default()
        },
        optimizer: OptimizerConfig {
            kind,
            learning_rate: config.learning_rate,
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            eps: config.adam_eps,
            weight_decay: config.weight_decay,
            ..OptimizerConfig::default()
        },
        schedule: ScheduleConfig {
            kind: schedule_kind,
            warmup_steps: if config.use_lr_warmup { config.lr_warmup_steps } else { 0 },
            warmup_init_factor: config.lr_warmup_init_factor,
            t_max: Some(config.lr_scheduler_t_max),
            eta_min: config.lr_scheduler_eta_min,
            patience: config.lr_scheduler_patience,
            factor: config.lr_scheduler_factor,
            ..ScheduleConfig::default()
        },
        sample: text(config.interim_test_temperature, config.interim_test_top_k)?,
        generate: if config.do_prediction { generate } else { SampleConfig { bytes: 0, ..generate } },
        guard: GuardConfig::default(),
        telemetry: TelemetryConfig::default(),
        profiler: ProfilerConfig {
            enabled: config.enable_profiler,
            epoch: config.profile_epoch_target,
            wait: config.profiler_schedule_wait,
            warmup: config.profiler_schedule_warmup,
            active: config.profiler_schedule_active,
            repeat: config.profiler_schedule_repeat,
        },
        parallel: ParallelConfig::default(),
        model: config.to_model_config()?,
    };
    run.validate().map_err(|e| e.at("published configuration"))?;
    Ok(ImportedRun { run, notes: notes(config) })
}

/// Keys without a counterpart, where they are not at their default, and what else differs.
fn notes(config: &PublishedConfig) -> Vec<String> {
    let defaults = PublishedConfig::defaults(config.generation).to_map();
    let mut notes = Vec::new();
    for (key, value) in config.to_map() {
        match COUNTERPARTS.iter().find(|(name, _)| *name == key) {
            Some((_, To(_))) => {}
            Some((_, No(why))) if defaults.get(&key) != Some(&value) => {
                notes.push(format!("{key} = {value} has no counterpart: {why}."));
            }
            Some((_, No(_))) => {}
            None => {
                notes.push(format!("{key} = {value} is not a key of the published project; it was left out."))
            }
        }
    }
    if config.use_amp {
        notes
            .push("use_amp became precision = \"f16\", as published; \"bf16\" needs no loss scaling.".into());
    }
    notes.push(
        "The corpus is split in two spans that share no byte. The published split mixes overlapping windows, so its \
         validation loss is too low; data.legacy_split = true reproduces it."
            .into(),
    );
    if config.generation == Generation::Learned || config.generation == Generation::Sinusoidal {
        notes.push(
            "This generation has no attention_d_model of its own: the blocks are as wide as what arrives."
                .into(),
        );
    }
    notes
}

#[cfg(test)]
#[path = "published_tests.rs"]
mod tests;
