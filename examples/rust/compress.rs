//! Compresses a file by what a model predicts, and brings it back, bit by bit, on any machine:
//!
//! ```sh
//! cargo run --release --example compress -- model.safetensors notes.txt              # writes notes.txt.grug
//! cargo run --release --example compress -- model.safetensors notes.txt.grug back.txt
//! ```
//!
//! It takes one step of the model a byte, in either direction: an archiver for patient people, and a measure of how well
//! the model knows the text.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use grug::{Model, ModelOptions, SessionOptions, compress, decompress};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compress: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (Some(model), Some(from)) = (arguments.first(), arguments.get(1)) else {
        return Err("usage: compress MODEL FILE, or: compress MODEL FILE.grug ORIGINAL".into());
    };
    // Only portable arithmetic gives the same predictions on another machine.
    let model = Model::load(model, &ModelOptions { portable: true, ..Default::default() })?;
    let input = std::fs::read(from)?;
    match arguments.get(2) {
        Some(to) => std::fs::write(to, decompress(&model, &SessionOptions::default(), &input)?)?,
        None => {
            let archive = compress(&model, &SessionOptions::default(), &input)?;
            let mut to = from.clone().into_os_string();
            to.push(".grug");
            std::fs::write(&to, &archive)?;
            let bits = 8.0 * archive.len() as f64 / input.len().max(1) as f64;
            let name = from.display();
            println!("{name}.grug: {} bytes of {}, {bits:.2} bits a byte", archive.len(), input.len());
        }
    }
    Ok(())
}
