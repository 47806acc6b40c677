//! The `grug` command: import, look at, run, measure and export models.
//!
//! Here are the arguments and the way out; each subcommand has a file. A failure is one line on standard error,
//! `grug: FILE: what`, and status 1; wrong usage is status 2, an interrupt 130.

mod bench;
mod devices;
mod export;
mod generate;
mod import;
mod info;
mod output;
mod quantize;
mod score;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grug::ErrorKind;
use output::Failure;

/// Byte-level language models: import, inspect, run and measure them.
///
/// Exit status: 0 success, 1 failure (one line on standard error says of what), 2 wrong usage, 130 interrupted.
#[derive(Parser)]
#[command(name = "grug", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Import(import::Arguments),
    Info(info::Arguments),
    Generate(generate::Arguments),
    Score(score::Arguments),
    Quantize(quantize::Arguments),
    Export(export::Arguments),
    Bench(bench::Arguments),
    Devices(devices::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Import(arguments) => import::run(&arguments),
        Command::Info(arguments) => info::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Quantize(arguments) => quantize::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Devices(arguments) => devices::run(&arguments),
    };
    match result {
        // Whoever read our output has had enough: that is no failure.
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            output::complain(&text);
            ExitCode::from(2)
        }
        Err(Failure::Error(error)) if error.kind() == ErrorKind::Canceled => ExitCode::from(130),
        Err(Failure::Error(error)) => {
            output::complain(error.message());
            ExitCode::FAILURE
        }
    }
}
