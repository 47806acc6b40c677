//! How bytes are chosen.

use crate::config::VOCAB;
use crate::error::{Error, Result};
use crate::grammar::Grammar;

/// The largest window of penalties, in bytes.
pub const MAX_PENALTY_WINDOW: usize = 1 << 20;
/// The learning rate of mirostat where none is given.
pub const DEFAULT_MIROSTAT_ETA: f32 = 0.1;

/// How bytes are chosen. The default is greedy; 0 or `None` turns each part off.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplerOptions {
    /// Seed of the draws, used as it is.
    pub seed: u64,
    /// Divides the logits; 0 takes the most probable byte (the lowest one of equals).
    pub temperature: f32,
    /// Keep the k most probable bytes (Fan, Lewis and Dauphin, 2018); 0 = all.
    pub top_k: u32,
    /// Keep the bytes whose surprise is nearest to the expected one, until they reach this probability (Meister et al.,
    /// "Locally typical sampling", 2022); 0 or 1 = all.
    pub typical_p: f32,
    /// Keep the most probable bytes that together reach this probability (nucleus sampling, Holtzman et al., 2019); 0
    /// or 1 = all.
    pub top_p: f32,
    /// Keep bytes at least this fraction as probable as the most probable one (Nguyen et al., 2024); 0 = all.
    pub min_p: f32,
    /// The penalties count the last so many bytes that this sampler chose, at most [`MAX_PENALTY_WINDOW`]; 0 = off.
    pub penalty_window: usize,
    /// Divides the positive logits of bytes in the window by this, and multiplies negative ones (Keskar et al., "CTRL",
    /// 2019); 0 or 1 = off.
    pub repeat_penalty: f32,
    /// Taken off a byte's logit for each time that it is in the window.
    pub frequency_penalty: f32,
    /// Taken off the logit of each byte that is in the window.
    pub presence_penalty: f32,
    /// Mirostat 2 (Basu et al., 2020): keep the surprise of the text near this many bits a byte, in place of top_k,
    /// typical_p, top_p and min_p; 0 = off.
    pub mirostat_tau: f32,
    /// How fast mirostat learns; 0 = [`DEFAULT_MIROSTAT_ETA`].
    pub mirostat_eta: f32,
    /// Only ever extend to well-formed UTF-8. What was fed before is not looked at: the first byte begins a character.
    pub utf8: bool,
    /// Added to the logits; minus infinity bans a byte.
    pub bias: Option<Box<[f32; VOCAB]>>,
    /// What may be written.
    pub grammar: Option<Grammar>,
}

impl SamplerOptions {
    /// Refuses values out of range, naming them.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("temperature", self.temperature),
            ("repeat_penalty", self.repeat_penalty),
            ("mirostat_tau", self.mirostat_tau),
            ("mirostat_eta", self.mirostat_eta),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!("{name} = {value}: must be 0 or a positive number")));
            }
        }
        for (name, value) in [("typical_p", self.typical_p), ("top_p", self.top_p), ("min_p", self.min_p)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(format!("{name} = {value}: must be between 0 and 1")));
            }
        }
        for (name, value) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            if !value.is_finite() {
                return Err(Error::invalid(format!("{name} = {value}: must be a finite number")));
            }
        }
        if self.penalty_window > MAX_PENALTY_WINDOW {
            return Err(Error::invalid(format!(
                "penalty_window = {}: must be at most {MAX_PENALTY_WINDOW}",
                self.penalty_window
            )));
        }
        if let Some(bias) = &self.bias
            && let Some(byte) = bias.iter().position(|v| v.is_nan() || *v == f32::INFINITY)
        {
            return Err(Error::invalid(format!(
                "bias of byte {byte} = {}: must be a number or minus infinity",
                bias[byte]
            )));
        }
        Ok(())
    }
}
