//! The model as autograd tensors: the trainer's twin of the runtime's `src/model/`, with the same files in the same
//! order. Both take their parameters from `grug::manifest`, so neither spells a tensor's name.
//!
//! What must stay true: for every valid configuration the logits agree with the runtime's (`tests/agreement.rs`) and
//! with the published PyTorch code (`tests/published.rs`).

mod attention;
mod block;
mod conv_frontend;
mod embedding;
mod feed_forward;
mod head;
mod recompute;
mod streams;

use std::collections::BTreeMap;
use std::path::Path;

use grug::checkpoint::{Checkpoint, TensorToWrite, f32_bytes, save_model};
use grug::config::{ModelConfig, NORM_EPS, Norm, Positions};
use grug::error::{Error, Result};
use grug::init::initial_values;
use grug::manifest::{LinearTensors, ModelTensors, NormTensors, TensorSpec};
use tch::{Device, Kind, Tensor};

use crate::torch::fused;
use attention::Rotary;
use embedding::SinusoidalTable;

/// Which positions a pass gives logits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// All: (batch, positions, 256).
    All,
    /// The last: (batch, 256). The last block computes no other.
    Last,
}

/// What one pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Which logits are wanted.
    pub rows: Rows,
    /// Training: dropout is on.
    pub train: bool,
}

/// A model on a device. Its parameters are f32 leaves of the autograd graph.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    specs: Vec<TensorSpec>,
    tensors: ModelTensors<Tensor>,
    /// The leaves of `tensors`, in the order of `specs`, sharing their storage.
    leaves: Vec<Tensor>,
    /// One for each stream.
    sinusoidal: Vec<SinusoidalTable>,
    rotary: Vec<Rotary>,
    /// Whether blocks are computed again in the backward pass, instead of keeping their activations.
    recomputes: bool,
}

impl Model {
    /// A model with its first weights, the same for the same seed on every machine.
    pub fn new(config: &ModelConfig, seed: u64, device: Device) -> Result<Model> {
        config.validate()?;
        Model::build(config, device, |index, spec| Ok(initial_values(spec, index, seed)))
    }

    /// A model with the weights of a file.
    pub fn from_checkpoint(checkpoint: &Checkpoint, device: Device) -> Result<Model> {
        Model::build(checkpoint.config(), device, |_, spec| Ok(checkpoint.tensor(spec)?.to_f32()))
    }

    fn build(
        config: &ModelConfig,
        device: Device,
        mut values: impl FnMut(usize, &TensorSpec) -> Result<Vec<f32>>,
    ) -> Result<Model> {
        let specs = ModelTensors::specs(config).into_leaves();
        let mut index = 0;
        let tensors = ModelTensors::specs(config).try_map(|spec| {
            let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
            let tensor = Tensor::from_slice(&values(index, &spec)?).view(&shape[..]).to_device(device);
            index += 1;
            Ok::<Tensor, Error>(tensor.set_requires_grad(true))
        })?;
        let mut leaves = Vec::with_capacity(specs.len());
        let tensors = tensors.map(|tensor| {
            leaves.push(tensor.shallow_clone());
            tensor
        });
        let mut widths = vec![config.d_model];
        widths.extend(config.aggregated_stream.as_ref().map(|agg| agg.d_model));
        let rows = config.frontend_len(config.window_bytes())?;
        let sinusoidal = match config.positions {
            Positions::Sinusoidal => {
                widths.iter().map(|&width| SinusoidalTable::new(rows, width, device)).collect()
            }
            Positions::Learned | Positions::Rotary => Vec::new(),
        };
        let rotary = match config.positions {
            Positions::Rotary => {
                widths.iter().map(|&width| Rotary::new(rows, width / config.n_heads, device)).collect()
            }
            Positions::Learned | Positions::Sinusoidal => Vec::new(),
        };
        Ok(Model {
            config: config.clone(),
            device,
            specs,
            tensors,
            leaves,
            sinusoidal,
            rotary,
            recomputes: false,
        })
    }

    /// What the model computes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where its parameters live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What its parameters are, in the order of [`parameters`](Self::parameters).
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Its parameters.
    pub fn parameters(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Whether, in training, each block forgets its activations and computes them again in the backward pass: the same gradients
    /// for about a third more work, with memory for one block at a time.
    pub fn recompute_blocks(&mut self, yes: bool) {
        self.recomputes = yes;
    }

    /// Logits for a batch of inputs of one length, (batch, length) bytes as u8, i32 or i64.
    pub fn forward(&self, bytes: &Tensor, pass: Pass) -> Result<Tensor> {
        let (_, length) = bytes.size2().map_err(|e| Error::invalid(format!("the input batch: {e}")))?;
        self.config.check_input_len(length as usize)?;
        Ok(streams::forward(self, bytes, pass))
    }

    /// Copies values into the parameters, in the order of [`specs`](Self::specs); their shapes must agree.
    pub fn set_parameters(&mut self, values: &[Tensor]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for ((leaf, spec), value) in self.leaves.iter_mut().zip(&self.specs).zip(values) {
            if leaf.size() != value.size() {
                return Err(Error::format(format!(
                    "tensor {:?} has shape {:?}, but the configuration calls for {:?}",
                    spec.name,
                    value.size(),
                    spec.shape
                )));
            }
            leaf.copy_(value);
        }
        Ok(())
    }

    /// Writes the model file, with `metadata` beside its configuration.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        save_parameters(path, &self.config, metadata, &self.specs, &self.leaves)
    }
}

/// Writes a model file from tensors in the order of `specs`.
pub fn save_parameters(
    path: &Path,
    config: &ModelConfig,
    metadata: &BTreeMap<String, String>,
    specs: &[TensorSpec],
    values: &[Tensor],
) -> Result<()> {
    let bytes: Vec<Vec<u8>> = values.iter().map(|tensor| f32_bytes(&to_f32(tensor))).collect();
    let tensors: Vec<_> = specs
        .iter()
        .zip(&bytes)
        .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
        .collect();
    save_model(path, config, metadata, &tensors)
}

/// A tensor's numbers on the host, row-major.
pub fn to_f32(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous().view([-1]);
    let mut values = vec![0.0; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}

/// x · weightᵀ + bias over the last dimension.
fn linear(x: &Tensor, tensors: &LinearTensors<Tensor>) -> Tensor {
    x.linear(&tensors.weight, tensors.bias.as_ref())
}

/// LayerNorm or RMSNorm over the last dimension.
fn normalize(x: &Tensor, kind: Norm, tensors: &NormTensors<Tensor>) -> Tensor {
    let width = tensors.weight.size();
    match kind {
        Norm::Layer => {
            x.layer_norm(&width[..], Some(&tensors.weight), tensors.bias.as_ref(), NORM_EPS as f64, false)
        }
        Norm::Rms => fused::rms_norm(x, &tensors.weight, NORM_EPS as f64)
            .unwrap_or_else(|| x.rms_norm(&width[..], Some(&tensors.weight), NORM_EPS as f64)),
    }
}

/// Dropout with probability `p` in training; nothing otherwise.
fn dropout(x: Tensor, p: f64, pass: Pass) -> Tensor {
    if pass.train && p > 0.0 { x.dropout(p, true) } else { x }
}
