//! What narrows the choice. Each is a function of the options and the candidates, and does nothing where it is off.

use super::SamplerOptions;
use super::candidates::Candidates;

pub(super) type Filter = fn(&SamplerOptions, &mut Candidates);

/// Whether a probability that is to be reached asks for less than everything.
fn is_on(part: f32) -> bool {
    part != 0.0 && part != 1.0
}

/// Keeps the k heaviest bytes.
pub(super) fn top_k(options: &SamplerOptions, candidates: &mut Candidates) {
    if options.top_k == 0 {
        return;
    }
    for byte in candidates.ranked().into_iter().skip(options.top_k as usize) {
        candidates.remove(byte);
    }
}

/// Keeps the bytes whose surprise is nearest to the expected one until they reach a part of all.
pub(super) fn typical_p(options: &SamplerOptions, candidates: &mut Candidates) {
    if !is_on(options.typical_p) {
        return;
    }
    let total = candidates.total();
    let surprise = |weight: f32| -libm::logf(weight / total);
    let expected: f32 =
        candidates.weights().iter().filter(|w| **w > 0.0).map(|w| w / total * surprise(*w)).sum();
    let order = candidates
        .ranked_by(|weight| if weight > 0.0 { (surprise(weight) - expected).abs() } else { f32::INFINITY });
    candidates.keep_until(options.typical_p, &order);
}

/// Keeps the heaviest bytes until their sum reaches a part of all.
pub(super) fn top_p(options: &SamplerOptions, candidates: &mut Candidates) {
    if is_on(options.top_p) {
        let order = candidates.ranked();
        candidates.keep_until(options.top_p, &order);
    }
}

/// Keeps bytes at least a fraction as heavy as the heaviest.
pub(super) fn min_p(options: &SamplerOptions, candidates: &mut Candidates) {
    if options.min_p > 0.0 {
        candidates.remove_below(options.min_p * candidates.max());
    }
}
