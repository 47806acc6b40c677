//! WebAssembly's 128-bit vectors. A module has them or not as a whole, so this set exists where it was compiled with
//! `-C target-feature=+simd128`. The relaxed instructions are left out: what they compute depends on the machine.
#![allow(unsafe_op_in_unsafe_fn, reason = "the contract of each function is that of the trait")]

use std::arch::wasm32::*;

use super::Simd;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Simd128;

/// Σ of a lane's four products, from the sums of pairs of the low and of the high half.
#[inline(always)]
fn add_pairs(low: v128, high: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high))
}

impl Simd for Simd128 {
    const LANES: usize = 4;
    const BLOCK_X: usize = 2;
    const BLOCK_Q: usize = 2;
    const DOT_OFFSET: i32 = 0;
    type F = v128;
    type I = v128;
    type W = v128;
    /// The activations in 16 bits, twice.
    type X = v128;

    #[inline(always)]
    unsafe fn splat(v: f32) -> v128 {
        f32x4_splat(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> v128 {
        v128_load(p.cast())
    }
    /// By integers, as there is no instruction for it. Exponent and mantissa move into place, the product by 2¹¹²
    /// mends the exponent (subnormals too); infinities do not occur in weights or caches.
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> v128 {
        let bits = u32x4_extend_low_u16x8(v128_load64_zero(p.cast()));
        let magnitude = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
        let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
        v128_or(f32x4_mul(magnitude, f32x4_splat(f32::from_bits(0x7780_0000))), sign)
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> v128 {
        u32x4_shl(u32x4_extend_low_u16x8(v128_load64_zero(p.cast())), 16)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: v128) {
        v128_store(p.cast(), v);
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: v128) {
        let mut numbers = [0.0f32; 4];
        v128_store(numbers.as_mut_ptr().cast(), v);
        p.cast::<[u16; 4]>().write_unaligned(numbers.map(|v| half::f16::from_f32(v).to_bits()));
    }
    #[inline(always)]
    unsafe fn add(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: v128, b: v128) -> v128 {
        f32x4_div(a, b)
    }
    /// a where it is greater, else b: one instruction of most machines, unlike `f32x4_max`.
    #[inline(always)]
    unsafe fn max(a: v128, b: v128) -> v128 {
        f32x4_pmax(b, a)
    }
    #[inline(always)]
    unsafe fn min(a: v128, b: v128) -> v128 {
        f32x4_pmin(b, a)
    }
    /// Two roundings: there is no fused product that is the same on every machine.
    #[inline(always)]
    unsafe fn fma(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }
    #[inline(always)]
    unsafe fn round(v: v128) -> v128 {
        f32x4_nearest(v)
    }
    #[inline(always)]
    unsafe fn exp2i(n: v128) -> v128 {
        i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23)
    }
    #[inline(always)]
    unsafe fn select_lt(a: v128, b: v128, x: v128, y: v128) -> v128 {
        v128_bitselect(x, y, f32x4_lt(a, b))
    }
    #[inline(always)]
    unsafe fn sum(v: v128) -> f32 {
        let v = f32x4_add(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
        f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v)
    }
    #[inline(always)]
    unsafe fn sum4(v: [v128; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let ab = f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
        let cd = f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(c, d), i32x4_shuffle::<2, 3, 6, 7>(c, d));
        let sums = f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd));
        std::mem::transmute::<v128, [f32; 4]>(sums)
    }
    #[inline(always)]
    unsafe fn max_lane(v: v128) -> f32 {
        let v = f32x4_pmax(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
        f32x4_extract_lane::<0>(f32x4_pmax(v, i32x4_shuffle::<1, 0, 3, 2>(v, v)))
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> v128 {
        i32x4_splat(v)
    }
    #[inline(always)]
    unsafe fn to_f(v: v128) -> v128 {
        f32x4_convert_i32x4(v)
    }
    #[inline(always)]
    unsafe fn load_w(p: *const i8) -> v128 {
        v128_load(p.cast())
    }
    #[inline(always)]
    unsafe fn load_w4(p: *const u8, codes: &[i8; 16]) -> (v128, v128) {
        let codes = v128_load(codes.as_ptr().cast());
        let bytes = v128_load(p.cast());
        (i8x16_swizzle(codes, v128_and(bytes, u8x16_splat(15))), i8x16_swizzle(codes, u8x16_shr(bytes, 4)))
    }
    #[inline(always)]
    unsafe fn load_x(p: *const i8) -> v128 {
        i16x8_extend_low_i8x16(i32x4_splat(p.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    unsafe fn dot(acc: v128, w: v128, x: v128) -> v128 {
        let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(w), x);
        let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(w), x);
        i32x4_add(acc, add_pairs(low, high))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: v128) {
        let v = i32x4_trunc_sat_f32x4(f32x4_nearest(v));
        let v = i16x8_narrow_i32x4(v, v);
        p.cast::<i32>().write_unaligned(i32x4_extract_lane::<0>(i8x16_narrow_i16x8(v, v)));
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
