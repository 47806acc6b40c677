//! `grug bench`: how fast a model runs here, and how near that is to what the machine can do.
//!
//! The limit of decoding is reading every weight once for each byte; it is measured by reading as many bytes, again
//! and again, with as many threads. Rounds of all measurements are interleaved and medians reported, so that what else
//! the machine does falls on all of them alike.

mod drafts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use grug::checkpoint::Checkpoint;
use grug::config::ModelConfig;
use grug::init::write_initial_model;
use grug::quantize::{Target, quantize};
use grug::{
    Drafts, Error, ErrorKind, Model, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions, Step,
    next_batch,
};

use crate::output::{Failure, Outcome, print};

/// Measure decoding, alone and in a batch of sessions, prefill and loading.
#[derive(Args)]
pub struct Arguments {
    /// A model file; or a yardstick with random weights: S (3.2M parameters), M (25M) or L (151M), causal; single (51M) or
    /// parallel (107M), bidirectional.
    model: PathBuf,
    /// Quantize the yardstick first: int8, int4, f16 or bf16.
    #[arg(long)]
    to: Option<Target>,
    /// Threads that compute; 0 = one for each core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the yardstick to this file and keep it, in f32 (with --to, as that).
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Measure instead what drafts bring where the model writes on after the first 200 bytes of this text.
    #[arg(long, value_name = "FILE")]
    drafts: Option<PathBuf>,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// Sessions that step together.
const BATCH: usize = 8;

/// The shape of GPT-2 with exact GELU, three sizes; and the published defaults, with a single and with parallel streams.
fn yardstick(name: &Path) -> Option<ModelConfig> {
    let gpt2 = |width: usize, layers: usize, context: usize| {
        format!(
            "context_bytes = {context}\nembedding_dim = {width}\nd_model = {width}\nn_heads = {}\n\
             n_layers = {layers}\nnorm_first = true\npositions = \"learned\"\nmax_positions = {context}",
            width / 64
        )
    };
    let published = "context_bytes = 256\nattention = \"bidirectional\"\nembedding_dim = 512\nd_model = 1024\n\
                     n_heads = 16\nn_layers = 4\nnorm_first = false\npositions = \"sinusoidal\"\n\
                     pad_short_input = true\n";
    let text = match name.to_str()? {
        "S" => gpt2(256, 4, 512),
        "M" => gpt2(512, 8, 1024),
        "L" => gpt2(1024, 12, 1024),
        "single" => published.into(),
        "parallel" => {
            format!("{published}[aggregated_stream]\nd_model = 1024\nn_layers = 4\nkernel = 4\nstride = 4\n")
        }
        _ => return None,
    };
    Some(ModelConfig::from_toml(&text).expect("the yardsticks are valid"))
}

fn write_yardstick(config: &ModelConfig, target: Option<Target>, path: &Path) -> Outcome {
    write_initial_model(path, config, 1)?;
    if let Some(target) = target {
        quantize(&Checkpoint::open_copied(path)?, target, path)?;
    }
    Ok(())
}

/// Memory to read at the machine's best rate: in huge pages, where the system has them.
fn read_buffer(len: usize) -> Outcome<memmap2::MmapMut> {
    let map = memmap2::MmapMut::map_anon(len)
        .map_err(|e| Error::new(ErrorKind::OutOfMemory, format!("{len} bytes to read: {e}")))?;
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// Bytes a second that `threads` threads read of `len` bytes of memory that they read before.
fn read_rate(buffer: &[u64], threads: usize) -> f64 {
    let passes = (1 << 29) / size_of_val(buffer) + 1;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for part in buffer.chunks(buffer.len().div_ceil(threads)) {
            scope.spawn(move || {
                for _ in 0..passes {
                    // Eight streams, so that neither additions nor one stream's latency decide.
                    let mut sums = [0u64; 8];
                    let stream = part.len() / 8;
                    for i in (0..stream / 8 * 8).step_by(8) {
                        for (s, sum) in sums.iter_mut().enumerate() {
                            let at = s * stream + i;
                            *sum = part[at..at + 8].iter().fold(*sum, |sum, v| sum ^ v);
                        }
                    }
                    std::hint::black_box(sums);
                }
            });
        }
    });
    (passes * size_of_val(buffer)) as f64 / begin.elapsed().as_secs_f64()
}

/// A session that computes a byte at a time: random weights write what is easily drafted.
fn plain_session(model: &Model) -> Outcome<Session> {
    Ok(Session::new(model, &SessionOptions { drafts: Drafts::Off, ..Default::default() })?)
}

/// Bytes a second of `n` bytes decoded one by one after `context` bytes.
fn decode_rate(model: &Model, context: usize, n: usize) -> Outcome<f64> {
    let mut session = plain_session(model)?;
    let mut sampler = Sampler::new(&SamplerOptions { seed: 1, ..Default::default() })?;
    let text: Vec<u8> = (0..context).map(|i| b"the quick brown fox "[i % 20]).collect();
    session.feed(&text)?;
    session.next(&mut sampler)?;
    let begin = Instant::now();
    for _ in 0..n {
        session.next(&mut sampler)?;
    }
    Ok(n as f64 / begin.elapsed().as_secs_f64())
}

/// Bytes a second of [`BATCH`] sessions together that decode `n` bytes each, a step at a time.
fn batch_rate(model: &Model, n: usize) -> Outcome<f64> {
    let mut sessions = Vec::new();
    for i in 0..BATCH {
        let mut session = plain_session(model)?;
        session.feed(&vec![b'a' + i as u8; 1 + i])?;
        sessions.push((session, Sampler::greedy()));
    }
    let mut steps: Vec<Step<'_>> =
        sessions.iter_mut().map(|(session, sampler)| Step { session, sampler, input: None }).collect();
    let mut bytes = vec![Ok(0); steps.len()];
    next_batch(&mut steps, &mut bytes)?;
    let begin = Instant::now();
    for _ in 0..n {
        next_batch(&mut steps, &mut bytes)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    bytes.into_iter().try_for_each(|byte| byte.map(|_| ()))?;
    Ok((n * BATCH) as f64 / seconds)
}

/// Bytes a second of `n` bytes fed at once.
fn prefill_rate(model: &Model, n: usize) -> Outcome<f64> {
    let mut session = Session::new(model, &SessionOptions::default())?;
    let text: Vec<u8> = (0..n).map(|i| b"the quick brown fox "[i % 20]).collect();
    let begin = Instant::now();
    session.feed(&text)?;
    session.logits()?;
    Ok(n as f64 / begin.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.rounds == 0 {
        return Err(Failure::Usage("--rounds 0: at least one is needed".into()));
    }
    let folder =
        tempfile::tempdir().map_err(|e| Error::new(ErrorKind::Io, format!("temporary folder: {e}")))?;
    // A yardstick may be large: whoever has waited enough shall not keep it.
    let kept = folder.path().to_path_buf();
    let _ = ctrlc::set_handler(move || {
        let _ = std::fs::remove_dir_all(&kept);
        std::process::exit(130);
    });
    let mut path = arguments.model.clone();
    if let Some(config) = yardstick(&arguments.model) {
        path = arguments.keep.clone().unwrap_or_else(|| folder.path().join("yardstick.safetensors"));
        write_yardstick(&config, arguments.to, &path)?;
    } else if arguments.to.is_some() || arguments.keep.is_some() {
        return Err(Failure::Usage("--to and --keep are for the yardsticks, not for a file".into()));
    }
    let options = ModelOptions { n_threads: arguments.threads, ..Default::default() };
    let model = Model::load(&path, &options)?;
    if let Some(file) = &arguments.drafts {
        return drafts::run(arguments, &model, file);
    }
    let room = model.config().window_bytes();
    let causal = model.config().is_causal();
    let weight_bytes = model.weight_bytes();
    let mut buffer = read_buffer((weight_bytes as usize).max(8 << 10))?;
    let (_, buffer, _) = bytemuck::pod_align_to_mut::<u8, u64>(&mut buffer);
    buffer.fill(1);
    // Enough bytes for some tenths of a second.
    let quick = decode_rate(&model, 0, 2)?;
    let n = ((quick * 0.3) as usize).clamp(2, (room / 8).max(2));
    let long_context = 384.min(room * 3 / 4);
    let prefill = 512.min(room);

    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        let begin = Instant::now();
        drop(Model::load(&path, &options)?);
        rates.entry("load_seconds").or_default().push(begin.elapsed().as_secs_f64());
        rates.entry("read_rate").or_default().push(read_rate(buffer, model.n_threads()));
        rates.entry("decode").or_default().push(decode_rate(&model, 0, n)?);
        if causal {
            rates.entry("decode_long").or_default().push(decode_rate(&model, long_context, n)?);
            rates.entry("batch").or_default().push(batch_rate(&model, n.div_ceil(4))?);
            rates.entry("prefill").or_default().push(prefill_rate(&model, prefill)?);
        }
    }
    let medians: BTreeMap<&str, f64> = rates.iter_mut().map(|(name, v)| (*name, median(v))).collect();
    if arguments.json {
        let json = serde_json::json!({
            "n_threads": model.n_threads(), "weight_bytes": weight_bytes, "rounds": arguments.rounds,
            "medians": medians,
        });
        return print(format!("{json}\n").as_bytes());
    }
    let limit = medians["read_rate"] / weight_bytes as f64;
    let mut text = format!(
        "{} on {} threads, {:.1} MB of weights, medians of {}\n",
        arguments.model.display(),
        model.n_threads(),
        weight_bytes as f64 / 1e6,
        arguments.rounds
    );
    text += &format!("load      {:>10.2?}\n", Duration::from_secs_f64(medians["load_seconds"]));
    text += &format!(
        "reading   {:>10.1} GB/s: at most {limit:.0} bytes/s by reading every weight once\n",
        medians["read_rate"] / 1e9
    );
    let mut line = |name: &str, key: &str, note: String| {
        if let Some(rate) = medians.get(key) {
            text += &format!("{name:<9} {rate:>10.1} bytes/s{note}\n");
        }
    };
    let share = |key: &str| medians.get(key).map_or(0.0, |rate| 100.0 * rate / limit);
    if causal {
        line("decode", "decode", format!(", {:.0} % of the reading limit", share("decode")));
        let note = format!(" after {long_context} bytes, {:.0} % of the reading limit", share("decode_long"));
        line("decode", "decode_long", note);
        let times = medians.get("batch").map_or(0.0, |rate| rate / medians["decode"]);
        line("batch", "batch", format!(" of {BATCH} sessions together, {times:.1} × one alone"));
        let flops = 2.0 * model.n_params() as f64 * medians.get("prefill").copied().unwrap_or(0.0);
        line("prefill", "prefill", format!(" of {prefill} bytes, {:.1} GFLOP/s", flops / 1e9));
    } else {
        line("generate", "decode", format!(", a window of {room} bytes each"));
    }
    print(text.as_bytes())
}
