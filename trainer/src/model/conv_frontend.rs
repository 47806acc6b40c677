//! Twin of src/model/conv_frontend.rs: Conv1d, activation, LayerNorm and dropout, layer by layer.

use grug::config::{Activation, ConvPadding, ModelConfig, Norm};
use grug::manifest::ConvTensors;
use tch::Tensor;

use super::{Pass, dropout, normalize};

/// (batch, T, E) to (batch, T', channels of the last layer).
pub fn conv_frontend(config: &ModelConfig, layers: &[ConvTensors<Tensor>], x: Tensor, pass: Pass) -> Tensor {
    let Some(conv) = &config.conv_frontend else { return x };
    let mut x = x;
    for (i, layer) in layers.iter().enumerate() {
        let channels_first = x.transpose(1, 2); // (batch, channels, T)
        let (padded, padding) = if config.is_causal() {
            (channels_first.constant_pad_nd([conv.kernels[i] as i64 - 1, 0]), 0)
        } else {
            let side = conv.side_padding(i) as i64;
            match conv.padding {
                _ if side == 0 => (channels_first, 0),
                ConvPadding::Zeros => (channels_first, side),
                ConvPadding::Reflect => (channels_first.pad([side, side], "reflect", None), 0),
                ConvPadding::Replicate => (channels_first.pad([side, side], "replicate", None), 0),
                ConvPadding::Circular => (channels_first.pad([side, side], "circular", None), 0),
            }
        };
        let y = padded
            .conv1d(&layer.conv.weight, layer.conv.bias.as_ref(), conv.stride as i64, padding, 1, 1)
            .transpose(1, 2); // (batch, T', channels)
        let y = match conv.activation {
            Activation::Gelu => y.gelu("none"),
            Activation::Relu => y.relu(),
            Activation::Relu2 | Activation::Swiglu => unreachable!("refused by ConvFrontend::validate"),
        };
        let y = match &layer.norm {
            Some(norm) => normalize(&y, Norm::Layer, norm),
            None => y,
        };
        x = dropout(y, config.dropout.conv, pass);
    }
    x
}
