//! How many floating-point operations a model needs, counted from its manifest.
//!
//! A matrix costs two operations for each of its numbers at every position that it is applied to. Attention costs
//! 4·D for every pair of positions that it looks at: a causal model's pairs are counted once, not as a full square,
//! so utilizations come out lower than where the square is counted. Normalizations, activations and softmax are left
//! out, as everywhere.

use grug::config::ModelConfig;
use grug::error::Result;
use grug::manifest::{BlockTensors, ModelTensors, TensorSpec};

use crate::config::Objective;

/// Pairs of positions that attention looks at in one layer; `window` positions at most each, 0 = all.
fn attended_pairs(causal: bool, window: usize, positions: usize) -> f64 {
    let n = positions as f64;
    if !causal {
        return n * n;
    }
    match window.min(positions) {
        0 => n * (n + 1.0) / 2.0,
        window => {
            let w = window as f64;
            w * (w + 1.0) / 2.0 + (n - w) * w
        }
    }
}

/// Operations of one forward pass over `bytes` bytes. A training step needs three times as many: the backward pass
/// costs two forward passes.
pub fn forward_flops(config: &ModelConfig, objective: Objective, bytes: usize) -> Result<f64> {
    let model = ModelTensors::specs(config);
    let positions = config.check_input_len(bytes)?;
    let aggregated_positions = config.aggregated_len(positions)?;
    let products = |spec: &TensorSpec, positions: usize| 2.0 * spec.len() as f64 * positions as f64;
    let mut flops = 0.0;

    let mut length = bytes;
    for (i, layer) in model.conv_frontend.iter().enumerate() {
        let conv = config.conv_frontend.as_ref().expect("its tensors exist");
        if !config.is_causal() {
            length = (length + 2 * conv.side_padding(i) - conv.kernels[i]) / conv.stride + 1;
        }
        flops += products(&layer.conv.weight, length);
    }
    if let Some(projection) = &model.projection {
        flops += products(&projection.weight, positions);
    }
    let stack = |blocks: &[BlockTensors<TensorSpec>], width: usize, window: usize, positions: usize| -> f64 {
        let attention = 4.0 * width as f64 * attended_pairs(config.is_causal(), window, positions);
        blocks
            .iter()
            .map(|block| {
                [&block.in_proj, &block.out_proj, &block.linear1, &block.linear2]
                    .map(|linear| products(&linear.weight, positions))
                    .iter()
                    .sum::<f64>()
                    + attention
            })
            .sum()
    };
    flops += stack(&model.blocks, config.d_model, config.attention_window, positions);
    if let (Some(tensors), Some(stream)) = (&model.aggregated, &config.aggregated_stream) {
        flops += products(&tensors.conv.weight, aggregated_positions);
        flops += stack(&tensors.blocks, stream.d_model, 0, aggregated_positions);
    }
    let predictions = match objective {
        Objective::Every => positions,
        Objective::Last => 1,
    };
    flops += 2.0 * (grug::config::VOCAB * config.output_dim() * predictions) as f64;
    Ok(flops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PRESETS, RunConfig};

    #[test]
    fn a_plain_model_counts_as_by_hand() {
        let config = ModelConfig::from_toml(
            "context_bytes = 8\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 3\npositions = \"rotary\"",
        )
        .unwrap();
        // A block: qkv 3·16², out 16², feed-forward 2·4·16², at 8 positions; 36 pairs of causal attention.
        let block = 2 * 12 * 256 * 8 + 4 * 16 * 36;
        let head = 2 * 256 * 16 * 8;
        assert_eq!(forward_flops(&config, Objective::Every, 8).unwrap(), (3 * block + head) as f64);
        assert_eq!(forward_flops(&config, Objective::Last, 8).unwrap(), (3 * block + head / 8) as f64);
        let windowed = ModelConfig { attention_window: 2, ..config };
        let block = 2 * 12 * 256 * 8 + 4 * 16 * 15;
        assert_eq!(forward_flops(&windowed, Objective::Every, 8).unwrap(), (3 * block + head) as f64);
    }

    #[test]
    fn every_preset_can_be_counted() {
        for preset in PRESETS {
            let run = RunConfig::from_toml(preset.toml).unwrap();
            let flops = forward_flops(&run.model, run.objective(), run.window_bytes()).unwrap();
            assert!(flops > 1e6, "{}: {flops}", preset.name);
        }
    }
}
