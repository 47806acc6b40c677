//! The folder of a run, and what it says about how the run came to be.

use std::io::Write;
use std::path::{Path, PathBuf};

use grug::checkpoint::write_atomically;
use grug::error::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::config::RunConfig;

/// A run's folder:
///
/// | file | what it is |
/// |---|---|
/// | `config.toml` | the configuration, with every default written out |
/// | `run.json` | a list, one entry for every start: command line, versions, device, time, first step |
/// | `metrics.jsonl` | losses and everything measured |
/// | `tensorboard/` | the same for TensorBoard |
/// | `loss.svg` | the curves, drawn at the end |
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder. A new run (`resuming` false) refuses a folder that a run has been in.
    pub fn create(path: &Path, resuming: bool) -> Result<RunFolder> {
        let folder = RunFolder { path: path.to_owned() };
        if !resuming && folder.config().exists() {
            return Err(Error::invalid(format!(
                "{} holds a run already: resume it, give the new one another name (--set name=…), or remove the folder",
                path.display()
            )));
        }
        std::fs::create_dir_all(path).map_err(|e| Error::io("making the folder", path, e))?;
        Ok(folder)
    }

    /// Keeps what this start of the run is. `versions` names libraries, such as ("libtorch", "2.11.0").
    pub fn describe(
        &self,
        run: &RunConfig,
        device: &str,
        versions: &[(&str, &str)],
        first_step: u64,
    ) -> Result<()> {
        let config = run.resolved().to_toml();
        write_atomically(&self.config(), |out| out.write_all(config.as_bytes()))?;
        let path = self.path.join("run.json");
        let mut starts = match std::fs::read(&path) {
            Ok(text) if first_step > 0 => match serde_json::from_slice(&text) {
                Ok(Value::Array(starts)) => starts,
                Ok(_) | Err(_) => return Err(Error::format("is not a list of starts").in_file(&path)),
            },
            Ok(_) => Vec::new(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::new(ErrorKind::Io, format!("reading {}: {e}", path.display()))),
        };
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut all_versions = json!({ "grug-trainer": env!("CARGO_PKG_VERSION") });
        for (name, version) in versions {
            all_versions[*name] = (*version).into();
        }
        starts.push(json!({
            "command": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
            "folder": std::env::current_dir().ok().map(|folder| folder.to_string_lossy().into_owned()),
            "time": time.map_or(0, |time| time.as_secs()),
            "first_step": first_step,
            "device": device,
            "system": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            "versions": all_versions,
        }));
        let text = serde_json::to_string_pretty(&starts).expect("text and numbers");
        write_atomically(&path, |out| writeln!(out, "{text}"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The metrics.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The folder of TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The picture of the curves.
    pub fn plot(&self) -> PathBuf {
        self.path.join("loss.svg")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_kept_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs/a");
        let run = RunConfig::load("shakespeare", &[]).unwrap();
        let folder = RunFolder::create(&path, false).unwrap();
        folder.describe(&run, "cpu", &[("libtorch", "2.11.0")], 0).unwrap();
        let text = std::fs::read_to_string(folder.config()).unwrap();
        assert_eq!(RunConfig::from_toml(&text).unwrap(), run.resolved());
        let error = RunFolder::create(&path, false).unwrap_err();
        assert!(error.message().contains("holds a run already"), "{error}");
        let folder = RunFolder::create(&path, true).unwrap();
        folder.describe(&run, "cpu", &[], 50).unwrap();
        let starts: Value = serde_json::from_slice(&std::fs::read(path.join("run.json")).unwrap()).unwrap();
        assert_eq!(starts.as_array().unwrap().len(), 2);
        assert_eq!(starts[0]["versions"]["libtorch"], "2.11.0");
        assert_eq!(starts[1]["first_step"], 50);
        let blocked = dir.path().join("file");
        std::fs::write(&blocked, "x").unwrap();
        assert_eq!(RunFolder::create(&blocked.join("run"), false).unwrap_err().kind(), ErrorKind::Io);
    }
}
