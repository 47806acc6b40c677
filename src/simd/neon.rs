//! NEON, which every aarch64 processor has, with and without the instruction for dot products of bytes (dotprod), which
//! came with ARMv8.2.
#![allow(unsafe_op_in_unsafe_fn, reason = "the contract of each function is that of the trait")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::Simd;

/// NEON; with `DOTPROD`, also the set of that name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonWith<const DOTPROD: bool>;

pub(crate) type Neon = NeonWith<false>;
pub(crate) type NeonDotprod = NeonWith<true>;

impl<const DOTPROD: bool> Simd for NeonWith<DOTPROD> {
    const LANES: usize = 4;
    const BLOCK_X: usize = 4;
    const BLOCK_Q: usize = 2;
    const DOT_OFFSET: i32 = 0;
    type F = float32x4_t;
    type I = int32x4_t;
    type W = int8x16_t;
    type X = int8x16_t;

    #[inline(always)]
    unsafe fn splat(v: f32) -> float32x4_t {
        vdupq_n_f32(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        vld1q_f32(p)
    }
    // The intrinsics of the two conversions are not in stable Rust.
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> float32x4_t {
        let narrow = vld1_u16(p);
        let wide: float32x4_t;
        asm!("fcvtl {wide:v}.4s, {narrow:v}.4h", wide = lateout(vreg) wide, narrow = in(vreg) narrow,
            options(pure, nomem, nostack, preserves_flags));
        wide
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> float32x4_t {
        vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        vst1q_f32(p, v);
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: float32x4_t) {
        let narrow: uint16x4_t;
        asm!("fcvtn {narrow:v}.4h, {wide:v}.4s", narrow = lateout(vreg) narrow, wide = in(vreg) v,
            options(pure, nomem, nostack, preserves_flags));
        vst1_u16(p, narrow);
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vaddq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vsubq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vdivq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmaxq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vminq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn round(v: float32x4_t) -> float32x4_t {
        vrndnq_f32(v)
    }
    #[inline(always)]
    unsafe fn exp2i(n: float32x4_t) -> float32x4_t {
        vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23))
    }
    #[inline(always)]
    unsafe fn select_lt(a: float32x4_t, b: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t {
        vbslq_f32(vcltq_f32(a, b), x, y)
    }
    #[inline(always)]
    unsafe fn sum(v: float32x4_t) -> f32 {
        vaddvq_f32(v)
    }
    #[inline(always)]
    unsafe fn sum4(v: [float32x4_t; 4]) -> [f32; 4] {
        [vaddvq_f32(v[0]), vaddvq_f32(v[1]), vaddvq_f32(v[2]), vaddvq_f32(v[3])]
    }
    #[inline(always)]
    unsafe fn max_lane(v: float32x4_t) -> f32 {
        vmaxvq_f32(v)
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> int32x4_t {
        vdupq_n_s32(v)
    }
    #[inline(always)]
    unsafe fn to_f(v: int32x4_t) -> float32x4_t {
        vcvtq_f32_s32(v)
    }
    #[inline(always)]
    unsafe fn load_w(p: *const i8) -> int8x16_t {
        vld1q_s8(p)
    }
    #[inline(always)]
    unsafe fn load_w4(p: *const u8, codes: &[i8; 16]) -> (int8x16_t, int8x16_t) {
        let codes = vld1q_s8(codes.as_ptr());
        let bytes = vld1q_u8(p);
        (vqtbl1q_s8(codes, vandq_u8(bytes, vdupq_n_u8(15))), vqtbl1q_s8(codes, vshrq_n_u8(bytes, 4)))
    }
    #[inline(always)]
    unsafe fn load_x(p: *const i8) -> int8x16_t {
        vreinterpretq_s8_s32(vdupq_n_s32(p.cast::<i32>().read_unaligned()))
    }
    /// Without the instruction for it: products in 16 bits, then sums of pairs twice.
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        if DOTPROD {
            // The intrinsic is not in stable Rust.
            let mut sum = acc;
            std::arch::asm!(
                "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
            return sum;
        }
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_high_s8(w, x));
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: float32x4_t) {
        let narrow = vqmovn_s32(vcvtnq_s32_f32(v));
        let narrow = vqmovn_s16(vcombine_s16(narrow, narrow));
        p.cast::<i32>().write_unaligned(vget_lane_s32(vreinterpret_s32_s8(narrow), 0));
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
