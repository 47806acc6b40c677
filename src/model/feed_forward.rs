//! The feed-forward of one block. Twin of trainer/src/model/feed_forward.rs.

use std::sync::Arc;

use super::layers::Linear;
use crate::checkpoint::Checkpoint;
use crate::config::{Activation, ModelConfig};
use crate::error::Result;
use crate::kernels::{Compute, activate, curved_gelu, matmul_activate};
use crate::manifest::{BlockTensors, TensorSpec};

#[derive(Debug)]
pub(crate) struct FeedForward {
    linear1: Linear, // (F, D), or (2F, D) for SwiGLU
    linear2: Linear, // (D, F)
    activation: Activation,
    gamma: f32,
}

impl FeedForward {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        specs: &BlockTensors<TensorSpec>,
    ) -> Result<FeedForward> {
        Ok(FeedForward {
            linear1: Linear::load(file, &specs.linear1)?,
            linear2: Linear::load(file, &specs.linear2)?,
            activation: config.ffn_activation,
            gamma: config.ffn_gamma as f32,
        })
    }

    /// Width between the two Linears, before the nonlinearity.
    pub(crate) fn hidden_width(&self) -> usize {
        self.linear1.weight.rows()
    }

    /// Replaces each row of x, (n, D), by its result. `hidden` is scratch of n · hidden_width.
    pub(crate) fn forward(&self, compute: &Compute, x: &mut [f32], hidden: &mut [f32]) {
        let n = x.len() / self.linear1.weight.cols();
        let width = self.hidden_width();
        let hidden = &mut hidden[..n * width];
        let width = if self.gamma != 0.0 {
            self.linear1.forward(compute, x, hidden);
            curved_gelu(compute, self.gamma, hidden, width);
            width
        } else if self.activation == Activation::Swiglu {
            self.linear1.forward(compute, x, hidden);
            activate(compute, self.activation, hidden, width)
        } else {
            let bias = self.linear1.bias.as_deref();
            matmul_activate(compute, &self.linear1.weight, bias, self.activation, x, hidden);
            width
        };
        self.linear2.forward(compute, &hidden[..n * width], x);
    }
}
