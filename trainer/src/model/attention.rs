//! Twin of src/model/attention.rs: multi-head attention with packed projections, grouped queries, rotary positions,
//! normalized queries and keys, and a window.

use grug::config::{ModelConfig, NORM_EPS};
use grug::manifest::BlockTensors;
use tch::{Device, Kind, Tensor};

use super::streams::Stream;
use super::{Pass, Rows, linear};

/// Rotary angles of one stream's heads, laid out so that a rotation is `x·cos + swap(x)·sin`, where `swap` exchanges
/// the halves of a head: the sines of the first half carry the minus sign.
#[derive(Debug)]
pub struct Rotary {
    cos: Tensor, // (rows, 1, head_dim)
    sin: Tensor, // (rows, 1, head_dim)
}

impl Rotary {
    /// Angles for positions `0..rows`.
    pub fn new(rows: usize, head_dim: usize, device: Device) -> Rotary {
        let (cos, sin) = grug::positions::rotary(rows, head_dim);
        let table = |values: &[f32]| {
            Tensor::from_slice(values).view([rows as i64, 1, head_dim as i64 / 2]).to_device(device)
        };
        let (cos, sin) = (table(&cos), table(&sin));
        Rotary { cos: Tensor::cat(&[&cos, &cos], 2), sin: Tensor::cat(&[-&sin, sin], 2) }
    }

    /// Turns x, (batch, T, heads, head_dim), by the angles of positions `0..T`.
    fn rotate(&self, x: &Tensor) -> Tensor {
        let (len, head_dim) = (x.size()[1], x.size()[3]);
        if len > self.cos.size()[0] {
            return Rotary::new(len as usize, head_dim as usize, x.device()).rotate(x);
        }
        let (cos, sin) = (self.cos.narrow(0, 0, len), self.sin.narrow(0, 0, len));
        // In mixed precision the angles stay f32, and so does the sum.
        (x * cos + x.roll([head_dim / 2], [3]) * sin).to_kind(x.kind())
    }
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
    let (heads, kv_heads) = (config.n_heads as i64, config.kv_heads() as i64);
    let head_dim = width / heads;
    let qkv = linear(x, &tensors.in_proj).view([batch, len, heads + 2 * kv_heads, head_dim]);
    // Queries and keys lie side by side, so one call normalizes and one rotates both.
    let mut qk = qkv.narrow(2, 0, heads + kv_heads);
    if config.qk_norm {
        qk = qk.rms_norm(head_dim, None::<&Tensor>, NORM_EPS as f64).to_kind(qkv.kind());
    }
    if let Some(rotary) = stream.rotary {
        qk = rotary.rotate(&qk);
    }
    let queries = match rows {
        Rows::All => qk.narrow(2, 0, heads),
        Rows::Last => qk.narrow(2, 0, heads).narrow(1, len - 1, 1),
    };
    let (q, k, v) = (
        queries.transpose(1, 2),                       // (batch, heads, rows, head_dim)
        qk.narrow(2, heads, kv_heads).transpose(1, 2), // (batch, kv_heads, T, head_dim)
        qkv.narrow(2, heads + kv_heads, kv_heads).transpose(1, 2), // (batch, kv_heads, T, head_dim)
    );
    let n_rows = q.size()[2];
    let window = stream.window as i64;
    // The last row of a causal model sees everything, as every row of a bidirectional one does.
    let mask = (window > 0 && window < len).then(|| window_mask(n_rows, len, window, x.device()));
    let is_causal = config.is_causal() && rows == Rows::All && mask.is_none();
    let p = if pass.train { config.dropout.transformer } else { 0.0 };
    Tensor::scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), p, is_causal, None, kv_heads != heads)
        .transpose(1, 2)
        .reshape([batch, n_rows, width])
        .linear(&tensors.out_proj.weight, tensors.out_proj.bias.as_ref())
}
