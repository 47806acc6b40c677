//! The arithmetic of the model, one operation a file: what the graph in `model` is written in.
//!
//! Buffers are row-major slices of f32; shapes stand in comments. Every kernel is written once, on the operations of
//! [`crate::simd`], and runs on whichever instruction set the machine has.
#![allow(unsafe_code)]
// Blocks of registers are walked by number, several of them at once.
#![allow(clippy::needless_range_loop)]

mod activation;
mod attention;
mod compute;
mod float;
mod math;
mod matrix;
mod norm;
pub(crate) mod quantized;
#[cfg(test)]
mod testing;
mod vector;

pub(crate) use activation::{activate, curved_gelu, softcap};
pub(crate) use attention::{
    AttentionShape, KvCache, KvPrecision, Visible, attention, attention_scratch_len, store,
};
pub(crate) use compute::Compute;
pub(crate) use matrix::{Matrix, matmul, matmul_activate, matmul_rows};
pub(crate) use norm::{layer_norm_on, rms_norm_on};
pub(crate) use vector::{add_assign, add_scaled, dot};
