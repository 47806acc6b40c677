//! Checks a GPU against the CPU, and measures it: for machines that have one, but no Rust.
//!
//! `scripts/gpu-table FOLDER` builds it, and puts into the folder what such a machine needs, with PyTorch's side of the
//! comparison. The program needs nothing beside it:
//!
//! ```text
//! gpu_table [--check] [DEVICE]...     without devices, on every one but the CPU
//! ```
//! It prints, for each device, the largest difference of logits from the CPU's on models of every kind, and then, unless
//! told to --check alone, microseconds a byte of decoding and bytes a second of prefill.

use std::time::Instant;

use grug::checkpoint::Checkpoint;
use grug::init::write_initial_model;
use grug::quantize::{Target, quantize};
use grug::{
    Model, ModelConfig, ModelOptions, Result, Sampler, SamplerOptions, Session, SessionOptions, Step,
    next_batch,
};

/// Small models of every kind, for the comparison.
const KINDS: [(&str, &str); 4] = [
    (
        "causal",
        "context_bytes = 96\nembedding_dim = 64\nd_model = 64\nn_heads = 4\nn_layers = 2\npositions = \"learned\"\n\
         max_positions = 96\n",
    ),
    (
        "causal, modern",
        "context_bytes = 96\nembedding_dim = 48\nd_model = 64\nn_heads = 4\nn_kv_heads = 2\nn_layers = 2\n\
         positions = \"rotary\"\nnorm = \"rms\"\nbias = false\nnorm_first = true\nqk_norm = true\n\
         ffn_activation = \"swiglu\"\nattention_window = 40\nembedding_norm = true\n\
         conv_frontend = { channels = [40], kernels = [3] }\n",
    ),
    (
        "causal, parallel streams",
        "context_bytes = 96\nembedding_dim = 48\nd_model = 64\nn_heads = 4\nn_layers = 2\npositions = \"rotary\"\n\
         aggregated_stream = { d_model = 80, n_layers = 2, kernel = 5, stride = 3 }\n",
    ),
    (
        "bidirectional, parallel streams",
        "context_bytes = 96\nattention = \"bidirectional\"\nembedding_dim = 48\nd_model = 64\nn_heads = 4\n\
         n_layers = 2\npositions = \"sinusoidal\"\n\
         aggregated_stream = { d_model = 80, n_layers = 2, kernel = 4, stride = 4 }\n",
    ),
];

/// The models that are measured.
const MEASURED: [(&str, usize, usize, usize); 2] = [("d512 L8", 512, 8, 8), ("d1024 L12", 1024, 12, 16)];

/// Writes a random model with weights of this kind (`None`: f32), and loads it on each of the devices.
fn models(toml: &str, weights: Option<Target>, devices: &[&str]) -> Result<Vec<Model>> {
    let config = ModelConfig::from_toml(toml)?;
    let path = std::env::temp_dir().join(format!("gpu_table-{}.safetensors", std::process::id()));
    write_initial_model(&path, &config, 1)?;
    if let Some(weights) = weights {
        quantize(&Checkpoint::open_copied(&path)?, weights, &path)?;
    }
    let load = |device: &&str| {
        let options =
            ModelOptions { device: device.to_string(), mmap: false, self_check: false, ..Default::default() };
        Model::load(&path, &options)
    };
    let models = devices.iter().map(load).collect();
    // A file that stays behind in the folder for such files is no failure.
    let _ = std::fs::remove_file(&path);
    models
}

/// The largest difference of logits while both are fed the same text, relative to the largest logit.
fn difference(toml: &str, device: &str) -> Result<f32> {
    let mut sessions = Vec::new();
    for model in models(toml, None, &["cpu", device])? {
        sessions.push(Session::new(&model, &SessionOptions::default())?);
    }
    let text: Vec<u8> = (0..120u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
    let mut worst = 0.0f32;
    // Some at once, then one at a time, past the end of the context.
    for part in std::iter::once(&text[..20]).chain(text[20..].chunks(1)) {
        let mut logits = Vec::new();
        for session in &mut sessions {
            session.feed(part)?;
            logits.push(*session.logits()?);
        }
        let largest = logits[0].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let apart = logits[0].iter().zip(&logits[1]).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        worst = worst.max(if apart.is_finite() { apart / largest } else { f32::INFINITY });
    }
    Ok(worst)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Microseconds a byte of decoding from a context of `start` bytes; bytes a second of prefill.
fn measure(model: &Model, start: usize) -> Result<(f64, f64)> {
    let mut session = Session::new(model, &SessionOptions::default())?;
    let mut sampler = Sampler::new(&SamplerOptions { temperature: 1.0, seed: 1, ..Default::default() })?;
    let prompt: Vec<u8> = (0..start).map(|i| (i * 37 % 251) as u8).collect();
    let (mut decode, mut prefill) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        session.reset();
        let now = Instant::now();
        session.feed(&prompt)?;
        session.logits()?;
        prefill.push(start as f64 / now.elapsed().as_secs_f64());
        let (mut text, mut n) = ([0; 256], 0);
        let now = Instant::now();
        session.generate(&mut sampler, &[], &mut text, &mut n)?;
        decode.push(now.elapsed().as_secs_f64() * 1e6 / text.len() as f64);
    }
    // The first round compiles and warms up.
    Ok((median(decode.split_off(1)), median(prefill.split_off(1))))
}

/// Microseconds a byte of decoding, over all bytes of `n` sessions that go on together.
fn measure_batch(model: &Model, n: usize) -> Result<f64> {
    let mut sessions = Vec::new();
    let mut samplers = Vec::new();
    for i in 0..n {
        let mut session = Session::new(model, &SessionOptions::default())?;
        session.feed(b"0123456789abcdef")?;
        sessions.push(session);
        let seed = i as u64;
        samplers.push(Sampler::new(&SamplerOptions { temperature: 1.0, seed, ..Default::default() })?);
    }
    let mut times = Vec::new();
    for _ in 0..4 {
        let now = Instant::now();
        for _ in 0..32 {
            let pairs = sessions.iter_mut().zip(&mut samplers);
            let mut steps: Vec<Step<'_>> =
                pairs.map(|(session, sampler)| Step { session, sampler, input: None }).collect();
            let mut bytes = vec![Ok(0); n];
            next_batch(&mut steps, &mut bytes)?;
            bytes.into_iter().collect::<Result<Vec<u8>>>()?;
        }
        times.push(now.elapsed().as_secs_f64() * 1e6 / (32 * n) as f64);
    }
    Ok(median(times.split_off(1)))
}

fn run(check_only: bool, mut wanted: Vec<String>) -> Result<bool> {
    let found = grug::device::devices();
    for device in &found {
        println!(
            "{}: {} ({}), {} MiB",
            device.name(),
            device.description,
            device.features,
            device.memory_total >> 20
        );
    }
    if wanted.is_empty() {
        wanted = found.iter().skip(1).map(|device| device.name()).collect();
    }
    let mut good = !wanted.is_empty();
    if wanted.is_empty() {
        println!("there is no GPU that this program can use");
    }
    for device in &wanted {
        println!("\n{device}: largest difference of logits from the CPU's, relative to the largest logit");
        for (name, toml) in KINDS {
            let worst = difference(toml, device)?;
            good &= worst < 1e-4;
            println!("  {worst:9.2e}  {name}{}", if worst < 1e-4 { "" } else { "   TOO LARGE" });
        }
        if check_only {
            continue;
        }
        println!("{device}: random weights, medians of 5; prefill of 512 bytes");
        println!(
            "  model      weights  us a byte: at 16   at 512  8 sessions  64 sessions   prefill bytes/s"
        );
        for (name, d, layers, heads) in MEASURED {
            let toml = format!(
                "context_bytes = 1024\nembedding_dim = {d}\nd_model = {d}\nn_heads = {heads}\nn_layers = {layers}\n\
                 positions = \"rotary\"\nnorm_first = true\n"
            );
            for (weights, target) in [("bf16", Target::Bf16), ("int8", Target::Int8)] {
                let model = models(&toml, Some(target), &[device])?.remove(0);
                let (short, _) = measure(&model, 16)?;
                let (long, prefill) = measure(&model, 512)?;
                let (few, many) = (measure_batch(&model, 8)?, measure_batch(&model, 64)?);
                println!(
                    "  {name:9}  {weights:7}  {short:16.1}  {long:7.1}  {few:10.1}  {many:11.1}  {prefill:16.0}"
                );
            }
        }
    }
    Ok(good)
}

fn main() -> std::process::ExitCode {
    let (flags, devices): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    if flags.iter().any(|flag| flag != "--check") {
        println!("usage: gpu_table [--check] [DEVICE]...");
        return std::process::ExitCode::from(if flags.iter().any(|flag| flag == "--help") { 0 } else { 2 });
    }
    match run(!flags.is_empty(), devices) {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu_table: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
