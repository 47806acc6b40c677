//! Choosing a byte from logits, in this order: bias → grammar and UTF-8 → penalties → temperature → top_k → typical_p →
//! top_p → min_p → draw. Mirostat stands in place of the four from top_k to min_p.
//!
//! Each filter narrows a [`Candidates`] set; the list of filters is the order above. The draw comes from a counter-based
//! generator ([`crate::rng`], stream `Sample`): draw number n of a seed is always the same number, whatever happened
//! in between, so sampling can run ahead and turn back. The arithmetic uses `libm`, so the same logits and seed give
//! the same byte on every machine. A choice allocates nothing; only a grammar's cursor may, where its stack grows.

mod candidates;
mod constraint;
mod filters;
mod mirostat;
mod options;
mod penalties;
#[cfg(test)]
mod tests;

use crate::backend::DeviceSampling;
use crate::config::VOCAB;
use crate::error::{Error, ErrorKind, Result};
use crate::grammar::Grammar;
use crate::rng::{Stream, unit_f32, words};
use candidates::Candidates;
use constraint::{Constraint, Utf8};
use filters::{Filter, min_p, top_k, top_p, typical_p};
use mirostat::Mirostat;
pub use options::{DEFAULT_MIROSTAT_ETA, MAX_PENALTY_WINDOW, SamplerOptions};
use penalties::Window;

/// Options, the number of draws made so far, and what was chosen: the window of the penalties, the place in the grammar
/// and in a character, mirostat's limit. A clone is a fork: it goes on from here by itself.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    draws: u64,
    window: Window,
    constraint: Constraint,
    mirostat: Mirostat,
}

/// The filters, in the order in which they apply.
const FILTERS: [Filter; 4] = [top_k, typical_p, top_p, min_p];

impl Sampler {
    /// A sampler at its first draw.
    pub fn new(options: &SamplerOptions) -> Result<Sampler> {
        options.validate()?;
        Ok(Sampler {
            options: options.clone(),
            draws: 0,
            window: Window::new(options.penalty_window),
            constraint: Constraint {
                utf8: options.utf8.then_some(Utf8::START),
                cursor: options.grammar.as_ref().map(Grammar::cursor).transpose()?,
            },
            mirostat: Mirostat::new(options),
        })
    }

    /// Always the most probable byte.
    pub fn greedy() -> Sampler {
        Sampler::new(&SamplerOptions::default()).expect("the defaults are valid")
    }

    /// What it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// What a device needs to choose the next bytes as [`pick`](Self::pick) does; `None` where that takes more than
    /// temperature, top_k, top_p and min_p.
    pub(crate) fn on_device(&self) -> Option<DeviceSampling> {
        let SamplerOptions {
            seed,
            temperature,
            top_k,
            typical_p,
            top_p,
            min_p,
            penalty_window,
            repeat_penalty: _,
            frequency_penalty: _,
            presence_penalty: _,
            mirostat_tau,
            mirostat_eta: _,
            utf8,
            ref bias,
            ref grammar,
        } = self.options;
        let simple = (typical_p == 0.0 || typical_p == 1.0)
            && penalty_window == 0
            && mirostat_tau == 0.0
            && !utf8
            && bias.is_none()
            && grammar.is_none();
        simple.then_some(DeviceSampling { seed, draws: self.draws, temperature, top_k, top_p, min_p })
    }

    /// Counts the draws that a device made.
    pub(crate) fn count_draws(&mut self, draws: u64) {
        self.draws += draws;
    }

    /// Back to the first draw, of this seed, and to the beginning of a text.
    pub fn reset(&mut self, seed: u64) {
        self.options.seed = seed;
        self.draws = 0;
        self.window.clear();
        self.constraint.restart();
        self.mirostat = Mirostat::new(&self.options);
    }

    /// Which bytes may come next by bias, grammar and UTF-8, bit b % 8 of byte b / 8, and whether the text so far is
    /// complete (always, where nothing constrains it).
    pub fn allowed(&self) -> ([u8; 32], bool) {
        let mut mask = [0; 32];
        for byte in (0..=255u8).filter(|b| self.may_come(*b)) {
            mask[byte as usize / 8] |= 1 << (byte % 8);
        }
        (mask, self.constraint.is_complete())
    }

    /// Whether there is a grammar, and the text is complete, and nothing more may come.
    pub fn is_finished(&self) -> bool {
        self.constraint.cursor.is_some()
            && self.constraint.is_complete()
            && (0..=255u8).all(|byte| !self.may_come(byte))
    }

    fn may_come(&self, byte: u8) -> bool {
        let banned = self.options.bias.as_ref().is_some_and(|b| b[byte as usize] == f32::NEG_INFINITY);
        !banned && self.constraint.allows(byte)
    }

    /// Chooses a byte and counts a draw. Minus infinity bans a byte; NaN and plus infinity are errors. On an error
    /// nothing has changed: no draw is used up.
    ///
    /// # Errors
    /// [`ErrorKind::DeadEnd`] where no byte is allowed, [`ErrorKind::InvalidArgument`] for logits that are no numbers,
    /// [`ErrorKind::Unsupported`] where a grammar is too ambiguous, or the text nests too deeply, to be followed.
    pub fn pick(&mut self, logits: &[f32; VOCAB]) -> Result<u8> {
        self.choose(logits, None)
    }

    /// Takes a byte that was chosen elsewhere as if it had been drawn here, without counting a draw.
    ///
    /// # Errors
    /// [`ErrorKind::DeadEnd`] where grammar or UTF-8 do not allow it; nothing has changed then.
    pub fn accept(&mut self, byte: u8) -> Result<()> {
        if !self.constraint.allows(byte) {
            return Err(Error::new(
                ErrorKind::DeadEnd,
                format!("byte {byte} may not come next by the grammar or UTF-8"),
            ));
        }
        self.constraint.advance(byte)?;
        self.window.push(byte);
        Ok(())
    }

    /// As [`pick`](Self::pick); where the text may end, the model's end byte is allowed too.
    pub(crate) fn choose(&mut self, logits: &[f32; VOCAB], end_byte: Option<u8>) -> Result<u8> {
        let mut logits = *logits;
        if let Some(byte) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(Error::invalid(format!("the logit of byte {byte} is {}", logits[byte])));
        }
        if let Some(bias) = &self.options.bias {
            logits.iter_mut().zip(&bias[..]).for_each(|(logit, bias)| *logit = (*logit + bias).min(f32::MAX));
        }
        self.constraint.mask(end_byte, &mut logits);
        if logits.iter().all(|l| *l == f32::NEG_INFINITY) {
            return Err(Error::new(ErrorKind::DeadEnd, self.why_dead_end()));
        }
        self.window.penalize(&self.options, &mut logits);
        let (byte, mirostat) = self.draw(&logits);
        self.constraint.advance(byte)?;
        self.window.push(byte);
        self.mirostat = mirostat;
        self.draws += 1;
        Ok(byte)
    }

    /// Draws from adjusted logits; also mirostat's limit after that.
    fn draw(&self, logits: &[f32; VOCAB]) -> (u8, Mirostat) {
        let SamplerOptions { seed, temperature, mirostat_tau, .. } = self.options;
        if temperature == 0.0 {
            return (greedy(logits), self.mirostat.clone());
        }
        let mut candidates = Candidates::new(logits, temperature);
        let unit = unit_f32(words(seed, Stream::Sample, 0, self.draws)[0]);
        if mirostat_tau == 0.0 {
            for filter in FILTERS {
                filter(&self.options, &mut candidates);
            }
            return (candidates.draw(unit), self.mirostat.clone());
        }
        let total = candidates.total();
        self.mirostat.narrow(&mut candidates);
        let byte = candidates.draw(unit);
        (byte, self.mirostat.after(&self.options, candidates.weight(byte) / total))
    }

    fn why_dead_end(&self) -> &'static str {
        if self.constraint.is_free() {
            "no byte is allowed: every logit is minus infinity"
        } else if self.is_finished() {
            "no byte is allowed: the text is complete by its grammar"
        } else {
            "no byte is allowed: bias, logits, grammar and UTF-8 have none in common"
        }
    }
}

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
