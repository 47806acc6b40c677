//! The whole state of a training run in one safetensors file, from which it goes on as if it had never stopped:
//! weights, optimizer, loss scale, random generators, schedule, step, best loss.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use grug::checkpoint::{TensorToWrite, write_safetensors};
use grug::error::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::config::RunConfig;
use crate::schedule::ScheduleState;

/// Metadata entries.
const PROGRESS_KEY: &str = "grug.progress";
const RUN_KEY: &str = "grug.run";
const FORMAT_KEY: &str = "grug.state";
/// The version of this file's layout.
const FORMAT: &str = "1";

/// How far a run is, and what is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The step after which the last validation ran.
    pub validated_step: Option<u64>,
    /// The best validation loss so far, in nats.
    pub best_nats: Option<f64>,
    /// Validations since then.
    pub validations_since_best: u64,
    /// The last validation loss, in nats.
    pub last_nats: Option<f64>,
    /// Seconds spent training, over all parts of the run.
    pub seconds: f64,
    /// Times that the guard went back to a checkpoint.
    pub rollbacks: u64,
    /// Steps by which the data are ahead of `step`: what was taken back is not trained on again.
    pub data_ahead: u64,
    /// Where the schedule is.
    pub schedule: ScheduleState,
    /// Bytes of the corpus; older states do not say.
    #[serde(default)]
    pub corpus_bytes: Option<u64>,
}

/// A state file, read.
#[derive(Debug)]
pub struct SavedState {
    /// What is not a tensor.
    pub progress: Progress,
    /// The run's configuration when it was saved.
    pub run: RunConfig,
    tensors: HashMap<String, Tensor>,
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "F32",
        Kind::Double => "F64",
        Kind::Int => "I32",
        Kind::Int64 => "I64",
        Kind::Uint8 => "U8",
        other => unreachable!("the trainer has no state of kind {other:?}"),
    }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        Dtype::I32 => Some(Kind::Int),
        Dtype::I64 => Some(Kind::Int64),
        Dtype::U8 => Some(Kind::Uint8),
        _ => None,
    }
}

/// Writes a state file, atomically.
pub fn save_state(
    path: &Path,
    run: &RunConfig,
    progress: &Progress,
    tensors: &[(String, Tensor)],
) -> Result<()> {
    let mut metadata = BTreeMap::new();
    metadata.insert(FORMAT_KEY.to_string(), FORMAT.to_string());
    metadata.insert(RUN_KEY.to_string(), run.to_toml());
    let text = serde_json::to_string(progress).expect("numbers and lists of them");
    metadata.insert(PROGRESS_KEY.to_string(), text);
    let parts: Vec<(Vec<usize>, &str, Vec<u8>)> = tensors
        .iter()
        .map(|(_, tensor)| {
            let host = tensor.detach().to_device(Device::Cpu).contiguous();
            let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
            host.copy_data_u8(&mut bytes, host.numel());
            (host.size().iter().map(|&n| n as usize).collect(), word(host.kind()), bytes)
        })
        .collect();
    let list: Vec<_> = tensors
        .iter()
        .zip(&parts)
        .map(|((name, _), (shape, dtype, bytes))| TensorToWrite { name, dtype, shape, bytes })
        .collect();
    write_safetensors(path, &metadata, &list)
}

/// Reads a state file.
pub fn load_state(path: &Path) -> Result<SavedState> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("reading", path, e))?;
    parse(&bytes).map_err(|e| e.in_file(path))
}

fn parse(bytes: &[u8]) -> Result<SavedState> {
    let broken =
        |e: safetensors::SafeTensorError| Error::format(format!("is no training state or truncated: {e}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let entry = |key: &str| {
        metadata
            .get(key)
            .ok_or_else(|| Error::format(format!("has no {key:?} in its metadata: no training state")))
    };
    match entry(FORMAT_KEY)?.as_str() {
        FORMAT => {}
        other => {
            return Err(Error::format(format!(
                "is a training state of version {other}; this program reads {FORMAT}"
            )));
        }
    }
    let run = RunConfig::from_toml(entry(RUN_KEY)?)?;
    let progress: Progress = serde_json::from_str(entry(PROGRESS_KEY)?)
        .map_err(|e| Error::format(format!("has a damaged {PROGRESS_KEY:?}: {e}")))?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let mut tensors = HashMap::new();
    for (name, view) in file.tensors() {
        let kind = kind(view.dtype())
            .ok_or_else(|| Error::format(format!("tensor {name:?} has dtype {:?}", view.dtype())))?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        tensors.insert(name, Tensor::from_data_size(view.data(), &shape, kind));
    }
    Ok(SavedState { progress, run, tensors })
}

impl SavedState {
    /// Takes a tensor out.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| Error::format(format!("has no tensor {name:?}")))
    }

    /// Takes out the states of the random generators of all ranks but the first.
    pub fn take_random_of_ranks(&mut self) -> Vec<(String, Tensor)> {
        let is_of_rank = |name: &String| name.starts_with("random.") && name.matches('.').count() == 2;
        let names: Vec<String> = self.tensors.keys().filter(|name| is_of_rank(name)).cloned().collect();
        names.into_iter().filter_map(|name| self.tensors.remove_entry(&name)).collect()
    }

    /// Whether there are tensors whose names begin so.
    pub fn has(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// Drops the tensors whose names begin so.
    pub fn discard(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// Copies the tensors of these names into the tensors that stand beside them.
    pub fn restore(&mut self, targets: &[(String, Tensor)]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, target) in targets {
            let value = self.take(name)?;
            if value.size() != target.size() || value.kind() != target.kind() {
                return Err(Error::format(format!(
                    "tensor {name:?} is {:?} {:?}, but the run calls for {:?} {:?}",
                    value.kind(),
                    value.size(),
                    target.kind(),
                    target.size()
                )));
            }
            target.shallow_clone().copy_(&value);
        }
        Ok(())
    }

    /// That nothing is left: a state with more in it belongs to another kind of run.
    pub fn expect_empty(&self) -> Result<()> {
        match self.tensors.keys().min() {
            None => Ok(()),
            Some(name) => {
                Err(Error::format(format!("has a tensor {name:?} that this run does not call for")))
            }
        }
    }
}
