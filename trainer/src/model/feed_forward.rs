//! Twin of src/model/feed_forward.rs: two linear layers and what lies between them.

use grug::config::{Activation, ModelConfig};
use grug::manifest::BlockTensors;
use tch::{Kind, Tensor};

use super::{Pass, dropout, linear};
use crate::torch::fused;

/// (…, D) to (…, D).
pub fn feed_forward(config: &ModelConfig, tensors: &BlockTensors<Tensor>, x: &Tensor, pass: Pass) -> Tensor {
    let h = linear(x, &tensors.linear1); // (…, F), or (…, 2F) with a gate
    let h = match config.ffn_activation {
        Activation::Gelu if config.ffn_gamma != 0.0 => curve(&h, config.ffn_gamma).gelu("none"),
        Activation::Gelu => h.gelu("none"),
        Activation::Relu => h.relu(),
        Activation::Relu2 => fused::relu2(&h).unwrap_or_else(|| h.relu().square()),
        Activation::Swiglu => {
            let halves = h.chunk(2, -1);
            halves[0].silu() * &halves[1]
        }
    };
    linear(&dropout(h, config.dropout.transformer, pass), &tensors.linear2)
}

/// The published curved feed-forward: `h / (1 + γ·½Σh²)`, the energy being a number and no function of h for the
/// gradient.
fn curve(h: &Tensor, gamma: f64) -> Tensor {
    let energy =
        h.detach().to_kind(Kind::Float).square().sum_dim_intlist([-1i64].as_slice(), true, None) * 0.5;
    (h / (energy * gamma + 1.0)).to_kind(h.kind())
}
