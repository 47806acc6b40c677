//! The small parts that every room of the graph uses: Linear, normalization, and scratch memory.

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::config::Norm;
use crate::error::Result;
use crate::kernels::{Compute, Matrix, layer_norm_on, matmul, rms_norm_on};
use crate::manifest::{LinearTensors, NormTensors, TensorSpec};
use crate::simd::Isa;

/// A tensor as f32 numbers.
pub(crate) fn load_vector(file: &Arc<Checkpoint>, spec: &TensorSpec) -> Result<Vec<f32>> {
    Ok(file.tensor(spec)?.to_f32())
}

/// y = W·x + b.
#[derive(Debug)]
pub(crate) struct Linear {
    pub weight: Matrix,         // (outputs, inputs)
    pub bias: Option<Vec<f32>>, // (outputs)
}

impl Linear {
    pub(crate) fn load(file: &Arc<Checkpoint>, specs: &LinearTensors<TensorSpec>) -> Result<Linear> {
        Ok(Linear {
            weight: Matrix::load(file, &specs.weight)?,
            bias: specs.bias.as_ref().map(|bias| load_vector(file, bias)).transpose()?,
        })
    }

    /// For x (n, inputs) and y (n, outputs).
    pub(crate) fn forward(&self, compute: &Compute, x: &[f32], y: &mut [f32]) {
        matmul(compute, &self.weight, self.bias.as_deref(), x, y);
    }
}

/// A LayerNorm or RMSNorm.
#[derive(Debug)]
pub(crate) struct NormLayer {
    kind: Norm,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl NormLayer {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        kind: Norm,
        specs: &NormTensors<TensorSpec>,
    ) -> Result<NormLayer> {
        Ok(NormLayer {
            kind,
            weight: load_vector(file, &specs.weight)?,
            bias: specs.bias.as_ref().map(|bias| load_vector(file, bias)).transpose()?,
        })
    }

    /// Normalizes each row of x, (n, width), in place.
    pub(crate) fn forward(&self, compute: &Compute, x: &mut [f32]) {
        let (isa, width) = (compute.isa(), self.weight.len());
        compute.for_rows(x, width, 2 * width, |_, rows| self.apply(isa, rows));
    }

    /// As [`forward`](Self::forward), on this thread.
    pub(crate) fn apply(&self, isa: Isa, x: &mut [f32]) {
        match self.kind {
            Norm::Layer => layer_norm_on(isa, x, &self.weight, self.bias.as_deref()),
            Norm::Rms => rms_norm_on(isa, x, self.weight.len(), Some(&self.weight)),
        }
    }
}
