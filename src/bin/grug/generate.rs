//! `grug generate`: a model writes.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use grug::session::MAX_STOP_BYTES;
use grug::{
    Error, ErrorKind, Model, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions, StopReason,
};

use crate::output::{Failure, Outcome, cancel_on_interrupt, is_stdin, print};

/// Let a model write: raw bytes on standard output, each as it comes.
#[derive(Args)]
pub struct Arguments {
    /// The model file.
    model: PathBuf,
    /// Read the prompt from standard input.
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["prompt", "prompt_file"])]
    stdin: Option<String>,
    /// What the text begins with.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file with what the text begins with; - is standard input.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// How many bytes to write; 0 = until interrupted.
    #[arg(short = 'n', long, value_name = "BYTES", default_value_t = 500)]
    bytes: u64,
    /// Write the prompt first.
    #[arg(long)]
    echo: bool,
    /// Stop after this text; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Divides the logits: below 1 more predictable, above 1 wilder; 0 = always the most probable byte.
    #[arg(short, long, default_value_t = 0.8)]
    temperature: f32,
    /// Choose among the K most probable bytes; 0 = all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Choose among the most probable bytes that together have this probability; 1 = all.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Choose among bytes at least this fraction as probable as the most probable one; 0 = all.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// The same seed writes the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that compute; 0 = one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Where to compute: cpu, wgpu:N, cuda:N, or auto for the best there is; `grug devices` lists them.
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// The prompt, from wherever it is.
fn prompt(arguments: &Arguments) -> Outcome<Vec<u8>> {
    let from_stdin = || {
        let mut bytes = Vec::new();
        match std::io::stdin().lock().read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(e) => Err(Error::new(ErrorKind::Io, format!("reading standard input: {e}")).into()),
        }
    };
    match (&arguments.prompt, &arguments.prompt_file, &arguments.stdin) {
        (Some(text), _, _) => Ok(text.as_bytes().to_vec()),
        (_, Some(path), _) if is_stdin(path) => from_stdin(),
        (_, Some(path), _) => std::fs::read(path).map_err(|e| Error::io("reading", path, e).into()),
        (_, _, Some(_)) => from_stdin(),
        (None, None, None) => Ok(Vec::new()),
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    let options = SamplerOptions {
        seed: arguments.seed,
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        min_p: arguments.min_p,
        ..Default::default()
    };
    let mut sampler = Sampler::new(&options).map_err(|e| Failure::Usage(e.message().into()))?;
    if let Some(stop) = arguments.stop.iter().find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
        return Err(Failure::Usage(format!(
            "--stop has {} bytes: 1 to {MAX_STOP_BYTES} are possible",
            stop.len()
        )));
    }
    let prompt = prompt(arguments)?;
    let model_options =
        ModelOptions { n_threads: arguments.threads, device: arguments.device.clone(), ..Default::default() };
    let model = Model::load(&arguments.model, &model_options)?;
    let cancel = cancel_on_interrupt();
    let mut session =
        Session::new(&model, &SessionOptions { cancel: Some(cancel.clone()), ..Default::default() })?;
    if arguments.echo {
        print(&prompt)?;
    }
    session.feed(&prompt)?;
    let stops: Vec<&[u8]> = arguments.stop.iter().map(String::as_bytes).collect();
    let mut left = if arguments.bytes == 0 { u64::MAX } else { arguments.bytes };
    while left > 0 {
        // One byte at a time, so that each is seen as it comes.
        let (mut byte, mut n) = ([0], 0);
        let reason = session.generate(&mut sampler, &stops, &mut byte, &mut n)?;
        print(&byte[..n])?;
        match reason {
            StopReason::Capacity => left -= 1,
            StopReason::EndByte | StopReason::Sequence | StopReason::Grammar => break,
        }
    }
    Ok(())
}
