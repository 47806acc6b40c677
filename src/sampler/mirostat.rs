//! Mirostat 2 (Basu, Ramachandran, Keskar and Varshney, "Mirostat: a neural text decoding algorithm that directly
//! controls perplexity", 2020): bytes more surprising than a limit are left out, and the limit follows the surprise of
//! what was drawn. Surprise is in bits, of a byte's probability before anything is left out.

use super::SamplerOptions;
use super::candidates::Candidates;
use super::options::DEFAULT_MIROSTAT_ETA;

/// The limit of surprise, in bits.
#[derive(Debug, Clone)]
pub(super) struct Mirostat {
    limit: f32,
}

impl Mirostat {
    pub(super) fn new(options: &SamplerOptions) -> Mirostat {
        Mirostat { limit: 2.0 * options.mirostat_tau }
    }

    /// Leaves out what is too surprising, but never the most probable byte.
    pub(super) fn narrow(&self, candidates: &mut Candidates) {
        let least = libm::exp2f(-self.limit) * candidates.total();
        candidates.remove_below(least.min(candidates.max()));
    }

    /// The limit after a byte that had this part of all weight.
    pub(super) fn after(&self, options: &SamplerOptions, probability: f32) -> Mirostat {
        let eta = if options.mirostat_eta == 0.0 { DEFAULT_MIROSTAT_ETA } else { options.mirostat_eta };
        let error = -libm::log2f(probability) - options.mirostat_tau;
        // Bounded, so that a long run of one kind is unlearned again, and the arithmetic stays finite.
        Mirostat { limit: (self.limit - eta * error).clamp(-1000.0, 1000.0) }
    }
}
