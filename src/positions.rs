//! Position tables, computed once for both sides: the published sinusoidal encoding and the rotary angles.
//!
//! They come from the `libm` crate, not the platform's, so that every machine gets the same bits.

use crate::config::POSITION_BASE;

fn sinusoidal_frequency(i: usize, dim: usize) -> f32 {
    let step = (-libm::log(POSITION_BASE) / dim as f64) as f32;
    libm::exp(((2 * i) as f32 * step) as f64) as f32
}

fn wave(position: usize, column: usize, frequency: f32) -> f32 {
    let angle = (position as f32 * frequency) as f64;
    (if column.is_multiple_of(2) { libm::sin(angle) } else { libm::cos(angle) }) as f32
}

/// One number of the published sinusoidal encoding of width `dim`: `pe[p, 2i] = sin(p·w_i)`,
/// `pe[p, 2i+1] = cos(p·w_i)` with `w_i = exp(2i · (-ln 10000 / dim))`. For an odd `dim` the last sine has no cosine.
///
/// Frequencies and angles are rounded to f32 as the published code does, which is visible at large positions.
pub fn sinusoidal_at(position: usize, column: usize, dim: usize) -> f32 {
    wave(position, column, sinusoidal_frequency(column / 2, dim))
}

/// [`sinusoidal_at`] for positions `0..rows`, (rows, dim).
pub fn sinusoidal(rows: usize, dim: usize) -> Vec<f32> {
    let frequencies: Vec<f32> = (0..dim).map(|column| sinusoidal_frequency(column / 2, dim)).collect();
    let row = |position| frequencies.iter().enumerate().map(move |(column, w)| wave(position, column, *w));
    (0..rows).flat_map(row).collect()
}

/// Cosine and sine of the angle by which pair `i`, `(x[i], x[i + head_dim/2])`, of a head turns at a position:
/// `position · 10000^(-2i / head_dim)`.
pub fn rotary_angle(position: usize, i: usize, head_dim: usize) -> (f32, f32) {
    let frequency = libm::exp(-libm::log(POSITION_BASE) * (2 * i) as f64 / head_dim as f64);
    let angle = position as f64 * frequency;
    (libm::cos(angle) as f32, libm::sin(angle) as f32)
}

/// The cosines and the sines of [`rotary_angle`] for positions `0..rows`, each (rows, head_dim / 2).
pub fn rotary(rows: usize, head_dim: usize) -> (Vec<f32>, Vec<f32>) {
    let pairs = (0..rows).flat_map(|p| (0..head_dim / 2).map(move |i| rotary_angle(p, i, head_dim)));
    pairs.unzip()
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
