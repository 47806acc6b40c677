//! `grug score`: how well a model predicts a text.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use grug::{Error, ErrorKind, Model, ModelOptions, Session, SessionOptions};

use crate::output::{Outcome, cancel_on_interrupt, grouped, is_stdin, print};

/// Bytes read and scored at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// Measure how well a model predicts a file: nats and bits a byte, less is better.
///
/// The file goes through one session from its first byte to its last, so it may be larger than memory; each byte is
/// predicted from those before it that the model's context holds.
#[derive(Args)]
pub struct Arguments {
    /// The model file.
    model: PathBuf,
    /// The file to score; - is standard input.
    file: PathBuf,
    /// Score only the first bytes; 0 = all.
    #[arg(short = 'n', long, value_name = "BYTES", default_value_t = 0)]
    bytes: u64,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    /// Threads that compute; 0 = one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Where to compute: cpu, wgpu:N, cuda:N, or auto for the best there is; `grug devices` lists them.
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let path = &arguments.file;
    let options =
        ModelOptions { n_threads: arguments.threads, device: arguments.device.clone(), ..Default::default() };
    let model = Model::load(&arguments.model, &options)?;
    let input: Box<dyn Read> = if is_stdin(path) {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|e| Error::io("opening", path, e))?)
    };
    let mut input = input.take(if arguments.bytes == 0 { u64::MAX } else { arguments.bytes });
    let cancel = cancel_on_interrupt();
    let mut session = Session::new(&model, &SessionOptions { cancel: Some(cancel), ..Default::default() })?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut nats, mut bytes) = (0.0, 0u64);
    loop {
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => {
                nats += session.score(&chunk[..n], None)?;
                bytes += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("reading", path, e).into()),
        }
    }
    if bytes == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "is empty: nothing to score")
            .in_file(path)
            .into());
    }
    let per_byte = nats / bytes as f64;
    let bits = per_byte / std::f64::consts::LN_2;
    let text = if arguments.json {
        let json = serde_json::json!({
            "file": path.display().to_string(), "bytes": bytes, "nats": nats,
            "nats_per_byte": per_byte, "bits_per_byte": bits,
        });
        format!("{json}\n")
    } else {
        format!("{} bytes: {per_byte:.4} nats a byte, {bits:.4} bits a byte\n", grouped(bytes))
    };
    print(text.as_bytes())
}
