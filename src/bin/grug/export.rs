//! `grug export`: a model for other programs.

use std::path::PathBuf;

use clap::Args;
use grug::checkpoint::Checkpoint;
use grug::gguf::{Kind, export};

use crate::output::{Outcome, grouped, print, refuse_overwriting};

/// Write a model in another program's format.
///
/// GGUF is what llama.cpp reads. Causal models of GPT-2's shape can be exported: norm_first, LayerNorm, GELU, learned or
/// sinusoidal positions, a single stream, in floats. What cannot be expressed is refused by name.
#[derive(Args)]
pub struct Arguments {
    /// The model file.
    model: PathBuf,
    /// As GGUF.
    #[arg(long, required = true)]
    gguf: bool,
    /// The file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// How its matrices are stored: f32, f16, q8_0 or q4_0.
    #[arg(long, default_value = "f16")]
    to: Kind,
}

pub fn run(arguments: &Arguments) -> Outcome {
    refuse_overwriting(&arguments.model, &arguments.output)?;
    let file = Checkpoint::open(&arguments.model)?;
    export(&file, arguments.to, &arguments.output).map_err(|e| e.in_file(&arguments.model))?;
    let len = std::fs::metadata(&arguments.output)
        .map_err(|e| grug::Error::io("reading", &arguments.output, e))?
        .len();
    let text = format!(
        "{}: GGUF, gpt2, {} in {} bytes\n",
        arguments.output.display(),
        arguments.to.name(),
        grouped(len)
    );
    print(text.as_bytes())
}
