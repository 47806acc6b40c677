//! Windows of the corpus as tensors on the device, and the loss over them.

use grug::error::Result;
use tch::{Device, Kind, Reduction, Tensor};

use crate::config::Objective;
use crate::dataset::Corpus;
use crate::model::{Model, Pass, Rows};

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
    /// Kept between batches, so that none of them allocates.
    host: Vec<u8>,
}

impl<'a> BatchSource<'a> {
    /// Batches of this corpus for this device.
    pub fn new(
        corpus: &'a Corpus,
        window_bytes: usize,
        objective: Objective,
        device: Device,
    ) -> BatchSource<'a> {
        BatchSource { corpus, window_bytes, objective, device, host: Vec::new() }
    }

    /// The windows that start at these bytes of the corpus.
    pub fn gather(&mut self, offsets: &[u64]) -> Batch {
        self.corpus.gather(offsets, self.window_bytes, &mut self.host);
        let (rows, width) = (offsets.len() as i64, self.window_bytes as i64);
        let windows = Tensor::from_data_size(&self.host, &[rows, width + 1], Kind::Uint8)
            .to_device(self.device)
            .to_kind(Kind::Int64);
        let targets = match self.objective {
            Objective::Every => windows.narrow(1, 1, width).contiguous(),
            Objective::Last => windows.select(1, width),
        };
        Batch { inputs: windows.narrow(1, 0, width), targets }
    }
}

/// Cross-entropy in nats over a batch's targets, a scalar: their mean, or their sum.
pub fn loss(model: &Model, batch: &Batch, train: bool, reduction: Reduction) -> Result<Tensor> {
    let rows = if batch.targets.dim() == 2 { Rows::All } else { Rows::Last };
    let logits = model.forward(&batch.inputs, Pass { rows, train })?;
    let logits = logits.view([-1, grug::config::VOCAB as i64]);
    Ok(logits.cross_entropy_loss(&batch.targets.view([-1]), None::<&Tensor>, reduction, -100, 0.0))
}
