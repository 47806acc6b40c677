//! Normalizations of rows.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

use crate::config::NORM_EPS;
use crate::simd::{Isa, Simd, dispatch};

/// Σ f(v) over a row, as one vector. What lies beyond the row's end is left to the caller, from `whole` on.
macro_rules! fold_row {
    ($s:ident, $x:ident, $n:ident, |$sum:ident, $v:ident| $f:expr) => {{
        let whole = $n - $n % $s::LANES;
        let mut $sum = $s::zero();
        for i in (0..whole).step_by($s::LANES) {
            let $v = $s::load($x.add(i));
            $sum = $f;
        }
        ($sum, whole)
    }};
}

#[inline(always)]
unsafe fn sum_kernel<S: Simd>(x: *const f32, n: usize) -> f32 {
    let (mut sum, whole) = fold_row!(S, x, n, |sum, v| S::add(sum, v));
    if whole < n {
        sum = S::add(sum, S::load_first(x.add(whole), n - whole));
    }
    S::sum(sum)
}

#[inline(always)]
unsafe fn squares_kernel<S: Simd>(x: *const f32, n: usize) -> f32 {
    let (mut sum, whole) = fold_row!(S, x, n, |sum, v| S::fma(v, v, sum));
    if whole < n {
        let v = S::load_first(x.add(whole), n - whole);
        sum = S::fma(v, v, sum);
    }
    S::sum(sum)
}

/// x = (x - mean) · scale · weight + bias, where weight and bias may be null.
#[inline(always)]
unsafe fn affine<S: Simd>(
    x: *mut f32,
    n: usize,
    mean: f32,
    scale: f32,
    weight: *const f32,
    bias: *const f32,
) {
    let (mean, scale) = (S::splat(mean), S::splat(scale));
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let mut v = S::mul(S::sub(S::load(x.add(i)), mean), scale);
        if !weight.is_null() {
            v = S::mul(v, S::load(weight.add(i)));
        }
        if !bias.is_null() {
            v = S::add(v, S::load(bias.add(i)));
        }
        S::store(x.add(i), v);
    }
    for i in whole..n {
        let mut v = S::mul(S::sub(S::splat(*x.add(i)), mean), scale);
        if !weight.is_null() {
            v = S::mul(v, S::splat(*weight.add(i)));
        }
        if !bias.is_null() {
            v = S::add(v, S::splat(*bias.add(i)));
        }
        S::store_first(x.add(i), 1, v);
    }
}

#[inline(always)]
unsafe fn layer_norm_kernel<S: Simd>(x: *mut f32, n: usize, weight: *const f32, bias: *const f32) {
    let mean = sum_kernel::<S>(x, n) / n as f32;
    // The variance of what is left after the mean: no cancellation.
    let center = S::splat(mean);
    let (sum, whole) = fold_row!(S, x, n, |sum, v| {
        let v = S::sub(v, center);
        S::fma(v, v, sum)
    });
    let mut squares = S::sum(sum);
    for i in whole..n {
        squares += (*x.add(i) - mean) * (*x.add(i) - mean);
    }
    let scale = 1.0 / (squares / n as f32 + NORM_EPS).sqrt();
    affine::<S>(x, n, mean, scale, weight, bias);
}

#[inline(always)]
unsafe fn rms_norm_kernel<S: Simd>(x: *mut f32, n: usize, weight: *const f32) {
    let scale = 1.0 / (squares_kernel::<S>(x, n) / n as f32 + NORM_EPS).sqrt();
    affine::<S>(x, n, 0.0, scale, weight, std::ptr::null());
}

dispatch! { unsafe fn squares(x: *const f32, n: usize) -> f32 = squares_kernel }
dispatch! { unsafe fn layer_norm_row(x: *mut f32, n: usize, weight: *const f32, bias: *const f32) = layer_norm_kernel }
dispatch! { unsafe fn rms_norm_row(x: *mut f32, n: usize, weight: *const f32) = rms_norm_kernel }

/// Σ x².
pub(super) fn sum_of_squares(isa: Isa, x: &[f32]) -> f32 {
    // SAFETY: the instruction set is one that the machine has; pointer and length are those of the slice.
    unsafe { squares(isa, x.as_ptr(), x.len()) }
}

/// LayerNorm of each row of `x`, (rows, width), in place: zero mean and unit variance, then gain and bias.
pub(crate) fn layer_norm_on(isa: Isa, x: &mut [f32], weight: &[f32], bias: Option<&[f32]>) {
    assert!(bias.is_none_or(|bias| bias.len() == weight.len()));
    for row in x.chunks_exact_mut(weight.len()) {
        let bias = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the instruction set is one that the machine has; row, weight and bias are equally long.
        unsafe { layer_norm_row(isa, row.as_mut_ptr(), row.len(), weight.as_ptr(), bias) };
    }
}

/// RMSNorm of each row of `x`, (rows, width), in place: unit mean square, then the gain where there is one.
pub(crate) fn rms_norm_on(isa: Isa, x: &mut [f32], width: usize, weight: Option<&[f32]>) {
    assert!(weight.is_none_or(|weight| weight.len() == width));
    for row in x.chunks_exact_mut(width) {
        let weight = weight.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the instruction set is one that the machine has; row and weight are equally long.
        unsafe { rms_norm_row(isa, row.as_mut_ptr(), row.len(), weight) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, each_isa_and_length, noise};

    #[test]
    fn every_instruction_set_agrees_with_the_formula() {
        each_isa_and_length(|isa, n| {
            if n == 0 {
                return;
            }
            let (x, weight, bias) = (noise(2 * n, 1), noise(n, 2), noise(n, 3));
            let stats = |row: &[f32], center: bool| {
                let mean = if center { row.iter().map(|&v| v as f64).sum::<f64>() / n as f64 } else { 0.0 };
                let variance = row.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / n as f64;
                (mean, 1.0 / (variance + NORM_EPS as f64).sqrt())
            };
            let formula = |center: bool, biased: bool| -> Vec<f64> {
                x.chunks_exact(n)
                    .flat_map(|row| {
                        let (mean, scale) = stats(row, center);
                        let (weight, bias) = (&weight, &bias);
                        (0..n).map(move |i| {
                            (row[i] as f64 - mean) * scale * weight[i] as f64
                                + if biased { bias[i] as f64 } else { 0.0 }
                        })
                    })
                    .collect()
            };
            let mut y = x.clone();
            layer_norm_on(isa, &mut y, &weight, Some(&bias));
            assert_close(&y, &formula(true, true), 1e-6);
            let mut y = x.clone();
            rms_norm_on(isa, &mut y, n, Some(&weight));
            assert_close(&y, &formula(false, false), 1e-6);
            let sum: f64 = x.iter().map(|&v| (v as f64).powi(2)).sum();
            assert_close(&[sum_of_squares(isa, &x)], &[sum], 1e-6);
        });
    }
}
