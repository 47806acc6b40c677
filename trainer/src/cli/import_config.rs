use std::io::Write;
use std::path::PathBuf;

use grug::checkpoint::write_atomically;
use grug::error::Result;

use crate::config::published::import;

/// Write our configuration for what a published checkpoint was trained with
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A published checkpoint (.pth) or configuration (.json)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The configuration to write; default: standard output
    #[arg(short, long, value_name = "RUN.toml")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let imported = import(&args.file)?;
    let text = imported.to_toml();
    match &args.output {
        Some(path) => write_atomically(path, |file| file.write_all(text.as_bytes()))?,
        None => print!("{text}"),
    }
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    Ok(())
}
