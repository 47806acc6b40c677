//! Sums and products of two vectors.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

use super::compute::Compute;
use crate::simd::{Isa, Simd, dispatch};

#[inline(always)]
unsafe fn add_kernel<S: Simd>(x: *mut f32, y: *const f32, n: usize) {
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        S::store(x.add(i), S::add(S::load(x.add(i)), S::load(y.add(i))));
    }
    for i in whole..n {
        *x.add(i) += *y.add(i);
    }
}

#[inline(always)]
unsafe fn add_scaled_kernel<S: Simd>(x: *mut f32, scale: f32, y: *const f32, n: usize) {
    let whole = n - n % S::LANES;
    let factor = S::splat(scale);
    for i in (0..whole).step_by(S::LANES) {
        S::store(x.add(i), S::fma(factor, S::load(y.add(i)), S::load(x.add(i))));
    }
    for i in whole..n {
        *x.add(i) += scale * *y.add(i);
    }
}

#[inline(always)]
unsafe fn dot_kernel<S: Simd>(x: *const f32, y: *const f32, n: usize) -> f32 {
    let whole = n - n % S::LANES;
    // Four sums do not wait for one another.
    let mut sums = [S::zero(); 4];
    for (turn, i) in (0..whole).step_by(S::LANES).enumerate() {
        sums[turn % 4] = S::fma(S::load(x.add(i)), S::load(y.add(i)), sums[turn % 4]);
    }
    let mut sum = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
    for i in whole..n {
        sum += *x.add(i) * *y.add(i);
    }
    sum
}

dispatch! { unsafe fn add_vectors(x: *mut f32, y: *const f32, n: usize) = add_kernel }
dispatch! { unsafe fn add_scaled_vectors(x: *mut f32, scale: f32, y: *const f32, n: usize) = add_scaled_kernel }
dispatch! { unsafe fn dot_vectors(x: *const f32, y: *const f32, n: usize) -> f32 = dot_kernel }

/// x += y.
pub(crate) fn add_assign(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    // SAFETY: the instruction set is one that the machine has; both slices have that length.
    unsafe { add_vectors(Isa::current(), x.as_mut_ptr(), y.as_ptr(), x.len()) };
}

/// x += scale · y.
pub(crate) fn add_scaled(compute: &Compute, x: &mut [f32], scale: f32, y: &[f32]) {
    add_scaled_on(compute.isa, x, scale, y);
}

fn add_scaled_on(isa: Isa, x: &mut [f32], scale: f32, y: &[f32]) {
    assert_eq!(x.len(), y.len());
    // SAFETY: the instruction set is one that the machine has; both slices have that length.
    unsafe { add_scaled_vectors(isa, x.as_mut_ptr(), scale, y.as_ptr(), x.len()) };
}

/// Σ x · y.
pub(crate) fn dot(compute: &Compute, x: &[f32], y: &[f32]) -> f32 {
    dot_on(compute.isa, x, y)
}

fn dot_on(isa: Isa, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    // SAFETY: the instruction set is one that the machine has; both slices have that length.
    unsafe { dot_vectors(isa, x.as_ptr(), y.as_ptr(), x.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, each_isa_and_length, noise};

    #[test]
    fn every_instruction_set_agrees_with_the_formula() {
        each_isa_and_length(|isa, n| {
            let (x, y) = (noise(n, 1), noise(n, 2));
            let mut got = x.clone();
            add_scaled_on(isa, &mut got, 0.3, &y);
            let want: Vec<f64> =
                x.iter().zip(&y).map(|(&x, &y)| x as f64 + 0.3f32 as f64 * y as f64).collect();
            assert_close(&got, &want, 1e-6);
            // A sum is as exact as its largest term allows.
            let terms: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| x as f64 * y as f64).collect();
            let error = (dot_on(isa, &x, &y) as f64 - terms.iter().sum::<f64>()).abs();
            assert!(error <= 1e-6 * terms.iter().map(|t| t.abs()).sum::<f64>(), "{isa:?} {n}: {error}");
        });
    }
}
