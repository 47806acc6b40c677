//! What the commands that train begin with: a configuration, its corpus, a device.

use grug::error::{Error, Result};
use tch::Device;

use super::DeviceArgs;
use super::prepare::prepare_and_report;
use crate::config::RunConfig;
use crate::dataset::Corpus;
use crate::dataset::prepare::Preparation;

/// A configuration and a device.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// A configuration file, or a preset's name
    #[arg(value_name = "CONFIG")]
    config: String,
    /// Change one setting, such as optimizer.type=muon; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl RunArgs {
    /// The run and the device.
    pub fn open(&self) -> Result<(RunConfig, Device)> {
        let device = self.device.select()?;
        let mut run = RunConfig::load(&self.config, &self.overrides)?;
        if let Some(threads) = self.device.threads {
            run.training.threads = threads;
        }
        Ok((run, device))
    }
}

/// Prepares the corpus of a run where that is needed.
pub fn prepare_corpus(run: &RunConfig) -> Result<()> {
    if run.needs_preparation() {
        prepare_and_report(&Preparation {
            sources: run.data.sources.clone(),
            output: run.prepared_path(),
            force: run.data.force_prepare,
            strict_utf8: run.data.strict_utf8,
            dummy_if_empty: run.data.dummy_if_empty,
            seed: run.training.seed,
        })?;
    }
    Ok(())
}

/// The corpus of a run, prepared first where that is needed.
pub fn open_corpus(run: &RunConfig) -> Result<Corpus> {
    prepare_corpus(run)?;
    open_prepared(run)
}

/// The corpus of a run, as it is. Preparation looks only at what it copies: not at text that is a byte file itself, nor at
/// a byte file that was there.
pub fn open_prepared(run: &RunConfig) -> Result<Corpus> {
    let corpus = Corpus::open(&run.prepared_path())?;
    if run.data.strict_utf8
        && let Err(e) = std::str::from_utf8(corpus.bytes())
    {
        let text = format!("is not UTF-8 at byte {} (data.strict_utf8)", e.valid_up_to());
        return Err(Error::format(text).in_file(corpus.path()));
    }
    Ok(corpus)
}
