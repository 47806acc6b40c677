//! Models for tests: small, and with no tensor that is all zeros or ones, so that nothing hides behind them.
#![allow(dead_code)] // each test program uses its own part

mod skip;

use std::collections::BTreeMap;
use std::path::Path;

use grug::checkpoint::{Checkpoint, TensorToWrite, f32_bytes, save_model};
use grug::init::initial_values;
use grug::manifest::{Init, ModelTensors};
use grug::quantize::{Target, quantize};
use grug::{Model, ModelConfig, ModelOptions};

#[allow(unused_imports)] // as above
pub use skip::skip;

/// A causal model with everything published on: learned positions, LayerNorm, biases, post-norm.
pub const CAUSAL_PLAIN: &str = "context_bytes = 24\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 2\n\
     positions = \"learned\"\nmax_positions = 24\n";

/// A causal model with every modern option on, and a conv frontend.
pub const CAUSAL_MODERN: &str = "context_bytes = 24\nembedding_dim = 12\nd_model = 16\nn_heads = 4\nn_kv_heads = 2\n\
     n_layers = 2\npositions = \"rotary\"\nnorm = \"rms\"\nbias = false\nnorm_first = true\nqk_norm = true\n\
     ffn_activation = \"swiglu\"\nffn_multiplier = 3\nattention_window = 9\nembedding_norm = true\n\
     logit_softcap = 15.0\nconv_frontend = { channels = [10, 14], kernels = [4, 3] }\n";

/// Causal parallel streams: a windowed fine stream and a wider coarse one that runs once in three bytes.
pub const CAUSAL_PARALLEL: &str = "context_bytes = 24\nembedding_dim = 12\nd_model = 16\nn_heads = 2\nn_layers = 2\n\
     positions = \"rotary\"\nnorm_first = true\nattention_window = 7\n\
     conv_frontend = { channels = [12], kernels = [3] }\n\
     aggregated_stream = { d_model = 20, n_layers = 2, kernel = 5, stride = 3 }\n";

/// The published later single stream: bidirectional, sinusoidal, short inputs padded.
pub const BIDIRECTIONAL_PADDED: &str = "context_bytes = 16\nattention = \"bidirectional\"\nembedding_dim = 12\n\
     d_model = 16\nn_heads = 2\nn_layers = 2\npositions = \"sinusoidal\"\npad_short_input = true\n";

/// The published parallel streams with a conv frontend, short inputs as they are.
pub const PARALLEL: &str = "context_bytes = 16\nattention = \"bidirectional\"\nembedding_dim = 12\nd_model = 16\n\
     n_heads = 2\nn_layers = 1\npositions = \"sinusoidal\"\n\
     conv_frontend = { channels = [12], kernels = [3], padding = \"reflect\", activation = \"relu\" }\n\
     aggregated_stream = { d_model = 20, n_layers = 2, kernel = 4, stride = 3 }\n";

/// Every kind of model, by name.
pub const ALL: [(&str, &str); 5] = [
    ("causal plain", CAUSAL_PLAIN),
    ("causal modern", CAUSAL_MODERN),
    ("causal parallel", CAUSAL_PARALLEL),
    ("bidirectional padded", BIDIRECTIONAL_PADDED),
    ("parallel", PARALLEL),
];

/// Writes a model of this configuration with random weights.
pub fn write_random_model(path: &Path, config: &ModelConfig, seed: u64) {
    let specs = ModelTensors::specs(config).into_leaves();
    let bytes: Vec<Vec<u8>> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let mut values = initial_values(spec, i, seed);
            let mut noise = spec.clone();
            noise.init = Init::Normal(0.1);
            values.iter_mut().zip(initial_values(&noise, i, seed + 1)).for_each(|(v, n)| *v += n);
            f32_bytes(&values)
        })
        .collect();
    let tensors: Vec<_> = specs
        .iter()
        .zip(&bytes)
        .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
        .collect();
    save_model(path, config, &BTreeMap::new(), &tensors).unwrap();
}

/// A model of this TOML with random weights, in each of these kinds of weights (`None`: f32) on as many threads.
pub fn random_models(toml: &str, kinds: &[(Option<Target>, usize)]) -> Vec<(String, Model)> {
    let folder = tempfile::tempdir().unwrap();
    let floats = folder.path().join("f32.safetensors");
    write_random_model(&floats, &ModelConfig::from_toml(toml).unwrap(), 1);
    let load = |&(target, n_threads): &(Option<Target>, usize)| {
        let path = target.map_or(floats.clone(), |target| folder.path().join(target.name()));
        if let Some(target) = target {
            quantize(&Checkpoint::open(&floats).unwrap(), target, &path).unwrap();
        }
        let options = ModelOptions { n_threads, ..Default::default() };
        let model = Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options).unwrap();
        (format!("{target:?} on {n_threads}"), model)
    };
    kinds.iter().map(load).collect()
}

/// A model of this TOML with random weights, on this many threads.
pub fn random_model_on(toml: &str, n_threads: usize) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), 1);
    let options = ModelOptions { n_threads, ..Default::default() };
    Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options).unwrap()
}

/// A model of this TOML with random weights, on the calling thread.
pub fn random_model(toml: &str) -> Model {
    random_model_on(toml, 1)
}

/// Bytes that look like nothing in particular.
pub fn some_bytes(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 21) as u8).collect()
}

/// The largest difference, relative to the largest reference.
pub fn relative_difference(a: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(a.len(), reference.len());
    let largest = reference.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    a.iter().zip(reference).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}
