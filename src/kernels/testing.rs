//! What the tests of all kernels share.

use crate::simd::{Isa, TILE};

/// Lengths around everything that a register, a tile or a block can be long.
pub(super) const LENGTHS: &[usize] =
    &[0, 1, 2, 3, 4, 5, 7, 8, 9, TILE - 1, TILE, TILE + 1, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200];

/// Calls `f` for each instruction set that this machine has, scalar first.
pub(super) fn each_isa(f: impl Fn(Isa)) {
    Isa::ALL.iter().copied().filter(|isa| isa.is_available()).for_each(f);
}

/// Calls `f` for each instruction set and length.
pub(super) fn each_isa_and_length(f: impl Fn(Isa, usize)) {
    each_isa(|isa| LENGTHS.iter().for_each(|&n| f(isa, n)));
}

/// Numbers of mean 0 and variance near 1.
pub(super) fn noise(n: usize, seed: u64) -> Vec<f32> {
    use crate::rng::{Stream, unit_f64, words};
    (0..n as u64)
        .map(|i| {
            let w = words(seed, Stream::Init, 0, i);
            ((unit_f64(w[0], w[1]) + unit_f64(w[2], w[3]) - 1.0) * 2.45) as f32
        })
        .collect()
}

/// Every |Δ| is within `tolerance` of the largest |reference|.
pub(super) fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0.0f64, |max, v| max.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (*got as f64 - want).abs();
        assert!(error <= tolerance * scale, "number {i} is {got}, not {want} (of at most {scale})");
    }
}
