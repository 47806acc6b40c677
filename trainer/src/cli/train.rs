use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

use grug::error::{Error, Result};

use super::console::{Console, Silent, Watcher};
use super::setup::{open_corpus, open_prepared, prepare_corpus};
use super::{DeviceArgs, stop_flag};
use crate::config::{PRESETS, RunConfig};
use crate::dataset::prepare::find_files;
use crate::dataset::{Corpus, Layout};
use crate::parallel::{Place, Ranks, Team};
use crate::telemetry::{Plan, RunFolder, tell};
use crate::torch;
use crate::train::{Files, Outcome, train};

/// Train a model
#[derive(Debug, clap::Args)]
#[command(after_help = presets())]
pub struct Args {
    /// A configuration file, or a preset's name; with --resume it may be left out
    #[arg(value_name = "CONFIG", required_unless_present = "resume")]
    config: Option<String>,
    /// Change one setting, such as training.steps=100; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder of the run; default: runs_dir/name of the configuration
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Go on with the run in its folder
    #[arg(long)]
    resume: bool,
    /// Split overlapping windows at random, as published: for comparing with published numbers, since it leaks
    #[arg(long)]
    legacy_split: bool,
    /// Say what the run would be (parameters, operations, memory, windows) and do nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

fn presets() -> String {
    let mut text = String::from("Presets:\n");
    for preset in PRESETS {
        text.push_str(&format!("  {:<24} {}\n", preset.name, preset.summary()));
    }
    text
}

impl Args {
    fn configuration(&self) -> Result<RunConfig> {
        let mut overrides = self.overrides.clone();
        if self.legacy_split {
            overrides.push("data.legacy_split=true".into());
        }
        if let Some(config) = &self.config {
            return RunConfig::load(config, &overrides);
        }
        let folder = self.run_dir.as_ref().ok_or_else(|| {
            Error::invalid("--resume needs the run's configuration or, with --run-dir, its folder")
        })?;
        let path = folder.join("config.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("reading", &path, e))?;
        RunConfig::parse(&text, &overrides).map_err(|e| e.in_file(&path))
    }
}

/// Bytes of the corpus that a run would train on, whether it is prepared already or not.
fn corpus_len(run: &RunConfig) -> Result<u64> {
    let gone = run.data.sources.iter().all(|source| !source.exists());
    if !run.needs_preparation() || gone && run.prepared_path().exists() {
        return Ok(Corpus::open(&run.prepared_path())?.len());
    }
    find_files(&run.data.sources)?
        .iter()
        .try_fold(0, |sum, file| Ok(sum + file.metadata().map_err(|e| Error::io("reading", file, e))?.len()))
}

/// Prints what the run would be.
fn describe(run: &RunConfig) -> Result<()> {
    let layout = Layout::new(run, corpus_len(run)?, 0, 1).map_err(|e| e.at("[data]"))?;
    let plan = Plan::new(run, layout.total_steps, layout.sampler.windows_per_epoch(), 1)?;
    println!("{plan}\n{layout}");
    for warning in &layout.warnings {
        println!("{warning}");
    }
    Ok(())
}

pub fn run(args: &Args) -> Result<()> {
    if args.dry_run {
        return describe(&args.configuration()?);
    }
    let ranks = Ranks::from_env()?;
    let device = args.device.select_for(ranks.as_ref().map_or(0, |ranks| ranks.local_rank))?;
    let mut run = args.configuration()?;
    if let Some(threads) = args.device.threads {
        run.training.threads = threads;
    }
    let local_rank = ranks.as_ref().map_or(0, |ranks| ranks.local_rank);
    let Some(ranks) = ranks else {
        return train_at(args, run, device.into(), local_rank);
    };
    let team = Rc::new(Team::join(&ranks, device, &run.parallel)?);
    let place = Place { device, team: Some(team.clone()) };
    // The others must hear of a panic too.
    catch_unwind(AssertUnwindSafe(|| train_at(args, run, place, local_rank)))
        .unwrap_or_else(|payload| Err(torch::error_of_panic(payload)))
        .and_then(|()| team.part())
        .or_else(|error| team.fail(&error))
}

/// Trains, alone or as one of several ranks. The first rank of each machine prepares the text there.
fn train_at(args: &Args, mut run: RunConfig, place: Place, local_rank: usize) -> Result<()> {
    let folder = args.run_dir.clone().unwrap_or_else(|| run.run_dir());
    if args.run_dir.is_some() && run.data.prepared.is_none() && run.needs_preparation() {
        let corpus = folder.join("corpus.bin");
        if corpus.to_str().is_none() {
            return Err(Error::invalid(format!(
                "--run-dir {}: is not UTF-8, and would be part of a setting, data.prepared; set that to another file",
                folder.display()
            )));
        }
        run.data.prepared = Some(corpus);
    }
    let stop = stop_flag("stopping after this step and saving");
    let mut console: Box<dyn Watcher> = Box::new(Silent);
    let mut files = Files::at(&folder);
    let mut _claim = None;
    if place.is_first() {
        files = Files::create(&folder)?;
        _claim = files.claim()?;
        // A run that ended before its first checkpoint has nothing to lose.
        let empty = files.states()?.is_empty();
        let run_folder = RunFolder::create(&folder, args.resume || empty)?;
        console = Box::new(Console::new(&run, run_folder, &place));
    }
    let corpus = match &place.team {
        None => open_corpus(&run)?,
        Some(team) => {
            if local_rank == 0 {
                prepare_corpus(&run)?;
            }
            team.meet()?;
            let corpus = open_prepared(&run)?;
            team.agree(&format!("bytes in {}", corpus.path().display()), corpus.len())?;
            corpus
        }
    };
    let is_first = place.is_first();
    let outcome = train(&run, &corpus, place, &files, args.resume, stop, console.observer())?;
    console.finish()?;
    match outcome {
        Outcome::Stopped if is_first => tell("stopped; --resume goes on"),
        Outcome::Finished | Outcome::StoppedEarly | Outcome::Stopped => {}
    }
    Ok(())
}
