//! The checkpoints in the folder of a run.

use std::path::{Path, PathBuf};

use grug::error::{Error, Result};

/// Where a run's checkpoints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    folder: PathBuf,
    /// Everything needed to go on.
    pub state: PathBuf,
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
        let probe = folder.join(".grug-probe.tmp");
        std::fs::write(&probe, b"")
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|e| Error::io("writing to the run folder", folder, e))?;
        Ok(Files {
            state: folder.join("state.safetensors"),
            last: folder.join("last.safetensors"),
            best: folder.join("best.safetensors"),
            folder: folder.to_owned(),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model of an epoch's end.
    pub fn epoch(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("epoch-{epoch:04}.safetensors"))
    }
}
