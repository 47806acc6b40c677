use std::io::{BufRead, Write};
use std::time::Instant;

use grug::error::{Error, Result};

use super::DeviceArgs;
use crate::config::RunConfig;
use crate::dataset::Corpus;
use crate::parallel::Place;
use crate::telemetry::memory::resident;
use crate::torch;
use crate::train::Trainer;

/// Measure how fast a run's steps are; nothing is written
///
/// Prints one line of JSON for each round. trainer/benches/compare.py runs it beside PyTorch.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A configuration file, or a preset's name
    #[arg(value_name = "CONFIG")]
    config: String,
    /// Change one setting; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Rounds, of which the first warms up
    #[arg(long, default_value_t = 6)]
    rounds: u64,
    /// Steps of a round
    #[arg(long, default_value_t = 10)]
    steps: u64,
    /// Wait for a line on the standard input before each round
    #[arg(long)]
    paced: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.select()?;
    let mut overrides = args.overrides.clone();
    overrides.push(format!("training.steps={}", args.rounds.saturating_mul(args.steps).max(1)));
    let mut run = RunConfig::load(&args.config, &overrides)?;
    if let Some(threads) = args.device.threads {
        run.training.threads = threads;
    }
    let corpus = Corpus::open(&run.prepared_path())?;
    let mut trainer = Trainer::new(&run, &corpus, Place::from(device))?;
    let bytes = (args.steps * run.training.batch_size as u64) * run.window_bytes() as u64;
    let mut lines = std::io::stdin().lock().lines();
    for _ in 0..args.rounds {
        if args.paced && lines.next().is_none() {
            break;
        }
        torch::synchronize(device);
        let start = Instant::now();
        for _ in 0..args.steps {
            trainer.step()?;
        }
        // Waits for the device.
        let (nats, _) = trainer.take_loss()?;
        let seconds = start.elapsed().as_secs_f64();
        let peak = match torch::cuda_memory(device) {
            Some(memory) => Some(memory.peak),
            None => resident().map(|memory| memory.peak),
        };
        println!(
            "{}",
            serde_json::json!({
                "steps": args.steps, "seconds": seconds, "bytes_per_second": bytes as f64 / seconds,
                "loss": nats, "peak_memory_bytes": peak,
            })
        );
        std::io::stdout().flush().map_err(|e| Error::new(grug::error::ErrorKind::Io, e.to_string()))?;
    }
    Ok(())
}
