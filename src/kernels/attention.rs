//! Scaled dot-product attention over keys and values kept by head.

use std::ops::Range;

use crate::pool::Pool;

/// Heads of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub n_heads: usize,
    /// Query head h reads key and value head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    pub head_dim: usize,
}

/// Keys and values of one layer for up to `capacity` positions.
#[derive(Debug, Clone)]
pub(crate) struct KvLayer {
    shape: AttentionShape,
    capacity: usize,
    keys: Vec<f32>,   // (n_kv_heads, capacity, head_dim)
    values: Vec<f32>, // (n_kv_heads, capacity, head_dim)
}

impl KvLayer {
    pub(crate) fn new(shape: AttentionShape, capacity: usize) -> KvLayer {
        let len = shape.n_kv_heads * capacity * shape.head_dim;
        KvLayer { shape, capacity, keys: vec![0.0; len], values: vec![0.0; len] }
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.keys[..]) + size_of_val(&self.values[..])
    }

    /// Stores key and value, each (n_kv_heads, head_dim), of a position.
    pub(crate) fn store(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let dim = self.shape.head_dim;
        for head in 0..self.shape.n_kv_heads {
            let at = (head * self.capacity + position) * dim;
            self.keys[at..at + dim].copy_from_slice(&key[head * dim..(head + 1) * dim]);
            self.values[at..at + dim].copy_from_slice(&value[head * dim..(head + 1) * dim]);
        }
    }
}

/// Which positions a query sees.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Visible {
    /// All of the first so many.
    All(usize),
    /// Query `i` stands at position `first + i` and sees itself and at most `window - 1` before it (0 = all).
    Causal { first: usize, window: usize },
}

impl Visible {
    fn range(self, query: usize) -> Range<usize> {
        match self {
            Visible::All(len) => 0..len,
            Visible::Causal { first, window } => {
                let end = first + query + 1;
                let start = if window == 0 { 0 } else { end.saturating_sub(window) };
                start..end
            }
        }
    }
}

/// Attention of each query over the cached positions that it sees: `out[i, h] = Σ_p softmax(q·k_p / √head_dim) · v_p`.
///
/// `queries` is (n, query_stride) with the heads, (n_heads, head_dim), at the start of each row; `out` is
/// (n, n_heads · head_dim); `scores` is scratch of at least `n_threads · capacity`.
pub(crate) fn attention(
    pool: &Pool,
    kv: &KvLayer,
    visible: Visible,
    queries: &[f32],
    query_stride: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let _ = pool;
    let AttentionShape { n_heads, n_kv_heads, head_dim } = kv.shape;
    let width = n_heads * head_dim;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let group = n_heads / n_kv_heads;
    for (i, (query, out)) in queries.chunks(query_stride).zip(out.chunks_exact_mut(width)).enumerate() {
        let range = visible.range(i);
        for head in 0..n_heads {
            let query = &query[head * head_dim..(head + 1) * head_dim];
            let base = head / group * kv.capacity;
            let scores = &mut scores[..range.len()];
            for (score, position) in scores.iter_mut().zip(range.clone()) {
                let key = &kv.keys[(base + position) * head_dim..(base + position + 1) * head_dim];
                *score = query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>() * scale;
            }
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for score in scores.iter_mut() {
                *score = (*score - max).exp();
                sum += *score;
            }
            let out = &mut out[head * head_dim..(head + 1) * head_dim];
            out.fill(0.0);
            for (score, position) in scores.iter().zip(range.clone()) {
                let value = &kv.values[(base + position) * head_dim..(base + position + 1) * head_dim];
                let weight = score / sum;
                out.iter_mut().zip(value).for_each(|(o, v)| *o += weight * v);
            }
        }
    }
}
