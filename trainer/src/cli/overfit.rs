use grug::error::{Error, ErrorKind, Result};

use super::setup::{RunArgs, open_corpus};
use super::stop_flag;
use crate::telemetry::{Progress, units};
use crate::torch;
use crate::train::{OverfitOptions, Trainer, overfit, overfit_run};

/// Check a configuration: can it learn a few windows by heart?
///
/// Trains on the first windows alone, over and over, without dropout and weight decay. Exit status 0 where the loss
/// falls below --below; else 1, and what to look at. Nothing is kept.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// Windows to learn; default: those of a step, at most 4
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Steps to learn them in
    #[arg(long, value_name = "N", default_value_t = 500)]
    steps: u64,
    /// The loss that counts as learned, in nats
    #[arg(long, value_name = "NATS", default_value_t = 0.1)]
    below: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let (run, device) = args.run.open()?;
    let options = OverfitOptions {
        windows: args.windows.unwrap_or(run.training.batch_size.min(4)),
        steps: args.steps,
        below: args.below,
    };
    let corpus = open_corpus(&run)?;
    let run = overfit_run(&run, options);
    let mut trainer = Trainer::new(&run, &corpus, device)?;
    eprintln!(
        "learning {} windows of {} bytes by heart, on {}",
        options.windows,
        run.window_bytes(),
        torch::describe(device)
    );
    let mut progress = Progress::new(options.steps, false);
    let found = overfit(&mut trainer, options, stop_flag("stopping after this step"), |step, nats| {
        progress.update(step, || format!("step {step}/{}  loss {}", options.steps, units::loss(nats)));
    })?;
    progress.finish();
    let course = format!(
        "from {:.4} to {:.4} nats in {} step{}",
        found.first,
        found.last,
        found.steps,
        if found.steps == 1 { "" } else { "s" }
    );
    if found.learned {
        println!("learned: {course}");
        return Ok(());
    }
    for advice in found.advice(&run) {
        eprintln!("look at this: {advice}");
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("not learned: {course}, and {} was to be reached (--below)", options.below),
    ))
}
