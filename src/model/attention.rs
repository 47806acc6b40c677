//! Multi-head self-attention of one block over its cache of keys and values.
//! Twin of trainer/src/model/attention.rs.

use std::sync::Arc;

use super::layers::Linear;
use super::positions::Rotary;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kernels::{AttentionShape, KvLayer, Visible, attention, rms_norm};
use crate::manifest::{BlockTensors, TensorSpec};
use crate::pool::Pool;

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

    /// Room for the keys and values of `capacity` positions.
    pub(crate) fn new_cache(&self, capacity: usize) -> KvLayer {
        KvLayer::new(self.shape, capacity)
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
        pool: &Pool,
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
        let qkv = &mut qkv[..n * stride];
        self.in_proj.forward(pool, x, qkv);
        for (i, row) in qkv.chunks_exact_mut(stride).enumerate() {
            let (qk, value) = row.split_at_mut(q_width + kv_width);
            if self.qk_norm {
                rms_norm(qk, head_dim, None);
            }
            if let Some(rotary) = rotary {
                rotary.turn(first + i, qk);
            }
            cache.store(first + i, &qk[q_width..], value);
        }
        let skip = if last_only { n - 1 } else { 0 };
        let visible = if self.causal {
            Visible::Causal { first: first + skip, window: self.window }
        } else {
            Visible::All(first + n)
        };
        let mixed = &mut mixed[..(n - skip) * q_width];
        attention(pool, cache, visible, &qkv[skip * stride..], stride, scores, mixed);
        self.out_proj.forward(pool, mixed, &mut x[..(n - skip) * q_width]);
    }
}
