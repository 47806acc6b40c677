//! The bytes that are still possible, with their weights.

use crate::config::VOCAB;

/// Each byte's weight, proportional to its probability: `exp((logit - max) / temperature)`; 0 once it is out.
pub(super) struct Candidates {
    weights: [f32; VOCAB],
}

impl Candidates {
    /// All bytes, at this temperature (> 0).
    pub(super) fn new(logits: &[f32; VOCAB], temperature: f32) -> Candidates {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Candidates { weights: std::array::from_fn(|b| libm::expf((logits[b] - max) / temperature)) }
    }

    /// Bytes by rising key, the lower byte first among equals.
    pub(super) fn ranked_by(&self, key: impl Fn(f32) -> f32) -> [u8; VOCAB] {
        let keys: [f32; VOCAB] = std::array::from_fn(|b| key(self.weights[b]));
        let mut order: [u8; VOCAB] = std::array::from_fn(|b| b as u8);
        order.sort_unstable_by(|&a, &b| keys[a as usize].total_cmp(&keys[b as usize]).then(a.cmp(&b)));
        order
    }

    /// Bytes by falling weight, the lower byte first among equals.
    pub(super) fn ranked(&self) -> [u8; VOCAB] {
        self.ranked_by(|weight| -weight)
    }

    /// Each byte's weight.
    pub(super) fn weights(&self) -> &[f32; VOCAB] {
        &self.weights
    }

    pub(super) fn weight(&self, byte: u8) -> f32 {
        self.weights[byte as usize]
    }

    pub(super) fn remove(&mut self, byte: u8) {
        self.weights[byte as usize] = 0.0;
    }

    /// Keeps the first bytes of this order until their sum reaches a part of all.
    pub(super) fn keep_until(&mut self, part: f32, order: &[u8; VOCAB]) {
        let enough = part * self.total();
        let mut sum = 0.0;
        for &byte in order {
            if sum >= enough {
                self.remove(byte);
            } else {
                sum += self.weight(byte);
            }
        }
    }

    /// Removes every byte that is lighter than this.
    pub(super) fn remove_below(&mut self, weight: f32) {
        self.weights.iter_mut().filter(|w| **w < weight).for_each(|w| *w = 0.0);
    }

    /// The heaviest weight.
    pub(super) fn max(&self) -> f32 {
        self.weights.iter().copied().fold(0.0, f32::max)
    }

    /// The sum of all weights, added in the order of the bytes.
    pub(super) fn total(&self) -> f32 {
        self.weights.iter().sum()
    }

    /// The byte at this part, in [0, 1), of the weights laid end to end in the order of the bytes.
    pub(super) fn draw(&self, unit: f32) -> u8 {
        let target = unit * self.total();
        let mut sum = 0.0;
        let mut last = 0;
        for (byte, &weight) in self.weights.iter().enumerate() {
            if weight > 0.0 {
                sum += weight;
                last = byte;
                if sum > target {
                    break;
                }
            }
        }
        last as u8
    }
}
