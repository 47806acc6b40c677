use std::io::Write;
use std::path::PathBuf;

use grug::checkpoint::Checkpoint;
use grug::error::{Error, ErrorKind, Result};
use grug::sampler::{Sampler, SamplerOptions};

use super::DeviceArgs;
use crate::generate::generate;
use crate::model::Model;

/// Write text with a model, by the trainer's own forward pass
///
/// Every byte costs a pass over the whole context; `grug generate`, which keeps a cache, is faster.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    #[arg(value_name = "MODEL.safetensors")]
    model: PathBuf,
    /// What the text begins with
    #[arg(short, long, default_value = "")]
    prompt: String,
    /// Bytes to write
    #[arg(short = 'n', long, default_value_t = 256)]
    bytes: usize,
    /// Logits are divided by this; 0 = always the most likely byte
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Draw from this many of the most likely bytes; 0 = all
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Draw from the most likely bytes that together reach this probability; 0 = all
    #[arg(long, default_value_t = 0.0)]
    top_p: f32,
    /// Draw from bytes at least this share as likely as the most likely one; 0 = all
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.select()?;
    let model = Model::from_checkpoint(&Checkpoint::open(&args.model)?, device)?;
    let mut sampler = Sampler::new(&SamplerOptions {
        seed: args.seed,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        ..Default::default()
    })?;
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, format!("writing the text: {e}"));
    let mut out = std::io::stdout().lock();
    out.write_all(args.prompt.as_bytes()).map_err(failed)?;
    let mut problem = None;
    generate(&model, args.prompt.as_bytes(), args.bytes, &mut sampler, |byte| {
        problem = out.write_all(&[byte]).and_then(|()| out.flush()).err();
        problem.is_none()
    })?;
    match problem {
        // Whoever reads the text has had enough.
        Some(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Some(e) => Err(failed(e)),
        None => out.write_all(b"\n").map_err(failed),
    }
}
