//! What the first block of a bidirectional model needs, as sums of a table by byte and a table by position.
//!
//! Such a model runs its whole window anew for every byte. Where blocks normalize after their branches, and nothing
//! but a projection stands between the byte table and the first block, that block's input is `e[byte] + p[position]`,
//! and so its queries, keys and values are `W·e[byte] + (W·p[position] + b)`: two tables instead of a product of every
//! row of the window with W. The results differ from the plain way's by the rounding of a sum.

use super::Graph;
use super::streams::Stack;
use crate::config::{ModelConfig, VOCAB};
use crate::kernels::{Compute, add_assign};

/// Numbers in the tables at most, 8 MiB: a model takes no more than 10 MB beside its weights and the cache.
const MAX_NUMBERS: usize = 1 << 21;

#[derive(Debug)]
pub(crate) struct FirstLayer {
    width: usize,
    qkv_width: usize,
    x: Vec<f32>,           // (256, D): the projected bytes
    by_byte: Vec<f32>,     // (256, qkv_width)
    by_position: Vec<f32>, // (positions, qkv_width), with the bias
}

impl FirstLayer {
    /// The tables of a model; `None` where its first block's input is no such sum.
    pub(crate) fn new(graph: &Graph, config: &ModelConfig) -> Option<FirstLayer> {
        let stack = &graph.streams.bytes;
        let first = stack.first_attention()?;
        let (width, qkv_width, positions) = (stack.width, first.qkv_width(), config.window_bytes());
        if config.is_causal()
            || config.norm_first
            || graph.conv_frontend.is_some()
            || (VOCAB + positions) * qkv_width + VOCAB * width > MAX_NUMBERS
        {
            return None;
        }
        let compute = Compute::new(&graph.pool, VOCAB, graph.quantized_cols, graph.portable);
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut arriving = vec![0.0; VOCAB * graph.embedding.dim()];
        graph.embedding.forward(bytes.iter().copied(), &mut arriving);
        let mut x = vec![0.0; VOCAB * width];
        graph.streams.project(&compute, &arriving, &mut x);
        let mut by_byte = vec![0.0; VOCAB * qkv_width];
        first.project(&compute, &x, false, &mut by_byte);
        let mut by_position = vec![0.0; positions * qkv_width];
        for (chunk, out) in by_position.chunks_mut(VOCAB * qkv_width).enumerate() {
            let mut rows = vec![0.0; out.len() / qkv_width * width];
            stack.add_positions(chunk * VOCAB, &mut rows);
            first.project(&compute, &rows, true, out);
        }
        Some(FirstLayer { width, qkv_width, x, by_byte, by_position })
    }

    /// How many bytes of a window they serve.
    pub(crate) fn positions(&self) -> usize {
        self.by_position.len() / self.qkv_width
    }

    /// The input of the first block, (n, D), and its queries, keys and values, (n, qkv_width), of a window of bytes.
    pub(crate) fn fill(&self, stack: &Stack, bytes: &[u8], x: &mut [f32], qkv: &mut [f32]) {
        let rows = x.chunks_exact_mut(self.width).zip(qkv.chunks_exact_mut(self.qkv_width));
        for ((&byte, (x, qkv)), position) in
            bytes.iter().zip(rows).zip(self.by_position.chunks_exact(self.qkv_width))
        {
            let byte = byte as usize;
            x.copy_from_slice(&self.x[byte * self.width..][..self.width]);
            qkv.copy_from_slice(&self.by_byte[byte * self.qkv_width..][..self.qkv_width]);
            add_assign(qkv, position);
        }
        stack.add_positions(0, x);
    }
}
