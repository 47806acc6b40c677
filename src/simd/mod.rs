//! Vector instructions: one file for each instruction set, behind one trait.
//!
//! Kernels are written once, generic over [`Simd`], and compiled once for each instruction set by [`dispatch!`];
//! which of them runs is decided once, when the library is first used. `scalar` is the definition: it has no
//! intrinsics, exists everywhere, and every other set is tested against it. `GRUG_ISA=scalar|avx2|avx512|neon|dotprod`
//! asks for a lower set than the machine's best; a set that the machine lacks is not used.
//!
//! What must stay true: a kernel's result depends on its arguments and on the instruction set alone, never on how the
//! work was split over threads.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, NeonDotprod};
pub(crate) use scalar::Scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use simd128::Simd128;

/// Rows of a tile of quantized weights, and positions of a block of cached keys.
pub(crate) const TILE: usize = 16;

/// The operations of one instruction set. All types hold [`LANES`](Self::LANES) numbers.
///
/// # Safety
/// Of every function: the processor has the instruction set, and pointers are valid for the numbers that the function
/// says it reads or writes. Nothing needs to be aligned beyond its type.
pub(crate) trait Simd: Copy + 'static {
    /// Numbers in a register; divides [`TILE`].
    const LANES: usize;
    /// Registers that make up a tile.
    const PARTS: usize = TILE / Self::LANES;
    /// Rows of x that a block of a float matrix product computes together with 4 rows of W.
    const BLOCK_X: usize;
    /// Vectors of sums, used in turn, for an output where weights of 16 bits are widened: 1, or 2 where one row's additions
    /// would wait for each other for longer than its weights take to arrive.
    const CHAINS_16: usize = 1;
    /// Rows of x that a block of a quantized matrix product computes together.
    const BLOCK_Q: usize;
    /// How far ahead of its use a quantized weight is asked for, in bytes; 0 = not at all, where the processor's own
    /// prefetchers do better.
    const PREFETCH: usize = 0;
    /// What [`dot`](Self::dot) computes is too large by this times the sum of x.
    const DOT_OFFSET: i32;

    /// f32 numbers.
    type F: Copy;
    /// i32 numbers.
    type I: Copy;
    /// Four i8 weights a lane.
    type W: Copy;
    /// The same four i8 activations in every lane.
    type X: Copy;

    unsafe fn splat(v: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn load_f16(p: *const u16) -> Self::F;
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    unsafe fn store_f16(p: *mut u16, v: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// a·b + c.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The nearest integers, ties to even.
    unsafe fn round(v: Self::F) -> Self::F;
    /// 2ⁿ for integers n in -126..=127.
    unsafe fn exp2i(n: Self::F) -> Self::F;
    /// x where a < b, y elsewhere.
    unsafe fn select_lt(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    unsafe fn sum(v: Self::F) -> f32;
    /// The sums of four vectors; each as [`sum`](Self::sum) gives it, bit by bit.
    unsafe fn sum4(v: [Self::F; 4]) -> [f32; 4];
    unsafe fn max_lane(v: Self::F) -> f32;

    unsafe fn splat_i(v: i32) -> Self::I;
    unsafe fn to_f(v: Self::I) -> Self::F;
    /// 4 · LANES weights.
    unsafe fn load_w(p: *const i8) -> Self::W;
    /// Twice 4 · LANES weights as indices into `codes`: the low halves of 4 · LANES bytes, then the high halves.
    unsafe fn load_w4(p: *const u8, codes: &[i8; 16]) -> (Self::W, Self::W);
    /// Four activations.
    unsafe fn load_x(p: *const i8) -> Self::X;
    /// In each lane acc + Σ (w + DOT_OFFSET) · x over the four; no activation is -128.
    unsafe fn dot(acc: Self::I, w: Self::W, x: Self::X) -> Self::I;
    /// Rounds to the nearest integers, which fit i8, and writes LANES of them.
    unsafe fn store_i8(p: *mut i8, v: Self::F);

    /// Asks for the cache line at `p`, which need not be valid.
    unsafe fn prefetch(p: *const u8);

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        // SAFETY: the caller's.
        unsafe { Self::splat(0.0) }
    }

    /// The first n < LANES numbers, zeros after them.
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self::F {
        let mut buffer = [0.0f32; TILE];
        // SAFETY: n numbers can be read, and the buffer is longer than a register.
        unsafe {
            std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
            Self::load(buffer.as_ptr())
        }
    }

    /// Writes the first n < LANES numbers.
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, n: usize, v: Self::F) {
        let mut buffer = [0.0f32; TILE];
        // SAFETY: n numbers can be written, and the buffer is longer than a register.
        unsafe {
            Self::store(buffer.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
        }
    }
}

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Isa {
    Scalar = 1,
    #[cfg(target_arch = "x86_64")]
    Avx2 = 2,
    #[cfg(target_arch = "x86_64")]
    Avx512 = 3,
    #[cfg(target_arch = "aarch64")]
    Neon = 4,
    #[cfg(target_arch = "aarch64")]
    NeonDotprod = 6,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128 = 5,
}

impl Isa {
    /// Every set that was compiled in, the best last.
    pub(crate) const ALL: &[Isa] = &[
        Isa::Scalar,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod,
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128,
    ];

    /// The word for it in `GRUG_ISA`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => "dotprod",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => "simd128",
        }
    }

    /// Whether this machine has it.
    pub(crate) fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => {
                Isa::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => true,
        }
    }

    /// The set in use: the best of the machine, or the one that `GRUG_ISA` names if the machine has it.
    pub(crate) fn current() -> Isa {
        static CHOSEN: AtomicU8 = AtomicU8::new(0);
        let chosen = CHOSEN.load(Ordering::Relaxed);
        if let Some(isa) = Isa::ALL.iter().find(|isa| **isa as u8 == chosen) {
            return *isa;
        }
        let wanted = std::env::var("GRUG_ISA").ok();
        let available = || Isa::ALL.iter().copied().filter(|isa| isa.is_available());
        let isa = available()
            .find(|isa| wanted.as_deref() == Some(isa.name()))
            .or_else(|| available().next_back())
            .unwrap_or(Isa::Scalar);
        CHOSEN.store(isa as u8, Ordering::Relaxed);
        isa
    }
}

/// Makes a function out of a generic kernel: compiled once for each instruction set, called for the one that its
/// first argument names.
///
/// The kernel is an `unsafe fn` marked `#[inline(always)]`, so that it is compiled with the features of the function
/// that it lands in.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            // A function of its own, as the others are: within a larger one the compiler finds fewer vectors in it.
            #[inline(never)]
            unsafe fn scalar($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::simd::Scalar>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::simd::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            unsafe fn neon($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::simd::Neon>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            unsafe fn dotprod($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::simd::NeonDotprod>($($arg),*) }
            }
            debug_assert!(isa.is_available());
            // SAFETY: an `Isa` in use is one that the machine has; the rest is the caller's.
            unsafe {
                match isa {
                    $crate::simd::Isa::Scalar => scalar($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::simd::Isa::Neon => neon($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::simd::Isa::NeonDotprod => dotprod($($arg),*),
                    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                    $crate::simd::Isa::Simd128 => $kernel::<$crate::simd::Simd128>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    unsafe fn widen_kernel<S: Simd>(from: &[u16; TILE], to: &mut [f32; TILE]) {
        for i in (0..TILE).step_by(S::LANES) {
            // SAFETY: the arrays hold whole registers; the rest is the caller's.
            unsafe { S::store(to.as_mut_ptr().add(i), S::load_f16(from.as_ptr().add(i))) };
        }
    }
    dispatch! { unsafe fn widen(from: &[u16; TILE], to: &mut [f32; TILE]) = widen_kernel }

    #[inline(always)]
    unsafe fn narrow_kernel<S: Simd>(from: &[f32; TILE], to: &mut [u16; TILE]) {
        for i in (0..TILE).step_by(S::LANES) {
            // SAFETY: as above.
            unsafe { S::store_f16(to.as_mut_ptr().add(i), S::load(from.as_ptr().add(i))) };
        }
    }
    dispatch! { unsafe fn narrow(from: &[f32; TILE], to: &mut [u16; TILE]) = narrow_kernel }

    #[test]
    fn half_precision_is_that_of_the_half_crate_on_every_instruction_set() {
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_available()) {
            let narrows = |values: [f32; TILE]| {
                let mut found = [0; TILE];
                // SAFETY: the machine has the set.
                unsafe { narrow(isa, &values, &mut found) };
                for (found, v) in found.map(half::f16::from_bits).into_iter().zip(values) {
                    assert!(same(found.to_f32(), half::f16::from_f32(v).to_f32()), "{isa:?}: {v:e}");
                }
            };
            for first in (0..=u16::MAX).step_by(TILE) {
                let bits: [u16; TILE] = std::array::from_fn(|i| first + i as u16);
                let wanted = bits.map(|bits| half::f16::from_bits(bits).to_f32());
                let mut found = [0.0; TILE];
                // SAFETY: as above.
                unsafe { widen(isa, &bits, &mut found) };
                assert!(found.iter().zip(&wanted).all(|(a, b)| same(*a, *b)), "{isa:?}: {bits:x?}");
                // Each number, the middle between it and the next, and what is beside the middle.
                for beside in [0, 0x0fff, 0x1000, 0x1001] {
                    narrows(wanted.map(|v| f32::from_bits(v.to_bits().wrapping_add(beside))));
                }
            }
            for i in (0..1 << 16).step_by(TILE) {
                narrows(std::array::from_fn(|j| {
                    let i = i + j as u32;
                    f32::from_bits((i << 16) | (i * 0x9E37 % 0xFFFF))
                }));
            }
        }
    }
}
