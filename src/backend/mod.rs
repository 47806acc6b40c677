//! Engines: what computes a session, one type for each kind of device, behind one coarse boundary.
//!
//! An engine holds the state of one context on its device (keys and values, convolution histories, scratch). The
//! session owns the bytes and passes them in; it decides when a context slides or starts anew.

pub(crate) mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod device_model;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) mod gpu;
#[cfg(feature = "wgpu")]
pub(crate) mod wgpu;

pub(crate) use device_model::DeviceModel;

use std::any::Any;

use crate::cancel::Cancel;
use crate::config::VOCAB;
use crate::error::Result;

/// Most bytes of a draft.
pub(crate) const MAX_DRAFT: usize = 15;

/// What a device needs to know to choose bytes by itself: temperature → top_k → top_p → min_p → draw, as
/// [`crate::sampler`] defines them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DeviceSampling {
    pub seed: u64,
    /// Index of the first draw.
    pub draws: u64,
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
}

/// The state of one context on a device.
pub(crate) trait Engine: Send + Any {
    /// Takes in the last `new` bytes of `context`; the bytes before them were taken in earlier. On an error (on the
    /// CPU only cancelling is one) the engine is as it was before the call, without a prediction.
    fn feed(&mut self, context: &[u8], new: usize, cancel: Option<&Cancel>) -> Result<()>;

    /// How many bytes of a draft [`feed_draft`](Self::feed_draft) takes at most; 0 where drafts bring nothing.
    fn max_draft(&self) -> usize {
        0
    }

    /// As [`feed`](Self::feed) for the last byte of `context`, and computes along what follows if the bytes of `draft`
    /// come next: feeding them costs nothing then. Predictions have the same bits as without.
    fn feed_draft(&mut self, context: &[u8], _draft: &[u8], cancel: Option<&Cancel>) -> Result<()> {
        self.feed(context, 1, cancel)
    }

    /// The bytes that feeding costs nothing, if they come next.
    fn ahead(&self) -> &[u8] {
        &[]
    }

    /// How many engines of this model at most take in a byte in one pass, this one included.
    fn max_together(&self) -> usize {
        1
    }

    /// Takes in the last byte of `context`, and each of the others theirs, with one pass over the weights; with this one
    /// there are at most [`max_together`](Self::max_together). Each gets the bits that it would get alone.
    fn feed_together(&mut self, context: &[u8], others: &mut dyn Others) -> Result<()> {
        self.feed(context, 1, None)?;
        for i in 0..others.len() {
            let (engine, context) = others.get(i);
            engine.feed(context, 1, None)?;
        }
        Ok(())
    }

    /// Logits of the byte that follows `context`, all of which was taken in and is not empty.
    fn logits(&mut self, context: &[u8], cancel: Option<&Cancel>) -> Result<&[f32; VOCAB]>;

    /// The normalized state of the last position, (output_dim), which the logits that were asked for last came from.
    fn embedding(&self) -> &[f32];

    /// As [`feed`](Self::feed), and writes for each new byte -ln of the probability that the model gave it, in nats.
    /// There is at least one byte before them.
    fn score(&mut self, context: &[u8], new: usize, nats: &mut [f32], cancel: Option<&Cancel>) -> Result<()>;

    /// Whether [`generate`](Self::generate) does anything.
    fn runs_ahead(&self) -> bool {
        false
    }

    /// Takes in the last `new` bytes of `context`, which is not empty, and then chooses bytes on the device, one after
    /// the other: writes at most `out.len()` (at least 1) of them and returns how many; all but the last were taken in
    /// too. 0: the first logits are not all finite, which is for the sampler to judge. On an error nothing of all that
    /// counts as taken in.
    fn generate(
        &mut self,
        _context: &[u8],
        _new: usize,
        _sampling: &DeviceSampling,
        _out: &mut [u8],
        _cancel: Option<&Cancel>,
    ) -> Result<usize> {
        unreachable!("this engine never runs ahead")
    }

    /// Forgets all that was taken in.
    fn clear(&mut self);

    /// Forgets all but `kept`, the first bytes that were taken in. Before the next prediction more are taken in.
    fn rewind(&mut self, kept: &[u8]);

    /// A copy of the whole state. A device may have no memory for it.
    fn fork(&self) -> Result<Box<dyn Engine>>;

    /// How many bytes `feed` and `score` take at most in one call.
    fn max_feed(&self) -> usize;

    /// Whether the oldest byte may leave the context at no cost, because each pass sees the whole window anew.
    fn is_windowed(&self) -> bool;

    /// Bytes of state: keys, values and histories.
    fn state_bytes(&self) -> usize;
}

/// Engines of one model that take in a byte together with another; their contexts are not longer than that one's.
pub(crate) trait Others {
    /// How many there are.
    fn len(&self) -> usize;

    /// One of them, and its context, whose last byte it takes in.
    fn get(&mut self, i: usize) -> (&mut dyn Engine, &[u8]);

    /// One of them, to read.
    fn seen(&self, i: usize) -> &dyn Engine;

    /// How a device may choose the byte that [`generate`](Engine::generate) is asked for next, if it can and is; those of
    /// the others are counted from 1, 0 is the one that they go together with.
    #[allow(dead_code)] // a build for the CPU alone does not ask
    fn sampling(&mut self, i: usize) -> Option<DeviceSampling>;
}

/// -ln softmax(logits)[byte], in nats.
pub(crate) fn surprise(logits: &[f32], byte: u8) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| libm::exp((l - max) as f64)).sum();
    (libm::log(sum) - (logits[byte as usize] - max) as f64) as f32
}
