//! What every GPU engine promises, against the CPU's. A test program includes this beside `common`, `decode` and `rest`,
//! and says with `DEVICE`, `NEEDS` and `prepare` on what it runs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use grug::checkpoint::{Checkpoint, StoredMatrix, TensorToWrite, f32_bytes, save_model};
use grug::init::initial_values;
use grug::manifest::{Init, ModelTensors, TensorSpec};
use grug::quantize::{CODES, Target, quantize};
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
         positions = \"learned\"\nmax_positions = 16\nffn_gamma = 0.3\n",
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

/// The same random model on the CPU and on the GPU, of f32, f16, bf16, int8 or 4-bit weights. Its numbers are such as that
/// holds; the GPU has them so, the CPU in f32, so that nothing but the GPU's arithmetic differs. Made once: compiling
/// kernels takes time.
pub fn models(toml: &str, dtype: &str) -> [Model; 2] {
    static MADE: Mutex<BTreeMap<(String, String), [Model; 2]>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    made.entry((toml.into(), dtype.into())).or_insert_with(|| make_models(toml, dtype)).clone()
}

fn make_models(toml: &str, dtype: &str) -> [Model; 2] {
    prepare();
    let config = ModelConfig::from_toml(toml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [plain, stored] = ["plain", "stored"].map(|name| folder.path().join(name));
    let specs = ModelTensors::specs(&config).into_leaves();
    let save = |numbers: &[Vec<f32>]| {
        let bytes: Vec<Vec<u8>> = numbers.iter().map(|numbers| f32_bytes(numbers)).collect();
        let tensors: Vec<_> = specs
            .iter()
            .zip(&bytes)
            .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
            .collect();
        save_model(&plain, &config, &BTreeMap::new(), &tensors).unwrap();
    };
    let random = specs.iter().enumerate().map(|(i, spec)| {
        let mut noise = spec.clone();
        noise.init = Init::Normal(0.1);
        let noise = initial_values(&noise, i, 8);
        initial_values(spec, i, 7).into_iter().zip(noise).map(|(v, n)| v + n).collect()
    });
    save(&random.collect::<Vec<_>>());
    if dtype != "F32" {
        quantize(&Checkpoint::open_copied(&plain).unwrap(), dtype.parse::<Target>().unwrap(), &stored)
            .unwrap();
        let file = Checkpoint::open_copied(&stored).unwrap();
        save(&specs.iter().map(|spec| numbers(&file, spec)).collect::<Vec<_>>());
    }
    let stored = if dtype == "F32" { &plain } else { &stored };
    [("cpu", &plain), (DEVICE, stored)].map(|(device, path)| {
        let options = ModelOptions { n_threads: 1, device: device.into(), ..Default::default() };
        Model::from_checkpoint(Checkpoint::open_copied(path).unwrap(), &options)
            .unwrap_or_else(|error| panic!("{error}\nthese tests need {NEEDS}"))
    })
}

/// What the numbers of a tensor stand for, as grug::quantize describes its layouts.
fn numbers(file: &Checkpoint, spec: &TensorSpec) -> Vec<f32> {
    let rows = spec.shape[0];
    let cols = spec.len() / rows;
    let padded = cols.next_multiple_of(64);
    let places = (0..rows).flat_map(|r| (0..cols).map(move |c| (r / 16, r % 16, c)));
    match file.matrix(spec).unwrap() {
        StoredMatrix::Float(view) => view.to_f32(),
        StoredMatrix::Int8 { packed, scales } => places
            .map(|(t, r, c)| {
                let scale = f32::from_le_bytes(scales[4 * (16 * t + r)..][..4].try_into().unwrap());
                scale * packed[((t * padded / 4 + c / 4) * 16 + r) * 4 + c % 4] as i8 as f32
            })
            .collect(),
        StoredMatrix::Int4 { packed, scales } => places
            .map(|(t, r, c)| {
                let both = packed[((t * padded / 8 + c / 8) * 16 + r) * 4 + c % 4];
                let code = if c % 8 < 4 { both % 16 } else { both / 16 };
                let scale = &scales[2 * ((t * padded / 32 + c / 32) * 16 + r)..][..2];
                half::f16::from_le_bytes(scale.try_into().unwrap()).to_f32() * CODES[code as usize] as f32
            })
            .collect(),
    }
}

pub fn session(model: &Model) -> Session {
    Session::new(model, &SessionOptions::default()).unwrap()
}

pub fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(&options).unwrap()
}
