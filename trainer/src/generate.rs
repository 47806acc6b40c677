//! Text from a model, by the runtime: the same bytes that a program which embeds it would get, and as fast.

use std::collections::BTreeMap;

use grug::checkpoint::{Checkpoint, TensorToWrite, f32_bytes, model_bytes};
use grug::error::Result;
use grug::sampler::Sampler;
use grug::session::{Session, SessionOptions, StopReason};

use crate::model::{Model, to_f32};

/// The runtime's form of a model, with as many threads as libtorch has. It copies the weights.
pub fn runtime_model(model: &Model) -> Result<grug::Model> {
    let bytes: Vec<Vec<u8>> = model.parameters().iter().map(|tensor| f32_bytes(&to_f32(tensor))).collect();
    let specs = model.specs();
    let tensors: Vec<_> = specs
        .iter()
        .zip(&bytes)
        .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
        .collect();
    let file = model_bytes(model.config(), &BTreeMap::new(), &tensors)?;
    let n_threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let options = grug::ModelOptions { n_threads, ..Default::default() };
    grug::Model::from_checkpoint(Checkpoint::from_bytes(file)?, &options)
}

/// Draws `count` bytes after `prompt`, or fewer where the model ends its document, handing each to `sink`, which may end
/// it early by returning false.
pub fn generate(
    model: &grug::Model,
    prompt: &[u8],
    count: usize,
    sampler: &mut Sampler,
    mut sink: impl FnMut(u8) -> bool,
) -> Result<()> {
    let mut session = Session::new(model, &SessionOptions::default())?;
    session.feed(prompt)?;
    for _ in 0..count {
        let (mut byte, mut n) = ([0], 0);
        let reason = session.generate(sampler, &[], &mut byte, &mut n)?;
        if byte[..n].iter().any(|&byte| !sink(byte)) || reason != StopReason::Capacity {
            break;
        }
    }
    Ok(())
}
