//! `grug info`: what a model file holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use grug::checkpoint::{CONFIG_KEY, Checkpoint};
use grug::config::{Attention, ModelConfig};
use grug::manifest::ModelTensors;

use crate::output::{Outcome, grouped, one_line, print};

/// Show a model's architecture, size and metadata.
#[derive(Args)]
pub struct Arguments {
    /// The model file.
    model: PathBuf,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// What kind of model it is, in words.
fn architecture(config: &ModelConfig) -> String {
    let attention = match config.attention {
        Attention::Causal => "causal",
        Attention::Bidirectional => "bidirectional",
    };
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let stack = |layers: usize, width: usize| format!("{} of width {width}", count(layers, "layer"));
    let mut text =
        format!("{attention}, {}, {}", stack(config.n_layers, config.d_model), count(config.n_heads, "head"));
    if let Some(agg) = &config.aggregated_stream {
        text += &format!(", beside an aggregated stream of {}", stack(agg.n_layers, agg.d_model));
    }
    if let Some(conv) = &config.conv_frontend {
        text += &format!(", behind {}", count(conv.channels.len(), "convolution"));
    }
    text
}

pub fn run(arguments: &Arguments) -> Outcome {
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let config = checkpoint.config();
    let (mut n_params, mut dtypes) = (0, BTreeMap::<&str, u64>::new());
    for spec in ModelTensors::specs(config).into_leaves() {
        n_params += spec.len() as u64;
        *dtypes.entry(checkpoint.matrix(&spec)?.kind_name()).or_default() += spec.len() as u64;
    }
    let metadata: BTreeMap<&String, &String> =
        checkpoint.metadata().iter().filter(|(key, _)| *key != CONFIG_KEY).collect();
    if arguments.json {
        let json = serde_json::json!({
            "file": arguments.model.display().to_string(),
            "n_params": n_params,
            "params_by_dtype": dtypes,
            "weight_bytes": checkpoint.weight_bytes(),
            "file_bytes": checkpoint.bytes().len(),
            "context_bytes": config.window_bytes(),
            "config": config,
            "metadata": metadata,
        });
        return print(format!("{json}\n").as_bytes());
    }
    let stored: Vec<String> = dtypes.iter().map(|(dtype, n)| format!("{} {dtype}", grouped(*n))).collect();
    let mut text = format!(
        "{}\narchitecture  {}\nparameters    {} ({})\nweights       {} bytes\ncontext       {} bytes\n\nconfiguration\n",
        arguments.model.display(),
        architecture(config),
        grouped(n_params),
        stored.join(", "),
        grouped(checkpoint.weight_bytes() as u64),
        grouped(config.window_bytes() as u64),
    );
    for line in config.to_toml().lines() {
        text += format!("  {line}").trim_end();
        text.push('\n');
    }
    if !metadata.is_empty() {
        text += "\nmetadata\n";
    }
    for (key, value) in metadata {
        text += &format!("  {} = {}\n", one_line(key), one_line(value));
    }
    print(text.as_bytes())
}
