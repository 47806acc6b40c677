//! `grug quantize`: the same model with smaller weights.

use std::path::PathBuf;

use clap::Args;
use grug::checkpoint::Checkpoint;
use grug::quantize::{Target, quantize};

use crate::output::{Outcome, grouped, print};

/// Write a model with smaller weights: a file that is mapped as it is, and runs faster.
#[derive(Args)]
pub struct Arguments {
    /// The model file, in floats.
    model: PathBuf,
    /// The file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// What the matrices become: int8, int4, f16 or bf16.
    #[arg(long, default_value = "int8")]
    to: Target,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let file = Checkpoint::open(&arguments.model)?;
    quantize(&file, arguments.to, &arguments.output).map_err(|e| e.in_file(&arguments.model))?;
    let after = Checkpoint::open(&arguments.output)?;
    let text = format!(
        "{}: {} in {} bytes, from {}\n",
        arguments.output.display(),
        arguments.to.name(),
        grouped(after.bytes().len() as u64),
        grouped(file.bytes().len() as u64)
    );
    print(text.as_bytes())
}
