//! What tensors a model has: the one place where a tensor's name, shape and first value are said.
//!
//! [`ModelTensors`] is the model's parameters as a tree of fields, generic over what stands at the leaves.
//! [`ModelTensors::specs`] fills it with [`TensorSpec`]s for a configuration; [`ModelTensors::try_map`] turns those
//! into whatever a side computes with (the runtime's packed matrices, the trainer's autograd tensors), so that both
//! get fields instead of strings. Names are those of the published state dicts.

use crate::config::{Activation, ModelConfig, Norm, Positions, VOCAB};

/// What a tensor is for, which decides how it may be stored and how it is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Rows looked up by a byte or a position.
    Table,
    /// A matrix (outputs × inputs) that multiplies vectors inside the model.
    Matrix,
    /// The output layer's matrix (256 × inputs).
    Head,
    /// A convolution (outputs × inputs × kernel).
    Conv,
    /// A gain of a normalization.
    Gain,
    /// A bias.
    Bias,
}

/// The distribution a tensor is drawn from before training (PyTorch's defaults, as the published code has them).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
}

/// One tensor of a model: a leaf of [`ModelTensors`].
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// How it starts.
    pub init: Init,
}

impl TensorSpec {
    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds nothing; no tensor of a valid model does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Parameters of a normalization.
#[derive(Debug, Clone, PartialEq)]
pub struct NormTensors<T> {
    /// Gain, (width).
    pub weight: T,
    /// Bias, (width); LayerNorm with biases only.
    pub bias: Option<T>,
}

/// Parameters of a Linear or a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearTensors<T> {
    /// (outputs, inputs), or (outputs, inputs, kernel).
    pub weight: T,
    /// (outputs).
    pub bias: Option<T>,
}

/// Parameters of one layer of the convolutional frontend.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvTensors<T> {
    /// The convolution.
    pub conv: LinearTensors<T>,
    /// LayerNorm over channels.
    pub norm: Option<NormTensors<T>>,
}

/// Parameters of one transformer block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockTensors<T> {
    /// Queries, keys and values in one: (D + 2·kv_heads·head_dim, D), rows q, k, v.
    pub in_proj: LinearTensors<T>,
    /// Attention output, (D, D).
    pub out_proj: LinearTensors<T>,
    /// Feed-forward in, (F, D); (2F, D) for SwiGLU, gate rows first.
    pub linear1: LinearTensors<T>,
    /// Feed-forward out, (D, F).
    pub linear2: LinearTensors<T>,
    /// Normalization of the attention branch.
    pub norm1: NormTensors<T>,
    /// Normalization of the feed-forward branch.
    pub norm2: NormTensors<T>,
}

/// Parameters of the aggregated stream.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatedTensors<T> {
    /// The strided convolution, (A, arriving width, kernel), with bias.
    pub conv: LinearTensors<T>,
    /// Causal models: what stands in for the state before the first window is complete, (A).
    pub start: Option<T>,
    /// Learned positions of this stream, (positions, A).
    pub positions: Option<T>,
    /// Its blocks.
    pub blocks: Vec<BlockTensors<T>>,
}

/// All parameters of a model. A field that a configuration does not have is `None` or empty.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTensors<T> {
    /// (256, E).
    pub embedding: T,
    /// Layers of the convolutional frontend.
    pub conv_frontend: Vec<ConvTensors<T>>,
    /// Arriving width → D.
    pub projection: Option<LinearTensors<T>>,
    /// Learned positions, (max_positions, D).
    pub positions: Option<T>,
    /// Normalization of the first block's input.
    pub embedding_norm: Option<NormTensors<T>>,
    /// Blocks of the byte stream.
    pub blocks: Vec<BlockTensors<T>>,
    /// The second stream.
    pub aggregated: Option<AggregatedTensors<T>>,
    /// Normalization of the output layer's input, (output_dim).
    pub final_norm: NormTensors<T>,
    /// The output layer's matrix, (256, output_dim); `None` where the embedding serves.
    pub head_weight: Option<T>,
    /// The output layer's bias, (256).
    pub head_bias: Option<T>,
}

/// Writes the specs of one configuration.
struct Author<'a> {
    config: &'a ModelConfig,
}

impl Author<'_> {
    fn tensor(name: String, shape: &[usize], role: Role, init: Init) -> TensorSpec {
        TensorSpec { name, shape: shape.to_vec(), role, init }
    }

    fn norm(&self, prefix: &str, kind: Norm, bias: bool, width: usize) -> NormTensors<TensorSpec> {
        NormTensors {
            weight: Self::tensor(format!("{prefix}.weight"), &[width], Role::Gain, Init::Ones),
            bias: (kind == Norm::Layer && bias)
                .then(|| Self::tensor(format!("{prefix}.bias"), &[width], Role::Bias, Init::Zeros)),
        }
    }

    fn block_norm(&self, prefix: &str, width: usize) -> NormTensors<TensorSpec> {
        self.norm(prefix, self.config.norm, self.config.bias, width)
    }

    /// A Linear or convolution that starts as PyTorch's do: uniform within 1/√fan_in.
    fn linear(&self, prefix: &str, shape: &[usize], role: Role, bias: bool) -> LinearTensors<TensorSpec> {
        let bound = 1.0 / (shape[1..].iter().product::<usize>() as f64).sqrt();
        LinearTensors {
            weight: Self::tensor(format!("{prefix}.weight"), shape, role, Init::Uniform(bound)),
            bias: bias.then(|| {
                Self::tensor(format!("{prefix}.bias"), &shape[..1], Role::Bias, Init::Uniform(bound))
            }),
        }
    }

    fn block(&self, prefix: &str, width: usize) -> BlockTensors<TensorSpec> {
        let config = self.config;
        let kv_width = width / config.n_heads * config.kv_heads();
        let qkv_width = width + 2 * kv_width;
        let ffn_width = width * config.ffn_multiplier;
        let linear1_width = match config.ffn_activation {
            Activation::Gelu | Activation::Relu | Activation::Relu2 => ffn_width,
            Activation::Swiglu => 2 * ffn_width,
        };
        // PyTorch's MultiheadAttention names and starts its packed projection in its own way: Xavier, zero biases.
        let xavier = (6.0 / (qkv_width + width) as f64).sqrt();
        let in_proj = LinearTensors {
            weight: Self::tensor(
                format!("{prefix}.self_attn.in_proj_weight"),
                &[qkv_width, width],
                Role::Matrix,
                Init::Uniform(xavier),
            ),
            bias: config.bias.then(|| {
                Self::tensor(
                    format!("{prefix}.self_attn.in_proj_bias"),
                    &[qkv_width],
                    Role::Bias,
                    Init::Zeros,
                )
            }),
        };
        let mut out_proj =
            self.linear(&format!("{prefix}.self_attn.out_proj"), &[width, width], Role::Matrix, config.bias);
        if let Some(bias) = &mut out_proj.bias {
            bias.init = Init::Zeros;
        }
        BlockTensors {
            in_proj,
            out_proj,
            linear1: self.linear(
                &format!("{prefix}.linear1"),
                &[linear1_width, width],
                Role::Matrix,
                config.bias,
            ),
            linear2: self.linear(
                &format!("{prefix}.linear2"),
                &[width, ffn_width],
                Role::Matrix,
                config.bias,
            ),
            norm1: self.block_norm(&format!("{prefix}.norm1"), width),
            norm2: self.block_norm(&format!("{prefix}.norm2"), width),
        }
    }

    fn learned_positions(&self, name: &str, rows: usize, width: usize) -> Option<TensorSpec> {
        (self.config.positions == Positions::Learned)
            .then(|| Self::tensor(name.into(), &[rows, width], Role::Table, Init::Normal(1.0)))
    }

    fn aggregated(&self) -> Option<AggregatedTensors<TensorSpec>> {
        let agg = self.config.aggregated_stream.as_ref()?;
        Some(AggregatedTensors {
            conv: self.linear(
                "aggregator_cnn",
                &[agg.d_model, self.config.arriving_dim(), agg.kernel],
                Role::Conv,
                true,
            ),
            start: self
                .config
                .is_causal()
                .then(|| Self::tensor("agg_stream_start".into(), &[agg.d_model], Role::Bias, Init::Zeros)),
            positions: self.learned_positions(
                "agg_positional_encoder.pos_embedding.weight",
                self.config.max_positions,
                agg.d_model,
            ),
            blocks: (0..agg.n_layers)
                .map(|n| self.block(&format!("agg_stream_encoder.{n}"), agg.d_model))
                .collect(),
        })
    }

    fn model(&self) -> ModelTensors<TensorSpec> {
        let config = self.config;
        let (embedding_dim, d_model) = (config.embedding_dim, config.d_model);
        let parallel = config.aggregated_stream.is_some();
        let (projection, positions, blocks) = if parallel {
            ("byte_stream_projection", "byte_positional_encoder.pos_embedding.weight", "byte_stream_encoder")
        } else {
            ("input_projection", "positional_encoder.pos_embedding.weight", "transformer_encoder_layers")
        };
        let head = self.linear("fc_out", &[VOCAB, config.output_dim()], Role::Head, config.bias);
        let mut channels_in = embedding_dim;
        ModelTensors {
            embedding: Self::tensor(
                "embedding.weight".into(),
                &[VOCAB, embedding_dim],
                Role::Table,
                // A tied table is the output layer too, whose logits must start small.
                Init::Normal(if config.tied_head { 0.02 } else { 1.0 }),
            ),
            conv_frontend: config.conv_frontend.as_ref().map_or_else(Vec::new, |conv| {
                (0..conv.channels.len())
                    .map(|i| {
                        let channels = conv.channels[i];
                        let tensors = ConvTensors {
                            conv: self.linear(
                                &format!("cnn_frontend.conv_layers.{i}"),
                                &[channels, channels_in, conv.kernels[i]],
                                Role::Conv,
                                !conv.layer_norm,
                            ),
                            norm: conv.layer_norm.then(|| {
                                self.norm(
                                    &format!("cnn_frontend.layer_norms.{i}"),
                                    Norm::Layer,
                                    true,
                                    channels,
                                )
                            }),
                        };
                        channels_in = channels;
                        tensors
                    })
                    .collect()
            }),
            projection: config.has_projection().then(|| {
                self.linear(projection, &[d_model, config.arriving_dim()], Role::Matrix, config.bias)
            }),
            positions: self.learned_positions(positions, config.max_positions, d_model),
            embedding_norm: config.embedding_norm.then(|| self.block_norm("embedding_norm", d_model)),
            blocks: (0..config.n_layers).map(|n| self.block(&format!("{blocks}.{n}"), d_model)).collect(),
            aggregated: self.aggregated(),
            final_norm: self.block_norm("final_norm", config.output_dim()),
            head_weight: (!config.tied_head).then_some(head.weight),
            head_bias: head.bias,
        }
    }
}

impl ModelTensors<TensorSpec> {
    /// The tensors of a model of this (valid) configuration.
    pub fn specs(config: &ModelConfig) -> ModelTensors<TensorSpec> {
        Author { config }.model()
    }

    /// How many numbers a model of this configuration has.
    pub fn count_parameters(config: &ModelConfig) -> usize {
        Self::specs(config).into_leaves().iter().fold(0, |sum, spec| sum.saturating_add(spec.len()))
    }
}

/// One walk over the tree serves every conversion: each node maps its leaves in the order they are declared.
impl<T> NormTensors<T> {
    fn try_map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<NormTensors<U>, E> {
        Ok(NormTensors { weight: f(self.weight)?, bias: self.bias.map(f).transpose()? })
    }
}

impl<T> LinearTensors<T> {
    fn try_map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<LinearTensors<U>, E> {
        Ok(LinearTensors { weight: f(self.weight)?, bias: self.bias.map(f).transpose()? })
    }
}

impl<T> BlockTensors<T> {
    fn try_map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<BlockTensors<U>, E> {
        Ok(BlockTensors {
            in_proj: self.in_proj.try_map(f)?,
            out_proj: self.out_proj.try_map(f)?,
            linear1: self.linear1.try_map(f)?,
            linear2: self.linear2.try_map(f)?,
            norm1: self.norm1.try_map(f)?,
            norm2: self.norm2.try_map(f)?,
        })
    }
}

impl<T> ModelTensors<T> {
    /// The same tree with every leaf converted, stopping at the first failure.
    pub fn try_map<U, E>(self, mut f: impl FnMut(T) -> Result<U, E>) -> Result<ModelTensors<U>, E> {
        let f = &mut f;
        Ok(ModelTensors {
            embedding: f(self.embedding)?,
            conv_frontend: self
                .conv_frontend
                .into_iter()
                .map(|layer| {
                    Ok(ConvTensors {
                        conv: layer.conv.try_map(f)?,
                        norm: layer.norm.map(|norm| norm.try_map(f)).transpose()?,
                    })
                })
                .collect::<Result<_, E>>()?,
            projection: self.projection.map(|linear| linear.try_map(f)).transpose()?,
            positions: self.positions.map(&mut *f).transpose()?,
            embedding_norm: self.embedding_norm.map(|norm| norm.try_map(f)).transpose()?,
            blocks: self.blocks.into_iter().map(|block| block.try_map(f)).collect::<Result<_, E>>()?,
            aggregated: match self.aggregated {
                Some(agg) => Some(AggregatedTensors {
                    conv: agg.conv.try_map(f)?,
                    start: agg.start.map(&mut *f).transpose()?,
                    positions: agg.positions.map(&mut *f).transpose()?,
                    blocks: agg.blocks.into_iter().map(|block| block.try_map(f)).collect::<Result<_, E>>()?,
                }),
                None => None,
            },
            final_norm: self.final_norm.try_map(f)?,
            head_weight: self.head_weight.map(&mut *f).transpose()?,
            head_bias: self.head_bias.map(f).transpose()?,
        })
    }

    /// The same tree with every leaf converted.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> ModelTensors<U> {
        match self.try_map(|leaf| Ok::<U, std::convert::Infallible>(f(leaf))) {
            Ok(tree) => tree,
            Err(never) => match never {},
        }
    }

    /// The leaves, in the order of the fields.
    pub fn into_leaves(self) -> Vec<T> {
        let mut leaves = Vec::new();
        self.map(|leaf| leaves.push(leaf));
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_counts_agree() {
        let config = ModelConfig::from_toml(
            "context_bytes = 32\nattention = \"bidirectional\"\nembedding_dim = 16\nd_model = 24\nn_heads = 2\n\
             n_layers = 2\npositions = \"learned\"\nmax_positions = 32\nembedding_norm = true\n\
             conv_frontend = { channels = [8, 12], kernels = [3, 5] }\n\
             aggregated_stream = { d_model = 32, n_layers = 1, kernel = 4, stride = 4 }",
        )
        .unwrap();
        let specs = ModelTensors::specs(&config).into_leaves();
        let names: std::collections::HashSet<_> = specs.iter().map(|spec| &spec.name).collect();
        assert_eq!(names.len(), specs.len());
        assert!(names.contains(&"byte_stream_encoder.1.self_attn.in_proj_weight".to_string()));
        assert!(names.contains(&"cnn_frontend.layer_norms.1.bias".to_string()));
        assert_eq!(
            ModelTensors::count_parameters(&config),
            specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum::<usize>()
        );
    }
}
