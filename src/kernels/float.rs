//! Products with matrices of floats, straight from the file's row-major numbers.
//!
//! Every output is one vector of sums over the columns, or two in turn, added up at the end: the same additions in the same
//! order, whether one row of x is multiplied (decoding) or many (prefill), and wherever the work is cut.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::compute::Parts;
use crate::simd::{Isa, Simd, TILE, dispatch};

/// Rows of W that work is divided into.
pub(super) const UNIT: usize = 8;
/// Bytes of x that stay in the cache while the rows of W pass.
const X_BYTES: usize = 320 << 10;
/// Columns up to which rows of W are widened once for all rows of x: so many, times 4 rows, lie on the stack.
const WIDENED_COLS: usize = 2048;

/// How weights are stored.
pub(super) trait Float: Copy + 'static {
    type Number: Copy + Default + 'static;
    /// Whether they have 16 bits in the file.
    const FROM_16: bool;
    unsafe fn load<S: Simd>(p: *const Self::Number) -> S::F;
}

macro_rules! float {
    ($(#[$doc:meta])* $name:ident, $number:ty, $load:ident, from_16: $from_16:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Float for $name {
            type Number = $number;
            const FROM_16: bool = $from_16;
            #[inline(always)]
            unsafe fn load<S: Simd>(p: *const $number) -> S::F {
                S::$load(p)
            }
        }
    };
}
float!(F32, f32, load, from_16: false);
float!(F16, u16, load_f16, from_16: true);
float!(BF16, u16, load_bf16, from_16: true);
float!(
    /// f32 that 16 bits were widened to.
    Widened, f32, load, from_16: true
);

/// Vectors of sums of an output.
const fn chains<S: Simd, W: Float>() -> usize {
    if W::FROM_16 { S::CHAINS_16 } else { 1 }
}

/// The first n < LANES weights, zeros after them.
#[inline(always)]
unsafe fn load_first<S: Simd, W: Float>(p: *const W::Number, n: usize) -> S::F {
    let mut buffer = [W::Number::default(); TILE];
    std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
    W::load::<S>(buffer.as_ptr())
}

/// Where the results of some rows of W go: number `start + r` of each row of `stride` numbers.
pub(super) struct Output<'a> {
    pub parts: Parts<'a>,
    pub start: usize,
    pub stride: usize,
}

impl<'a> Output<'a> {
    /// The results of `len` rows of W for row `i` of x.
    ///
    /// # Safety
    /// Nobody else uses them meanwhile.
    pub(super) unsafe fn row(&self, i: usize, len: usize) -> &'a mut [f32] {
        let at = i * self.stride + self.start;
        self.parts.part(at..at + len)
    }

    /// The first result, having checked that those of `len` rows of W for `n` > 0 rows of x fit.
    pub(super) fn pointer(&self, n: usize, len: usize) -> *mut f32 {
        assert!(self.start + len <= self.stride);
        self.parts.pointer(self.start, (n - 1) * self.stride + len)
    }
}

/// Adds the products of `n` columns, at most LANES, of XN rows of x and WN rows of W.
#[inline(always)]
unsafe fn add_products<S: Simd, W: Float, const XN: usize, const WN: usize>(
    w: *const W::Number,
    x: *const f32,
    cols: usize,
    n: usize,
    sums: &mut [[S::F; WN]; XN],
) {
    let mut rows = [S::zero(); WN];
    for j in 0..WN {
        let w = w.add(j * cols);
        rows[j] = if n == S::LANES { W::load::<S>(w) } else { load_first::<S, W>(w, n) };
    }
    for i in 0..XN {
        let x = x.add(i * cols);
        let x = if n == S::LANES { S::load(x) } else { S::load_first(x, n) };
        for j in 0..WN {
            sums[i][j] = S::fma(x, rows[j], sums[i][j]);
        }
    }
}

/// XN rows of x by WN rows of W.
#[inline(always)]
unsafe fn block<S: Simd, W: Float, const XN: usize, const WN: usize>(
    w: *const W::Number,
    x: *const f32,
    cols: usize,
    out: *mut f32,
    stride: usize,
) {
    let mut all = [[[S::zero(); WN]; XN]; 2];
    let used = &mut all[..const { chains::<S, W>() }];
    let whole = cols - cols % (used.len() * S::LANES);
    let mut k = 0;
    while k < whole {
        for sums in &mut *used {
            add_products::<S, W, XN, WN>(w.add(k), x.add(k), cols, S::LANES, sums);
            k += S::LANES;
        }
    }
    for sums in used {
        let n = (cols - k).min(S::LANES);
        if n > 0 {
            add_products::<S, W, XN, WN>(w.add(k), x.add(k), cols, n, sums);
        }
        k += n;
    }
    let [mut sums, second] = all;
    for i in 0..XN {
        for j in 0..WN {
            if const { chains::<S, W>() == 2 } {
                sums[i][j] = S::add(sums[i][j], second[i][j]);
            }
        }
        let out = out.add(i * stride);
        if WN.is_multiple_of(4) {
            for j in (0..WN).step_by(4) {
                let sum = S::sum4([sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]]);
                out.add(j).cast::<[f32; 4]>().write_unaligned(sum);
            }
        } else {
            for j in 0..WN {
                *out.add(j) = S::sum(sums[i][j]);
            }
        }
    }
}

/// `n` rows of x by the first 4 rows of W.
#[inline(always)]
unsafe fn four_rows<S: Simd, W: Float>(
    w: *const W::Number,
    cols: usize,
    x: *const f32,
    n: usize,
    out: *mut f32,
    stride: usize,
) {
    let together = S::BLOCK_X / const { chains::<S, W>() };
    let mut i = 0;
    while n - i >= together && together > 1 {
        let (x, out) = (x.add(i * cols), out.add(i * stride));
        match together {
            6 => block::<S, W, 6, 4>(w, x, cols, out, stride),
            4 => block::<S, W, 4, 4>(w, x, cols, out, stride),
            3 => block::<S, W, 3, 4>(w, x, cols, out, stride),
            _ => block::<S, W, 2, 4>(w, x, cols, out, stride),
        }
        i += together;
    }
    while n - i >= 2 {
        block::<S, W, 2, 4>(w, x.add(i * cols), cols, out.add(i * stride), stride);
        i += 2;
    }
    if i < n {
        block::<S, W, 1, 4>(w, x.add(i * cols), cols, out.add(i * stride), stride);
    }
}

/// All of `n` rows of x by `rows` rows of W.
#[inline(always)]
unsafe fn product_kernel<S: Simd, W: Float>(
    w: *const W::Number,
    rows: usize,
    cols: usize,
    x: *const f32,
    n: usize,
    out: *mut f32,
    stride: usize,
) {
    let together = (X_BYTES / (4 * cols)).max(S::BLOCK_X) / S::BLOCK_X * S::BLOCK_X;
    let mut first = 0;
    while first < n {
        // A last row or two more is cheaper than another pass over W.
        let end = if n - first < together + S::BLOCK_X { n } else { first + together };
        let (x, n) = (x.add(first * cols), end - first);
        let mut r = 0;
        while r + 4 <= rows {
            let (w, out) = (w.add(r * cols), out.add(first * stride + r));
            if const { chains::<S, W>() == 2 } && cols <= WIDENED_COLS && n >= 4 * S::BLOCK_X {
                let mut widened = [const { MaybeUninit::<f32>::uninit() }; 4 * WIDENED_COLS];
                let widened = widened.as_mut_ptr().cast::<f32>();
                widen::<S, W>(w, 4 * cols, widened);
                four_rows::<S, Widened>(widened, cols, x, n, out, stride);
            } else {
                four_rows::<S, W>(w, cols, x, n, out, stride);
            }
            r += 4;
        }
        while r < rows {
            for i in 0..n {
                let out = out.add((first + i) * stride + r);
                block::<S, W, 1, 1>(w.add(r * cols), x.add(i * cols), cols, out, stride);
            }
            r += 1;
        }
        first = end;
    }
}

/// Writes `n` weights as f32.
#[inline(always)]
unsafe fn widen<S: Simd, W: Float>(w: *const W::Number, n: usize, to: *mut f32) {
    let mut k = 0;
    while k + S::LANES <= n {
        S::store(to.add(k), W::load::<S>(w.add(k)));
        k += S::LANES;
    }
    if k < n {
        S::store_first(to.add(k), n - k, load_first::<S, W>(w.add(k), n - k));
    }
}

/// One row of x by `rows` rows of W, one after the other: a single linear stream is what caches and memory deliver
/// fastest (rows side by side reach half of that), and the processor overlaps the sums of neighbouring rows by itself.
#[inline(always)]
unsafe fn vector_kernel<S: Simd, W: Float>(
    w: *const W::Number,
    rows: usize,
    cols: usize,
    x: *const f32,
    out: *mut f32,
) {
    for r in 0..rows {
        block::<S, W, 1, 1>(w.add(r * cols), x, cols, out.add(r), 0);
    }
}

macro_rules! for_float {
    ($float:ident, $number:ty, $product:ident, $vector:ident, $product_kernel:ident, $vector_kernel:ident) => {
        #[inline(always)]
        unsafe fn $product_kernel<S: Simd>(
            w: *const $number, rows: usize, cols: usize, x: *const f32, n: usize, out: *mut f32, stride: usize,
        ) {
            product_kernel::<S, $float>(w, rows, cols, x, n, out, stride)
        }
        #[inline(always)]
        unsafe fn $vector_kernel<S: Simd>(w: *const $number, rows: usize, cols: usize, x: *const f32, out: *mut f32) {
            vector_kernel::<S, $float>(w, rows, cols, x, out)
        }
        dispatch! {
            unsafe fn $product(
                w: *const $number, rows: usize, cols: usize, x: *const f32, n: usize, out: *mut f32, stride: usize,
            ) = $product_kernel
        }
        dispatch! {
            unsafe fn $vector(w: *const $number, rows: usize, cols: usize, x: *const f32, out: *mut f32)
                = $vector_kernel
        }
        impl Product for $float {
            unsafe fn product(
                isa: Isa, w: *const $number, rows: usize, cols: usize, x: *const f32, n: usize, out: *mut f32, stride: usize,
            ) {
                if n == 1 {
                    $vector(isa, w, rows, cols, x, out)
                } else {
                    $product(isa, w, rows, cols, x, n, out, stride)
                }
            }
        }
    };
}

pub(super) trait Product: Float {
    unsafe fn product(
        isa: Isa,
        w: *const Self::Number,
        rows: usize,
        cols: usize,
        x: *const f32,
        n: usize,
        out: *mut f32,
        stride: usize,
    );
}

for_float!(F32, f32, product_f32, vector_f32, product_f32_kernel, vector_f32_kernel);
for_float!(F16, u16, product_f16, vector_f16, product_f16_kernel, vector_f16_kernel);
for_float!(BF16, u16, product_bf16, vector_bf16, product_bf16_kernel, vector_bf16_kernel);

/// The rows `rows` of W, (_, cols), times the rows of x, (n, cols), into `out`.
///
/// # Safety
/// The machine has the instruction set, and nobody else uses those numbers of `out`.
pub(super) unsafe fn product<W: Product>(
    isa: Isa,
    w: &[W::Number],
    cols: usize,
    rows: Range<usize>,
    x: &[f32],
    out: &Output<'_>,
) {
    let n = x.len() / cols;
    let len = rows.len();
    let w = &w[rows.start * cols..rows.end * cols];
    if len == 0 || n == 0 {
        return;
    }
    W::product(isa, w.as_ptr(), len, cols, x.as_ptr(), n, out.pointer(n, len), out.stride);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{LENGTHS, assert_close, each_isa, noise};

    fn check<W: Product>(to_number: impl Fn(f32) -> W::Number, to_f32: impl Fn(W::Number) -> f32) {
        each_isa(|isa| {
            for &cols in LENGTHS.iter().filter(|&&n| n > 0) {
                for (rows, n) in [(1, 1), (4, 1), (23, 1), (5, 2), (9, 3), (17, 7), (8, 13), (5, 27)] {
                    let w: Vec<_> = noise(rows * cols, 1).into_iter().map(&to_number).collect();
                    let x = noise(n * cols, 2);
                    let want: Vec<f64> = (0..n * rows)
                        .map(|i| {
                            let (x, w) = (&x[i / rows * cols..][..cols], &w[i % rows * cols..][..cols]);
                            x.iter().zip(w).map(|(&x, &w)| x as f64 * to_f32(w) as f64).sum()
                        })
                        .collect();
                    let mut got = vec![f32::NAN; n * rows];
                    let run = |range: Range<usize>, x: &[f32], got: &mut [f32]| {
                        let start = range.start;
                        // SAFETY: `each_isa` gives sets that the machine has; `got` is ours.
                        unsafe {
                            let out = Output { parts: Parts::new(got), start, stride: rows };
                            product::<W>(isa, &w, cols, range, x, &out);
                        }
                    };
                    run(0..rows, &x, &mut got);
                    assert_close(&got, &want, 1e-5);
                    // However it is cut, the numbers are the same bit by bit.
                    let mut cut = vec![f32::NAN; n * rows];
                    for i in 0..n {
                        run(0..rows / 2, &x[i * cols..(i + 1) * cols], &mut cut[i * rows..(i + 1) * rows]);
                        run(rows / 2..rows, &x[i * cols..(i + 1) * cols], &mut cut[i * rows..(i + 1) * rows]);
                    }
                    assert_eq!(got, cut, "{isa:?} {rows} × {cols} by {n}");
                }
            }
        });
    }

    #[test]
    fn products_agree_on_every_instruction_set() {
        check::<F32>(|v| v, |v| v);
        check::<F16>(|v| half::f16::from_f32(v).to_bits(), |b| half::f16::from_bits(b).to_f32());
        check::<BF16>(|v| half::bf16::from_f32(v).to_bits(), |b| half::bf16::from_bits(b).to_f32());
    }
}
