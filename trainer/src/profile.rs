//! A trace of some steps, as the published trainer takes it: in one epoch, cycles of steps passed over (`wait`), steps
//! in which the profiler warms up, and steps that it keeps (`active`); each cycle leaves one file.

use std::path::{Path, PathBuf};

use grug::error::Result;
use tch::Device;

use crate::config::ProfilerConfig;
use crate::torch::{self, Profiler, Span};

/// What the profiler does during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waits,
    WarmsUp,
    Keeps,
}

/// Takes traces of a run.
#[derive(Debug)]
pub struct StepProfiler {
    config: ProfilerConfig,
    device: Device,
    folder: PathBuf,
    /// The first step of the epoch that this process has seen.
    first: Option<u64>,
    profiler: Option<Profiler>,
    keeping: bool,
    written: u64,
    span: Option<Span>,
}

impl StepProfiler {
    /// Traces as the configuration asks for them, into this folder.
    pub fn new(config: &ProfilerConfig, device: Device, folder: &Path) -> StepProfiler {
        StepProfiler {
            config: config.clone(),
            device,
            folder: folder.to_owned(),
            first: None,
            profiler: None,
            keeping: false,
            written: 0,
            span: None,
        }
    }

    /// What step number `n` of the epoch is for, and whether it ends a cycle.
    fn phase(&self, n: u64) -> (Phase, bool) {
        let ProfilerConfig { wait, warmup, active, repeat, .. } = self.config;
        let cycle = wait + warmup + active;
        match n % cycle {
            _ if n >= cycle * repeat => (Phase::Waits, false),
            k if k < wait => (Phase::Waits, false),
            k if k < wait + warmup => (Phase::WarmsUp, false),
            k => (Phase::Keeps, k + 1 == cycle),
        }
    }

    /// Comes before a step, of which `done` came before, in this epoch. The file of a cycle that the end of the epoch
    /// cut short.
    pub fn before(&mut self, done: u64, epoch: u64) -> Result<Option<PathBuf>> {
        if !self.config.enabled || epoch != self.config.epoch {
            return self.finish();
        }
        let first = *self.first.get_or_insert(done);
        let (phase, _) = self.phase(done - first);
        if phase != Phase::Waits && self.profiler.is_none() {
            self.profiler = Some(Profiler::prepare(self.device)?);
        }
        if phase == Phase::Keeps {
            if let Some(profiler) = self.profiler.as_mut().filter(|_| !self.keeping) {
                profiler.start()?;
                self.keeping = true;
            }
            self.span = Some(Span::begin(&format!("step {}", done + 1)));
        }
        Ok(None)
    }

    /// Comes after a step, when `done` are done. The file that the step completed.
    pub fn after(&mut self, done: u64) -> Result<Option<PathBuf>> {
        self.span = None;
        match self.first {
            Some(first) if self.keeping && self.phase(done - 1 - first).1 => self.finish(),
            _ => Ok(None),
        }
    }

    /// Ends a cycle, and writes what it kept so far.
    pub fn finish(&mut self) -> Result<Option<PathBuf>> {
        self.span = None;
        let Some(profiler) = self.profiler.take() else { return Ok(None) };
        if !std::mem::take(&mut self.keeping) {
            return Ok(None);
        }
        torch::synchronize(self.device);
        self.written += 1;
        let path = self.folder.join(format!("trace-{}.json", self.written));
        profiler.stop(&path)?;
        Ok(Some(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_those_of_the_published_schedule() {
        let config = ProfilerConfig { enabled: true, epoch: 0, wait: 1, warmup: 2, active: 2, repeat: 2 };
        let profiler = StepProfiler::new(&config, Device::Cpu, Path::new("."));
        let phases: String = (0..12)
            .map(|n| match profiler.phase(n) {
                (Phase::Waits, _) => '-',
                (Phase::WarmsUp, _) => 'w',
                (Phase::Keeps, false) => 'a',
                (Phase::Keeps, true) => 'A',
            })
            .collect();
        assert_eq!(phases, "-wwaA-wwaA--");
    }
}
