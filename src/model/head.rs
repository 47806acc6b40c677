//! The last normalization and the output layer: states → 256 logits. Twin of trainer/src/model/head.rs.

use std::sync::Arc;

use super::layers::{NormLayer, load_vector};
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, VOCAB};
use crate::error::Result;
use crate::kernels::{Compute, Matrix, matmul, softcap};
use crate::manifest::{ModelTensors, TensorSpec};

#[derive(Debug)]
pub(crate) struct Head {
    norm: NormLayer,
    weight: Option<Matrix>, // (256, output_dim); the embedding serves where there is none
    bias: Option<Vec<f32>>,
    softcap: f32,
}

impl Head {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        specs: &ModelTensors<TensorSpec>,
    ) -> Result<Head> {
        Ok(Head {
            norm: NormLayer::load(file, config.norm, &specs.final_norm)?,
            weight: specs.head_weight.as_ref().map(|spec| Matrix::load(file, spec)).transpose()?,
            bias: specs.head_bias.as_ref().map(|spec| load_vector(file, spec)).transpose()?,
            softcap: config.logit_softcap as f32,
        })
    }

    /// Logits, (n, 256), of the states in x, (n, output_dim), which are normalized in place.
    pub(crate) fn forward(&self, compute: &Compute, embedding: &Matrix, x: &mut [f32], logits: &mut [f32]) {
        debug_assert_eq!(logits.len() % VOCAB, 0);
        self.norm.forward(compute, x);
        matmul(compute, self.weight.as_ref().unwrap_or(embedding), self.bias.as_deref(), x, logits);
        if self.softcap > 0.0 {
            softcap(compute, self.softcap, logits);
        }
    }
}
