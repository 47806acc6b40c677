//! Twin of src/model/streams.rs: the whole pass, one stream or two.

use grug::config::AggregatedStream;
use grug::manifest::{AggregatedTensors, BlockTensors};
use tch::Tensor;

use super::attention::Rotary;
use super::block::block;
use super::conv_frontend::conv_frontend;
use super::embedding::{add_positions, embed};
use super::head::head;
use super::recompute::block_twice;
use super::{Model, Pass, Rows, dropout, linear, normalize};

/// What the blocks of one stream share.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    /// Rotary angles of its heads.
    pub rotary: Option<&'a Rotary>,
    /// How many positions back attention reaches, itself included; 0 = all.
    pub window: usize,
}

/// The blocks of a stream, (batch, T, width) to the rows asked for.
fn stack(
    model: &Model,
    stream: Stream<'_>,
    blocks: &[BlockTensors<Tensor>],
    mut x: Tensor,
    pass: Pass,
) -> Tensor {
    for (n, tensors) in blocks.iter().enumerate() {
        // Rows that nobody will read are left out where the last block would compute them.
        let rows = if n + 1 == blocks.len() { pass.rows } else { Rows::All };
        let compute = if model.recomputes && pass.train { block_twice } else { block };
        x = compute(&model.config, tensors, stream, &x, rows, pass);
    }
    x
}

/// The aggregated stream: arriving vectors (batch, T, E) to the coarse state that each byte position may use,
/// (batch, T, A), or (batch, 1, A) for the last position.
fn aggregated(
    model: &Model,
    agg: &AggregatedStream,
    tensors: &AggregatedTensors<Tensor>,
    arriving: &Tensor,
    pass: Pass,
) -> Tensor {
    let (batch, len, _) = arriving.size3().expect("(batch, positions, width)");
    let (kernel, stride) = (agg.kernel as i64, agg.stride as i64);
    let channels_first = arriving.transpose(1, 2);
    let stream = Stream { rotary: model.rotary.get(1), window: 0 };
    let coarse = |input: Tensor, rows: Rows| {
        let z =
            input.conv1d(&tensors.conv.weight, tensors.conv.bias.as_ref(), stride, 0, 1, 1).transpose(1, 2); // (batch, coarse positions, A)
        let z = dropout(add_positions(model, 1, z), model.config.dropout.positions, pass);
        stack(model, stream, &tensors.blocks, z, Pass { rows, ..pass })
    };
    let Some(start) = &tensors.start else {
        // A bidirectional model predicts from its last positions; every other row has the same coarse partner.
        let z = coarse(channels_first, Rows::Last);
        return match pass.rows {
            Rows::All => z.expand([-1, len, -1], false),
            Rows::Last => z,
        };
    };
    let start = start.view([1, 1, -1]).expand([batch, -1, -1], false);
    let complete = len / stride; // windows that end within the input
    match pass.rows {
        Rows::Last if complete == 0 => start,
        Rows::All if complete == 0 => start.expand([-1, len, -1], false),
        Rows::Last => coarse(channels_first.constant_pad_nd([kernel - stride, 0]), Rows::Last),
        Rows::All => {
            // Position t uses the last window that ends at or before it: number (t + 1) / stride - 1.
            let z = coarse(channels_first.constant_pad_nd([kernel - stride, 0]), Rows::All);
            let waiting = start.to_kind(z.kind()).expand([-1, stride - 1, -1], false);
            Tensor::cat(&[waiting, z.repeat_interleave_self_int(stride, 1, None)], 1).narrow(1, 0, len)
        }
    }
}

/// Bytes (batch, T) to logits.
pub fn forward(model: &Model, bytes: &Tensor, pass: Pass) -> Tensor {
    let (config, tensors) = (&model.config, &model.tensors);
    let arriving = conv_frontend(config, &tensors.conv_frontend, embed(tensors, bytes), pass);

    let x = match &tensors.projection {
        Some(projection) => linear(&arriving, projection),
        None => arriving.shallow_clone(),
    };
    let mut x = dropout(add_positions(model, 0, x), config.dropout.positions, pass);
    if let Some(norm) = &tensors.embedding_norm {
        x = normalize(&x, config.norm, norm);
    }
    let stream = Stream { rotary: model.rotary.first(), window: config.attention_window };
    let x = stack(model, stream, &tensors.blocks, x, pass);

    let x = match (&tensors.aggregated, &config.aggregated_stream) {
        (Some(tensors), Some(agg)) => {
            let z = aggregated(model, agg, tensors, &arriving, pass);
            Tensor::cat(&[&x, &z.to_kind(x.kind())], 2)
        }
        _ => x,
    };
    let logits = head(config, tensors, &x, pass);
    match pass.rows {
        Rows::All => logits,
        Rows::Last => logits.squeeze_dim(1),
    }
}
