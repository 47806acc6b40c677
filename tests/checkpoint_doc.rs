//! `docs/checkpoint-format.md` names every tensor that a model can have.

mod common;

use grug::ModelConfig;
use grug::manifest::ModelTensors;

/// A name as the document has it: numbers become `{n}` or `{i}`, and a block's tensors lose their prefix.
fn documented(name: &str) -> Vec<String> {
    for stack in ["transformer_encoder_layers", "byte_stream_encoder", "agg_stream_encoder"] {
        if let Some(rest) = name.strip_prefix(stack) {
            let (_, rest) = rest[1..].split_once('.').unwrap();
            return vec![format!("`{stack}.{{n}}.…`"), format!("`.{rest}`")];
        }
    }
    let name: Vec<&str> =
        name.split('.').map(|part| if part.parse::<usize>().is_ok() { "{i}" } else { part }).collect();
    vec![format!("`{}`", name.join("."))]
}

#[test]
fn every_tensor_is_in_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/checkpoint-format.md");
    let text = std::fs::read_to_string(path).unwrap();
    // "`x.weight`, `.bias`" names `x.bias` too.
    let mut known = String::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cell = line.split('|').nth(1).unwrap();
        let mut stem = String::new();
        for name in cell.split(',').map(|name| name.trim().trim_matches('`')) {
            let full = if name == ".bias" { format!("{stem}.bias") } else { name.to_string() };
            stem = full.trim_end_matches(".weight").to_string();
            known += &format!("`{full}`\n");
        }
    }
    let odd = "context_bytes = 16\nattention = \"bidirectional\"\nembedding_dim = 12\nd_model = 16\nn_heads = 2\n\
               n_layers = 1\npositions = \"learned\"\nmax_positions = 16\nembedding_norm = true\n\
               conv_frontend = { channels = [12], kernels = [3], layer_norm = false }\n\
               aggregated_stream = { d_model = 20, n_layers = 2, kernel = 4, stride = 3 }\n";
    for toml in common::ALL.iter().map(|(_, toml)| *toml).chain([odd]) {
        for spec in ModelTensors::specs(&ModelConfig::from_toml(toml).unwrap()).into_leaves() {
            for name in documented(&spec.name) {
                assert!(known.contains(&name), "{name} of {} is not in the document: {known}", spec.name);
            }
        }
    }
}
