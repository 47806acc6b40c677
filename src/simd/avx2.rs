//! AVX2 with FMA and F16C.
#![allow(unsafe_op_in_unsafe_fn, reason = "the contract of each function is that of the trait")]

use std::arch::x86_64::*;

use super::Simd;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2;

/// Sums of the two 128-bit halves, then of the pairs that `hadd` makes.
#[inline(always)]
unsafe fn fold(v: __m256) -> __m128 {
    _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1))
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const BLOCK_X: usize = 3;
    const BLOCK_Q: usize = 2;
    /// Measured on Zen 3.
    const PREFETCH: usize = 1536;
    const DOT_OFFSET: i32 = 0;
    type F = __m256;
    type I = __m256i;
    type W = __m256i;
    /// The activations and their absolute values.
    type X = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn splat(v: f32) -> __m256 {
        _mm256_set1_ps(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        _mm256_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m256 {
        _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), 16))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        _mm256_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m256) {
        _mm_storeu_si128(p.cast(), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        _mm256_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        _mm256_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        _mm256_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        _mm256_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(v: __m256) -> __m256 {
        _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
    }
    #[inline(always)]
    unsafe fn exp2i(n: __m256) -> __m256 {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))
    }
    #[inline(always)]
    unsafe fn select_lt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        let v = fold(v);
        let v = _mm_hadd_ps(v, v);
        _mm_cvtss_f32(_mm_hadd_ps(v, v))
    }
    #[inline(always)]
    unsafe fn sum4(v: [__m256; 4]) -> [f32; 4] {
        let (a, b, c, d) = (fold(v[0]), fold(v[1]), fold(v[2]), fold(v[3]));
        std::mem::transmute::<__m128, [f32; 4]>(_mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d)))
    }
    #[inline(always)]
    unsafe fn max_lane(v: __m256) -> f32 {
        let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
    }
    #[inline(always)]
    unsafe fn splat_i(v: i32) -> __m256i {
        _mm256_set1_epi32(v)
    }
    #[inline(always)]
    unsafe fn to_f(v: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(v)
    }
    #[inline(always)]
    unsafe fn load_w(p: *const i8) -> __m256i {
        _mm256_loadu_si256(p.cast())
    }
    #[inline(always)]
    unsafe fn load_w4(p: *const u8, codes: &[i8; 16]) -> (__m256i, __m256i) {
        let codes = _mm256_broadcastsi128_si256(_mm_loadu_si128(codes.as_ptr().cast()));
        let low = _mm256_set1_epi8(15);
        let bytes = _mm256_loadu_si256(p.cast());
        (
            _mm256_shuffle_epi8(codes, _mm256_and_si256(bytes, low)),
            _mm256_shuffle_epi8(codes, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)),
        )
    }
    #[inline(always)]
    unsafe fn load_x(p: *const i8) -> (__m256i, __m256i) {
        let x = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
        (x, _mm256_abs_epi8(x))
    }
    /// `maddubs` wants unsigned by signed: |x| and w with the sign of x. Two products of 127 · 127 fit 16 bits.
    #[inline(always)]
    unsafe fn dot(acc: __m256i, w: __m256i, x: (__m256i, __m256i)) -> __m256i {
        let pairs = _mm256_maddubs_epi16(x.1, _mm256_sign_epi8(w, x.0));
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: __m256) {
        let v = _mm256_cvtps_epi32(v);
        let v = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storel_epi64(p.cast(), _mm_packs_epi16(v, v));
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _mm_prefetch(p.cast(), _MM_HINT_T0);
    }
}
