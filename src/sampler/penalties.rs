//! Penalties on bytes that were chosen lately.

use super::SamplerOptions;
use crate::config::VOCAB;

/// The last bytes, and how often each is among them. Its memory is taken when it is made.
#[derive(Debug, Clone)]
pub(super) struct Window {
    bytes: Vec<u8>, // (size), a ring
    at: usize,
    len: usize,
    counts: [u32; VOCAB],
}

impl Window {
    pub(super) fn new(size: usize) -> Window {
        Window { bytes: vec![0; size], at: 0, len: 0, counts: [0; VOCAB] }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.at = 0;
        self.counts = [0; VOCAB];
    }

    pub(super) fn push(&mut self, byte: u8) {
        let size = self.bytes.len();
        if size == 0 {
            return;
        }
        if self.len == size {
            self.counts[self.bytes[self.at] as usize] -= 1;
        } else {
            self.len += 1;
        }
        self.bytes[self.at] = byte;
        self.counts[byte as usize] += 1;
        self.at = (self.at + 1) % size;
    }

    /// Lowers the logits of the bytes in the window.
    pub(super) fn penalize(&self, options: &SamplerOptions, logits: &mut [f32; VOCAB]) {
        for (logit, &count) in logits.iter_mut().zip(&self.counts) {
            if count == 0 || *logit == f32::NEG_INFINITY {
                continue;
            }
            // Absurd penalties stay numbers, so that a penalized byte is still an allowed one.
            let number = |value: f32| value.clamp(f32::MIN, f32::MAX);
            if options.repeat_penalty != 0.0 {
                *logit = number(if *logit > 0.0 {
                    *logit / options.repeat_penalty
                } else {
                    *logit * options.repeat_penalty
                });
            }
            let each = number(count as f32 * options.frequency_penalty);
            *logit = number(number(*logit - each) - options.presence_penalty);
        }
    }
}
