//! Elementary functions of vectors, relative errors near 1e-7.
#![allow(unsafe_op_in_unsafe_fn, reason = "every function asks what the operations of `Simd` ask")]

use crate::simd::Simd;

/// Σ cᵢ·xⁱ, highest first.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(coefficients: [f32; N], x: S::F) -> S::F {
    let mut sum = S::splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = S::fma(sum, x, S::splat(*c));
    }
    sum
}

/// eˣ; 0 below -87.3, and no more than e⁸⁸ above that.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    let lowest = S::splat(-87.3);
    let clamped = S::min(S::max(x, lowest), S::splat(88.0));
    let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first of which times n is exact.
    let r = S::fma(n, S::splat(-0.693_359_4), clamped);
    let r = S::fma(n, S::splat(2.121_944_4e-4), r);
    // The series: |r| is at most ln 2 / 2, where the next term is below 6e-9.
    let series =
        polynomial::<S, 8>([1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0], r);
    S::select_lt(x, lowest, S::zero(), S::mul(series, S::exp2i(n)))
}

/// x·Φ(x), exact GELU.
///
/// With a = |x|/√2, Φ(-|x|) = ½·erfc(a) = ½·e^(-a²)·f/(1 + 2a), where f = (1 + 2a)·e^(a²)·erfc(a) is smooth in
/// q = (a - 2)/(a + 2): a polynomial of degree 10 fits it within 1.3e-8 up to a = 10, beyond which Φ is 0.
#[inline(always)]
pub(super) unsafe fn gelu<S: Simd>(x: S::F) -> S::F {
    let one = S::splat(1.0);
    let size = S::min(S::max(x, S::sub(S::zero(), x)), S::splat(14.1));
    let a = S::mul(size, S::splat(std::f32::consts::FRAC_1_SQRT_2));
    let q = S::div(S::sub(a, S::splat(2.0)), S::add(a, S::splat(2.0)));
    let f = polynomial::<S, 11>(
        [
            2.031_958_9e-5,
            -3.758_979e-4,
            -1.251_844_2e-3,
            1.284_734_3e-3,
            8.640_512e-3,
            -8.048_552e-3,
            -5.420_603_4e-2,
            0.164_053_7,
            -0.166_031_27,
            -9.276_392e-2,
            1.276_978_4,
        ],
        q,
    );
    let gauss = exp::<S>(S::mul(S::mul(size, size), S::splat(-0.5)));
    let tail = S::div(S::mul(S::mul(gauss, f), S::splat(0.5)), S::fma(S::splat(2.0), a, one));
    S::mul(x, S::select_lt(x, S::zero(), tail, S::sub(one, tail)))
}

/// x / (1 + e⁻ˣ).
#[inline(always)]
pub(super) unsafe fn silu<S: Simd>(x: S::F) -> S::F {
    S::div(x, S::add(S::splat(1.0), exp::<S>(S::sub(S::zero(), x))))
}

#[inline(always)]
pub(super) unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    let size = S::max(x, S::sub(S::zero(), x));
    let e = exp::<S>(S::mul(size, S::splat(-2.0)));
    let large = S::div(S::sub(S::splat(1.0), e), S::add(S::splat(1.0), e));
    let large = S::select_lt(x, S::zero(), S::sub(S::zero(), large), large);
    // Near 0 the difference cancels; there the series serves.
    let s = S::mul(x, x);
    let series = polynomial::<S, 6>(
        [-1382.0 / 155_925.0, 62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0],
        s,
    );
    S::select_lt(size, S::splat(0.3), S::mul(x, series), large)
}
