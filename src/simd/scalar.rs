//! The definition of every operation, without intrinsics but where those are part of every processor of a kind.
#![allow(unsafe_op_in_unsafe_fn, reason = "the contract of each function is that of the trait")]

use super::Simd;

const LANES: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// A number of half precision, exactly. Without branches, tables or a look at the processor, as each of those would be
/// there once for every place that this is inlined to.
#[inline(always)]
fn widen(half: u16) -> f32 {
    /// The smallest normal number of half precision, 2⁻¹⁴.
    const SMALLEST: u32 = (127 - 14) << 23;
    let magnitude = u32::from(half & 0x7FFF);
    let normal = (magnitude << 13) + ((127 - 15) << 23);
    // Below it the bits count steps of 2⁻²⁴ from zero, as they do from it on.
    let small = (f32::from_bits(SMALLEST + (magnitude << 13)) - f32::from_bits(SMALLEST)).to_bits();
    let endless = (magnitude << 13) | 0x7F80_0000;
    let bits = match magnitude {
        0..0x400 => small,
        0x400..0x7C00 => normal,
        _ => endless,
    };
    f32::from_bits(bits | (u32::from(half & 0x8000) << 16))
}

/// The nearest number of half precision, of two the even one.
#[inline(always)]
fn narrow(v: f32) -> u16 {
    /// One step of it is one of the smallest steps of half precision, 2⁻²⁴.
    const STEPS: u32 = (127 - 1) << 23;
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = v.to_bits() & 0x7FFF_FFFF;
    let small = (f32::from_bits(magnitude) + f32::from_bits(STEPS)).to_bits().wrapping_sub(STEPS);
    let even = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xFFF + even) >> 13;
    let bits = match magnitude {
        0x7F80_0001.. => 0x7E00 | (magnitude >> 13 & 0x3FF),
        // From 65520 on the nearest is infinity.
        0x477F_F000.. => 0x7C00,
        0x3880_0000.. => normal,
        _ => small,
    };
    sign | bits as u16
}

/// As the definition of `dot`: bytes become words, and pairs of products are added up.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn dot_sse2(acc: [i32; LANES], w: [[i8; 4]; LANES], x: [i8; 4]) -> [i32; LANES] {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    let word = |byte: i8| i32::from(byte) & 0xFFFF;
    // SAFETY: SSE2 is part of x86-64. The arrays are of the same size as the vectors, and any bits are valid in both.
    unsafe {
        let w = transmute::<[[i8; 4]; LANES], [__m128i; 2]>(w);
        let acc = transmute::<[i32; LANES], [__m128i; 2]>(acc);
        let even = _mm_set1_epi32(word(x[0]) | (word(x[2]) << 16));
        let odd = _mm_set1_epi32(word(x[1]) | (word(x[3]) << 16));
        let sums: [__m128i; 2] = std::array::from_fn(|i| {
            let evens = _mm_madd_epi16(_mm_srai_epi16::<8>(_mm_slli_epi16::<8>(w[i])), even);
            let odds = _mm_madd_epi16(_mm_srai_epi16::<8>(w[i]), odd);
            _mm_add_epi32(acc[i], _mm_add_epi32(evens, odds))
        });
        transmute::<[__m128i; 2], [i32; LANES]>(sums)
    }
}

impl Simd for Scalar {
    const LANES: usize = LANES;
    const BLOCK_X: usize = 2;
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
        p.cast::<[u16; LANES]>().read_unaligned().map(widen)
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
        p.cast::<[u16; LANES]>().write_unaligned(v.map(narrow));
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
        // Exact either way. Every x86-64 has these instructions, which compilers find or miss as the code around it is.
        #[cfg(target_arch = "x86_64")]
        return dot_sse2(acc, w, x);
        #[cfg(not(target_arch = "x86_64"))]
        std::array::from_fn(|i| (0..4).fold(acc[i], |sum, j| sum + w[i][j] as i32 * x[j] as i32))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::F) {
        p.cast::<[i8; LANES]>().write_unaligned(v.map(|v| v.round_ties_even() as i8));
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn dot_is_its_definition() {
        let bytes = [-128, -127, -1, 0, 1, 2, 126, 127];
        for (i, &a) in bytes.iter().enumerate() {
            for (j, &b) in bytes.iter().enumerate() {
                let w: [[i8; 4]; LANES] = std::array::from_fn(|n| [a, bytes[n], b, bytes[(n + j) % 8]]);
                let x = [b, a, bytes[(i + j) % 8], bytes[i]];
                let acc: [i32; LANES] = std::array::from_fn(|n| n as i32 * 1_000_000 - 3);
                let wanted: [i32; LANES] =
                    std::array::from_fn(|n| (0..4).fold(acc[n], |sum, k| sum + w[n][k] as i32 * x[k] as i32));
                assert_eq!(dot_sse2(acc, w, x), wanted);
            }
        }
    }
}
