//! What narrows the choice. Each is a function of the options and the candidates, and does nothing where it is off.

use super::SamplerOptions;
use super::candidates::Candidates;

pub(super) type Filter = fn(&SamplerOptions, &mut Candidates);

/// Keeps the k heaviest bytes (Fan et al., 2018).
pub(super) fn top_k(options: &SamplerOptions, candidates: &mut Candidates) {
    if options.top_k == 0 {
        return;
    }
    for byte in candidates.ranked().into_iter().skip(options.top_k as usize) {
        candidates.remove(byte);
    }
}

/// Keeps the heaviest bytes until their sum reaches this part of all (nucleus sampling, Holtzman et al., 2019).
pub(super) fn top_p(options: &SamplerOptions, candidates: &mut Candidates) {
    if options.top_p == 0.0 || options.top_p == 1.0 {
        return;
    }
    let enough = options.top_p * candidates.total();
    let mut sum = 0.0;
    for byte in candidates.ranked() {
        if sum >= enough {
            candidates.remove(byte);
        } else {
            sum += candidates.weight(byte);
        }
    }
}

/// Keeps bytes at least this fraction as heavy as the heaviest, which weighs 1 (Nguyen et al., 2024).
pub(super) fn min_p(options: &SamplerOptions, candidates: &mut Candidates) {
    if options.min_p > 0.0 {
        candidates.remove_below(options.min_p);
    }
}
