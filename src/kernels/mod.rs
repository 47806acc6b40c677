//! The arithmetic of the model, one operation a file: what the graph in `model` is written in.
//!
//! Buffers are row-major slices of f32; shapes stand in comments. Every kernel has a scalar definition.

mod activation;
mod attention;
mod matrix;
mod norm;

pub(crate) use activation::{activate, curved_gelu, softcap};
pub(crate) use attention::{AttentionShape, KvLayer, Visible, attention};
pub(crate) use matrix::{Matrix, matmul};
pub(crate) use norm::{layer_norm, rms_norm};

/// x += y.
pub(crate) fn add_assign(x: &mut [f32], y: &[f32]) {
    debug_assert_eq!(x.len(), y.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
