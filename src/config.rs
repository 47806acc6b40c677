//! The one schema of a model's configuration. The `[model]` table of a training run, the `config` entry in a
//! checkpoint's metadata and the runtime all use [`ModelConfig`]; nothing else describes a model.
//!
//! All generations of the published GrugV3 are values of this one type, and so are the causal models. Every option
//! that the published models do not have defaults to "off", so that a published configuration stays short.
//! Unknown keys are errors, and [`ModelConfig::validate`] refuses contradictions by name.

mod validate;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Byte values: the size of the vocabulary, and the number of logits.
pub const VOCAB: usize = 256;
/// Added to the variance in every normalization (PyTorch's default).
pub const NORM_EPS: f32 = 1e-5;
/// The base of sinusoidal and rotary position frequencies.
pub const POSITION_BASE: f64 = 10_000.0;
/// No dimension, length or count in a configuration may exceed this: it keeps every product inside 64 bits.
pub const MAX_DIM: usize = 1 << 20;
/// No stack may have more layers: it bounds what a hostile configuration can make us allocate.
pub const MAX_LAYERS: usize = 1024;

/// Which positions a byte may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// Itself and what came before: trains on every position, decodes with a key/value cache.
    Causal,
    /// Every position of the window, as published: predicts one byte a pass.
    Bidirectional,
}

/// How a position is told to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// A trained table of `max_positions` rows (generation 1). Longer inputs are errors.
    Learned,
    /// The fixed sine and cosine table (generations 2 and 3). Any length.
    Sinusoidal,
    /// Queries and keys are rotated by an angle that grows with the position (RoPE). Any length.
    Rotary,
}

/// The nonlinearity of a feed-forward or of the convolutional frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exact GELU: x·Φ(x), with erf.
    Gelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)²; feed-forward only.
    Relu2,
    /// silu(gate) · value, from a `linear1` of twice the width: gate rows first; feed-forward only.
    Swiglu,
}

/// How vectors are normalized in and around the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Zero mean, unit variance, gain and bias.
    Layer,
    /// Unit mean square and a gain (RMSNorm).
    Rms,
}

/// What lies beyond the ends of a convolution's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvPadding {
    /// Zeros.
    Zeros,
    /// The input mirrored at its first and last element, which are not repeated.
    Reflect,
    /// The first and last element repeated.
    Replicate,
    /// The input wrapped around.
    Circular,
}

/// The convolutional frontend: a stack of Conv1d, activation and optional LayerNorm on the embeddings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvFrontend {
    /// Output channels of each layer.
    pub channels: Vec<usize>,
    /// Kernel size of each layer, in positions.
    pub kernels: Vec<usize>,
    /// Stride of every layer. Above 1 only for bidirectional models.
    #[serde(default = "one")]
    pub stride: usize,
    /// Padding of both sides by `(kernel - 1) / 2`; a causal model pads `kernel - 1` zeros on the left instead.
    #[serde(default = "zeros")]
    pub padding: ConvPadding,
    /// `gelu` or `relu`.
    #[serde(default = "gelu")]
    pub activation: Activation,
    /// LayerNorm over channels after the activation. A convolution has a bias only without it.
    #[serde(default = "yes")]
    pub layer_norm: bool,
}

/// The second, coarse stream of the parallel model: a strided convolution over the embeddings and a stack of its own.
///
/// In a bidirectional model, as published, the convolution has no padding and the last states of both streams meet in
/// the output layer. In a causal model its window for coarse position j ends at byte `stride·j + stride - 1` (zeros
/// stand before the first byte), and byte position t uses coarse position `(t + 1) / stride - 1`, the last one whose
/// window is complete; a learned vector stands in where there is none yet. So the coarse stack runs once every `stride` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatedStream {
    /// Width of the stream (A).
    pub d_model: usize,
    /// Blocks of the stream.
    pub n_layers: usize,
    /// Kernel of the aggregating convolution, in positions; in a causal model at least `stride`.
    pub kernel: usize,
    /// Its stride, in positions.
    pub stride: usize,
}

/// Probabilities of dropout, used in training alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dropout {
    /// After each layer of the convolutional frontend.
    pub conv: f64,
    /// After the positions are added.
    pub positions: f64,
    /// In the blocks: attention weights, inside the feed-forward, and both residual branches.
    pub transformer: f64,
    /// Before the output layer.
    pub output: f64,
}

/// Everything that determines what a model computes. Lengths are in bytes or positions, widths in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The context (W): how many bytes the model sees at once.
    pub context_bytes: usize,
    /// Causal, or bidirectional as published.
    #[serde(default = "causal")]
    pub attention: Attention,
    /// Width of the byte embedding (E).
    pub embedding_dim: usize,
    /// Width of the blocks (D). Where the width that arrives differs, a Linear projects it.
    pub d_model: usize,
    /// Attention heads (H) of every block, in both streams.
    pub n_heads: usize,
    /// Blocks of the byte stream.
    pub n_layers: usize,
    /// Width of the feed-forward as a multiple of the block's width.
    #[serde(default = "four")]
    pub ffn_multiplier: usize,
    /// Nonlinearity of the feed-forward.
    #[serde(default = "gelu", skip_serializing_if = "is_gelu")]
    pub ffn_activation: Activation,
    /// Curvature γ of the published "curved" feed-forward: `gelu(h / (1 + γ·½Σh²))`. 0 is the plain one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ffn_gamma: f64,
    /// Pre-norm blocks; `false` is post-norm, as published.
    #[serde(default)]
    pub norm_first: bool,
    /// How positions are told.
    pub positions: Positions,
    /// Rows of the learned table; longest input of a learned model, in positions after the frontend.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_positions: usize,
    /// Bidirectional models: pad an input shorter than the context with byte 0 on the left, as the later published
    /// code does. `false` feeds it as it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pad_short_input: bool,
    /// Normalization of blocks, embedding and output.
    #[serde(default = "layer", skip_serializing_if = "is_layer")]
    pub norm: Norm,
    /// Biases in every Linear and LayerNorm (the convolutions keep theirs).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub bias: bool,
    /// Normalize queries and keys of each head to unit mean square, before the rotation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub qk_norm: bool,
    /// Heads of keys and values (grouped-query attention); 0 = as many as `n_heads`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub n_kv_heads: usize,
    /// Causal models: each position of the byte stream sees itself and the `attention_window - 1` before it; 0 = all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attention_window: usize,
    /// Normalize the input of the first block.
    #[serde(default, skip_serializing_if = "is_default")]
    pub embedding_norm: bool,
    /// The output layer shares the embedding's weights.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tied_head: bool,
    /// Logits are bent into ±c by `c·tanh(logit / c)`; 0 = off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub logit_softcap: f64,
    /// The convolutional frontend, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conv_frontend: Option<ConvFrontend>,
    /// The aggregated stream of a parallel model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregated_stream: Option<AggregatedStream>,
    /// Dropout in training.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dropout: Dropout,
}

fn one() -> usize {
    1
}
fn four() -> usize {
    4
}
fn yes() -> bool {
    true
}
fn is_yes(b: &bool) -> bool {
    *b
}
fn zeros() -> ConvPadding {
    ConvPadding::Zeros
}
fn gelu() -> Activation {
    Activation::Gelu
}
fn is_gelu(a: &Activation) -> bool {
    *a == Activation::Gelu
}
fn causal() -> Attention {
    Attention::Causal
}
fn layer() -> Norm {
    Norm::Layer
}
fn is_layer(n: &Norm) -> bool {
    *n == Norm::Layer
}
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The longest text of a configuration; real ones have some hundred bytes. The reader takes quadratic time.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// How many things a configuration has that may nest: the reader calls itself for each, and a stack has an end.
const MAX_NESTING: usize = 200;

/// Settings that models once had. What they gave is in docs/quality.md.
const GONE: &[&str] = &["bigram_dim", "zero_init"];

/// What to add to the message about an unknown key where it is such a setting.
fn gone(message: &str) -> &'static str {
    let is_gone = |key: &&&str| message.starts_with(&format!("unknown field `{key}`"));
    match GONE.iter().find(is_gone) {
        Some(_) => "\nThis setting is not part of the family any more; docs/quality.md says why",
        None => "",
    }
}

impl ConvFrontend {
    /// Positions of zero, mirrored or wrapped input beyond each end of layer `i`, of a bidirectional model.
    pub fn side_padding(&self, i: usize) -> usize {
        (self.kernels[i] - 1) / 2
    }
}

impl ModelConfig {
    /// Reads and validates a configuration from TOML text.
    pub fn from_toml(text: &str) -> Result<ModelConfig> {
        let malformed = |what: &str| Error::format(format!("model configuration: {what}{}", gone(what)));
        if text.len() > MAX_TEXT_BYTES {
            return Err(malformed(&format!("has {} bytes, at most {MAX_TEXT_BYTES} are read", text.len())));
        }
        if text.matches(['[', '{', '.']).count() > MAX_NESTING {
            return Err(malformed("lists and tables nest too deeply"));
        }
        let config: ModelConfig = basic_toml::from_str(text).map_err(|e| malformed(&e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML text, which [`from_toml`](Self::from_toml) reads back to an equal value.
    pub fn to_toml(&self) -> String {
        basic_toml::to_string(self).expect("a configuration has only numbers, words and tables of them")
    }

    /// Width of the embeddings after the convolutional frontend.
    pub fn arriving_dim(&self) -> usize {
        self.conv_frontend
            .as_ref()
            .map_or(self.embedding_dim, |conv| *conv.channels.last().expect("validated"))
    }

    /// Whether a Linear brings the arriving width to `d_model`: always in a parallel model, else where they differ.
    pub fn has_projection(&self) -> bool {
        self.aggregated_stream.is_some() || self.arriving_dim() != self.d_model
    }

    /// Width of the vector that the output layer reads.
    pub fn output_dim(&self) -> usize {
        self.d_model + self.aggregated_stream.as_ref().map_or(0, |agg| agg.d_model)
    }

    /// Heads of keys and values, resolved.
    pub fn kv_heads(&self) -> usize {
        if self.n_kv_heads == 0 { self.n_heads } else { self.n_kv_heads }
    }

    /// Whether the model keeps a cache and decodes one byte a step.
    pub fn is_causal(&self) -> bool {
        self.attention == Attention::Causal
    }

    /// How many of the last bytes a pass sees at most: the context, or less where a model that feeds its input as it
    /// is has fewer positions, as published.
    pub fn window_bytes(&self) -> usize {
        match self.attention {
            Attention::Bidirectional if !self.pad_short_input && self.max_positions > 0 => {
                self.context_bytes.min(self.max_positions)
            }
            Attention::Bidirectional | Attention::Causal => self.context_bytes,
        }
    }

    /// Positions after the convolutional frontend for an input of `len` bytes, or an error naming what is too short.
    pub fn frontend_len(&self, len: usize) -> Result<usize> {
        let Some(conv) = &self.conv_frontend else { return Ok(len) };
        if self.is_causal() {
            return Ok(len);
        }
        let mut len = len;
        for (i, &kernel) in conv.kernels.iter().enumerate() {
            let pad = conv.side_padding(i);
            let needed = match conv.padding {
                ConvPadding::Reflect => pad + 1,
                ConvPadding::Circular => pad.max(1),
                ConvPadding::Zeros | ConvPadding::Replicate => 1,
            };
            if len < needed || len + 2 * pad < kernel {
                return Err(Error::invalid(format!(
                    "an input of {len} positions is too short for layer {i} of the convolutional frontend (kernel {kernel})"
                )));
            }
            len = (len + 2 * pad - kernel) / conv.stride + 1;
        }
        Ok(len)
    }

    /// Positions of the aggregated stream for `len` positions after the frontend.
    pub fn aggregated_len(&self, len: usize) -> Result<usize> {
        let Some(agg) = &self.aggregated_stream else { return Ok(0) };
        if self.is_causal() {
            return Ok(len / agg.stride);
        }
        if len < agg.kernel {
            return Err(Error::invalid(format!(
                "an input of {len} positions is shorter than the aggregated stream's kernel of {}",
                agg.kernel
            )));
        }
        Ok((len - agg.kernel) / agg.stride + 1)
    }

    /// Checks that one pass over `len` bytes is possible and returns the positions of the byte stream.
    pub fn check_input_len(&self, len: usize) -> Result<usize> {
        if len == 0 {
            return Err(Error::invalid("an input of 0 bytes has no last position to predict from"));
        }
        let positions = self.frontend_len(len)?;
        self.aggregated_len(positions)?;
        if self.positions == Positions::Learned && positions > self.max_positions {
            return Err(Error::invalid(format!(
                "an input of {positions} positions is longer than the learned table of {}",
                self.max_positions
            )));
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> ModelConfig {
        ModelConfig::from_toml(
            "context_bytes = 32\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"",
        )
        .unwrap()
    }

    #[test]
    fn toml_round_trip_is_equal() {
        let mut config = small();
        config.conv_frontend = Some(ConvFrontend {
            channels: vec![8, 24],
            kernels: vec![4, 3],
            stride: 1,
            padding: ConvPadding::Zeros,
            activation: Activation::Relu,
            layer_norm: false,
        });
        config.dropout.output = 0.25;
        config.logit_softcap = 15.0;
        assert_eq!(ModelConfig::from_toml(&config.to_toml()).unwrap(), config);
    }

    /// A model's fingerprint is made of this text: it must stay as it is.
    #[test]
    fn a_configuration_is_written_as_by_the_toml_crate() {
        let start = "context_bytes = 64\nembedding_dim = 8\nd_model = 8\nn_heads = 2\nn_layers = 3\n";
        for rest in [
            "positions = 'rotary'",
            "positions = 'sinusoidal'\nlogit_softcap = 30\nffn_gamma = 0.1\nbias = false\ntied_head = true\nn_kv_heads = 1",
            "positions = 'rotary'\nlogit_softcap = 1e-7\n[dropout]\noutput = 0.25\nconv = 1e-3",
            "positions = 'rotary'\nembedding_norm = true\n[conv_frontend]\nchannels = [8, 16]\nkernels = [4, 3]\nlayer_norm = false\n\
             [aggregated_stream]\nd_model = 8\nn_layers = 1\nkernel = 8\nstride = 4",
        ] {
            let config = ModelConfig::from_toml(&format!("{start}{rest}")).unwrap();
            let text = config.to_toml();
            assert_eq!(text, toml::to_string(&config).unwrap());
            assert_eq!(ModelConfig::from_toml(&text).unwrap(), config);
        }
    }

    #[test]
    fn unreadable_values_are_named() {
        let rest =
            "context_bytes = 32\nembedding_dim = 16\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"\n";
        for (text, path) in [
            ("d_model = 16\nn_kv_heads = -1", "n_kv_heads"),
            ("d_model = \"wide\"", "d_model"),
            ("d_model = 16\n[dropout]\noutput = true", "dropout.output"),
            ("d_model = 16\n[conv_frontend]\nchannels = [1, -2]\nkernels = [1, 1]", "conv_frontend.channels"),
        ] {
            let error = ModelConfig::from_toml(&format!("{rest}{text}")).unwrap_err();
            assert!(error.message().contains(&format!("for key `{path}` at line ")), "{text}: {error}");
        }
    }

    #[test]
    fn no_nesting_exhausts_the_stack() {
        for (open, close) in [("[", "]"), ("{a=", "}"), ("a.", "a=1")] {
            for depth in [150, 10_000 / open.len(), 100_000] {
                let text = format!("d_model = {}{}", open.repeat(depth), close.repeat(depth));
                assert!(ModelConfig::from_toml(&text).is_err());
                assert!(ModelConfig::from_toml(&format!("{}a = 1", "a.".repeat(depth))).is_err());
                assert!(ModelConfig::from_toml(&format!("[{}a]", "a.".repeat(depth))).is_err());
            }
        }
    }

    #[test]
    fn unknown_and_contradictory_settings_are_named() {
        let text = small().to_toml();
        let error = ModelConfig::from_toml(&format!("n_haeds = 3\n{text}")).unwrap_err();
        assert!(error.message().contains("n_haeds"), "{error}");
        type Spoil = fn(&mut ModelConfig);
        let cases: [(&str, Spoil); 8] = [
            ("n_heads", |c| c.n_heads = 3),
            ("context_bytes", |c| c.context_bytes = 0),
            ("max_positions", |c| c.positions = Positions::Learned),
            ("pad_short_input", |c| c.pad_short_input = true),
            ("attention_window", |c| {
                c.attention = Attention::Bidirectional;
                c.attention_window = 4;
            }),
            ("dropout.output", |c| c.dropout.output = 1.0),
            ("n_kv_heads", |c| c.n_kv_heads = 3),
            ("conv_frontend", |c| {
                c.conv_frontend = Some(ConvFrontend {
                    channels: vec![8],
                    kernels: vec![3],
                    stride: 2,
                    padding: ConvPadding::Zeros,
                    activation: Activation::Gelu,
                    layer_norm: true,
                })
            }),
        ];
        for (name, spoil) in cases {
            let mut config = small();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.message().contains(name), "{name}: {error}");
        }
    }
}
