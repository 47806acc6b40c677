use std::path::PathBuf;

use grug::error::Result;

use crate::dataset::prepare::{Preparation, prepare};
use crate::telemetry::{ByteProgress, tell};

/// Fewer bytes than this are done before anyone could read how far they are.
const SHOWN_FROM: u64 = 64 << 20;

/// Join text files into one file of bytes to train on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders (their .txt files, by name) and .txt files, in order
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// The byte file to write: flat where it ends in .bin, NumPy where it ends in .npy
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write it even where it is as new as its sources
    #[arg(long)]
    force: bool,
    /// Refuse text that is not UTF-8
    #[arg(long)]
    strict_utf8: bool,
    /// Make up text where the first folder has none
    #[arg(long)]
    dummy_if_empty: bool,
    /// Seed of the made-up text
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> Result<()> {
    prepare_and_report(&Preparation {
        sources: args.sources.clone(),
        output: args.output.clone(),
        force: args.force,
        strict_utf8: args.strict_utf8,
        dummy_if_empty: args.dummy_if_empty,
        seed: args.seed,
    })
}

/// Prepares and says what was done.
pub fn prepare_and_report(job: &Preparation) -> Result<()> {
    let mut shown: Option<ByteProgress> = None;
    let done = prepare(job, &mut |at| {
        let bar = shown.get_or_insert_with(|| ByteProgress::new(at.total, at.total < SHOWN_FROM));
        bar.update(at.done, &at.file.display().to_string());
    });
    if let Some(bar) = shown {
        bar.finish();
    }
    let done = done?;
    let path = done.path.display();
    if done.made_up > 0 {
        tell(format_args!("made up {} files of text", done.made_up));
    }
    if done.up_to_date {
        tell(format_args!("{path} is up to date: {} bytes", done.bytes));
    } else {
        let files = done.files.len();
        tell(format_args!(
            "wrote {path}: {} bytes from {files} file{}",
            done.bytes,
            if files == 1 { "" } else { "s" }
        ));
    }
    if done.invalid_utf8 > 0 {
        tell(format_args!("{} sequences are not UTF-8; they are kept as they are", done.invalid_utf8));
    }
    Ok(())
}
