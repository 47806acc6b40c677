//! What every GPU engine promises, against the CPU's. A test program includes this beside `common`, `decode` and `rest`,
//! and says with `DEVICE`, `NEEDS` and `prepare` on what it runs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use grug::checkpoint::{Checkpoint, TensorToWrite, f32_bytes, save_model};
use grug::init::initial_values;
use grug::manifest::{Init, ModelTensors};
use grug::{Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions};

use crate::common::ALL;
use crate::{DEVICE, NEEDS, prepare};

/// What the other models leave out.
pub const MORE: [(&str, &str); 7] = [
    (
        "squared ReLU, grouped heads wider than a workgroup",
        "context_bytes = 40\nembedding_dim = 300\nd_model = 300\nn_heads = 2\nn_kv_heads = 1\nn_layers = 1\n\
         positions = \"rotary\"\nffn_activation = \"relu2\"\nffn_multiplier = 8\nnorm_first = true\ntied_head = true\n",
    ),
    (
        "odd widths, a context of several blocks of attention",
        "context_bytes = 300\nembedding_dim = 13\nd_model = 15\nn_heads = 5\nn_layers = 2\n\
         positions = \"sinusoidal\"\n",
    ),
    (
        "curved",
        "context_bytes = 16\nattention = \"bidirectional\"\nembedding_dim = 16\nd_model = 16\nn_heads = 2\n\
         n_layers = 2\npositions = \"sinusoidal\"\nffn_gamma = 0.3\nnorm_first = true\n",
    ),
    (
        "causal, curved",
        "context_bytes = 16\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 2\n\
         positions = \"learned\"\nmax_positions = 16\nffn_gamma = 0.3\nbigram_dim = 5\n",
    ),
    (
        "published convolutions, even kernel, stride, learned positions",
        "context_bytes = 20\nattention = \"bidirectional\"\nembedding_dim = 10\nd_model = 12\nn_heads = 3\n\
         n_layers = 2\npositions = \"learned\"\nmax_positions = 16\n\
         conv_frontend = { channels = [9, 12], kernels = [4, 5], stride = 2, padding = \"replicate\" }\n",
    ),
    (
        "convolutions with biases, wrapped",
        "context_bytes = 20\nattention = \"bidirectional\"\nembedding_dim = 10\nd_model = 12\nn_heads = 3\n\
         n_layers = 1\npositions = \"sinusoidal\"\nconv_frontend = { channels = [9, 12], kernels = [9, 3],\
         padding = \"circular\", layer_norm = false }\n",
    ),
    (
        "convolutions padded with zeros",
        "context_bytes = 12\nattention = \"bidirectional\"\nembedding_dim = 10\nd_model = 12\nn_heads = 3\n\
         n_layers = 1\npositions = \"sinusoidal\"\npad_short_input = true\n\
         conv_frontend = { channels = [12], kernels = [7] }\n",
    ),
];

pub fn every_kind() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.into_iter().chain(MORE)
}

/// The same random model on the CPU and on the GPU. Its numbers are such as this dtype holds; the GPU has them in that dtype,
/// the CPU in f32, so that nothing but the GPU's arithmetic differs. Made once: compiling kernels takes time.
pub fn models(toml: &str, dtype: &str) -> [Model; 2] {
    static MADE: Mutex<BTreeMap<(String, String), [Model; 2]>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    made.entry((toml.into(), dtype.into())).or_insert_with(|| make_models(toml, dtype)).clone()
}

fn make_models(toml: &str, dtype: &str) -> [Model; 2] {
    prepare();
    let config = ModelConfig::from_toml(toml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let specs = ModelTensors::specs(&config).into_leaves();
    let numbers = specs.iter().enumerate().map(|(i, spec)| {
        let mut noise = spec.clone();
        noise.init = Init::Normal(0.1);
        let noise = initial_values(&noise, i, 8);
        let values = initial_values(spec, i, 7).into_iter().zip(noise).map(|(v, n)| v + n);
        match dtype {
            "F32" => values.collect(),
            "F16" => values.map(|v| half::f16::from_f32(v).to_f32()).collect(),
            _ => values.map(|v| half::bf16::from_f32(v).to_f32()).collect(),
        }
    });
    let numbers: Vec<Vec<f32>> = numbers.collect();
    [("cpu", "F32"), (DEVICE, dtype)].map(|(device, dtype)| {
        let bytes: Vec<Vec<u8>> = numbers
            .iter()
            .map(|numbers| match dtype {
                "F32" => f32_bytes(numbers),
                "F16" => numbers.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
                _ => numbers.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            })
            .collect();
        let tensors: Vec<_> = specs
            .iter()
            .zip(&bytes)
            .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype, shape: &spec.shape, bytes })
            .collect();
        save_model(&path, &config, &BTreeMap::new(), &tensors).unwrap();
        let options = ModelOptions { n_threads: 1, device: device.into(), ..Default::default() };
        Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options)
            .unwrap_or_else(|error| panic!("{error}\nthese tests need {NEEDS}"))
    })
}

pub fn session(model: &Model) -> Session {
    Session::new(model, &SessionOptions::default()).unwrap()
}

pub fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(&options).unwrap()
}
