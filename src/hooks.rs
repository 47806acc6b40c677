//! What a host may listen to: the log, and the progress of loading. The library prints nothing by itself.

use std::fmt;
use std::sync::Arc;

/// How much a line of the log matters. The discriminants are those of the C API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum LogLevel {
    /// Something failed for which a call of the C API has a status alone: a session of a batch.
    Error = 1,
    /// Something works, but not as well as it could.
    Warn = 2,
    /// What was loaded, and what computes it.
    Info = 3,
    /// What is made of it.
    Debug = 4,
}

type Write = dyn Fn(LogLevel, &str) + Send + Sync;

/// Receives lines of the log, without a line end, from any thread, as long as a model or a session that has it lives.
#[derive(Clone)]
pub struct Log(Arc<Write>);

impl Log {
    /// A log that calls a function for each line.
    pub fn new(write: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Log {
        Log(Arc::new(write))
    }

    /// Writes a line.
    pub fn write(&self, level: LogLevel, line: &str) {
        (self.0)(level, line);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

/// Writes a line where somebody listens; else it is not even made.
pub(crate) fn say(log: Option<&Log>, level: LogLevel, line: impl FnOnce() -> String) {
    if let Some(log) = log {
        log.write(level, &line());
    }
}

/// Hears how far something is, from 0 to 1 and never less than before, on the thread that does it, and says whether to
/// go on.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(f32) -> bool + Send + Sync>);

impl Progress {
    /// Progress that calls a function, which returns whether to go on.
    pub fn new(report: impl Fn(f32) -> bool + Send + Sync + 'static) -> Progress {
        Progress(Arc::new(report))
    }

    /// Reports, and says whether to go on.
    pub fn report(&self, fraction: f32) -> bool {
        (self.0)(fraction)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
