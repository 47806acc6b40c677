//! Nonlinearities, elementwise.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

use super::compute::Compute;
use super::math;
use crate::config::Activation;
use crate::simd::{Isa, Simd, dispatch};

/// Applies `f` to every number.
macro_rules! elementwise {
    ($name:ident, $kernel:ident, ($($arg:ident),*), |$s:ident, $x:ident| $f:expr) => {
        #[inline(always)]
        unsafe fn $kernel<$s: Simd>(x: &mut [f32] $(, $arg: f32)*) {
            let (start, len) = (x.as_mut_ptr(), x.len());
            let whole = len - len % $s::LANES;
            for i in (0..whole).step_by($s::LANES) {
                let $x = $s::load(start.add(i));
                $s::store(start.add(i), $f);
            }
            if whole < len {
                let $x = $s::load_first(start.add(whole), len - whole);
                $s::store_first(start.add(whole), len - whole, $f);
            }
        }
        dispatch! {
            unsafe fn $name(x: &mut [f32] $(, $arg: f32)*) = $kernel
        }
    };
}

elementwise!(gelu, gelu_kernel, (), |S, x| math::gelu::<S>(x));
elementwise!(scaled_gelu, scaled_gelu_kernel, (scale), |S, x| {
    math::gelu::<S>(S::div(x, S::splat(scale)))
});
elementwise!(relu, relu_kernel, (), |S, x| S::max(x, S::zero()));
elementwise!(relu2, relu2_kernel, (), |S, x| {
    let positive = S::max(x, S::zero());
    S::mul(positive, positive)
});
elementwise!(bend, bend_kernel, (cap), |S, x| {
    S::mul(S::splat(cap), math::tanh::<S>(S::div(x, S::splat(cap))))
});

/// out = silu(gate) · value. `out` may be `gate`, or any place before it.
#[inline(always)]
unsafe fn swiglu_kernel<S: Simd>(gate: *const f32, value: *const f32, out: *mut f32, n: usize) {
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let (g, v) = (S::load(gate.add(i)), S::load(value.add(i)));
        S::store(out.add(i), S::mul(math::silu::<S>(g), v));
    }
    if whole < n {
        let (g, v) = (S::load_first(gate.add(whole), n - whole), S::load_first(value.add(whole), n - whole));
        S::store_first(out.add(whole), n - whole, S::mul(math::silu::<S>(g), v));
    }
}
dispatch! {
    unsafe fn swiglu(gate: *const f32, value: *const f32, out: *mut f32, n: usize) = swiglu_kernel
}

/// Applies a nonlinearity to each row of `x`, (rows, width), in place, and returns the width of the result: the same
/// width, or for SwiGLU half of it. Then the results are packed: the first `rows · width / 2` numbers of `x`.
pub(crate) fn activate(compute: &Compute, kind: Activation, x: &mut [f32], width: usize) -> usize {
    activate_on(compute.isa, kind, x, width)
}

pub(super) fn activate_on(isa: Isa, kind: Activation, x: &mut [f32], width: usize) -> usize {
    match kind {
        // SAFETY: the instruction set is one that the machine has.
        Activation::Gelu => unsafe { gelu(isa, x) },
        // SAFETY: as above.
        Activation::Relu => unsafe { relu(isa, x) },
        // SAFETY: as above.
        Activation::Relu2 => unsafe { relu2(isa, x) },
        Activation::Swiglu => {
            let half = width / 2;
            let start = x.as_mut_ptr();
            for row in 0..x.len() / width {
                // SAFETY: row `row` holds 2 · half numbers, and its result lies at or before its gate, where
                // everything has been read already.
                unsafe {
                    let gate = start.add(row * width);
                    swiglu(isa, gate, gate.add(half), start.add(row * half), half);
                }
            }
            return half;
        }
    }
    width
}

/// The published curved GELU on each row of `x`, (rows, width): `gelu(h / (1 + γ·e))` with `e = ½·Σ h²` of the row.
pub(crate) fn curved_gelu(compute: &Compute, gamma: f32, x: &mut [f32], width: usize) {
    let isa = compute.isa;
    for row in x.chunks_exact_mut(width) {
        let energy = 0.5 * super::norm::sum_of_squares(isa, row);
        // SAFETY: the instruction set is one that the machine has.
        unsafe { scaled_gelu(isa, row, 1.0 + gamma * energy) };
    }
}

/// c·tanh(x / c) on every number.
pub(crate) fn softcap(compute: &Compute, cap: f32, x: &mut [f32]) {
    // SAFETY: the instruction set is one that the machine has.
    unsafe { bend(compute.isa, x, cap) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{each_isa_and_length, noise};

    /// |Δ| within 3e-7 of max(|reference|, floor).
    fn check(name: &str, x: &[f32], got: &[f32], floor: f64, reference: impl Fn(f64) -> f64) {
        for (x, got) in x.iter().zip(got) {
            let want = reference(*x as f64);
            assert!(
                (*got as f64 - want).abs() <= 3e-7 * want.abs().max(floor),
                "{name}({x}) = {got}, not {want}"
            );
        }
    }

    #[test]
    fn functions_are_accurate_on_every_instruction_set() {
        each_isa_and_length(|isa, n| {
            let mut x = noise(n, 1);
            x.iter_mut().for_each(|v| *v *= 6.0);
            for (i, v) in [0.0, -0.0, 1e-30, -14.0, -20.0, 100.0, -300.0, 0.29, 0.31].iter().enumerate() {
                if i < n {
                    x[i] = *v;
                }
            }
            let phi = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
            let mut y = x.clone();
            activate_on(isa, Activation::Gelu, &mut y, n.max(1));
            check("gelu", &x, &y, 1e-1, |x| x * phi(x));
            let mut y = x.clone();
            activate_on(isa, Activation::Relu2, &mut y, n.max(1));
            check("relu2", &x, &y, 1e-30, |x| x.max(0.0).powi(2));
            let mut y = x.clone();
            // SAFETY: `each_isa_and_length` gives sets that the machine has.
            unsafe { bend(isa, &mut y, 5.0) };
            check("softcap", &x, &y, 1e-30, |x| 5.0 * (x / 5.0).tanh());
            let mut y: Vec<f32> = x.iter().chain(&x).copied().collect();
            if n > 0 {
                assert_eq!(activate_on(isa, Activation::Swiglu, &mut y, 2 * n), n);
                check("swiglu", &x, &y[..n], 1e-1, |x| x * x / (1.0 + (-x).exp()));
            }
        });
    }
}
