//! Multi-head self-attention of one block over its cache of keys and values.
//! Twin of trainer/src/model/attention.rs.

use std::sync::Arc;

use super::layers::Linear;
use super::positions::Rotary;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kernels::{AttentionShape, Compute, KvLayer, Visible, attention, matmul_rows, rms_norm};
use crate::manifest::{BlockTensors, TensorSpec};
use crate::simd::TILE;

#[derive(Debug)]
pub(crate) struct Attention {
    in_proj: Linear,  // (D + 2·kv_heads·head_dim, D)
    out_proj: Linear, // (D, D)
    shape: AttentionShape,
    qk_norm: bool,
    window: usize,
    causal: bool,
}

impl Attention {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        window: usize,
        specs: &BlockTensors<TensorSpec>,
    ) -> Result<Attention> {
        let in_proj = Linear::load(file, &specs.in_proj)?;
        let head_dim = in_proj.weight.cols() / config.n_heads;
        Ok(Attention {
            in_proj,
            out_proj: Linear::load(file, &specs.out_proj)?,
            shape: AttentionShape { n_heads: config.n_heads, n_kv_heads: config.kv_heads(), head_dim },
            qk_norm: config.qk_norm,
            window,
            causal: config.is_causal(),
        })
    }

    /// Room for the keys and values of `capacity` positions, as precise as the weights.
    pub(crate) fn new_cache(&self, capacity: usize) -> KvLayer {
        KvLayer::new(self.shape, capacity, self.in_proj.weight.kv_precision())
    }

    /// Width of the packed queries, keys and values.
    pub(crate) fn qkv_width(&self) -> usize {
        self.in_proj.weight.rows()
    }

    /// Attention of the rows of `x`, (n, D), which stand at positions `first..first + n` of the cache.
    ///
    /// With `last_only` only the last row asks; its result is the first row of `x` then. Otherwise each row of `x` is
    /// replaced by its result. `qkv` is scratch of n · qkv_width, `mixed` of n · D.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        cache: &mut KvLayer,
        first: usize,
        rotary: Option<&Rotary>,
        last_only: bool,
        x: &mut [f32],
        qkv: &mut [f32],
        scores: &mut [f32],
        mixed: &mut [f32],
    ) {
        let AttentionShape { n_heads, n_kv_heads, head_dim } = self.shape;
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let n = x.len() / q_width;
        let stride = self.qkv_width();
        let skip = if last_only { n - 1 } else { 0 };
        let prepare = |position: usize, heads: &mut [f32]| {
            if self.qk_norm {
                rms_norm(compute, heads, head_dim, None);
            }
            if let Some(rotary) = rotary {
                rotary.turn(position, heads);
            }
        };
        let queries = if skip > 0 && q_width.is_multiple_of(TILE) {
            // The queries of the rows that do not ask are not needed.
            let Linear { weight, bias } = &self.in_proj;
            let bias = bias.as_deref();
            let (query, kv) = qkv.split_at_mut(q_width);
            let kv = &mut kv[..n * 2 * kv_width];
            matmul_rows(compute, weight, 0..q_width, bias, None, &x[skip * q_width..], query);
            matmul_rows(compute, weight, q_width..stride, bias, None, x, kv);
            for (i, row) in kv.chunks_exact_mut(2 * kv_width).enumerate() {
                let (key, value) = row.split_at_mut(kv_width);
                prepare(first + i, key);
                cache.store(first + i, key, value);
            }
            prepare(first + skip, query);
            &*query
        } else {
            let qkv = &mut qkv[..n * stride];
            self.in_proj.forward(compute, x, qkv);
            for (i, row) in qkv.chunks_exact_mut(stride).enumerate() {
                let (qk, value) = row.split_at_mut(q_width + kv_width);
                prepare(first + i, qk);
                cache.store(first + i, &qk[q_width..], value);
            }
            &qkv[skip * stride..]
        };
        let visible = if self.causal {
            Visible::Causal { first: first + skip, window: self.window }
        } else {
            Visible::All(first + n)
        };
        let mixed = &mut mixed[..(n - skip) * q_width];
        attention(compute, cache, visible, queries, stride, scores, mixed);
        self.out_proj.forward(compute, mixed, &mut x[..(n - skip) * q_width]);
    }
}
