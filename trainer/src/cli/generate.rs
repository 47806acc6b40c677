use std::io::Write;
use std::path::PathBuf;

use grug::error::{Error, ErrorKind, Result};
use grug::sampler::{Sampler, SamplerOptions};

use crate::generate::generate;

/// Write text with a model
///
/// By the runtime, on the CPU: the text is the one that `grug generate`, or a program with libgrug in it, gives with
/// the same options.
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
    /// CPU threads; 0 = as many as there are cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

pub fn run(args: &Args) -> Result<()> {
    let options = grug::ModelOptions { n_threads: args.threads, ..Default::default() };
    let model = grug::Model::load(&args.model, &options)?;
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
