//! Twin of src/model/attention.rs: multi-head attention with packed projections, grouped queries, rotary positions,
//! normalized queries and keys, and a window.

use grug::config::{ModelConfig, NORM_EPS};
use grug::manifest::BlockTensors;
use tch::{Device, Kind, Tensor};

use super::streams::Stream;
use super::{Pass, Rows, linear};
use crate::torch::fused::{self, HeadSplit};

/// Rotary angles of one stream's heads.
#[derive(Debug)]
pub struct Rotary {
    cos: Tensor, // (rows, head_dim / 2)
    sin: Tensor, // (rows, head_dim / 2)
}

impl Rotary {
    /// Angles for positions `0..rows`.
    pub fn new(rows: usize, head_dim: usize, device: Device) -> Rotary {
        let (cos, sin) = grug::positions::rotary(rows, head_dim);
        let table = |values: &[f32]| {
            Tensor::from_slice(values).view([rows as i64, head_dim as i64 / 2]).to_device(device)
        };
        Rotary { cos: table(&cos), sin: table(&sin) }
    }

    /// The same tables under another owner.
    pub fn share(&self) -> Rotary {
        Rotary { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// Cosines and sines for positions `0..len`; longer inputs than expected get tables of their own.
    fn rows(&self, len: i64) -> (Tensor, Tensor) {
        let (rows, half) = self.cos.size2().expect("a table has two dimensions");
        if len > rows {
            let Rotary { cos, sin } = Rotary::new(len as usize, 2 * half as usize, self.cos.device());
            return (cos, sin);
        }
        (self.cos.narrow(0, 0, len), self.sin.narrow(0, 0, len))
    }
}

/// Turns x, (batch, heads, T, head_dim), by angles (T, head_dim / 2): `x·cos + swap(x)·sin`, where `swap` exchanges the
/// halves of a head and the sines of the first half carry the minus sign.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let (cos, sin) = (Tensor::cat(&[cos, cos], 1), Tensor::cat(&[&-sin, sin], 1));
    // In mixed precision the angles stay f32, and so does the sum.
    (x * cos + x.roll([x.size()[3] / 2], [3]) * sin).to_kind(x.kind())
}

/// Queries, keys and values, each (batch, heads or kv_heads, T, head_dim), of packed projections (batch, T, …).
fn split_heads(config: &ModelConfig, stream: Stream<'_>, packed: &Tensor) -> [Tensor; 3] {
    let (batch, len, packed_width) = packed.size3().expect("(batch, positions, packed)");
    let (heads, kv_heads) = (config.n_heads as i64, config.kv_heads() as i64);
    let angles = stream.rotary.map(|rotary| rotary.rows(len));
    let split = HeadSplit {
        heads,
        kv_heads,
        normalize: config.qk_norm.then_some(NORM_EPS as f64),
        angles: angles.as_ref().map(|(cos, sin)| (cos, sin)),
    };
    if let Some(parts) = fused::split_heads(packed, &split) {
        return parts;
    }
    let head_dim = packed_width / (heads + 2 * kv_heads);
    let all = packed.view([batch, len, heads + 2 * kv_heads, head_dim]).transpose(1, 2);
    // Queries and keys lie side by side, so one call normalizes and one turns both.
    let mut qk = all.narrow(1, 0, heads + kv_heads);
    if let Some(eps) = split.normalize {
        qk = qk.rms_norm(head_dim, None::<&Tensor>, eps).to_kind(all.kind());
    }
    if let Some((cos, sin)) = split.angles {
        qk = rotate(&qk, cos, sin);
    }
    [qk.narrow(1, 0, heads), qk.narrow(1, heads, kv_heads), all.narrow(1, heads + kv_heads, kv_heads)]
}

/// True where a row (position) may look at a column: (rows, len).
fn window_mask(rows: i64, len: i64, window: i64, device: Device) -> Tensor {
    let positions = Tensor::arange(len, (Kind::Int64, device));
    let distance = positions.narrow(0, len - rows, rows).unsqueeze(1) - positions.unsqueeze(0);
    distance.ge(0).logical_and(&distance.lt(window))
}

/// x (batch, T, D) to the attention's output (batch, T, D), or (batch, 1, D) for the last row alone.
pub fn attention(
    config: &ModelConfig,
    tensors: &BlockTensors<Tensor>,
    stream: Stream<'_>,
    x: &Tensor,
    rows: Rows,
    pass: Pass,
) -> Tensor {
    let (batch, len, width) = x.size3().expect("blocks work on (batch, positions, width)");
    let [q, k, v] = split_heads(config, stream, &linear(x, &tensors.in_proj));
    let q = match rows {
        Rows::All => q,
        Rows::Last => q.narrow(2, len - 1, 1),
    };
    let (n_rows, grouped) = (q.size()[2], config.kv_heads() != config.n_heads);
    let window = stream.window as i64;
    // The last row of a causal model sees everything, as every row of a bidirectional one does.
    let mask = (window > 0 && window < len).then(|| window_mask(n_rows, len, window, x.device()));
    let is_causal = config.is_causal() && rows == Rows::All && mask.is_none();
    let p = if pass.train { config.dropout.transformer } else { 0.0 };
    Tensor::scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), p, is_causal, None, grouped)
        .transpose(1, 2)
        .reshape([batch, n_rows, width])
        .linear(&tensors.out_proj.weight, tensors.out_proj.bias.as_ref())
}
