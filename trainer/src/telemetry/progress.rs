//! A progress bar where the error output is a terminal, plain lines where it is not.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units;

/// Plain lines come no faster than this.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Writes a line to the error output. That nobody reads it any more, because Ctrl-C ended the program at the other end of
/// a pipe, say, is no reason to stop.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Shows how far something is.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
    Nothing,
}

impl Progress {
    /// A bar of `total` steps on a terminal; lines elsewhere; nothing where `quiet`.
    pub fn new(total: u64, quiet: bool) -> Progress {
        let display = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Display::Nothing,
            (false, false) => Display::Lines { last: None },
            (false, true) => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
                let style = ProgressStyle::with_template("{bar:16} {percent:>3}% {wide_msg}")
                    .expect("a fixed template")
                    .progress_chars("█▉▊▋▌▍▎▏ ");
                bar.set_style(style);
                Display::Bar(bar)
            }
        };
        Progress { total, display }
    }

    /// Moves the bar, without new words.
    pub fn position(&self, done: u64) {
        if let Display::Bar(bar) = &self.display {
            bar.set_position(done);
        }
    }

    /// Says something about the present state: beside the bar, or as a line now and then. The words are only made
    /// where they are shown. The last step is always shown.
    pub fn update(&mut self, done: u64, words: impl FnOnce() -> String) {
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(words());
            }
            Display::Lines { last } => {
                let due = done == self.total || last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
                if due {
                    *last = Some(Instant::now());
                    tell(words());
                }
            }
            Display::Nothing => {}
        }
    }

    /// Says something that stays: above the bar, or as a line.
    pub fn say(&self, text: &str) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| tell(text)),
            Display::Lines { .. } => tell(text),
            Display::Nothing => {}
        }
    }

    /// Leaves the last state on the screen and goes to the next line.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.abandon();
        }
    }
}

/// Progress over bytes of files, for preparation: how much, how fast, how long still.
#[derive(Debug)]
pub struct ByteProgress {
    progress: Progress,
    started: Instant,
}

impl ByteProgress {
    /// Progress up to `total` bytes.
    pub fn new(total: u64, quiet: bool) -> ByteProgress {
        ByteProgress { progress: Progress::new(total, quiet), started: Instant::now() }
    }

    /// `done` bytes of the total are done; `what` is being worked on.
    pub fn update(&mut self, done: u64, what: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let total = self.progress.total;
        self.progress.update(done, || {
            let rate = done as f64 / seconds.max(1e-3);
            let left = Duration::from_secs_f64((total.saturating_sub(done)) as f64 / rate.max(1.0));
            format!(
                "{} of {}  {}B/s  {} left  {what}",
                units::memory(done),
                units::memory(total),
                units::count(rate),
                units::duration(left)
            )
        });
    }

    /// Leaves the last state on the screen.
    pub fn finish(&self) {
        self.progress.finish();
    }
}
