//! Text from the trainer's own forward pass: every byte costs a pass over the whole context. The runtime, which keeps
//! a key/value cache, is the fast way; this one needs no file.

use grug::config::VOCAB;
use grug::error::Result;
use grug::sampler::Sampler;
use tch::{Kind, Tensor};

use crate::model::{Model, Pass, Rows, to_f32};

/// Draws `count` bytes after `prompt`, handing each to `sink`, which may end it early by returning false.
///
/// The model sees the last `window_bytes` bytes. An empty prompt starts from a single byte 0, and a model that wants
/// its window full gets byte 0 on the left, both as published.
pub fn generate(
    model: &Model,
    prompt: &[u8],
    count: usize,
    sampler: &mut Sampler,
    mut sink: impl FnMut(u8) -> bool,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let config = model.config();
    let window = config.window_bytes();
    let mut text = prompt.to_vec();
    if text.is_empty() {
        text.push(0);
    }
    for _ in 0..count {
        let seen = &text[text.len().saturating_sub(window)..];
        let mut input = Vec::with_capacity(window);
        if config.pad_short_input {
            input.resize(window - seen.len(), 0);
        }
        input.extend_from_slice(seen);
        let input =
            Tensor::from_data_size(&input, &[1, input.len() as i64], Kind::Uint8).to_device(model.device());
        let logits = to_f32(&model.forward(&input, Pass { rows: Rows::Last, train: false })?);
        let logits: &[f32; VOCAB] = logits.as_slice().try_into().expect("256 logits");
        let byte = sampler.pick(logits)?;
        if !sink(byte) {
            break;
        }
        text.push(byte);
    }
    Ok(())
}
