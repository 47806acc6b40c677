//! Streams text from a model: cargo run --release --example generate -- MODEL [PROMPT [BYTES]]

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use grug::{Model, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions, StopReason};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(path) = arguments.first().filter(|path| !path.as_encoded_bytes().starts_with(b"-")) else {
        return Err("usage: generate MODEL [PROMPT [BYTES]]".into());
    };
    let prompt = arguments.get(1).map_or(&b""[..], |text| text.as_encoded_bytes());
    let bytes: usize = arguments.get(2).map_or(Ok(400), |text| text.to_string_lossy().parse())?;

    let model = Model::load(path.as_ref(), &ModelOptions::default())?;
    let mut session = Session::new(&model, &SessionOptions::default())?;
    let mut sampler = Sampler::new(&SamplerOptions { temperature: 0.8, ..Default::default() })?;
    session.feed(prompt)?;

    let mut out = std::io::stdout().lock();
    out.write_all(prompt)?;
    for _ in 0..bytes {
        // One byte at a time is as fast as many, and is seen at once.
        let (mut byte, mut n) = ([0], 0);
        let reason = session.generate(&mut sampler, &[], &mut byte, &mut n)?;
        out.write_all(&byte[..n])?;
        out.flush()?;
        if reason != StopReason::Capacity {
            break;
        }
    }
    writeln!(out)?;
    Ok(())
}
