//! The checkpoints in the folder of a run.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use grug::error::{Error, ErrorKind, Result};

use crate::state::{SavedState, load_state};

/// Where a run's checkpoints are: `state-000001500.safetensors`, one for each of the last steps that were saved, with
/// everything needed to go on; and models, for use.
///
/// Every one is written beside its place and renamed, and older states go only when the new one is on the disk: at any
/// moment the newest state that is there is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
    /// The model of the last checkpoint.
    pub last: PathBuf,
    /// The model with the best validation loss.
    pub best: PathBuf,
}

impl Files {
    /// Makes the folder where it is missing, and tries to write to it, so that a run does not fail at its first
    /// checkpoint.
    pub fn create(folder: &Path) -> Result<Files> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("making the run folder", folder, e))?;
        tempfile::NamedTempFile::new_in(folder)
            .map_err(|e| Error::io("writing to the run folder", folder, e))?;
        Ok(Files::at(folder))
    }

    /// Holds the folder for one run, as long as the result lives: of two in one folder, each would remove what the other
    /// has saved. Where a system cannot lock a folder, nothing is held.
    pub fn claim(&self) -> Result<Option<File>> {
        let Ok(folder) = File::open(&self.folder) else { return Ok(None) };
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => {
                let text =
                    "is in use: another process trains there, and each would remove what the other has saved";
                Err(Error::invalid(format!("{} {text}", self.folder.display())))
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// The files of a folder that another rank makes.
    pub fn at(folder: &Path) -> Files {
        Files {
            last: folder.join("last.safetensors"),
            best: folder.join("best.safetensors"),
            folder: folder.to_owned(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model of an epoch's end.
    pub fn epoch(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("epoch-{epoch:04}.safetensors"))
    }

    /// The state after this step.
    pub fn state(&self, step: u64) -> PathBuf {
        self.folder.join(format!("state-{step:09}.safetensors"))
    }

    /// The states that are there, each with its step, the newest first.
    pub fn states(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut states: Vec<(u64, PathBuf)> = self
            .names()?
            .iter()
            .filter_map(|name| {
                let step = name.strip_prefix("state-")?.strip_suffix(".safetensors")?.parse().ok()?;
                Some((step, self.folder.join(name)))
            })
            .collect();
        states.sort_unstable_by(|a, b| b.cmp(a));
        Ok(states)
    }

    /// The newest state that can be read, and what is to be said of those that cannot.
    pub fn newest_state(&self) -> Result<(SavedState, Vec<String>)> {
        let mut notes = Vec::new();
        let mut first_error = None;
        for (_, path) in self.states()? {
            match load_state(&path) {
                Ok(state) => return Ok((state, notes)),
                Err(error) => {
                    notes.push(format!("{error}; going on from the checkpoint before it"));
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!(
                    "{} holds no run to go on with: there is no state-….safetensors",
                    self.folder.display()
                ),
            )
        }))
    }

    /// Removes all states but the newest `keep` up to this step: older ones, and those of steps that were taken back.
    /// What a killed program left half written goes too.
    pub fn prune(&self, step: u64, keep: usize) -> Result<()> {
        let remove = |path: &Path| std::fs::remove_file(path).map_err(|e| Error::io("removing", path, e));
        let (valid, taken_back): (Vec<_>, Vec<_>) = self.states()?.into_iter().partition(|(s, _)| *s <= step);
        for (_, path) in taken_back.iter().chain(valid.iter().skip(keep)) {
            remove(path)?;
        }
        for name in self.names()?.iter().filter(|name| name.starts_with(".grug-") && name.ends_with(".tmp")) {
            remove(&self.folder.join(name))?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        let failed = |e| Error::io("reading the folder", &self.folder, e);
        let entries = std::fs::read_dir(&self.folder).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_states_up_to_a_step_stay() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::create(dir.path()).unwrap();
        for step in [5, 10, 1_000_000_000, 15, 20] {
            std::fs::write(files.state(step), b"x").unwrap();
        }
        for other in ["state-x.safetensors", "best.safetensors", ".grug-abc.tmp"] {
            std::fs::write(dir.path().join(other), b"x").unwrap();
        }
        let steps = || files.states().unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>();
        assert_eq!(steps(), [1_000_000_000, 20, 15, 10, 5]);
        files.prune(15, 2).unwrap();
        assert_eq!(steps(), [15, 10]);
        let names = files.names().unwrap();
        assert!(names.len() == 4 && !names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
        let error = files.newest_state().unwrap_err();
        assert!(error.message().contains("state-000000015"), "{error}");
        files.prune(0, 1).unwrap();
        let error = files.newest_state().unwrap_err();
        assert!(error.message().contains("no run to go on with"), "{error}");
    }
}
