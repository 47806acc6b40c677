use std::path::PathBuf;
use std::time::Instant;

use grug::checkpoint::Checkpoint;
use grug::error::{Error, ErrorKind, Result};

use super::{DeviceArgs, stop_flag};
use crate::batch::BatchSource;
use crate::config::{Objective, Precision};
use crate::dataset::{Corpus, Windows, validation_offsets};
use crate::evaluate::evaluate;
use crate::model::Model;
use crate::torch;

/// Measure a model's loss over a file, in nats and bits a byte
///
/// The file is cut into windows of the model's context. A causal model predicts every byte of a window from those
/// before it in the window; a bidirectional one the byte after each window.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    #[arg(value_name = "MODEL.safetensors")]
    model: PathBuf,
    /// A text, or a prepared .bin or .npy
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Only this last part of the file, as training with this data.validation_fraction keeps apart
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    last: f64,
    /// Bytes from window to window; default: the context for a causal model, a quarter of it for a bidirectional one
    #[arg(long, value_name = "BYTES")]
    stride: Option<usize>,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
}

fn precision(text: &str) -> std::result::Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        "f16" => Ok(Precision::F16),
        _ => Err("expected f32, bf16 or f16".into()),
    }
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.select()?;
    if !(args.last > 0.0 && args.last <= 1.0) {
        return Err(Error::invalid(format!("--last {}: must be above 0 and at most 1", args.last)));
    }
    let model = Model::from_checkpoint(&Checkpoint::open(&args.model)?, device)?;
    let corpus = Corpus::open(&args.data)?;
    let window = model.config().window_bytes();
    let (objective, stride) = if model.config().is_causal() {
        (Objective::Every, window)
    } else {
        (Objective::Last, window.div_ceil(4))
    };
    let stride = args.stride.unwrap_or(stride);
    if stride == 0 {
        return Err(Error::invalid("--stride 0: must be at least 1"));
    }
    let start = (corpus.len() as f64 * (1.0 - args.last)) as u64;
    let windows = Windows::of_span(&(start..corpus.len()), window, stride);
    if windows.is_empty() {
        return Err(Error::invalid(format!(
            "{}: {} bytes to evaluate, but one window needs {} (the context and the byte after it)",
            args.data.display(),
            corpus.len() - start,
            window + 1
        )));
    }
    let offsets = validation_offsets(&windows, 0, 0);
    let mut source = BatchSource::new(&corpus, window, objective, device);
    let clock = Instant::now();
    let Some(result) = evaluate(&model, &mut source, &offsets, args.precision, stop_flag("stopping"))? else {
        return Err(Error::new(ErrorKind::Canceled, "stopped"));
    };
    let seconds = clock.elapsed().as_secs_f64();
    println!(
        "{:.6} nats, {:.6} bits a byte over {} bytes ({} windows of {window}, {:.1} s on {})",
        result.nats,
        result.bits(),
        result.targets,
        offsets.len(),
        seconds,
        torch::describe(device)
    );
    Ok(())
}
