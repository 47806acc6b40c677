//! The convolutional frontend, and the convolution that the aggregated stream starts with.
//! Twin of trainer/src/model/conv_frontend.rs.
//!
//! A convolution is a matrix product over patches: row t of the patches holds, for each input channel, the `kernel`
//! positions that output t sees. A bidirectional model pads its whole input on both sides; a causal one keeps the
//! last `kernel - 1` inputs of each layer, which start as zeros, and so runs byte by byte or in chunks alike.

use std::sync::Arc;

use super::layers::{Linear, NormLayer};
use super::memory::{LastRows, Members};
use crate::checkpoint::Checkpoint;
use crate::config::{Activation, ConvPadding, ModelConfig, Norm};
use crate::error::Result;
use crate::kernels::{Compute, activate};
use crate::manifest::{ConvTensors, LinearTensors, TensorSpec};

/// One Conv1d.
#[derive(Debug)]
pub(crate) struct Conv1d {
    linear: Linear, // (outputs, inputs · kernel)
    inputs: usize,
    kernel: usize,
    stride: usize,
}

impl Conv1d {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        specs: &LinearTensors<TensorSpec>,
        stride: usize,
    ) -> Result<Conv1d> {
        let linear = Linear::load(file, specs)?;
        Ok(Conv1d { linear, inputs: specs.weight.shape[1], kernel: specs.weight.shape[2], stride })
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn kernel(&self) -> usize {
        self.kernel
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    fn outputs(&self) -> usize {
        self.linear.weight.rows()
    }

    pub(crate) fn output_len(&self, padded_len: usize) -> usize {
        (padded_len - self.kernel) / self.stride + 1
    }

    /// Numbers in the patches of an output of this length.
    pub(crate) fn patches_len(&self, output_len: usize) -> usize {
        output_len * self.inputs * self.kernel
    }

    /// For x (padded_len, inputs), already padded; writes (output_len, outputs) to `out` and returns output_len.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        x: &[f32],
        patches: &mut [f32],
        out: &mut [f32],
    ) -> usize {
        let len = self.output_len(x.len() / self.inputs);
        for t in 0..len {
            self.patch(t, &x[t * self.stride * self.inputs..], patches);
        }
        self.forward_patches(compute, len, patches, out);
        len
    }

    /// Writes patch number `t`: the first `kernel` rows of x.
    pub(crate) fn patch(&self, t: usize, x: &[f32], patches: &mut [f32]) {
        let len = self.inputs * self.kernel;
        let patch = &mut patches[t * len..(t + 1) * len];
        for (j, row) in x[..len].chunks_exact(self.inputs).enumerate() {
            row.iter().enumerate().for_each(|(c, v)| patch[c * self.kernel + j] = *v);
        }
    }

    /// The first `len` patches into `out`, (len, outputs).
    pub(crate) fn forward_patches(&self, compute: &Compute, len: usize, patches: &[f32], out: &mut [f32]) {
        let out = &mut out[..len * self.outputs()];
        self.linear.forward(compute, &patches[..self.patches_len(len)], out);
    }
}

#[derive(Debug)]
struct Layer {
    conv: Conv1d,
    norm: Option<NormLayer>,
    side_padding: usize,
}

/// The stack of convolutions on the embeddings.
#[derive(Debug)]
pub(crate) struct ConvFrontend {
    layers: Vec<Layer>,
    padding: ConvPadding,
    activation: Activation,
    causal: bool,
}

/// What a causal model remembers between chunks: for each layer its last `kernel - 1` inputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConvHistory(Vec<LastRows>);

impl ConvHistory {
    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().for_each(LastRows::clear);
    }

    /// The last `n` bytes never came.
    pub(crate) fn turn_back(&mut self, n: usize) {
        self.0.iter_mut().for_each(|layer| layer.turn_back(n));
    }
}

impl ConvFrontend {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        specs: &[ConvTensors<TensorSpec>],
    ) -> Result<Option<ConvFrontend>> {
        let Some(conv) = &config.conv_frontend else { return Ok(None) };
        let layers = specs
            .iter()
            .enumerate()
            .map(|(i, specs)| {
                Ok(Layer {
                    conv: Conv1d::load(file, &specs.conv, conv.stride)?,
                    norm: specs
                        .norm
                        .as_ref()
                        .map(|norm| NormLayer::load(file, Norm::Layer, norm))
                        .transpose()?,
                    side_padding: conv.side_padding(i),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Some(ConvFrontend {
            layers,
            padding: conv.padding,
            activation: conv.activation,
            causal: config.is_causal(),
        }))
    }

    /// A causal model's memory before the first byte.
    pub(crate) fn new_history(&self) -> ConvHistory {
        let layers = self.layers.iter().map(|l| LastRows::new(l.conv.kernel - 1, l.conv.inputs));
        ConvHistory(if self.causal { layers.collect() } else { Vec::new() })
    }

    /// How many bytes before a byte its output depends on, of a causal model.
    pub(crate) fn reach(&self) -> usize {
        self.layers.iter().map(|l| l.conv.kernel - 1).sum()
    }

    /// Numbers in the widest of its inputs and outputs for `len` bytes.
    pub(crate) fn activation_len(&self, len: usize) -> usize {
        self.layers.iter().map(|l| l.conv.inputs.max(l.conv.outputs())).max().unwrap_or(0) * len
    }

    /// Scratch that [`forward`](Self::forward) needs for `len` bytes: a padded input and its patches.
    pub(crate) fn scratch_len(&self, len: usize) -> usize {
        let of_layer = |l: &Layer| {
            let padded = len + if self.causal { l.conv.kernel - 1 } else { 2 * l.side_padding };
            // A layer whose padded input is shorter than its kernel is refused before it gets here.
            let outputs = padded.saturating_sub(l.conv.kernel) / l.conv.stride + 1;
            padded * l.conv.inputs + l.conv.patches_len(outputs)
        };
        self.layers.iter().map(of_layer).max().unwrap_or(0)
    }

    /// Runs every layer on `x`, whose first `len` rows are the embeddings, in place; returns how many rows come out.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        history: &mut ConvHistory,
        x: &mut [f32],
        len: usize,
        scratch: &mut [f32],
    ) -> usize {
        let mut len = len;
        for (i, layer) in self.layers.iter().enumerate() {
            let width = layer.conv.inputs;
            let before = if self.causal { layer.conv.kernel - 1 } else { layer.side_padding };
            let after = if self.causal { 0 } else { layer.side_padding };
            let (padded, patches) = scratch.split_at_mut((before + len + after) * width);
            padded[before * width..(before + len) * width].copy_from_slice(&x[..len * width]);
            if self.causal {
                padded[..before * width].copy_from_slice(history.0[i].last(before));
                history.0[i].push(&x[..len * width]);
            } else {
                self.pad_sides(padded, layer.side_padding, len, width);
            }
            len = layer.conv.forward(compute, padded, patches, x);
            self.finish(compute, layer, &mut x[..len * layer.conv.outputs()]);
        }
        len
    }

    /// As [`forward`](Self::forward) for the row of x that each session of a causal model has, (n, …).
    pub(crate) fn step(
        &self,
        compute: &Compute,
        members: &mut dyn Members,
        x: &mut [f32],
        patches: &mut [f32],
    ) {
        for (i, layer) in self.layers.iter().enumerate() {
            let width = layer.conv.inputs;
            for row in 0..members.len() {
                let memory = &mut members.memory(row).history.0[i];
                memory.push(&x[row * width..(row + 1) * width]);
                layer.conv.patch(row, memory.last(layer.conv.kernel), patches);
            }
            layer.conv.forward_patches(compute, members.len(), patches, x);
            self.finish(compute, layer, &mut x[..members.len() * layer.conv.outputs()]);
        }
    }

    /// What follows a layer's convolution.
    fn finish(&self, compute: &Compute, layer: &Layer, x: &mut [f32]) {
        activate(compute, self.activation, x, layer.conv.outputs());
        if let Some(norm) = &layer.norm {
            norm.forward(compute, x);
        }
    }

    /// Fills the `pad` rows on each side of the `len` rows that stand in the middle.
    fn pad_sides(&self, padded: &mut [f32], pad: usize, len: usize, width: usize) {
        let mut fill = |row: usize, source: Option<usize>| match source {
            Some(source) => {
                let from = (pad + source) * width;
                padded.copy_within(from..from + width, row * width);
            }
            None => padded[row * width..(row + 1) * width].fill(0.0),
        };
        for distance in 1..=pad {
            // `distance` rows before the first, and after the last.
            let (left, right) = match self.padding {
                ConvPadding::Zeros => (None, None),
                ConvPadding::Reflect => (Some(distance), Some(len - 1 - distance)),
                ConvPadding::Replicate => (Some(0), Some(len - 1)),
                ConvPadding::Circular => (Some(len - distance), Some(distance - 1)),
            };
            fill(pad - distance, left);
            fill(pad + len - 1 + distance, right);
        }
    }
}
