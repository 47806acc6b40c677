//! Twin of src/model/block.rs: attention and feed-forward on a residual stream, pre-norm or post-norm.

use grug::config::ModelConfig;
use grug::manifest::BlockTensors;
use tch::Tensor;

use super::attention::attention;
use super::feed_forward::feed_forward;
use super::streams::Stream;
use super::{Pass, Rows, dropout, normalize};

/// One block, (batch, T, D) to (batch, T, D), or to (batch, 1, D) where only the last row is asked for.
pub fn block(
    config: &ModelConfig,
    tensors: &BlockTensors<Tensor>,
    stream: Stream<'_>,
    x: &Tensor,
    rows: Rows,
    pass: Pass,
) -> Tensor {
    let p = config.dropout.transformer;
    let residual = match rows {
        Rows::All => x.shallow_clone(),
        Rows::Last => x.narrow(1, x.size()[1] - 1, 1),
    };
    if config.norm_first {
        let normed = normalize(x, config.norm, &tensors.norm1);
        let x = residual + dropout(attention(config, tensors, stream, &normed, rows, pass), p, pass);
        let normed = normalize(&x, config.norm, &tensors.norm2);
        &x + dropout(feed_forward(config, tensors, &normed, pass), p, pass)
    } else {
        let x = residual + dropout(attention(config, tensors, stream, x, rows, pass), p, pass);
        let x = normalize(&x, config.norm, &tensors.norm1);
        let x = &x + dropout(feed_forward(config, tensors, &x, pass), p, pass);
        normalize(&x, config.norm, &tensors.norm2)
    }
}
