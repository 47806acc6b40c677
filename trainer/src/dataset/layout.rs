//! What a run's configuration makes of a corpus of some length: which windows train, in which order, how long, and
//! which windows validate.

use std::fmt;

use grug::error::Result;

use super::{Split, WindowSampler, Windows, validation_offsets};
use crate::config::RunConfig;
use crate::telemetry::Table;

/// The windows of a run.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The order of the training windows.
    pub sampler: WindowSampler,
    /// Where the windows that validate start; empty without validation.
    pub validation: Vec<u64>,
    /// Steps of the whole training.
    pub total_steps: u64,
    /// Bytes of the span that trains and of the one that validates; with the legacy split both are the whole corpus.
    pub span_bytes: (u64, u64),
    /// What a person should know before believing the numbers.
    pub warnings: Vec<String>,
}

impl Layout {
    /// The windows of a run over a corpus of `len` bytes, for one of `world_size` ranks.
    pub fn new(run: &RunConfig, len: u64, rank: usize, world_size: usize) -> Result<Layout> {
        let (data, training, window) = (&run.data, &run.training, run.window_bytes());
        let mut warnings = Vec::new();
        let (train, validation, span_bytes) = if data.legacy_split {
            warnings.push(
                "data.legacy_split: validation windows share bytes with training windows, as published, so the \
                 validation loss is too low"
                    .to_owned(),
            );
            let fraction = data.validation_fraction;
            let (train, validation) =
                Windows::legacy_split(len, fraction, window, run.stride(), training.seed)?;
            (train, validation, (len, len))
        } else {
            let split = Split::contiguous(len, data.validation_fraction, run.guard_bytes(), window)?;
            let bytes = |span: &std::ops::Range<u64>| span.end - span.start;
            (
                Windows::of_span(&split.train, window, run.stride()),
                Windows::of_span(&split.validation, window, run.validation_stride()),
                (bytes(&split.train), bytes(&split.validation)),
            )
        };
        let sampler = WindowSampler::new(
            train,
            data.shift_epochs,
            training.seed,
            training.batch_size,
            rank,
            world_size,
        )?;
        if sampler.windows_per_epoch() < training.batch_size as u64 {
            warnings.push(format!(
                "the training part has {} windows, fewer than the {} of a step: some are used more than once in a step",
                sampler.windows_per_epoch(),
                training.batch_size
            ));
        }
        let by_epochs = training.epochs.map_or(u64::MAX, |epochs| sampler.steps_for(epochs));
        Ok(Layout {
            total_steps: training.steps.unwrap_or(u64::MAX).min(by_epochs),
            validation: match validation.is_empty() {
                true => Vec::new(),
                false => validation_offsets(&validation, training.validation_windows, training.seed),
            },
            sampler,
            span_bytes,
            warnings,
        })
    }
}

/// The corpus as `--dry-run` shows it.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .row(["corpus", "bytes", "windows"])
            .row([
                "training".into(),
                self.span_bytes.0.to_string(),
                self.sampler.windows_per_epoch().to_string(),
            ])
            .row(["validation".into(), self.span_bytes.1.to_string(), self.validation.len().to_string()]);
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(set: &[&str], len: u64) -> Result<Layout> {
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        Layout::new(&RunConfig::load("shakespeare", &set)?, len, 0, 1)
    }

    #[test]
    fn steps_and_epochs_end_a_run_whichever_comes_first() {
        let by_steps = layout(&["training.steps=7", "training.epochs=3"], 1_115_394).unwrap();
        assert_eq!(by_steps.total_steps, 7);
        let n = by_steps.sampler.windows_per_epoch();
        // 1,003,854 bytes less a guard of 256, in windows of 257 every 256, less one to shift the others.
        assert_eq!(n, (1_003_854 - 256 - 257) / 256);
        let by_epochs =
            layout(&["training.steps=1000000", "training.epochs=3", "training.batch_size=3"], 1_115_394)
                .unwrap();
        assert_eq!(by_epochs.total_steps, n);
        assert_eq!(by_epochs.span_bytes, (1_003_854 - 256, 111_540));
        let sampled = layout(&["training.validation_windows=0"], 1_115_394).unwrap();
        assert_eq!(sampled.validation.len(), (111_540 - 257) / 256 + 1);
    }

    #[test]
    fn what_makes_numbers_doubtful_is_said() {
        assert!(layout(&["training.batch_size=3"], 100_000).unwrap().warnings.is_empty());
        let leaky = layout(&["data.legacy_split=true", "data.stride=64"], 100_000).unwrap();
        assert!(leaky.warnings[0].contains("legacy_split"), "{:?}", leaky.warnings);
        let small = layout(&["training.batch_size=64"], 9000).unwrap();
        assert!(small.warnings[0].contains("more than once"), "{:?}", small.warnings);
        let none = layout(&["data.validation_fraction=0"], 100_000).unwrap();
        assert!(none.validation.is_empty() && none.span_bytes == (100_000, 0));
        assert!(layout(&[], 300).is_err());
    }
}
