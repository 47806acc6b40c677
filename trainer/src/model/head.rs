//! Twin of src/model/head.rs: the last vectors to logits.

use grug::config::ModelConfig;
use grug::manifest::ModelTensors;
use tch::{Kind, Tensor};

use super::{Pass, dropout, normalize};

/// (batch, rows, output_dim) to f32 logits (batch, rows, 256).
pub fn head(config: &ModelConfig, tensors: &ModelTensors<Tensor>, x: &Tensor, pass: Pass) -> Tensor {
    let x = normalize(x, config.norm, &tensors.final_norm);
    let x = dropout(x, config.dropout.output, pass);
    let weight = tensors.head_weight.as_ref().unwrap_or(&tensors.embedding);
    let logits = x.linear(weight, tensors.head_bias.as_ref()).to_kind(Kind::Float);
    if config.logit_softcap > 0.0 {
        (logits / config.logit_softcap).tanh() * config.logit_softcap
    } else {
        logits
    }
}
