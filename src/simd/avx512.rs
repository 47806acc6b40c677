//! AVX-512 (F, BW, VL, DQ) with VNNI. Processors that have AVX-512 without VNNI use AVX2.
#![allow(unsafe_op_in_unsafe_fn, reason = "the contract of each function is that of the trait")]

use std::arch::x86_64::*;

use super::Simd;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512;

#[inline(always)]
unsafe fn fold(v: __m512) -> __m128 {
    let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1))
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const BLOCK_X: usize = 6;
    const CHAINS_16: usize = 2;
    const BLOCK_Q: usize = 12;
    /// `vpdpbusd` wants unsigned by signed: the weights are moved up by 128.
    const DOT_OFFSET: i32 = 128;
    type F = __m512;
    type I = __m512i;
    type W = __m512i;
    type X = __m512i;

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m512 {
        _mm512_set1_ps(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())), 16))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m512) {
        _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(v: __m512) -> __m512 {
        _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
    }
    #[inline(always)]
    unsafe fn exp2i(n: __m512) -> __m512 {
        let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))
    }
    #[inline(always)]
    unsafe fn select_lt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x)
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        let v = fold(v);
        let v = _mm_hadd_ps(v, v);
        _mm_cvtss_f32(_mm_hadd_ps(v, v))
    }
    #[inline(always)]
    unsafe fn sum4(v: [__m512; 4]) -> [f32; 4] {
        let (a, b, c, d) = (fold(v[0]), fold(v[1]), fold(v[2]), fold(v[3]));
        std::mem::transmute::<__m128, [f32; 4]>(_mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d)))
    }
    #[inline(always)]
    unsafe fn max_lane(v: __m512) -> f32 {
        _mm512_reduce_max_ps(v)
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> __m512i {
        _mm512_set1_epi32(v)
    }
    #[inline(always)]
    unsafe fn to_f(v: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(v)
    }
    #[inline(always)]
    unsafe fn load_w(p: *const i8) -> __m512i {
        _mm512_xor_si512(_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(-128))
    }
    #[inline(always)]
    unsafe fn load_w4(p: *const u8, codes: &[i8; 16]) -> (__m512i, __m512i) {
        let codes = _mm_xor_si128(_mm_loadu_si128(codes.as_ptr().cast()), _mm_set1_epi8(-128));
        let codes = _mm512_broadcast_i32x4(codes);
        let low = _mm512_set1_epi8(15);
        let bytes = _mm512_loadu_si512(p.cast());
        (
            _mm512_shuffle_epi8(codes, _mm512_and_si512(bytes, low)),
            _mm512_shuffle_epi8(codes, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low)),
        )
    }
    #[inline(always)]
    unsafe fn load_x(p: *const i8) -> __m512i {
        _mm512_set1_epi32(p.cast::<i32>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(acc, w, x)
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: __m512) {
        _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _mm_prefetch(p.cast(), _MM_HINT_T0);
    }
}
