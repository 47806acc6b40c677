//! Multi-head self-attention of one block over its cache of keys and values.
//! Twin of trainer/src/model/attention.rs.

use std::sync::Arc;

use super::layers::Linear;
use super::memory::{MAX_TOGETHER, Places};
use super::positions::Rotary;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kernels::{
    AttentionShape, Compute, KvPrecision, Visible, add_scaled, attention, dot, matmul, matmul_rows,
    rms_norm_on, store,
};
use crate::manifest::{BlockTensors, TensorSpec};
use crate::simd::TILE;

/// How rows go through a block.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// Number of the block.
    pub layer: usize,
    pub rotary: Option<&'a Rotary>,
    /// Whether the last row's result alone is wanted; it becomes the first row then.
    pub last_only: bool,
    /// Whether the scratch holds the queries, keys and values already.
    pub has_qkv: bool,
}

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

    pub(crate) fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// How its keys and values are stored: as precisely as the weights.
    pub(crate) fn kv_precision(&self) -> KvPrecision {
        self.in_proj.weight.kv_precision()
    }

    /// Width of the packed queries, keys and values.
    pub(crate) fn qkv_width(&self) -> usize {
        self.in_proj.weight.rows()
    }

    /// The packed queries, keys and values of rows of x, (n, D), before normalization and rotation.
    pub(crate) fn project(&self, compute: &Compute, x: &[f32], with_bias: bool, qkv: &mut [f32]) {
        let bias = self.in_proj.bias.as_deref().filter(|_| with_bias);
        matmul(compute, &self.in_proj.weight, bias, x, qkv);
    }

    /// Attention of the rows of `x`, (n, D), which stand at `places`.
    ///
    /// With `last_only`, for rows of one session, only the last row asks; its result is the first row of `x` then.
    /// Otherwise each row of `x` is replaced by its result. `qkv` is scratch of n · qkv_width, `mixed` of n · D.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        places: &dyn Places,
        pass: Pass<'_>,
        x: &mut [f32],
        qkv: &mut [f32],
        scores: &mut [f32],
        mixed: &mut [f32],
    ) {
        let Pass { layer, rotary, last_only, has_qkv } = pass;
        let AttentionShape { n_heads, n_kv_heads, head_dim } = self.shape;
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let n = x.len() / q_width;
        let stride = self.qkv_width();
        let skip = if last_only { n - 1 } else { 0 };
        let isa = compute.isa();
        let prepare = |position: usize, heads: &mut [f32]| {
            if self.qk_norm {
                rms_norm_on(isa, heads, head_dim, None);
            }
            if let Some(rotary) = rotary {
                rotary.turn(position, heads);
            }
        };
        if last_only && !has_qkv && self.folds(n, rotary) {
            self.forward_last(compute, x, qkv, mixed);
            return;
        }
        // All rows are of one session, or each is of its own: the caches, and the position of the first row of each.
        let run = places.run(0, n);
        let mut seen = [(places.seen(0), places.position(0)); MAX_TOGETHER];
        for (i, one) in seen[..n / run].iter_mut().enumerate().skip(1) {
            *one = (places.seen(i * run), places.position(i * run));
        }
        let seen = &seen[..n / run];
        let queries = if skip > 0 && !has_qkv && q_width.is_multiple_of(TILE) {
            // The queries of the rows that do not ask are not needed.
            let Linear { weight, bias } = &self.in_proj;
            let bias = bias.as_deref();
            let (query, kv) = qkv.split_at_mut(q_width);
            let kv = &mut kv[..n * 2 * kv_width];
            matmul_rows(compute, weight, 0..q_width, bias, None, &x[skip * q_width..], query);
            matmul_rows(compute, weight, q_width..stride, bias, None, x, kv);
            // SAFETY: sessions have caches of their own, which only this pass uses.
            #[allow(unsafe_code)]
            unsafe {
                store(compute, seen, layer, kv, 2 * kv_width, prepare);
            }
            prepare(places.position(skip), query);
            &*query
        } else {
            let qkv = &mut qkv[..n * stride];
            if !has_qkv {
                self.in_proj.forward(compute, x, qkv);
            }
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                store(compute, seen, layer, qkv, stride, prepare);
            }
            &qkv[skip * stride..]
        };
        let mixed = &mut mixed[..(n - skip) * q_width];
        let visible = |first: usize| match self.causal {
            true => Visible::Causal { first: first + skip, window: self.window },
            false => Visible::All(first + run),
        };
        attention(compute, seen, visible, layer, queries, stride, scores, mixed);
        self.out_proj.forward(compute, mixed, &mut x[..(n - skip) * q_width]);
    }

    /// Whether [`forward_last`](Self::forward_last) serves for n rows.
    fn folds(&self, n: usize, rotary: Option<&Rotary>) -> bool {
        let AttentionShape { n_heads, head_dim, .. } = self.shape;
        // Of quantized weights a product by rows is cheaper than unpacking them.
        let plain =
            !self.qk_norm && rotary.is_none() && self.in_proj.weight.kv_precision() != KvPrecision::Int8;
        // The scratch holds the query, a row, a vector for each head, and the scores.
        let scratch = (n_heads + 2) * n_heads * head_dim + n * n_heads;
        !self.causal && plain && scratch <= n * self.qkv_width()
    }

    /// What [`forward`](Self::forward) computes where a whole window is seen by its last row alone, without a key or
    /// value for each row: the score q·(K·x + k) is (Kᵀ·q)·x and a constant that the softmax ignores, and the mixture
    /// Σ p·(V·x + v) is V·(Σ p·x) + v. So K and V meet one vector for each head instead of every row.
    fn forward_last(&self, compute: &Compute, x: &mut [f32], qkv: &mut [f32], mixed: &mut [f32]) {
        let AttentionShape { n_heads, n_kv_heads, head_dim } = self.shape;
        let width = n_heads * head_dim;
        let n = x.len() / width;
        let Linear { weight, bias } = &self.in_proj;
        let bias = bias.as_deref();
        let (query, rest) = qkv.split_at_mut(width);
        matmul_rows(compute, weight, 0..width, bias, None, &x[(n - 1) * width..], query);
        let (by_head, rest) = rest.split_at_mut(n_heads * width); // Kᵀ·q of each head, then its Σ p·x
        let (row, rest) = rest.split_at_mut(width);
        let scores = &mut rest[..n * n_heads];
        let kv_row = |kind: usize, head: usize, d: usize| {
            width + (kind * n_kv_heads + head / (n_heads / n_kv_heads)) * head_dim + d
        };
        by_head.fill(0.0);
        for head in 0..n_heads {
            let by_head = &mut by_head[head * width..(head + 1) * width];
            for d in 0..head_dim {
                weight.copy_row(kv_row(0, head, d), row);
                add_scaled(compute, by_head, query[head * head_dim + d], row);
            }
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (scores, x) in scores.chunks_exact_mut(n_heads).zip(x.chunks_exact(width)) {
            for (score, by_head) in scores.iter_mut().zip(by_head.chunks_exact(width)) {
                *score = scale * dot(compute, by_head, x);
            }
        }
        by_head.fill(0.0);
        for head in 0..n_heads {
            let of_head = || (0..n).map(|i| i * n_heads + head);
            let max = of_head().map(|i| scores[i]).fold(f32::NEG_INFINITY, f32::max);
            of_head().for_each(|i| scores[i] = libm::expf(scores[i] - max));
            let inverse = 1.0 / of_head().map(|i| scores[i]).sum::<f32>();
            let by_head = &mut by_head[head * width..(head + 1) * width];
            for (i, x) in of_head().zip(x.chunks_exact(width)) {
                add_scaled(compute, by_head, scores[i] * inverse, x);
            }
            for d in 0..head_dim {
                let r = kv_row(1, head, d);
                weight.copy_row(r, row);
                mixed[head * head_dim + d] = dot(compute, by_head, row) + bias.map_or(0.0, |bias| bias[r]);
            }
        }
        self.out_proj.forward(compute, &mixed[..width], &mut x[..width]);
    }
}
