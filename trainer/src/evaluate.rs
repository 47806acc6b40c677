//! The loss over many windows, without gradients.

use std::sync::atomic::{AtomicBool, Ordering};

use grug::error::Result;
use tch::{Kind, Reduction, Tensor};

use crate::batch::{BatchSource, loss};
use crate::config::Precision;
use crate::model::Model;
use crate::torch::Autocast;

/// Positions that one evaluation pass works on, roughly.
const POSITIONS_PER_PASS: usize = 16_384;

/// A loss over many targets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean of -ln p over the targets.
    pub nats: f64,
    /// How many bytes were predicted.
    pub targets: u64,
}

impl Evaluation {
    /// Bits a byte.
    pub fn bits(&self) -> f64 {
        bits(self.nats)
    }
}

/// Nats to bits.
pub fn bits(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// The mean loss of the windows at these offsets; `None` where `stop` was raised meanwhile.
pub fn evaluate(
    model: &Model,
    source: &mut BatchSource<'_>,
    offsets: &[u64],
    precision: Precision,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>> {
    let _guard = tch::no_grad_guard();
    let device = model.device();
    let per_pass = (POSITIONS_PER_PASS / model.config().window_bytes()).max(1);
    // Summed on the device, read once.
    let mut sum = Tensor::zeros([], (Kind::Double, device));
    let mut targets = 0;
    for offsets in offsets.chunks(per_pass) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let _autocast = Autocast::start(device, precision)?;
        let batch = source.gather(offsets)?;
        sum += loss(model, &batch, false, Reduction::Sum)?.to_kind(Kind::Double);
        targets += batch.targets.numel() as u64;
    }
    Ok(Some(Evaluation { nats: sum.double_value(&[]) / targets as f64, targets }))
}
