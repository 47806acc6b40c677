//! Windows of the corpus as tensors on the device, and the loss over them.

use grug::error::{Error, Result};
use tch::{Device, Kind, Reduction, Tensor};

use crate::config::Objective;
use crate::dataset::Corpus;
use crate::model::{Model, Pass, Rows};
use crate::torch;

/// Bytes of the corpus that move to the device at once.
const PIECE: usize = 64 << 20;

/// Some windows: what the model sees and what it is to predict.
#[derive(Debug)]
pub struct Batch {
    /// (windows, window_bytes), i64.
    pub inputs: Tensor,
    /// (windows, window_bytes), or (windows) where only the last position counts; i64.
    pub targets: Tensor,
}

/// Where batches come from.
#[derive(Debug)]
pub struct BatchSource<'a> {
    corpus: &'a Corpus,
    window_bytes: usize,
    objective: Objective,
    device: Device,
    /// The whole corpus, (bytes) u8, and `0..=window_bytes`, i64, where windows are cut on the device.
    resident: Option<(Tensor, Tensor)>,
    /// Kept between batches, so that none of them allocates.
    host: Vec<u8>,
}

impl<'a> BatchSource<'a> {
    /// Batches of this corpus for this device, cut on the host.
    pub fn new(
        corpus: &'a Corpus,
        window_bytes: usize,
        objective: Objective,
        device: Device,
    ) -> BatchSource<'a> {
        BatchSource { corpus, window_bytes, objective, device, resident: None, host: Vec::new() }
    }

    /// Keeps the corpus in the device's memory and cuts the windows there, so that no step moves more than their
    /// offsets; `None`: on a GPU, where it takes at most half of what is free.
    pub fn keep_on_device(mut self, setting: Option<bool>) -> Result<BatchSource<'a>> {
        let len = self.corpus.len();
        let fits = || torch::free_memory(self.device).is_some_and(|free| len <= free / 2);
        if setting.unwrap_or_else(fits) {
            let failed = |e: tch::TchError| {
                Error::new(
                    grug::error::ErrorKind::OutOfMemory,
                    format!(
                        "data.on_device: the corpus of {len} bytes does not fit on {:?}: {e}",
                        self.device
                    ),
                )
            };
            let bytes = Tensor::f_empty([len as i64], (Kind::Uint8, self.device)).map_err(failed)?;
            let mut at = 0;
            for piece in self.corpus.bytes().chunks(PIECE) {
                let n = piece.len() as i64;
                bytes.narrow(0, at, n).copy_(&Tensor::from_data_size(piece, &[n], Kind::Uint8));
                at += n;
            }
            let columns = Tensor::arange(self.window_bytes as i64 + 1, (Kind::Int64, self.device));
            self.resident = Some((bytes, columns));
        }
        Ok(self)
    }

    /// Whether the corpus is in the device's memory.
    pub fn is_on_device(&self) -> bool {
        self.resident.is_some()
    }

    /// The windows that start at these bytes of the corpus.
    pub fn gather(&mut self, offsets: &[u64]) -> Result<Batch> {
        let (rows, width) = (offsets.len() as i64, self.window_bytes as i64);
        let windows = match &self.resident {
            Some((bytes, columns)) => {
                let starts: Vec<i64> = offsets.iter().map(|&offset| offset as i64).collect();
                let starts = torch::upload(Tensor::from_slice(&starts), self.device)?;
                bytes.take(&(starts.unsqueeze(1) + columns)) // (rows, width + 1)
            }
            None => {
                self.corpus.gather(offsets, self.window_bytes, &mut self.host);
                torch::upload(
                    Tensor::from_data_size(&self.host, &[rows, width + 1], Kind::Uint8),
                    self.device,
                )?
            }
        };
        let windows = windows.to_kind(Kind::Int64);
        let targets = match self.objective {
            Objective::Every => windows.narrow(1, 1, width).contiguous(),
            Objective::Last => windows.select(1, width),
        };
        Ok(Batch { inputs: windows.narrow(1, 0, width), targets })
    }
}

/// Cross-entropy in nats over a batch's targets, a scalar: their mean, or their sum.
pub fn loss(model: &Model, batch: &Batch, train: bool, reduction: Reduction) -> Result<Tensor> {
    let rows = if batch.targets.dim() == 2 { Rows::All } else { Rows::Last };
    let logits = model.forward(&batch.inputs, Pass { rows, train })?;
    let logits = logits.view([-1, grug::config::VOCAB as i64]);
    Ok(logits.cross_entropy_loss(&batch.targets.view([-1]), None::<&Tensor>, reduction, -100, 0.0))
}
