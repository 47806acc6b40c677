//! Position tables, computed once for both sides: the published sinusoidal encoding and the rotary angles.
//!
//! They come from the `libm` crate, not the platform's, so that every machine gets the same bits.

use crate::config::POSITION_BASE;

/// The published sinusoidal table for positions `0..rows`, (rows, dim): `pe[p, 2i] = sin(p·w_i)`,
/// `pe[p, 2i+1] = cos(p·w_i)` with `w_i = exp(2i · (-ln 10000 / dim))`. For an odd `dim` the last sine has no cosine.
///
/// Frequencies and angles are rounded to f32 as the published code does, which is visible at large positions.
pub fn sinusoidal(rows: usize, dim: usize) -> Vec<f32> {
    let step = (-libm::log(POSITION_BASE) / dim as f64) as f32;
    let frequencies: Vec<f32> =
        (0..dim.div_ceil(2)).map(|i| libm::exp(((2 * i) as f32 * step) as f64) as f32).collect();
    let mut table = Vec::with_capacity(rows * dim);
    for position in 0..rows {
        for column in 0..dim {
            let angle = (position as f32 * frequencies[column / 2]) as f64;
            table.push(if column % 2 == 0 { libm::sin(angle) } else { libm::cos(angle) } as f32);
        }
    }
    table
}

/// Cosines and sines of the rotary angles for positions `0..rows`, each (rows, head_dim / 2): the pair
/// `(x[i], x[i + head_dim/2])` of a head at position p turns by `p · 10000^(-2i / head_dim)`.
pub fn rotary(rows: usize, head_dim: usize) -> (Vec<f32>, Vec<f32>) {
    let half = head_dim / 2;
    let frequencies: Vec<f64> =
        (0..half).map(|i| libm::exp(-libm::log(POSITION_BASE) * (2 * i) as f64 / head_dim as f64)).collect();
    let mut cos = Vec::with_capacity(rows * half);
    let mut sin = Vec::with_capacity(rows * half);
    for position in 0..rows {
        for frequency in &frequencies {
            let angle = position as f64 * frequency;
            cos.push(libm::cos(angle) as f32);
            sin.push(libm::sin(angle) as f32);
        }
    }
    (cos, sin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_width_ends_in_a_sine() {
        let table = sinusoidal(3, 5);
        assert_eq!(&table[..5], &[0.0, 1.0, 0.0, 1.0, 0.0]);
        assert!((table[5] - 1f32.sin()).abs() < 1e-6 && (table[6] - 1f32.cos()).abs() < 1e-6);
    }

    #[test]
    fn rotary_turns_position_one_by_the_frequencies() {
        let (cos, sin) = rotary(2, 4);
        assert_eq!((cos[0], sin[1]), (1.0, 0.0));
        assert!((cos[2] - 1f32.cos()).abs() < 1e-7 && (sin[3] - 0.01f32.sin()).abs() < 1e-7);
    }
}
