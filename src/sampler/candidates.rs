//! The bytes that are still possible, with their weights.

use crate::config::VOCAB;

/// Each byte's weight, proportional to its probability: `exp((logit - max) / temperature)`; 0 once it is out.
pub(super) struct Candidates {
    weights: [f32; VOCAB],
}

/// eˣ for x ≤ 0, within 2e-7 of it; 0 below -87. Of sums and products alone, so that every machine gets the same bits, and
/// several numbers at once where it can.
fn exp(x: f32) -> f32 {
    /// What is added to this is rounded to a whole number, in its lowest bits: 1.5 · 2²³.
    const WHOLE: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + WHOLE;
    let n = shifted - WHOLE;
    // ln 2 in two parts, the first of which times n is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    // The series: |r| is at most ln 2 / 2, where the next term is below 6e-9.
    let series = ((r * (1.0 / 5040.0) + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0;
    let series = (((series * r + 1.0 / 6.0) * r + 0.5) * r + 1.0) * r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

impl Candidates {
    /// All bytes, at this temperature (> 0).
    pub(super) fn new(logits: &[f32; VOCAB], temperature: f32) -> Candidates {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut weights = *logits;
        weights.iter_mut().for_each(|weight| *weight = exp((*weight - max) / temperature));
        Candidates { weights }
    }

    /// Bytes by rising key, the lower byte first among equals.
    pub(super) fn ranked_by(&self, key: impl Fn(f32) -> f32) -> [u8; VOCAB] {
        Self::ranked_as(&std::array::from_fn(|b| key(self.weights[b])))
    }

    fn ranked_as(keys: &[f32; VOCAB]) -> [u8; VOCAB] {
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

    /// Keeps the first bytes of this order until their sum reaches a part of all; at least one.
    pub(super) fn keep_until(&mut self, part: f32, order: &[u8; VOCAB]) {
        let enough = part * self.total();
        let mut sum = 0.0;
        for &byte in order {
            // A tiny part of little may round to nothing.
            if sum > 0.0 && sum >= enough {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_and_ends_in_zero() {
        assert_eq!(exp(0.0), 1.0);
        for i in 0..=870_000 {
            let x = i as f32 * -1e-4;
            let want = libm::exp(x as f64);
            assert!((exp(x) as f64 - want).abs() <= 2e-7 * want, "exp({x}) = {}, not {want}", exp(x));
        }
        for x in [-87.1, -1000.0, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0);
        }
    }
}
