//! Checks a GPU against the CPU, and measures it: for machines that have one, but no Rust.
//!
//! `scripts/gpu-table FOLDER` builds it, and puts into the folder what such a machine needs, with PyTorch's side of the
//! comparison. The program needs nothing beside it.
//!
//! `gpu_table --help` says what it can do. Where no device is named, that is done on every one but the CPU. The exit status
//! is 1 where something is further from the CPU's than it may be.

mod check;
mod measure;
mod score;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grug::checkpoint::Checkpoint;
use grug::device::{DeviceInfo, devices};
use grug::init::write_initial_model;
use grug::quantize::{Target, quantize};
use grug::{Error, ErrorKind, Model, ModelConfig, ModelOptions, Result, Sampler, SamplerOptions};

#[derive(Parser)]
/// Checks GPUs against the CPU, and measures them
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The names of all devices but the CPU
    Devices,
    /// The largest difference of logits from the CPU's, on models of every kind, and of sessions in batches from sessions alone
    Check { devices: Vec<String> },
    /// Microseconds a byte of decoding, bytes a second of prefill
    Measure {
        /// Of a tiny model, to see that it runs
        #[arg(long)]
        small: bool,
        /// Append the numbers to this file, for `table`
        #[arg(long)]
        rows: Option<PathBuf>,
        devices: Vec<String>,
    },
    /// Bits a byte of a model on the end of a text, and how far they are from the CPU's
    Score {
        /// Bytes of the text's end
        #[arg(long, default_value_t = 1 << 16)]
        last: usize,
        model: PathBuf,
        text: PathBuf,
        devices: Vec<String>,
    },
    /// What `measure` and torch-table.py wrote into a file, side by side
    Table { file: PathBuf },
}

/// Writes a random model with weights of this kind (`None`: f32), and loads it on each of the devices. Returns how many
/// bytes its file has, too.
fn models(toml: &str, weights: Option<Target>, devices: &[&str]) -> Result<(Vec<Model>, u64)> {
    let config = ModelConfig::from_toml(toml)?;
    let path = std::env::temp_dir().join(format!("gpu_table-{}.safetensors", std::process::id()));
    let made = (|| {
        write_initial_model(&path, &config, 1)?;
        if let Some(weights) = weights {
            quantize(&Checkpoint::open_copied(&path)?, weights, &path)?;
        }
        let bytes = std::fs::metadata(&path).map_err(|e| Error::io("reading", &path, e))?.len();
        let load = |device: &&str| {
            let options = ModelOptions {
                device: device.to_string(),
                mmap: false,
                self_check: false,
                ..Default::default()
            };
            Model::load(&path, &options)
        };
        Ok((devices.iter().map(load).collect::<Result<_>>()?, bytes))
    })();
    // A file that stays behind in the folder for such files is no failure.
    let _ = std::fs::remove_file(&path);
    made
}

fn sampler(temperature: f32, seed: u64) -> Result<Sampler> {
    Sampler::new(&SamplerOptions { temperature, seed, ..Default::default() })
}

/// The devices that were named, or else all but the CPU; prints what there is.
fn choose(named: Vec<String>) -> Result<Vec<String>> {
    let found = devices();
    for device in &found {
        println!("{}: {} ({})", device.name(), device.description, device.features);
    }
    let chosen = if named.is_empty() { found.iter().skip(1).map(DeviceInfo::name).collect() } else { named };
    if chosen.is_empty() {
        return Err(Error::new(ErrorKind::Device, "there is no GPU that this program can use"));
    }
    Ok(chosen)
}

/// Returns whether everything was as near to the CPU as it must be.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Devices => {
            devices().iter().skip(1).for_each(|device| println!("{}", device.name()));
            Ok(true)
        }
        Command::Check { devices } => check::every_device(&choose(devices)?),
        Command::Measure { small, rows, devices } => {
            measure::every_device(&choose(devices)?, small, rows.as_deref()).map(|()| true)
        }
        Command::Score { last, model, text, devices } => {
            score::every_device(&model, &text, last, &choose(devices)?)
        }
        Command::Table { file } => table::print(&file).map(|()| true),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu_table: {error}");
            ExitCode::FAILURE
        }
    }
}
