//! Normalizations of rows.

use crate::config::NORM_EPS;

/// LayerNorm of each row of `x`, (rows, width), in place: zero mean and unit variance, then gain and bias.
pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: Option<&[f32]>) {
    let width = weight.len();
    for row in x.chunks_exact_mut(width) {
        let mean = row.iter().sum::<f32>() / width as f32;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
        let scale = 1.0 / (variance + NORM_EPS).sqrt();
        for (v, w) in row.iter_mut().zip(weight) {
            *v = (*v - mean) * scale * w;
        }
        if let Some(bias) = bias {
            super::add_assign(row, bias);
        }
    }
}

/// RMSNorm of each row of `x`, (rows, width), in place: unit mean square, then the gain where there is one.
pub(crate) fn rms_norm(x: &mut [f32], width: usize, weight: Option<&[f32]>) {
    for row in x.chunks_exact_mut(width) {
        let mean_square = row.iter().map(|v| v * v).sum::<f32>() / width as f32;
        let scale = 1.0 / (mean_square + NORM_EPS).sqrt();
        match weight {
            Some(weight) => row.iter_mut().zip(weight).for_each(|(v, w)| *v = *v * scale * w),
            None => row.iter_mut().for_each(|v| *v *= scale),
        }
    }
}
