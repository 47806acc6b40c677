//! What `grug export --gguf` writes, read by the `gguf` package and computed by NumPy, is the model.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::{
    CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, PARALLEL, relative_difference, write_random_model,
};
use grug::checkpoint::Checkpoint;
use grug::gguf::{Kind, export};
use grug::quantize::{Target, quantize};
use grug::{ErrorKind, Model, ModelConfig, ModelOptions};

/// Python with the package, or `None`, said aloud.
fn python() -> Option<Command> {
    let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python")];
    paths.extend(std::env::split_paths(&std::env::var_os("PYTHONPATH").unwrap_or_default()));
    let paths = std::env::join_paths(paths).unwrap();
    let command = || {
        let mut command = Command::new(std::env::var_os("PYTHON").unwrap_or("python3".into()));
        command.env("PYTHONPATH", &paths);
        command
    };
    let has = command().args(["-c", "import gguf, numpy"]).output().is_ok_and(|out| out.status.success());
    if !has {
        common::skip("needs python3 with the packages gguf and numpy");
    }
    has.then(command)
}

/// GPT-2's shape, wide enough that the output layer's bias can be expressed.
const GPT2: &str = "context_bytes = 20\nembedding_dim = 256\nd_model = 256\nn_heads = 4\nn_kv_heads = 2\nn_layers = 2\n\
     positions = \"learned\"\nmax_positions = 33\nnorm_first = true\n";

/// All that is translated: a projection, sinusoidal positions, no biases.
const TRANSLATED: &str = "context_bytes = 24\nembedding_dim = 16\nd_model = 64\nn_heads = 2\nn_layers = 2\nbias = false\n\
     ffn_multiplier = 3\npositions = \"sinusoidal\"\nnorm_first = true\n";

/// The output layer shares the embedding's weights.
const TIED: &str = "context_bytes = 24\nembedding_dim = 64\nd_model = 64\nn_heads = 2\nn_layers = 1\nbias = false\n\
     positions = \"learned\"\nmax_positions = 24\nnorm_first = true\ntied_head = true\n";

#[test]
fn the_gguf_package_reads_the_model_that_was_exported() {
    let Some(_) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model.safetensors"), folder.path().join("model.gguf"));
    for (name, toml) in [("gpt2", GPT2), ("translated", TRANSLATED), ("tied", TIED)] {
        write_random_model(&model, &ModelConfig::from_toml(toml).unwrap(), 1);
        let text = b"To be, or not \0\xFF";
        let options = ModelOptions { n_threads: 1, ..Default::default() };
        let ours = Model::load(&model, &options).unwrap().raw_logits(text).unwrap();
        for (kind, tolerance) in [(Kind::F32, 1e-4), (Kind::F16, 3e-3), (Kind::Q8_0, 3e-2), (Kind::Q4_0, 0.5)]
        {
            export(&Checkpoint::open(&model).unwrap(), kind, &out).unwrap();
            let hex: String = text.iter().map(|b| format!("{b:02x}")).collect();
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_gguf.py");
            let result = python().unwrap().arg(script).arg(&out).arg(hex).output().unwrap();
            assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
            let answer: serde_json::Value = serde_json::from_slice(&result.stdout).unwrap();
            let theirs: Vec<f32> =
                answer["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let difference = relative_difference(&theirs, &ours);
            assert!(difference < tolerance, "{name} {kind:?}: {difference}");
            let kinds: BTreeMap<String, String> = serde_json::from_value(answer["kinds"].clone()).unwrap();
            let wanted = kind.name().to_uppercase();
            assert!(kinds.iter().all(|(tensor, kind)| {
                let is_matrix = ["attn_qkv", "attn_output", "ffn_up", "ffn_down", "token_embd", "output."];
                let is_matrix =
                    tensor.ends_with("weight") && is_matrix.iter().any(|name| tensor.contains(name));
                *kind == if is_matrix && !tensor.contains("norm") { wanted.as_str() } else { "F32" }
            }));
            assert_eq!(answer["eos"], 0);
        }
    }
}

#[test]
fn what_gguf_cannot_express_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("model.safetensors"), folder.path().join("model.gguf"));
    let narrow = TRANSLATED.replace("bias = false\n", "");
    let odd = TRANSLATED.replace("d_model = 64", "d_model = 48");
    for (toml, kind, expected) in [
        (CAUSAL_PLAIN, Kind::F32, "norm_first"),
        (CAUSAL_MODERN, Kind::F32, "a convolutional frontend"),
        (CAUSAL_PARALLEL, Kind::F32, "an aggregated stream"),
        (PARALLEL, Kind::F32, "attention = \"bidirectional\""),
        (&narrow, Kind::F32, "bias of the output layer"),
        (&odd, Kind::Q8_0, "a multiple of 32"),
    ] {
        write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), 1);
        let error = export(&Checkpoint::open(&path).unwrap(), kind, &out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains(expected), "{expected}: {error}");
        assert!(!out.exists());
    }
    write_random_model(&path, &ModelConfig::from_toml(GPT2).unwrap(), 1);
    let small = folder.path().join("small.safetensors");
    quantize(&Checkpoint::open(&path).unwrap(), Target::Int8, &small).unwrap();
    let error = export(&Checkpoint::open(&small).unwrap(), Kind::F32, &out).unwrap_err();
    assert!(error.message().contains("is quantized"), "{error}");
}
