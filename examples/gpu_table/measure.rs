//! How fast a device is.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use grug::quantize::Target;
use grug::{Error, Model, Result, Session, SessionOptions, Step, next_batch};

use crate::table::{HEADINGS, Row};
use crate::{models, sampler};

/// How much is measured.
struct Effort {
    /// Name, width, layers and heads.
    shapes: &'static [(&'static str, usize, usize, usize)],
    context: usize,
    /// Bytes before the ones that are timed: few, and many; the latter are prefill's too.
    contexts: [usize; 2],
    /// Bytes that are generated for each time.
    bytes: usize,
    /// Bytes for each session of a batch.
    batch_bytes: usize,
    /// Times that a median is taken of; one more is for compiling and warming up.
    rounds: usize,
}

const WHOLE: Effort = Effort {
    shapes: &[("d512 L8", 512, 8, 8), ("d1024 L12", 1024, 12, 16)],
    context: 1024,
    contexts: [16, 512],
    bytes: 256,
    batch_bytes: 32,
    rounds: 5,
};

/// What an emulated device can do in a few seconds: the same code, numbers that mean nothing.
const SMALL: Effort = Effort {
    shapes: &[("d32 L2", 32, 2, 4)],
    context: 64,
    contexts: [4, 24],
    bytes: 4,
    batch_bytes: 1,
    rounds: 1,
};

/// The middle one of the times but the first.
fn median(mut times: Vec<f64>) -> f64 {
    let mut times = times.split_off(1);
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl Effort {
    /// Microseconds a byte of decoding after `start` bytes; bytes a second of prefill of those.
    fn one_session(&self, model: &Model, start: usize) -> Result<(f64, f64)> {
        let mut session = Session::new(model, &SessionOptions::default())?;
        let mut sampler = sampler(1.0, 1)?;
        let prompt: Vec<u8> = (0..start).map(|i| (i * 37 % 251) as u8).collect();
        let (mut decode, mut prefill) = (Vec::new(), Vec::new());
        for _ in 0..=self.rounds {
            session.reset();
            let now = Instant::now();
            session.feed(&prompt)?;
            session.logits()?;
            prefill.push(start as f64 / now.elapsed().as_secs_f64());
            let (mut text, mut n) = (vec![0; self.bytes], 0);
            let now = Instant::now();
            session.generate(&mut sampler, &[], &mut text, &mut n)?;
            decode.push(now.elapsed().as_secs_f64() * 1e6 / text.len() as f64);
        }
        Ok((median(decode), median(prefill)))
    }

    /// Microseconds a byte of decoding, over all bytes of `n` sessions that go on together.
    fn batch(&self, model: &Model, n: usize) -> Result<f64> {
        let (mut sessions, mut samplers) = (Vec::new(), Vec::new());
        for i in 0..n {
            let mut session = Session::new(model, &SessionOptions::default())?;
            session.feed(&b"0123456789abcdef"[..self.contexts[0]])?;
            sessions.push(session);
            samplers.push(sampler(1.0, i as u64)?);
        }
        let mut times = Vec::new();
        for _ in 0..=self.rounds {
            let now = Instant::now();
            for _ in 0..self.batch_bytes {
                let pairs = sessions.iter_mut().zip(&mut samplers);
                let mut steps: Vec<Step<'_>> =
                    pairs.map(|(session, sampler)| Step { session, sampler, input: None }).collect();
                let mut bytes = vec![Ok(0); n];
                next_batch(&mut steps, &mut bytes)?;
                bytes.into_iter().collect::<Result<Vec<u8>>>()?;
            }
            times.push(now.elapsed().as_secs_f64() * 1e6 / (self.batch_bytes * n) as f64);
        }
        Ok(median(times))
    }
}

/// Measures these devices, prints what comes out, and adds it to a file for [`table`](crate::table).
pub fn every_device(devices: &[String], small: bool, rows: Option<&Path>) -> Result<()> {
    let effort = if small { &SMALL } else { &WHOLE };
    // One of CUDA's ways of decoding, where it is asked for.
    let decode = std::env::var("GRUG_CUDA_DECODE").unwrap_or_default();
    for device in devices {
        let way = if device.starts_with("cuda") { format!("{device} {decode}") } else { device.clone() };
        let way = way.trim_end();
        let [few, many] = effort.contexts;
        println!(
            "\n{way}: random weights, medians of {}; after {few} bytes, after {many}, prefill of {many}",
            effort.rounds
        );
        println!("  {:10} {:7} {HEADINGS}", "model", "weights");
        for &(shape, d, layers, heads) in effort.shapes {
            let toml = format!(
                "context_bytes = {}\nembedding_dim = {d}\nd_model = {d}\nn_heads = {heads}\nn_layers = {layers}\n\
                 positions = \"rotary\"\nnorm_first = true\n",
                effort.context
            );
            for (weights, target) in [("bf16", Target::Bf16), ("int8", Target::Int8)] {
                let (models, bytes) = models(&toml, Some(target), &[device])?;
                let model = &models[0];
                let (short, _) = effort.one_session(model, few)?;
                let (long, prefill) = effort.one_session(model, many)?;
                let numbers = [short, long, effort.batch(model, 8)?, effort.batch(model, 64)?, prefill];
                let row = Row {
                    shape: shape.into(),
                    way: way.into(),
                    weights: weights.into(),
                    bytes: bytes as f64,
                    numbers,
                };
                println!("  {shape:10} {weights:7} {}", row.cells(None));
                if let Some(path) = rows {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    file.and_then(|mut file| writeln!(file, "{}", row.line()))
                        .map_err(|e| Error::io("writing", path, e))?;
                }
            }
        }
    }
    Ok(())
}
