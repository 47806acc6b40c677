//! Choosing a byte from logits: temperature → top_k → top_p → min_p → draw.
//!
//! Each filter narrows a [`Candidates`] set; the list of filters is the order above. The draw comes from a counter-based
//! generator ([`crate::rng`], stream `Sample`): draw number n of a seed is always the same number, whatever happened
//! in between, so sampling can run ahead and turn back. The arithmetic uses `libm`, so the same logits and seed give
//! the same byte on every machine.

mod candidates;
mod filters;

use crate::config::VOCAB;
use crate::error::{Error, ErrorKind, Result};
use crate::rng::{Stream, unit_f32, words};
use candidates::Candidates;
use filters::{Filter, min_p, top_k, top_p};

/// How bytes are chosen. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Seed of the draws, used as it is.
    pub seed: u64,
    /// Divides the logits; 0 takes the most probable byte (the lowest one of equals).
    pub temperature: f32,
    /// Keep the k most probable bytes; 0 = all.
    pub top_k: u32,
    /// Keep the most probable bytes that together reach this probability; 0 or 1 = all.
    pub top_p: f32,
    /// Keep bytes at least this fraction as probable as the most probable one; 0 = all.
    pub min_p: f32,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions { seed: 0, temperature: 0.0, top_k: 0, top_p: 0.0, min_p: 0.0 }
    }
}

impl SamplerOptions {
    /// Refuses values out of range, naming them.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::invalid(format!(
                "temperature = {}: must be 0 or a positive number",
                self.temperature
            )));
        }
        for (name, value) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(format!("{name} = {value}: must be between 0 and 1")));
            }
        }
        Ok(())
    }
}

/// Options and the number of draws made so far.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    draws: u64,
}

impl Sampler {
    /// A sampler at its first draw.
    pub fn new(options: &SamplerOptions) -> Result<Sampler> {
        options.validate()?;
        Ok(Sampler { options: options.clone(), draws: 0 })
    }

    /// Always the most probable byte.
    pub fn greedy() -> Sampler {
        Sampler { options: SamplerOptions::default(), draws: 0 }
    }

    /// What it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Back to the first draw, of this seed.
    pub fn reset(&mut self, seed: u64) {
        self.options.seed = seed;
        self.draws = 0;
    }

    /// Chooses a byte and counts a draw. Minus infinity bans a byte; NaN and plus infinity are errors.
    pub fn pick(&mut self, logits: &[f32; VOCAB]) -> Result<u8> {
        if let Some(byte) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(Error::invalid(format!("the logit of byte {byte} is {}", logits[byte])));
        }
        if logits.iter().all(|l| *l == f32::NEG_INFINITY) {
            return Err(Error::new(ErrorKind::DeadEnd, "no byte is allowed: every logit is minus infinity"));
        }
        let SamplerOptions { seed, temperature, .. } = self.options;
        let byte = if temperature == 0.0 {
            greedy(logits)
        } else {
            let mut candidates = Candidates::new(logits, temperature);
            for filter in FILTERS {
                filter(&self.options, &mut candidates);
            }
            let unit = unit_f32(words(seed, Stream::Sample, 0, self.draws)[0]);
            candidates.draw(unit)
        };
        self.draws += 1;
        Ok(byte)
    }
}

/// The filters, in the order in which they apply.
const FILTERS: [Filter; 3] = [top_k, top_p, min_p];

/// The byte of the largest logit; the lowest byte of equals.
fn greedy(logits: &[f32; VOCAB]) -> u8 {
    let mut best = 0;
    for (byte, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = byte;
        }
    }
    best as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose softmax gives byte b the probability `p[b]`, and nothing to bytes beyond.
    fn logits(p: &[f32]) -> [f32; VOCAB] {
        std::array::from_fn(|b| p.get(b).map_or(f32::NEG_INFINITY, |p| p.ln()))
    }

    fn frequencies(options: &SamplerOptions, logits: &[f32; VOCAB], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(options).unwrap();
        let mut counts = vec![0.0; VOCAB];
        for _ in 0..draws {
            counts[sampler.pick(logits).unwrap() as usize] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn draws_follow_the_distribution_that_the_filters_leave() {
        let p = [0.4, 0.3, 0.2, 0.1];
        let base = SamplerOptions { temperature: 1.0, seed: 5, ..Default::default() };
        let cases = [
            (base.clone(), [0.4, 0.3, 0.2, 0.1]),
            (SamplerOptions { top_k: 2, ..base.clone() }, [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]),
            (SamplerOptions { top_p: 0.65, ..base.clone() }, [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]),
            (SamplerOptions { top_p: 1.0, ..base.clone() }, [0.4, 0.3, 0.2, 0.1]),
            (SamplerOptions { min_p: 0.45, ..base.clone() }, [4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0, 0.0]),
            // At temperature ½ the probabilities are squared.
            (
                SamplerOptions { temperature: 0.5, ..base.clone() },
                [0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3, 0.01 / 0.3],
            ),
        ];
        let n = 20_000;
        for (options, expected) in cases {
            let seen = frequencies(&options, &logits(&p), n);
            for (byte, &q) in expected.iter().enumerate() {
                // Five standard deviations of a fraction.
                let bound = 5.0 * (q * (1.0 - q) / n as f64).sqrt();
                assert!(
                    (seen[byte] - q).abs() <= bound + 1e-9,
                    "{options:?}: byte {byte}: {} for {q}",
                    seen[byte]
                );
            }
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        let mut logits = [0.0; VOCAB];
        logits[7] = 1.0;
        logits[9] = 1.0;
        assert_eq!(Sampler::greedy().pick(&logits).unwrap(), 7);
        let top_1 = SamplerOptions { temperature: 2.0, top_k: 1, ..Default::default() };
        assert_eq!(Sampler::new(&top_1).unwrap().pick(&logits).unwrap(), 7);
    }

    #[test]
    fn the_same_seed_draws_the_same_bytes() {
        let options = SamplerOptions { temperature: 1.0, seed: 3, ..Default::default() };
        let logits = [0.0; VOCAB];
        let mut sampler = Sampler::new(&options).unwrap();
        let first: Vec<u8> = (0..32).map(|_| sampler.pick(&logits).unwrap()).collect();
        sampler.reset(3);
        let again: Vec<u8> = (0..32).map(|_| sampler.pick(&logits).unwrap()).collect();
        assert_eq!(first, again);
        sampler.reset(4);
        assert_ne!(first, (0..32).map(|_| sampler.pick(&logits).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn bad_options_and_logits_are_named() {
        for (name, options) in [
            ("temperature", SamplerOptions { temperature: -1.0, ..Default::default() }),
            ("top_p", SamplerOptions { top_p: 1.5, ..Default::default() }),
            ("min_p", SamplerOptions { min_p: f32::NAN, ..Default::default() }),
        ] {
            assert!(Sampler::new(&options).unwrap_err().message().contains(name));
        }
        let mut logits = [0.0; VOCAB];
        logits[65] = f32::NAN;
        assert!(Sampler::greedy().pick(&logits).unwrap_err().message().contains("byte 65"));
        let error = Sampler::greedy().pick(&[f32::NEG_INFINITY; VOCAB]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadEnd);
    }
}
