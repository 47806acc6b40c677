//! `grug import`: a published `.pth` checkpoint becomes a model of ours.

use std::path::PathBuf;

use clap::Args;
use grug::import::read_pth;
use grug::manifest::ModelTensors;

use crate::output::{Outcome, grouped, print, refuse_overwriting};

/// Turn a published PyTorch checkpoint (.pth) into a model file.
///
/// The file is read without PyTorch and without executing it; one that asks for anything but tensors and plain values
/// is refused. The configuration comes from inside it. An existing MODEL is replaced only when all is well.
#[derive(Args)]
pub struct Arguments {
    /// The checkpoint, as the published trainer saves it.
    #[arg(value_name = "FILE.pth")]
    file: PathBuf,
    /// The model file to write.
    #[arg(short, long, value_name = "MODEL.safetensors")]
    output: PathBuf,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let Arguments { file, output } = arguments;
    refuse_overwriting(file, output)?;
    let imported = read_pth(file)?;
    imported.save(output)?;
    let text = format!(
        "{}: {} generation, {} parameters, context of {} bytes\n",
        output.display(),
        imported.config.generation.name(),
        grouped(ModelTensors::count_parameters(&imported.model) as u64),
        imported.model.window_bytes()
    );
    print(text.as_bytes())
}
