//! Any bytes as a model file: an error, or a model that computes.
#![no_main]

use grug::checkpoint::Checkpoint;
use grug::{Model, ModelOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes(data.to_vec())
        && let Ok(model) =
            Model::from_checkpoint(checkpoint, &ModelOptions { n_threads: 1, ..Default::default() })
    {
        let _ = model.raw_logits(b"some bytes");
    }
});
