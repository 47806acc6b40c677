//! A block that forgets its activations: the graph of a training pass keeps the block's input, and the backward pass
//! computes the block again. What does so outlives the borrow of the model, so it owns a share of all it needs.

use grug::config::ModelConfig;
use grug::manifest::{BlockTensors, LinearTensors, NormTensors};
use tch::Tensor;

use super::attention::Rotary;
use super::block::block;
use super::streams::Stream;
use super::{Pass, Rows};
use crate::torch::recompute;

fn norm(of: &NormTensors<Tensor>) -> NormTensors<Tensor> {
    NormTensors { weight: of.weight.shallow_clone(), bias: of.bias.as_ref().map(Tensor::shallow_clone) }
}

fn linear(of: &LinearTensors<Tensor>) -> LinearTensors<Tensor> {
    LinearTensors { weight: of.weight.shallow_clone(), bias: of.bias.as_ref().map(Tensor::shallow_clone) }
}

/// What [`block`] computes, to be computed again in the backward pass.
pub fn block_twice(
    config: &ModelConfig,
    tensors: &BlockTensors<Tensor>,
    stream: Stream<'_>,
    x: &Tensor,
    rows: Rows,
    pass: Pass,
) -> Tensor {
    let (config, window) = (config.clone(), stream.window);
    let rotary = stream.rotary.map(Rotary::share);
    let tensors = BlockTensors {
        in_proj: linear(&tensors.in_proj),
        out_proj: linear(&tensors.out_proj),
        linear1: linear(&tensors.linear1),
        linear2: linear(&tensors.linear2),
        norm1: norm(&tensors.norm1),
        norm2: norm(&tensors.norm2),
    };
    recompute(x, config.dropout.transformer > 0.0, move |x| {
        block(&config, &tensors, Stream { rotary: rotary.as_ref(), window }, x, rows, pass)
    })
}
