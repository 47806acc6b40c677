//! The one thing the training loop talks to.

use std::path::PathBuf;
use std::time::Duration;

use grug::error::Result;
use serde_json::{Map, Value, json};

use super::tensorboard::EventWriter;
use super::{Curves, MetricsFile, Progress, RunFolder, memory, plot, read_series, units};

/// What a journal needs to know of its run.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Name of the run.
    pub name: String,
    /// Steps of the whole training.
    pub total_steps: u64,
    /// Steps already taken, where training resumes.
    pub first_step: u64,
    /// Bytes of input in a window.
    pub window_bytes: u64,
    /// Operations to train on one window, forward and backward.
    pub flops_per_window: f64,
    /// The most operations a second that the devices together can do; none where it is not known.
    pub peak_flops: Option<f64>,
    /// Write TensorBoard event files.
    pub tensorboard: bool,
    /// Draw the curves at the end.
    pub plot: bool,
    /// Show nothing.
    pub quiet: bool,
}

/// What the loop measured since it last said something.
#[derive(Debug, Clone, Default)]
pub struct TrainRecord {
    /// Optimizer steps taken so far.
    pub step: u64,
    /// Mean training loss since the last record, in nats a byte.
    pub loss: f64,
    /// Learning rate of the last step, of the first group.
    pub learning_rate: f64,
    /// Steps since the last record.
    pub steps: u64,
    /// Windows trained since the last record, over all ranks.
    pub windows: u64,
    /// Seconds that took, without validation, samples and checkpoints.
    pub seconds: f64,
    /// Bytes of device memory in use at most; none on the CPU, where the process is asked.
    pub device_memory: Option<u64>,
    /// Anything else by name, such as ("grad_norm", 0.7).
    pub extra: Vec<(&'static str, f64)>,
}

/// What a validation found.
#[derive(Debug, Clone, Default)]
pub struct ValidationRecord {
    /// Optimizer steps taken so far.
    pub step: u64,
    /// Mean loss, in nats a byte.
    pub loss: f64,
    /// Whether it is the best so far.
    pub best: bool,
    /// Windows it was measured on.
    pub windows: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Shows a run and writes it down.
pub struct Journal {
    options: JournalOptions,
    folder: RunFolder,
    metrics: MetricsFile,
    events: Option<EventWriter>,
    progress: Progress,
    /// Smoothed, for the estimate of the time left.
    seconds_per_step: Option<f64>,
    /// What the bar says of the last validation.
    validation: String,
}

impl Journal {
    /// Opens the files of a run's folder.
    pub fn start(folder: &RunFolder, options: JournalOptions) -> Result<Journal> {
        let metrics = MetricsFile::open(&folder.metrics(), options.first_step)?;
        let events = match options.tensorboard {
            true => Some(EventWriter::create(&folder.tensorboard(), options.first_step)?),
            false => None,
        };
        let progress = Progress::new(options.total_steps, options.quiet);
        progress.position(options.first_step);
        Ok(Journal {
            options,
            folder: folder.clone(),
            metrics,
            events,
            progress,
            seconds_per_step: None,
            validation: String::new(),
        })
    }

    /// A step was taken: moves the bar. Cheap enough for every step.
    pub fn tick(&self, step: u64) {
        self.progress.position(step);
    }

    /// Something to tell, once.
    pub fn say(&self, text: &str) {
        self.progress.say(text);
    }

    /// Shows and writes what was measured in training.
    pub fn train(&mut self, record: &TrainRecord) -> Result<()> {
        let seconds = record.seconds.max(1e-9);
        let windows_per_second = record.windows as f64 / seconds;
        let bytes_per_second = windows_per_second * self.options.window_bytes as f64;
        let flops = windows_per_second * self.options.flops_per_window;
        let utilization = self.options.peak_flops.map(|peak| flops / peak);
        let resident = memory::resident();
        let memory = record.device_memory.or(resident.map(|resident| resident.now));
        if record.steps > 0 {
            let now = seconds / record.steps as f64;
            self.seconds_per_step = Some(self.seconds_per_step.map_or(now, |old| 0.9 * old + 0.1 * now));
        }

        let mut numbers = vec![
            ("loss", record.loss),
            ("bits_per_byte", record.loss * units::BITS_PER_NAT),
            ("learning_rate", record.learning_rate),
            ("bytes_per_second", bytes_per_second),
            ("flops_per_second", flops),
        ];
        numbers.extend(utilization.map(|mfu| ("mfu", mfu)));
        numbers.extend(memory.map(|bytes| ("memory_bytes", bytes as f64)));
        numbers.extend(&record.extra);
        self.write("train", record.step, &numbers, Map::new())?;

        let left = self.seconds_per_step.map(|each| {
            let steps = self.options.total_steps.saturating_sub(record.step);
            Duration::try_from_secs_f64(each * steps as f64).unwrap_or(Duration::MAX)
        });
        let validation = &self.validation;
        let total = self.options.total_steps;
        self.progress.update(record.step, || {
            let mut words =
                vec![format!("step {}/{total}", record.step), format!("loss {}", units::loss(record.loss))];
            // On a narrow terminal the end is cut off.
            words.extend(left.map(|left| format!("{} left", units::duration(left))));
            words.extend([
                format!("lr {:.2e}", record.learning_rate),
                format!("{}B/s", units::count(bytes_per_second)),
            ]);
            match utilization {
                Some(share) => words.push(format!("MFU {:.1} %", 100.0 * share)),
                None => words.push(format!("{}FLOP/s", units::count(flops))),
            }
            words.extend(memory.map(units::memory));
            if !validation.is_empty() {
                words.push(validation.clone());
            }
            words.join("  ")
        });
        Ok(())
    }

    /// Shows and writes what a validation found.
    pub fn validation(&mut self, record: &ValidationRecord) -> Result<()> {
        let best = if record.best { ", the best so far" } else { "" };
        self.validation = format!("validation {:.4}", record.loss);
        self.say(&format!(
            "step {}: validation loss {} over {} windows in {}{best}",
            record.step,
            units::loss(record.loss),
            record.windows,
            units::duration(Duration::try_from_secs_f64(record.seconds).unwrap_or_default())
        ));
        let numbers = [("loss", record.loss), ("bits_per_byte", record.loss * units::BITS_PER_NAT)];
        let mut fields = Map::new();
        fields.insert("best".into(), record.best.into());
        fields.insert("windows".into(), record.windows.into());
        fields.insert("seconds".into(), json!(record.seconds));
        self.write("validation", record.step, &numbers, fields)
    }

    /// Shows and writes text that the model drew after `prompt`.
    pub fn sample(&mut self, step: u64, prompt: &[u8], text: &[u8]) -> Result<()> {
        let shown = format!("{}{}", units::printable(prompt), units::printable(text));
        self.say(&format!("step {step}: the model writes\n{shown}"));
        let mut fields = Map::new();
        fields.insert("prompt".into(), String::from_utf8_lossy(prompt).into());
        fields.insert("text".into(), String::from_utf8_lossy(text).into());
        self.metrics.write("sample", step, fields)?;
        if let Some(events) = &mut self.events {
            // Indented by four, Markdown shows it as it is.
            events.text(step, "sample", &shown.lines().map(|l| format!("    {l}\n")).collect::<String>())?;
            events.flush()?;
        }
        Ok(())
    }

    /// Shows and writes that something happened, such as a skipped step or an early stop.
    pub fn event(&mut self, step: u64, what: &str) -> Result<()> {
        self.say(&format!("step {step}: {what}"));
        let mut fields = Map::new();
        fields.insert("what".into(), what.into());
        self.metrics.write("event", step, fields)
    }

    /// Draws the curves, where that is asked for and there are any, and leaves the bar. Returns the picture's path.
    pub fn finish(mut self) -> Result<Option<PathBuf>> {
        self.progress.finish();
        if let Some(events) = &mut self.events {
            events.flush()?;
        }
        if !self.options.plot {
            return Ok(None);
        }
        let series = read_series(self.metrics.path())?;
        let path = self.folder.plot();
        Ok(plot::draw(&path, &Curves { title: self.options.name, series })?.then_some(path))
    }

    /// One line of metrics, and each of its numbers for TensorBoard as `kind/name`.
    fn write(
        &mut self,
        kind: &str,
        step: u64,
        numbers: &[(&str, f64)],
        mut fields: Map<String, Value>,
    ) -> Result<()> {
        for (name, value) in numbers {
            fields.insert((*name).into(), json!(value));
        }
        self.metrics.write(kind, step, fields)?;
        if let Some(events) = &mut self.events {
            for (name, value) in numbers {
                events.scalar(step, &format!("{kind}/{name}"), *value)?;
            }
            events.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_metrics_events_and_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), false).unwrap();
        let options = JournalOptions {
            name: "run".into(),
            total_steps: 20,
            first_step: 0,
            window_bytes: 100,
            flops_per_window: 1e6,
            peak_flops: Some(1e9),
            tensorboard: true,
            plot: true,
            quiet: true,
        };
        let mut journal = Journal::start(&folder, options).unwrap();
        for step in [10, 20] {
            journal.tick(step);
            journal
                .train(&TrainRecord {
                    step,
                    loss: std::f64::consts::LN_2,
                    learning_rate: 1e-3,
                    steps: 10,
                    windows: 40,
                    seconds: 2.0,
                    device_memory: Some(7),
                    extra: vec![("grad_norm", 0.5)],
                })
                .unwrap();
        }
        let found = ValidationRecord { step: 20, loss: 2.0, best: true, windows: 9, seconds: 1.0 };
        journal.validation(&found).unwrap();
        journal.sample(20, b"O ", b"Romeo\xff").unwrap();
        journal.event(20, "stopped early").unwrap();
        let picture = journal.finish().unwrap().unwrap();
        assert!(picture.exists());
        let text = std::fs::read_to_string(folder.metrics()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 5);
        let first = &lines[0];
        assert_eq!((first["kind"].as_str(), first["step"].as_u64()), (Some("train"), Some(10)));
        assert_eq!(first["bits_per_byte"], 1.0);
        assert_eq!(first["bytes_per_second"], 2000.0);
        assert_eq!(first["mfu"], 0.02);
        assert_eq!((&first["memory_bytes"], &first["grad_norm"]), (&json!(7.0), &json!(0.5)));
        assert_eq!((&lines[2]["best"], &lines[2]["windows"]), (&json!(true), &json!(9)));
        assert_eq!(lines[3]["text"], "Romeo\u{fffd}");
        assert_eq!(std::fs::read_dir(folder.tensorboard()).unwrap().count(), 1);
    }
}
