//! `metrics.jsonl`: one JSON object a line, for any program to read.
//!
//! Each has `kind` ("train", "validation", "sample" or "event"), `step` (optimizer steps taken) and `time` (seconds
//! since 1970). A number that is not finite is `null`. A resumed run continues the file after cutting off what lies
//! beyond the step that it resumes from, so that every step is there once.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use grug::checkpoint::write_atomically;
use grug::error::{Error, Result};
use serde_json::{Map, Value};

/// The metrics of a run, open for appending.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
    path: PathBuf,
}

impl MetricsFile {
    /// Opens the file, keeping the lines of steps up to `keep_to` (0: none, a new run).
    pub fn open(path: &Path, keep_to: u64) -> Result<MetricsFile> {
        let failed = |e| Error::io("writing", path, e);
        if path.exists() {
            let mut kept = Vec::new();
            let old = BufReader::new(File::open(path).map_err(|e| Error::io("opening", path, e))?);
            for line in old.split(b'\n') {
                let line = line.map_err(|e| Error::io("reading", path, e))?;
                // A line cut short by a crash is no JSON and goes.
                let step = serde_json::from_slice::<Value>(&line).ok().and_then(|v| v["step"].as_u64());
                if keep_to > 0 && step.is_some_and(|step| step <= keep_to) {
                    kept.extend(line);
                    kept.push(b'\n');
                }
            }
            write_atomically(path, |out| out.write_all(&kept))?;
        }
        let file = File::options().create(true).append(true).open(path).map_err(failed)?;
        Ok(MetricsFile { file, path: path.to_owned() })
    }

    /// Appends one line; the system has it when this returns.
    pub fn write(&mut self, kind: &str, step: u64, fields: Map<String, Value>) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
        let mut line = Map::new();
        line.insert("kind".into(), kind.into());
        line.insert("step".into(), step.into());
        line.insert("time".into(), ((time * 1000.0).round() / 1000.0).into());
        line.extend(fields);
        let mut line = Value::Object(line).to_string();
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io("writing", &self.path, e))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a metrics file says about the course of a run: (step, value) pairs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Training loss, in nats a byte.
    pub train: Vec<(u64, f64)>,
    /// Validation loss, in nats a byte.
    pub validation: Vec<(u64, f64)>,
    /// Learning rate.
    pub learning_rate: Vec<(u64, f64)>,
}

/// Reads the numbers of a metrics file. Lines that are no JSON are passed over.
pub fn read_series(path: &Path) -> Result<Series> {
    let file = File::open(path).map_err(|e| Error::io("opening", path, e))?;
    let mut series = Series::default();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|e| Error::io("reading", path, e))?;
        let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
        let Some(step) = line["step"].as_u64() else { continue };
        let push = |list: &mut Vec<(u64, f64)>, key: &str| {
            if let Some(value) = line[key].as_f64() {
                // A guard that went back takes steps again.
                list.truncate(list.partition_point(|(earlier, _)| *earlier < step));
                list.push((step, value));
            }
        };
        match line["kind"].as_str() {
            Some("train") => {
                push(&mut series.train, "loss");
                push(&mut series.learning_rate, "learning_rate");
            }
            Some("validation") => push(&mut series.validation, "loss"),
            Some(_) | None => {}
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(loss: f64) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("loss".into(), loss.into());
        map
    }

    #[test]
    fn a_resumed_file_has_every_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        for step in [10, 20, 30] {
            file.write("train", step, fields(1.0 / step as f64)).unwrap();
        }
        file.write("validation", 20, fields(f64::NAN)).unwrap();
        drop(file);
        let mut cut = std::fs::read(&path).unwrap();
        cut.extend(b"{\"kind\":\"train\",\"st");
        std::fs::write(&path, cut).unwrap();
        let mut file = MetricsFile::open(&path, 20).unwrap();
        file.write("train", 30, fields(7.0)).unwrap();
        file.write("validation", 30, fields(8.0)).unwrap();
        let series = read_series(file.path()).unwrap();
        assert_eq!(series.train, [(10, 0.1), (20, 0.05), (30, 7.0)]);
        assert_eq!(series.validation, [(30, 8.0)]);
        // A guard went back to step 15: the steps it takes again count.
        for step in [20, 25] {
            file.write("train", step, fields(9.0)).unwrap();
        }
        let series = read_series(file.path()).unwrap();
        assert_eq!(series.train, [(10, 0.1), (20, 9.0), (25, 9.0)]);
        let file = MetricsFile::open(&path, 0).unwrap();
        assert_eq!(read_series(file.path()).unwrap(), Series::default());
    }
}
