//! The definition of every operation, without intrinsics.
#![allow(unsafe_op_in_unsafe_fn, reason = "the contract of each function is that of the trait")]

use super::Simd;

const LANES: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    const LANES: usize = LANES;
    const BLOCK_X: usize = 2;
    const BLOCK_W: usize = 4;
    const BLOCK_Q: usize = 2;
    const DOT_OFFSET: i32 = 0;
    type F = [f32; LANES];
    type I = [i32; LANES];
    type W = [[i8; 4]; LANES];
    type X = [i8; 4];

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::F {
        [v; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        p.cast::<[f32; LANES]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        p.cast::<[u16; LANES]>().read_unaligned().map(|b| half::f16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        p.cast::<[u16; LANES]>().read_unaligned().map(|b| half::bf16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        p.cast::<[f32; LANES]>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: Self::F) {
        p.cast::<[u16; LANES]>().write_unaligned(v.map(|v| half::f16::from_f32(v).to_bits()));
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    /// Two roundings: a fused product without the instruction would cost a function call.
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(v: Self::F) -> Self::F {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2i(n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn select_lt(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn sum(v: Self::F) -> f32 {
        let [a, b, c, d, e, f, g, h] = v;
        ((a + e) + (b + f)) + ((c + g) + (d + h))
    }
    #[inline(always)]
    unsafe fn sum4(v: [Self::F; 4]) -> [f32; 4] {
        [Self::sum(v[0]), Self::sum(v[1]), Self::sum(v[2]), Self::sum(v[3])]
    }
    #[inline(always)]
    unsafe fn max_lane(v: Self::F) -> f32 {
        v.iter().copied().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> Self::I {
        [v; LANES]
    }
    #[inline(always)]
    unsafe fn to_f(v: Self::I) -> Self::F {
        v.map(|v| v as f32)
    }
    #[inline(always)]
    unsafe fn load_w(p: *const i8) -> Self::W {
        p.cast::<[[i8; 4]; LANES]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn load_w4(p: *const u8, codes: &[i8; 16]) -> (Self::W, Self::W) {
        let bytes = p.cast::<[[u8; 4]; LANES]>().read_unaligned();
        (
            bytes.map(|lane| lane.map(|b| codes[(b & 15) as usize])),
            bytes.map(|lane| lane.map(|b| codes[(b >> 4) as usize])),
        )
    }
    #[inline(always)]
    unsafe fn load_x(p: *const i8) -> Self::X {
        p.cast::<[i8; 4]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::W, x: Self::X) -> Self::I {
        std::array::from_fn(|i| (0..4).fold(acc[i], |sum, j| sum + w[i][j] as i32 * x[j] as i32))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::F) {
        p.cast::<[i8; LANES]>().write_unaligned(v.map(|v| v.round_ties_even() as i8));
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
