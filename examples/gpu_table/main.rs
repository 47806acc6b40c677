//! Checks a GPU against the CPU, and measures it: for machines that have one, but no Rust.
//!
//! `scripts/gpu-table FOLDER` builds it, and puts into the folder what such a machine needs, with PyTorch's side of the
//! comparison. The program needs nothing beside it:
//!
//! ```text
//! gpu_table devices
//!     the names of all devices but the CPU
//! gpu_table check [DEVICE]...
//!     the largest difference of logits from the CPU's, on models of every kind, and of sessions in batches from sessions alone
//! gpu_table measure [--small] [--rows FILE] [DEVICE]...
//!     microseconds a byte of decoding, bytes a second of prefill; --small: of a tiny model, to see that it runs
//! gpu_table score [--last BYTES] MODEL TEXT [DEVICE]...
//!     bits a byte of a model on the end of a text, and how far they are from the CPU's
//! gpu_table table FILE
//!     what `measure` and torch-table.py wrote into a file, side by side
//! ```
//! Without devices: every one but the CPU. The exit status is 1 where something is further from the CPU's than it may be.

mod check;
mod measure;
mod score;
mod table;

use std::process::ExitCode;

use grug::checkpoint::Checkpoint;
use grug::device::{DeviceInfo, devices};
use grug::init::write_initial_model;
use grug::quantize::{Target, quantize};
use grug::{Error, ErrorKind, Model, ModelConfig, ModelOptions, Result, Sampler, SamplerOptions};

const USAGE: &str = "usage: gpu_table devices
       gpu_table check [DEVICE]...
       gpu_table measure [--small] [--rows FILE] [DEVICE]...
       gpu_table score [--last BYTES] MODEL TEXT [DEVICE]...
       gpu_table table FILE";

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
fn choose(named: Vec<String>) -> Vec<String> {
    let found = devices();
    for device in &found {
        println!("{}: {} ({})", device.name(), device.description, device.features);
    }
    if named.is_empty() { found.iter().skip(1).map(DeviceInfo::name).collect() } else { named }
}

/// Takes an option and its value out of the arguments.
fn take_value(arguments: &mut Vec<String>, option: &str) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == option)?;
    (at + 1 < arguments.len()).then(|| arguments.drain(at..at + 2).nth(1)).flatten()
}

fn take_flag(arguments: &mut Vec<String>, flag: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != flag);
    arguments.len() < before
}

/// `None`: the arguments are none of this program's.
fn run(mut arguments: Vec<String>) -> Option<Result<bool>> {
    let command = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let small = command == "measure" && take_flag(&mut arguments, "--small");
    let rows = if command == "measure" { take_value(&mut arguments, "--rows") } else { None };
    let last = match (command.as_str(), take_value(&mut arguments, "--last")) {
        ("score", Some(number)) => number.parse().ok()?,
        (_, Some(_)) => return None,
        (_, None) => 1 << 16,
    };
    if arguments.iter().any(|argument| argument.starts_with('-')) {
        return None;
    }
    match command.as_str() {
        "table" if arguments.len() == 1 => return Some(table::print(arguments[0].as_ref()).map(|()| true)),
        "devices" if arguments.is_empty() => {
            devices().iter().skip(1).for_each(|device| println!("{}", device.name()));
            return Some(Ok(true));
        }
        "check" | "measure" => {}
        "score" if arguments.len() >= 2 => {}
        _ => return None,
    }
    let files: Vec<String> = arguments.drain(..if command == "score" { 2 } else { 0 }).collect();
    let wanted = choose(arguments);
    if wanted.is_empty() {
        return Some(Err(Error::new(ErrorKind::Device, "there is no GPU that this program can use")));
    }
    Some(match command.as_str() {
        "check" => check::every_device(&wanted),
        "measure" => measure::every_device(&wanted, small, rows.as_ref().map(AsRef::as_ref)).map(|()| true),
        _ => score::every_device(files[0].as_ref(), files[1].as_ref(), last, &wanted),
    })
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Some(Ok(true)) => ExitCode::SUCCESS,
        Some(Ok(false)) => ExitCode::FAILURE,
        Some(Err(error)) => {
            eprintln!("gpu_table: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
