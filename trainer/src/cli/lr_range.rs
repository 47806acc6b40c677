use std::io::Write;
use std::path::PathBuf;

use grug::checkpoint::write_atomically;
use grug::error::{Error, Result};
use serde_json::json;

use super::setup::{RunArgs, open_corpus};
use super::stop_flag;
use crate::config::{OptimizerKind, ScheduleConfig};
use crate::telemetry::{Progress, draw_range, units};
use crate::torch;
use crate::train::{Sweep, Trainer, lr_range};

/// Find a learning rate: train a little while it grows, and see where the loss falls fastest
///
/// Writes FOLDER/lr-range.jsonl and FOLDER/lr-range.svg, and says which learning rate it would take. Those of the other
/// groups (optimizer.muon_learning_rate, the multipliers) keep their ratio to it. The model is thrown away.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// The first learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-6)]
    from: f64,
    /// The last one; the sweep ends before it where the loss rises again
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    to: f64,
    /// Steps of training
    #[arg(long, value_name = "N", default_value_t = 200)]
    steps: u64,
    /// Where to write; default: the folder of the run
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let sweep = Sweep { from: args.from, to: args.to, steps: args.steps };
    sweep.validate()?;
    let (mut run, device) = args.run.open()?;
    let corpus = open_corpus(&run)?;
    run.training.steps = Some(sweep.steps);
    run.training.epochs = None;
    run.schedule = ScheduleConfig::default();
    // The sweep is to be seen as it is.
    run.guard.enabled = false;
    run.training.ema_decay = 0.0;
    let folder = args.output.clone().unwrap_or_else(|| run.run_dir());
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("making the folder", &folder, e))?;

    let mut trainer = Trainer::new(&run, &corpus, device)?;
    eprintln!(
        "learning rates from {:.1e} to {:.1e} in {} steps, on {}",
        sweep.from,
        sweep.to,
        sweep.steps,
        torch::describe(device)
    );
    let mut lines = Vec::new();
    let mut progress = Progress::new(sweep.steps, false);
    let found = lr_range(&mut trainer, sweep, stop_flag("stopping after this step"), |step, point| {
        let line = json!({
            "step": step, "learning_rate": point.learning_rate, "loss": point.nats, "smooth_loss": point.smooth,
        });
        lines.extend(line.to_string().bytes());
        lines.push(b'\n');
        progress.update(step, || {
            let loss = units::loss(point.smooth);
            format!("step {step}/{}  lr {:.2e}  loss {loss}", sweep.steps, point.learning_rate)
        });
        Ok(())
    })?;
    progress.finish();
    let (table, picture) = (folder.join("lr-range.jsonl"), folder.join("lr-range.svg"));
    write_atomically(&table, |out| out.write_all(&lines))?;
    draw_range(&picture, &run.name, &found.points, found.suggested)?;
    println!("the curve is in {} and {}", picture.display(), table.display());
    println!(
        "lowest loss at {:.2e}{}",
        found.lowest,
        if found.broke {
            format!(", broken at {:.2e}", found.points.last().map_or(f64::NAN, |p| p.learning_rate))
        } else {
            String::new()
        }
    );
    match found.suggested {
        None => println!(
            "the loss fell nowhere: try higher learning rates (--to), more --steps, or `grug-trainer overfit`"
        ),
        Some(rate) => {
            println!("suggested: optimizer.learning_rate = {rate:.1e}");
            if run.optimizer.kind == OptimizerKind::Muon {
                let muon = run.optimizer.muon_learning_rate * rate / run.optimizer.learning_rate;
                println!("           optimizer.muon_learning_rate = {muon:.1e}");
            }
        }
    }
    Ok(())
}
