//! The configuration of the published project: one flat dict, here one struct with a field for each of its keys.
//!
//! The keys, their types and their defaults are said once, in the list below. A key that a configuration lacks takes
//! the published default of its generation; a key that we do not know is kept as it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::config::{
    Activation, AggregatedStream, Attention, ConvFrontend, ConvPadding, Dropout, ModelConfig, Norm,
    Positions, VOCAB,
};
use crate::error::{Error, Result};

/// Which published code a configuration belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Generation 1: learned positions, one stream, no projection.
    Learned,
    /// Generation 2a: sinusoidal positions, one stream, no projection.
    Sinusoidal,
    /// The later code (`use_parallel_stream_model` is a key of its configuration): generation 2b or 3, sinusoidal
    /// positions, projections, short inputs padded with byte 0.
    Later,
}

impl Generation {
    /// The word for it in a model's metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Generation::Learned => "learned",
            Generation::Sinusoidal => "sinusoidal",
            Generation::Later => "later",
        }
    }
}

/// The key that only configurations of the later code have.
pub const LATER_KEY: &str = "use_parallel_stream_model";

/// A type that a published setting can have.
trait Setting: Sized {
    /// What it is, in words.
    const KIND: &'static str;
    /// The value of a Python or JSON setting, if it is of this type.
    fn read(value: &Value) -> Option<Self>;
    fn write(&self) -> Value;
}

impl Setting for bool {
    const KIND: &'static str = "true or false";
    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Setting for u64 {
    const KIND: &'static str = "a whole number that is not negative";
    fn read(value: &Value) -> Option<u64> {
        // Python is as happy with 1e4 as with 10000.
        let whole = |x: &f64| x.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(x);
        value.as_u64().or_else(|| value.as_f64().filter(whole).map(|x| x as u64))
    }
    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Setting for usize {
    const KIND: &'static str = u64::KIND;
    fn read(value: &Value) -> Option<usize> {
        u64::read(value)?.try_into().ok()
    }
    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Setting for f64 {
    const KIND: &'static str = "a finite number";
    fn read(value: &Value) -> Option<f64> {
        value.as_f64().filter(|x| x.is_finite())
    }
    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Setting for String {
    const KIND: &'static str = "text";
    fn read(value: &Value) -> Option<String> {
        value.as_str().map(String::from)
    }
    fn write(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for Vec<usize> {
    const KIND: &'static str = "a list of whole numbers";
    fn read(value: &Value) -> Option<Vec<usize>> {
        value.as_array()?.iter().map(usize::read).collect()
    }
    fn write(&self) -> Value {
        self.as_slice().into()
    }
}

/// `None` in Python.
impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    fn read(value: &Value) -> Option<Option<T>> {
        if value.is_null() { Some(None) } else { T::read(value).map(Some) }
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }
}

/// One line a key: `key: type = default of the last version, in its configuration called "NAME" [, learned = …]
/// [, sinusoidal = …];`.
macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident $name:literal: $type:ty = $later:expr
        $(, learned = $learned:expr)? $(, sinusoidal = $sinusoidal:expr)?;)*) => {
        /// The published configuration. Fields have the names of its keys, in lower case.
        #[derive(Debug, Clone, PartialEq)]
        pub struct PublishedConfig {
            /// The code it belongs to, which decides the defaults and what the keys mean.
            pub generation: Generation,
            $($(#[$doc])* pub $field: $type,)*
            /// Keys that we do not know, as they were.
            pub unknown: BTreeMap<String, Value>,
        }

        impl PublishedConfig {
            /// Every key there is, in the published order.
            pub const KEYS: &'static [&'static str] = &[$($name),*];

            /// The published defaults of a generation.
            pub fn defaults(generation: Generation) -> PublishedConfig {
                #[allow(unused_mut)]
                let mut config = PublishedConfig {
                    generation,
                    $($field: $later,)*
                    unknown: BTreeMap::new(),
                };
                match generation {
                    Generation::Later => {}
                    Generation::Learned => { $($(config.$field = $learned;)?)* }
                    Generation::Sinusoidal => { $($(config.$field = $sinusoidal;)?)* }
                }
                config
            }

            /// Sets one key, or keeps it among the unknown ones. An error names a key whose value is of the wrong type.
            pub fn set(&mut self, key: &str, value: &Value) -> Result<()> {
                match key {
                    $($name => match <$type as Setting>::read(value) {
                        Some(value) => self.$field = value,
                        None => {
                            return Err(Error::format(format!(
                                "published configuration: {key} = {}: must be {}",
                                short(value),
                                <$type as Setting>::KIND
                            )));
                        }
                    },)*
                    _ => {
                        self.unknown.insert(key.to_string(), value.clone());
                    }
                }
                Ok(())
            }

            /// Every key with its value, unknown keys included.
            pub fn to_map(&self) -> Map<String, Value> {
                let mut map = Map::new();
                $(map.insert($name.to_string(), self.$field.write());)*
                map.extend(self.unknown.iter().map(|(key, value)| (key.clone(), value.clone())));
                map
            }
        }
    };
}

settings! {
    /// Folder of the `.txt` files.
    data_dir "data_dir": String = "./dataset/USE".into();
    /// Folder of `all_bytes_grug_v3.npy`.
    processed_data_dir "processed_data_dir": String = "./dataset/USE_processed".into();
    /// Folder of the checkpoints.
    checkpoint_dir "checkpoint_dir": String = "./checkpoints_grug_v3".into();
    /// First part of the checkpoints' names.
    model_name "model_name": Option<String> = None;
    /// Checkpoint to go on from.
    resume_from_checkpoint "resume_from_checkpoint": Option<String> = None;
    /// Context (W), in bytes.
    sequence_length "sequence_length": usize = 256, learned = 1024;
    /// Windows in a batch.
    batch_size "batch_size": usize = 8;
    /// Always 256.
    vocab_size "vocab_size": usize = 256;
    /// Part of the windows that validates.
    val_split_ratio "val_split_ratio": f64 = 0.1;
    /// Processes that load data.
    num_workers "num_workers": usize = 0, learned = 8;
    /// Make text up where there is none.
    generate_dummy_data_if_empty "generate_dummy_data_if_empty": bool = true;
    /// Read the `.txt` files again.
    force_reprocess_data "force_reprocess_data": bool = false, learned = true, sinusoidal = true;
    /// Bytes between the starts of two windows.
    data_stride "data_stride": usize = 64, learned = 1, sinusoidal = 1;
    /// Width of the byte embedding (E).
    embedding_dim "embedding_dim": usize = 512;
    /// Generation 3 if true, 2b if false.
    use_parallel_stream_model "use_parallel_stream_model": bool = true, learned = false, sinusoidal = false;
    /// Convolutions on the embeddings.
    use_cnn_frontend "use_cnn_frontend": bool = false, learned = true, sinusoidal = true;
    /// Channels of each convolution.
    cnn_out_channels_list "cnn_out_channels_list": Vec<usize> = vec![1024, 1024], learned = vec![512, 512];
    /// Kernel of each convolution.
    cnn_kernel_sizes "cnn_kernel_sizes": Vec<usize> = vec![9, 3];
    /// Stride of every convolution.
    cnn_stride "cnn_stride": usize = 1;
    /// `zeros`, `reflect`, `replicate` or `circular`.
    cnn_padding_mode "cnn_padding_mode": String = "zeros".into();
    /// `GELU` or `RELU`.
    cnn_activation "cnn_activation": String = "GELU".into();
    /// Dropout after each convolution.
    cnn_dropout "cnn_dropout": f64 = 0.2;
    /// LayerNorm after each convolution.
    cnn_use_layernorm "cnn_use_layernorm": bool = true;
    /// Layers of the byte stream, generation 3.
    num_byte_stream_layers "num_byte_stream_layers": usize = 4;
    /// Layers of the aggregated stream.
    num_agg_stream_layers "num_agg_stream_layers": usize = 4;
    /// Kernel of the aggregating convolution.
    agg_cnn_kernel_size "agg_cnn_kernel_size": usize = 4;
    /// Its stride.
    agg_cnn_stride "agg_cnn_stride": usize = 4;
    /// Width of the aggregated stream (A).
    agg_cnn_out_dim "agg_cnn_out_dim": usize = 1024;
    /// Layers of a single stream.
    num_attention_layers "num_attention_layers": usize = 4;
    /// Rows of the position table.
    max_positional_encoding_len "max_positional_encoding_len": usize = 4096;
    /// Dropout after the positions.
    pe_dropout "pe_dropout": f64 = 0.3;
    /// Width of the blocks (D). Generations 1 and 2a take the width that arrives instead.
    attention_d_model "attention_d_model": usize = 1024, learned = 512;
    /// Heads (H).
    attention_num_heads "attention_num_heads": usize = 16, learned = 8;
    /// Stands beside `transformer_dropout` in published configurations; the model has no place for it.
    attention_dropout "attention_dropout": f64 = 0.2, learned = 0.1;
    /// The curved feed-forward.
    use_curved_ffn "use_curved_ffn": bool = false;
    /// Its curvature γ; has no default.
    ffn_gamma "ffn_gamma": Option<f64> = None;
    /// Width of the feed-forward, in D.
    ffn_dim_multiply "ffn_dim_multiply": usize = 4;
    /// Dropout in the blocks.
    transformer_dropout "transformer_dropout": f64 = 0.2, learned = 0.1;
    /// Pre-norm blocks.
    transformer_norm_first "transformer_norm_first": bool = false;
    /// Dropout before the output layer.
    output_dropout "output_dropout": f64 = 0.2;
    /// Passes over the data.
    num_epochs "num_epochs": u64 = 500, learned = 50, sinusoidal = 50;
    /// Learning rate after warmup.
    learning_rate "learning_rate": f64 = 5e-5, learned = 3e-5;
    /// `AdamW` or `Adam`.
    optimizer_type "optimizer_type": String = "AdamW".into();
    /// Decay of the first moment.
    adam_beta1 "adam_beta1": f64 = 0.9;
    /// Decay of the second moment.
    adam_beta2 "adam_beta2": f64 = 0.98;
    /// Added to the root of the second moment.
    adam_eps "adam_eps": f64 = 1e-9;
    /// Weight decay.
    weight_decay "weight_decay": f64 = 0.01;
    /// `ReduceLROnPlateau` or `CosineAnnealingLR`.
    scheduler_type "scheduler_type": String =
        "ReduceLROnPlateau".into(), learned = "CosineAnnealingLR".into();
    /// Half the period of the cosine, in batches.
    lr_scheduler_t_max "lr_scheduler_T_max": u64 = 50_000;
    /// The least learning rate.
    lr_scheduler_eta_min "lr_scheduler_eta_min": f64 = 1e-6;
    /// Validations without progress before the plateau scheduler acts.
    lr_scheduler_patience "lr_scheduler_patience": u64 = 5, learned = 10;
    /// What it multiplies the learning rate by.
    lr_scheduler_factor "lr_scheduler_factor": f64 = 0.1;
    /// Largest norm of the gradient.
    clip_grad_norm_value "clip_grad_norm_value": f64 = 1.0;
    /// Batches between two lines of output.
    print_every "print_every": u64 = 1000;
    /// Batches between two samples.
    test_every_batches "test_every_batches": u64 = 5000;
    /// Batches between two validations.
    validate_and_checkpoint_best_every_batches "validate_and_checkpoint_best_every_batches": u64 = 20_000;
    /// Windows to validate with.
    val_samples_to_use "val_samples_to_use": Option<u64> = Some(100_000);
    /// Forget the best loss on resuming.
    reset_best_val_loss_on_resume "reset_best_val_loss_on_resume": bool = false, learned = true;
    /// Warm the learning rate up.
    use_lr_warmup "use_lr_warmup": bool = true;
    /// Batches of warmup.
    lr_warmup_steps "lr_warmup_steps": u64 = 20_000, learned = 2000;
    /// Where warmup starts, as a part of the learning rate.
    lr_warmup_init_factor "lr_warmup_init_factor": f64 = 0.01;
    /// Mixed precision.
    use_amp "use_amp": bool = true;
    /// Temperature of generation.
    generation_temperature "generation_temperature": f64 = 1.0;
    /// Its top_k; 0 = no filter.
    generation_top_k "generation_top_k": u64 = 50;
    /// Temperature of the samples during training.
    interim_test_temperature "interim_test_temperature": f64 = 0.3, learned = 0.6;
    /// Their top_k.
    interim_test_top_k "interim_test_top_k": u64 = 20;
    /// PyTorch's profiler.
    enable_profiler "enable_profiler": bool = false;
    /// Where it writes.
    profiler_log_dir "profiler_log_dir": String = "./profiler_logs_grug_v3".into();
    /// The epoch it looks at.
    profile_epoch_target "profile_epoch_target": u64 = 0;
    /// Its schedule, in batches: skipped,
    profiler_schedule_wait "profiler_schedule_wait": u64 = 5;
    /// warmed up,
    profiler_schedule_warmup "profiler_schedule_warmup": u64 = 5;
    /// recorded,
    profiler_schedule_active "profiler_schedule_active": u64 = 10;
    /// and how often.
    profiler_schedule_repeat "profiler_schedule_repeat": u64 = 1;
    /// Whether `main.py` trains.
    do_training "DO_TRAINING": bool = true;
    /// Whether it generates.
    do_prediction "DO_PREDICTION": bool = true;
    /// cuDNN chooses its algorithms by trial.
    cudnn_benchmark "cudnn_benchmark": bool = true;
    /// `torch.compile`.
    use_torch_compile "use_torch_compile": bool = false;
}

/// A value as it may stand in a message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl PublishedConfig {
    /// Reads a flat dict. `generation` says whether a configuration of the early code (one without
    /// `use_parallel_stream_model`) has learned or sinusoidal positions, which only its weights show; without it, learned.
    pub fn from_map(map: &Map<String, Value>, generation: Option<Generation>) -> Result<PublishedConfig> {
        let generation = match (map.contains_key(LATER_KEY), generation) {
            (true, None | Some(Generation::Later)) => Generation::Later,
            (false, None) => Generation::Learned,
            (false, Some(early @ (Generation::Learned | Generation::Sinusoidal))) => early,
            (true, Some(early)) => {
                return Err(Error::format(format!(
                    "published configuration: use_parallel_stream_model is set, but the weights have {} positions of \
                     the code before it",
                    early.name()
                )));
            }
            (false, Some(Generation::Later)) => {
                return Err(Error::format("published configuration: use_parallel_stream_model is not set"));
            }
        };
        let mut config = PublishedConfig::defaults(generation);
        for (key, value) in map {
            config.set(key, value)?;
        }
        Ok(config)
    }

    /// Reads a flat dict from JSON text; see [`from_map`](Self::from_map).
    pub fn from_json(text: &str) -> Result<PublishedConfig> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::format(format!("published configuration: {e}")))?;
        PublishedConfig::from_map(&map, None)
    }

    /// The flat dict that it is, as one line of JSON. With its generation, [`from_map`](Self::from_map) reads it back to
    /// an equal value.
    pub fn to_json(&self) -> String {
        let mut map = self.to_map();
        match self.generation {
            // That the key is there is what tells the later code from the early one.
            Generation::Learned | Generation::Sinusoidal => drop(map.remove(LATER_KEY)),
            Generation::Later => {}
        }
        Value::Object(map).to_string()
    }

    fn conv_frontend(&self) -> Result<Option<ConvFrontend>> {
        if !self.use_cnn_frontend {
            return Ok(None);
        }
        let unknown = |key: &str, value: &str, choices: &str| {
            let value = short(&Value::from(value));
            Err(Error::format(format!("published configuration: {key} = {value}: must be {choices}")))
        };
        Ok(Some(ConvFrontend {
            channels: self.cnn_out_channels_list.clone(),
            kernels: self.cnn_kernel_sizes.clone(),
            stride: self.cnn_stride,
            padding: match self.cnn_padding_mode.as_str() {
                "zeros" => ConvPadding::Zeros,
                "reflect" => ConvPadding::Reflect,
                "replicate" => ConvPadding::Replicate,
                "circular" => ConvPadding::Circular,
                other => {
                    return unknown("cnn_padding_mode", other, "zeros, reflect, replicate or circular");
                }
            },
            activation: match self.cnn_activation.to_ascii_lowercase().as_str() {
                "gelu" => Activation::Gelu,
                "relu" => Activation::Relu,
                _ => return unknown("cnn_activation", &self.cnn_activation, "GELU or RELU"),
            },
            layer_norm: self.cnn_use_layernorm,
        }))
    }

    /// The model that the published code builds from this configuration, validated.
    pub fn to_model_config(&self) -> Result<ModelConfig> {
        if self.vocab_size != VOCAB {
            return Err(Error::format(format!(
                "published configuration: vocab_size = {}: a byte has {VOCAB} values",
                self.vocab_size
            )));
        }
        let ffn_gamma = match (self.use_curved_ffn, self.ffn_gamma) {
            (false, _) => 0.0,
            (true, Some(gamma)) => gamma,
            (true, None) => {
                return Err(Error::format("published configuration: use_curved_ffn needs ffn_gamma"));
            }
        };
        let conv_frontend = self.conv_frontend()?;
        let arriving_dim = (conv_frontend.as_ref().and_then(|conv| conv.channels.last().copied()))
            .unwrap_or(self.embedding_dim);
        let (later, parallel) = match self.generation {
            Generation::Learned | Generation::Sinusoidal => (false, false),
            Generation::Later => (true, self.use_parallel_stream_model),
        };
        let config = ModelConfig {
            context_bytes: self.sequence_length,
            attention: Attention::Bidirectional,
            embedding_dim: self.embedding_dim,
            d_model: if later { self.attention_d_model } else { arriving_dim },
            n_heads: self.attention_num_heads,
            n_layers: if parallel { self.num_byte_stream_layers } else { self.num_attention_layers },
            ffn_multiplier: self.ffn_dim_multiply,
            ffn_activation: Activation::Gelu,
            ffn_gamma,
            norm_first: self.transformer_norm_first,
            positions: match self.generation {
                Generation::Learned => Positions::Learned,
                Generation::Sinusoidal | Generation::Later => Positions::Sinusoidal,
            },
            max_positions: if later { 0 } else { self.max_positional_encoding_len },
            pad_short_input: later,
            norm: Norm::Layer,
            bias: true,
            qk_norm: false,
            n_kv_heads: 0,
            attention_window: 0,
            embedding_norm: false,
            tied_head: false,
            logit_softcap: 0.0,
            conv_frontend,
            aggregated_stream: parallel.then_some(AggregatedStream {
                d_model: self.agg_cnn_out_dim,
                n_layers: self.num_agg_stream_layers,
                kernel: self.agg_cnn_kernel_size,
                stride: self.agg_cnn_stride,
            }),
            dropout: Dropout {
                conv: self.cnn_dropout,
                positions: self.pe_dropout,
                transformer: self.transformer_dropout,
                output: self.output_dropout,
            },
        };
        config.validate().map_err(|e| Error::format(e.message()).at("published configuration"))?;
        Ok(config)
    }
}
