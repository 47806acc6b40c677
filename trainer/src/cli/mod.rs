//! The command line. Exit status 0: done; 1: an error, which is one sentence on stderr; 2: wrong usage.

mod bench;
mod console;
mod eval;
mod generate;
mod hangup;
mod import_config;
mod lr_range;
mod overfit;
mod prepare;
mod setup;
mod train;

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use grug::error::{Error, Result};

use crate::config::MAX_THREADS;
use crate::telemetry::tell;
use crate::torch;

/// Trains GrugV3, byte-level language models, and tries them out.
#[derive(Debug, Parser)]
#[command(name = "grug-trainer", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(prepare::Args),
    Train(train::Args),
    Overfit(overfit::Args),
    LrRange(lr_range::Args),
    Eval(eval::Args),
    Generate(generate::Args),
    ImportConfig(import_config::Args),
    Bench(bench::Args),
}

/// Where a command computes.
#[derive(Debug, clap::Args)]
struct DeviceArgs {
    /// auto (a GPU where there is one), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// CPU threads; 0 = as many as there are cores
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl DeviceArgs {
    /// Chooses the device. Comes before anything else that touches libtorch.
    fn select(&self) -> Result<tch::Device> {
        self.select_for(0)
    }

    /// Chooses the device of the process of this number on this machine.
    fn select_for(&self, local_rank: usize) -> Result<tch::Device> {
        let device = match torch::select_device(&self.device)? {
            tch::Device::Cuda(_) if local_rank > 0 && !self.device.contains(':') => {
                torch::select_device(&format!("cuda:{local_rank}"))?
            }
            device => device,
        };
        if let Some(threads) = self.threads.filter(|&n| n > 0) {
            if threads > MAX_THREADS {
                return Err(Error::invalid(format!("--threads {threads}: must be at most {MAX_THREADS}")));
            }
            tch::set_num_threads(threads as i32);
        }
        Ok(device)
    }
}

/// Raised by the first Ctrl-C (or SIGTERM, or SIGHUP where it was not ignored), which is answered by what it will do; the
/// second one ends the program at once.
fn stop_flag(what: &'static str) -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let handler = move || {
            static FIRST: OnceLock<Instant> = OnceLock::new();
            let first = FIRST.get_or_init(Instant::now);
            if STOP.swap(true, Ordering::SeqCst) {
                // The terminal and a launcher may both pass on one Ctrl-C.
                let launched = std::env::var_os("WORLD_SIZE").is_some();
                if launched && first.elapsed() < Duration::from_secs(1) {
                    return;
                }
                std::process::exit(130);
            }
            tell(format_args!("\n{what}; once more stops at once"));
        };
        if let Err(error) = hangup::kept(|| ctrlc::set_handler(handler)) {
            tell(format_args!("warning: Ctrl-C will not save: {error}"));
        }
    });
    &STOP
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Prepare(args) => prepare::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Overfit(args) => overfit::run(&args),
        Command::LrRange(args) => lr_range::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::ImportConfig(args) => import_config::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The short methods of tch panic where libtorch throws, for lack of memory say. That is an error like any other.
    let default_hook = std::panic::take_hook();
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let result =
        std::panic::catch_unwind(|| run(cli)).unwrap_or_else(|payload| Err(torch::error_of_panic(payload)));
    std::panic::set_hook(default_hook);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
