//! Whether a device computes what the CPU computes.

use grug::quantize::Target;
use grug::{Result, Session, SessionOptions, Step, next_batch};

use crate::{models, sampler};

/// Small models of every kind.
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

/// Kinds of weights, and how far logits may be from the CPU's: that keeps keys and values in 16 bits where weights are
/// not f32, and activations in 8 bits where weights are integers, which the devices do not.
const WEIGHTS: [(&str, Option<Target>, f32); 3] =
    [("f32", None, 1e-4), ("bf16", Some(Target::Bf16), 1e-2), ("int8", Some(Target::Int8), 1e-1)];

/// How far sessions in a batch may be from what they are alone on the same device.
const BATCH_TOLERANCE: f32 = 1e-4;

/// The largest difference, relative to the largest reference; infinite where something is no number.
fn apart(ours: &[f32], reference: &[f32]) -> f32 {
    let largest = reference.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = ours.iter().zip(reference).fold(0.0f32, |m, (a, b)| {
        let difference = (a - b).abs();
        if difference.is_finite() { m.max(difference) } else { f32::INFINITY }
    });
    worst / largest
}

/// The largest difference of logits while a device and the CPU are fed the same text.
fn from_the_cpu(toml: &str, weights: Option<Target>, device: &str) -> Result<f32> {
    let (models, _) = models(toml, weights, &["cpu", device])?;
    let mut sessions = models
        .iter()
        .map(|model| Session::new(model, &SessionOptions::default()))
        .collect::<Result<Vec<_>>>()?;
    let text: Vec<u8> = (0..120u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
    let mut worst = 0.0f32;
    // Enough at once for two tiles of a product, then one at a time, past the end of the context.
    for part in std::iter::once(&text[..80]).chain(text[80..].chunks(1)) {
        let mut logits = Vec::new();
        for session in &mut sessions {
            session.feed(part)?;
            logits.push(*session.logits()?);
        }
        worst = worst.max(apart(&logits[1], &logits[0]));
    }
    Ok(worst)
}

/// The largest difference of logits between sessions of a batch and sessions that are fed the same bytes alone.
fn from_alone(toml: &str, weights: Option<Target>, device: &str, n: usize) -> Result<f32> {
    let (models, _) = models(toml, weights, &[device])?;
    let model = &models[0];
    let (mut together, mut alone, mut samplers) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        for sessions in [&mut together, &mut alone] {
            let mut session = Session::new(model, &SessionOptions::default())?;
            session.feed(&b"0123456789abcdef"[..1 + i % 16])?;
            sessions.push(session);
        }
        samplers.push(sampler(1.0, i as u64)?);
    }
    for _ in 0..4 {
        let pairs = together.iter_mut().zip(&mut samplers);
        let mut steps: Vec<Step<'_>> =
            pairs.map(|(session, sampler)| Step { session, sampler, input: None }).collect();
        let mut bytes = vec![Ok(0); n];
        next_batch(&mut steps, &mut bytes)?;
        for (session, byte) in alone.iter_mut().zip(bytes) {
            session.feed(&[byte?])?;
        }
    }
    let mut worst = 0.0f32;
    for (together, alone) in together.iter_mut().zip(&mut alone) {
        worst = worst.max(apart(together.logits()?, alone.logits()?));
    }
    Ok(worst)
}

/// Prints a difference, and says whether it is small enough.
fn judge(what: &str, difference: f32, tolerance: f32) -> bool {
    let good = difference < tolerance;
    println!("  {difference:9.2e}  {what}{}", if good { "" } else { "   TOO LARGE" });
    good
}

/// Whether all of these devices agree with the CPU; prints how far they are apart.
pub fn every_device(devices: &[String]) -> Result<bool> {
    let mut good = true;
    for device in devices {
        println!("\n{device}: largest difference of logits from the CPU's, relative to the largest logit");
        for (name, toml) in KINDS {
            for (kind, weights, tolerance) in WEIGHTS {
                good &= judge(&format!("{name}, {kind}"), from_the_cpu(toml, weights, device)?, tolerance);
            }
        }
        println!("{device}: of sessions that step together from sessions that step alone");
        for (name, toml) in &KINDS[..3] {
            for (kind, weights, n) in
                [("f32", None, 3), ("bf16", Some(Target::Bf16), 9), ("int8", Some(Target::Int8), 17)]
            {
                let what = format!("{name}, {kind}, {n} sessions");
                good &= judge(&what, from_alone(toml, weights, device, n)?, BATCH_TOLERANCE);
            }
        }
    }
    Ok(good)
}
