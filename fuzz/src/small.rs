//! A small portable model, made once.

use std::cell::OnceCell;

use grug::checkpoint::Checkpoint;
use grug::init::write_initial_model;
use grug::{Model, ModelConfig, ModelOptions};

/// Runs `f` with a model that slides often: causal parallel streams, a frontend, a context of 24 bytes.
pub fn with_model<T>(f: impl FnOnce(&Model) -> T) -> T {
    thread_local!(static MODEL: OnceCell<Model> = const { OnceCell::new() });
    MODEL.with(|model| f(model.get_or_init(make)))
}

fn make() -> Model {
    let config = "context_bytes = 24\nembedding_dim = 6\nd_model = 8\nn_heads = 2\nn_layers = 1\n\
                  positions = \"rotary\"\nconv_frontend = { channels = [6], kernels = [3] }\n\
                  aggregated_stream = { d_model = 8, n_layers = 1, kernel = 5, stride = 3 }\n";
    let config = ModelConfig::from_toml(config).expect("a valid configuration");
    let folder = tempfile::tempdir().expect("a folder for the model");
    let path = folder.path().join("model.safetensors");
    write_initial_model(&path, &config, 1).expect("a valid model");
    let file = Checkpoint::open_copied(&path).expect("a valid file");
    let options = ModelOptions { n_threads: 1, portable: true, ..Default::default() };
    Model::from_checkpoint(file, &options).expect("a valid model")
}

/// The data with the beginning of `valid` written over it, but for the numbers in `free`, and a right checksum behind
/// it where one is wanted: so that mutations get past the first checks.
pub fn patched(data: &[u8], valid: &[u8], free: std::ops::Range<usize>, checksum: bool) -> Vec<u8> {
    let mut out = data.to_vec();
    for i in (0..free.start.min(out.len())).chain(free.end..valid.len().min(out.len())) {
        out[i] = valid[i];
    }
    if checksum {
        out.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&out).to_le_bytes());
    }
    out
}
