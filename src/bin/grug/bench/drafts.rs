//! What drafts bring where a model writes on after a text: bytes a pass, and bytes a second with and without.

use std::path::Path;
use std::time::Instant;

use grug::{Drafts, Error, Model, Sampler, SamplerOptions, Session, SessionOptions};

use super::{Arguments, median};
use crate::output::{Outcome, print};

/// Bytes that it writes on after.
const PROMPT: usize = 200;
/// Bytes that it writes.
const WRITTEN: usize = 4000;
const TEMPERATURES: [f32; 2] = [0.0, 0.8];

/// Seconds to write after `prompt`, the text, and how many passes it took.
fn write(model: &Model, prompt: &[u8], temperature: f32, drafts: Drafts) -> Outcome<(f64, Vec<u8>, usize)> {
    let mut session = Session::new(model, &SessionOptions { drafts, ..Default::default() })?;
    let mut sampler = Sampler::new(&SamplerOptions { seed: 1, temperature, ..Default::default() })?;
    session.feed(prompt)?;
    session.logits()?;
    let (mut text, mut at) = (vec![0; WRITTEN], 0);
    let begin = Instant::now();
    while at < text.len() {
        let mut n = 0;
        session.generate(&mut sampler, &[], &mut text[at..], &mut n)?;
        at += n;
    }
    let (_, came) = session.drafted();
    Ok((begin.elapsed().as_secs_f64(), text, WRITTEN - came as usize))
}

pub fn run(arguments: &Arguments, model: &Model, file: &Path) -> Outcome {
    let text = std::fs::read(file).map_err(|e| Error::io("reading", file, e))?;
    let prompt = &text[..text.len().min(PROMPT)];
    let mut lines = Vec::new();
    for temperature in TEMPERATURES {
        let (mut with, mut without, mut passes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            let plain = write(model, prompt, temperature, Drafts::Off)?;
            let drafted = write(model, prompt, temperature, Drafts::Auto)?;
            assert!(plain.1 == drafted.1, "drafts changed what is written");
            with.push(WRITTEN as f64 / drafted.0);
            without.push(WRITTEN as f64 / plain.0);
            passes.push(WRITTEN as f64 / drafted.2 as f64);
        }
        lines.push((temperature, median(&mut passes), median(&mut without), median(&mut with)));
    }
    if arguments.json {
        let rows: Vec<_> = lines
            .iter()
            .map(|(temperature, per_pass, without, with)| {
                serde_json::json!({
                    "temperature": temperature, "bytes_a_pass": per_pass, "without": without, "with": with,
                })
            })
            .collect();
        let json = serde_json::json!({
            "n_threads": model.n_threads(), "bytes": WRITTEN, "rounds": arguments.rounds, "medians": rows,
        });
        return print(format!("{json}\n").as_bytes());
    }
    let mut out = format!(
        "{} on {} threads, {WRITTEN} bytes after {} of {}, medians of {}\n",
        arguments.model.display(),
        model.n_threads(),
        prompt.len(),
        file.display(),
        arguments.rounds
    );
    for (temperature, per_pass, without, with) in lines {
        out += &format!(
            "temperature {temperature:.1}: {without:>9.1} bytes/s a byte at a time, {with:>9.1} with drafts, {:.2} ×; \
             {per_pass:.2} bytes a pass\n",
            with / without
        );
    }
    print(out.as_bytes())
}
