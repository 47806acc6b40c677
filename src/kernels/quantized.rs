//! Products with quantized matrices, int8 and 4-bit.
//!
//! Weights lie in tiles of 16 rows, a tile being one linear stream: four columns of row 0, the same four of row 1, and
//! so on to row 15, then the next four columns. So a step of the product takes four activations, the same for every
//! lane, and adds to a sum for each row, and nothing has to be added up across lanes. Rows are padded to a multiple of
//! 16 and columns to one of 64, with zeros.
//!
//! Activations are quantized to int8 once for each product, in blocks of 64 with a scale each. Sums within a block are
//! of integers, so that they are exact; blocks are added in order. An output is therefore the same bit by bit whether
//! one row of x is multiplied or many.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

use std::ops::Range;

use super::compute::Compute;
use super::float::Output;
use super::matrix::Numbers;
use crate::simd::{Isa, Simd, TILE, dispatch};

/// Columns of a block of activations with a scale of its own; columns are padded to a multiple of it.
pub(crate) const BLOCK: usize = 64;
/// Columns of a group of 4-bit weights with a scale of its own.
pub(crate) const GROUP: usize = 32;
/// What a 4-bit weight stands for, times its group's scale: close where weights are dense, as those of a normal
/// distribution are (found by Lloyd's iteration on random groups; a linear code errs 18 % more).
pub const CODES: [i8; 16] = [-127, -101, -78, -60, -45, -31, -19, -8, 2, 12, 23, 34, 47, 63, 82, 108];

/// Columns with their padding.
pub(crate) const fn padded_cols(cols: usize) -> usize {
    cols.next_multiple_of(BLOCK)
}

/// Rows with their padding.
pub(crate) const fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(TILE)
}

/// A matrix of int8 with a scale for each row.
pub(super) struct Int8 {
    pub packed: Numbers<i8>,  // (row tiles, cols / 4, 16, 4)
    pub scales: Numbers<f32>, // (row tiles, 16)
}

/// A matrix of indices into [`CODES`] with a scale for each row and 32 columns.
pub(super) struct Int4 {
    pub packed: Numbers<u8>, // (row tiles, cols / 8, 16, 4): four columns in the low halves, the next in the high
    pub scales: Numbers<u16>, // (row tiles, cols / 32, 16), f16
}

impl Int8 {
    pub(super) fn copy_row(&self, cols: usize, r: usize, out: &mut [f32]) {
        let tile = &self.packed.slice()[r / TILE * TILE * padded_cols(cols)..];
        let scale = self.scales.slice()[r];
        for (c, out) in out.iter_mut().enumerate() {
            *out = scale * tile[c / 4 * 4 * TILE + r % TILE * 4 + c % 4] as f32;
        }
    }
}

impl Int4 {
    pub(super) fn copy_row(&self, cols: usize, r: usize, out: &mut [f32]) {
        let padded = padded_cols(cols);
        let tile = &self.packed.slice()[r / TILE * TILE * padded / 2..];
        let scales = &self.scales.slice()[r / TILE * TILE * (padded / GROUP)..];
        for (c, out) in out.iter_mut().enumerate() {
            let byte = tile[c / 8 * 4 * TILE + r % TILE * 4 + c % 4];
            let code = if (c / 4).is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            let scale = half::f16::from_bits(scales[c / GROUP * TILE + r % TILE]).to_f32();
            *out = scale * CODES[code as usize] as f32;
        }
    }
}

/// Rows of activations in int8.
#[derive(Debug, Clone)]
pub(super) struct QuantizedRows {
    values: Vec<i8>,      // (rows, cols)
    scales: Vec<f32>,     // (rows, cols / 64)
    block_sums: Vec<i32>, // (rows, cols / 64): minus the sum of the values, times `DOT_OFFSET`
    group_sums: Vec<i32>, // (rows, cols / 32): as above
    rows: usize,
    cols: usize, // padded
}

/// Quantizes `n` numbers, zeros after them, into `padded` ones: x ≈ scale · value in each block.
#[inline(always)]
unsafe fn quantize_kernel<S: Simd>(
    x: *const f32,
    n: usize,
    values: *mut i8,
    scales: *mut f32,
    sums: *mut i32,
) {
    for (b, first) in (0..n).step_by(BLOCK).enumerate() {
        let mut buffer = [0.0f32; BLOCK];
        let mut x = x.add(first);
        if n - first < BLOCK {
            std::ptr::copy_nonoverlapping(x, buffer.as_mut_ptr(), n - first);
            x = buffer.as_ptr();
        }
        let mut max = S::zero();
        for i in (0..BLOCK).step_by(S::LANES) {
            let v = S::load(x.add(i));
            max = S::max(max, S::max(v, S::sub(S::zero(), v)));
        }
        let max = S::max_lane(max);
        // The largest becomes 127; a block of zeros stays zeros. Subnormals count as zeros: their inverse overflows.
        let inverse = if max > 1e-35 { 127.0 / max } else { 0.0 };
        *scales.add(b) = if max > 1e-35 { max * (1.0 / 127.0) } else { 0.0 };
        let inverse = S::splat(inverse);
        for group in (0..BLOCK).step_by(GROUP) {
            let mut sum = S::zero();
            for i in (group..group + GROUP).step_by(S::LANES) {
                let value = S::round(S::mul(S::load(x.add(i)), inverse));
                S::store_i8(values.add(first + i), value);
                sum = S::add(sum, value);
            }
            if S::DOT_OFFSET != 0 {
                *sums.add((first + group) / GROUP) = S::sum(sum) as i32 * -S::DOT_OFFSET;
            }
        }
    }
}

dispatch! {
    unsafe fn quantize(x: *const f32, n: usize, values: *mut i8, scales: *mut f32, sums: *mut i32) = quantize_kernel
}

impl QuantizedRows {
    /// Room for `rows` rows of at most `cols` columns.
    pub(super) fn new(rows: usize, cols: usize) -> QuantizedRows {
        let len = rows * padded_cols(cols);
        QuantizedRows {
            values: vec![0; len],
            scales: vec![0.0; len / BLOCK],
            block_sums: vec![0; len / BLOCK],
            group_sums: vec![0; len / GROUP],
            rows: 0,
            cols: 0,
        }
    }

    /// Quantizes x, (n, cols).
    pub(super) fn fill(&mut self, compute: &Compute, cols: usize, x: &[f32]) {
        let padded = padded_cols(cols);
        let n = x.len() / cols;
        assert!(n * padded <= self.values.len());
        (self.rows, self.cols) = (n, padded);
        /// Where the rows go; a pointer for each of the arrays.
        struct Target(*mut i8, *mut f32, *mut i32);
        // SAFETY: each row is written by one thread.
        unsafe impl Sync for Target {}
        let target = Target(self.values.as_mut_ptr(), self.scales.as_mut_ptr(), self.group_sums.as_mut_ptr());
        let target = &target;
        let isa = compute.isa;
        let work = if n == 1 { 0 } else { 2 * x.len() };
        compute.split(n, 1, work, |rows| {
            for i in rows {
                let row = &x[i * cols..(i + 1) * cols];
                // SAFETY: the arrays hold n padded rows, checked above, and this thread alone writes row i.
                unsafe {
                    quantize(
                        isa,
                        row.as_ptr(),
                        cols,
                        target.0.add(i * padded),
                        target.1.add(i * padded / BLOCK),
                        target.2.add(i * padded / GROUP),
                    );
                }
            }
        });
        let groups = self.group_sums.as_chunks::<{ BLOCK / GROUP }>().0;
        for (sum, groups) in self.block_sums.iter_mut().zip(groups).take(n * padded / BLOCK) {
            *sum = groups.iter().sum();
        }
    }
}

/// The rows of x that a kernel reads.
#[derive(Clone, Copy)]
struct Rows {
    values: *const i8,
    scales: *const f32,
    sums: *const i32,
    n: usize,
    cols: usize,
}

impl Rows {
    /// Row i and those after it; `per_sum` columns have a sum.
    #[inline(always)]
    unsafe fn from(self, i: usize, per_sum: usize) -> Rows {
        Rows {
            values: self.values.add(i * self.cols),
            scales: self.scales.add(i * self.cols / BLOCK),
            sums: self.sums.add(i * self.cols / per_sum),
            ..self
        }
    }
}

/// How far ahead weights are fetched for XN rows of x. Several rows keep the multipliers busy for longer than the
/// processor looks ahead by itself.
const fn prefetch_distance<S: Simd, const XN: usize>() -> usize {
    if XN >= 4 { 4096 } else { S::PREFETCH }
}

/// Registers of a tile for XN rows of x; as many as any instruction set needs.
type Tiles<T, const XN: usize> = [[T; 4]; XN];

/// What the sums of a block or group begin with.
#[inline(always)]
unsafe fn begin<S: Simd, const XN: usize>(x: &Rows, at: usize, per_row: usize) -> Tiles<S::I, XN> {
    let mut sums = [[S::splat_i(0); 4]; XN];
    if S::DOT_OFFSET != 0 {
        for i in 0..XN {
            let start = S::splat_i(*x.sums.add(i * per_row + at));
            for p in 0..S::PARTS {
                sums[i][p] = start;
            }
        }
    }
    sums
}

/// One tile of W by XN rows of x. `out` gets the first `rows` outputs.
#[inline(always)]
unsafe fn block8<S: Simd, const XN: usize>(
    w: *const i8,
    scales: *const f32,
    x: Rows,
    out: *mut f32,
    stride: usize,
    rows: usize,
) {
    let distance = const { prefetch_distance::<S, XN>() };
    let blocks = x.cols / BLOCK;
    let mut totals = [[S::zero(); 4]; XN];
    for b in 0..blocks {
        let mut sums = begin::<S, XN>(&x, b, blocks);
        let w = w.add(b * BLOCK * TILE);
        let values = x.values.add(b * BLOCK);
        for k in (0..BLOCK).step_by(4) {
            for p in 0..S::PARTS {
                let at = k * TILE + p * 4 * S::LANES;
                if p == 0 && distance > 0 {
                    S::prefetch(w.cast::<u8>().wrapping_add(at + distance));
                }
                let w = S::load_w(w.add(at));
                for i in 0..XN {
                    sums[i][p] = S::dot(sums[i][p], w, S::load_x(values.add(i * x.cols + k)));
                }
            }
        }
        for i in 0..XN {
            let scale = S::splat(*x.scales.add(i * blocks + b));
            for p in 0..S::PARTS {
                totals[i][p] = S::fma(S::to_f(sums[i][p]), scale, totals[i][p]);
            }
        }
    }
    for i in 0..XN {
        for p in 0..S::PARTS {
            totals[i][p] = S::mul(totals[i][p], S::load(scales.add(p * S::LANES)));
        }
    }
    write::<S, XN>(&totals, out, stride, rows);
}

#[inline(always)]
unsafe fn write<S: Simd, const XN: usize>(
    totals: &Tiles<S::F, XN>,
    out: *mut f32,
    stride: usize,
    rows: usize,
) {
    for i in 0..XN {
        for p in 0..S::PARTS {
            let at = p * S::LANES;
            if at + S::LANES <= rows {
                S::store(out.add(i * stride + at), totals[i][p]);
            } else if at < rows {
                S::store_first(out.add(i * stride + at), rows - at, totals[i][p]);
            }
        }
    }
}

/// As [`block8`], for 4-bit weights.
#[inline(always)]
unsafe fn block4<S: Simd, const XN: usize>(
    w: *const u8,
    scales: *const u16,
    x: Rows,
    out: *mut f32,
    stride: usize,
    rows: usize,
) {
    let distance = const { prefetch_distance::<S, XN>() };
    let groups = x.cols / GROUP;
    let mut totals = [[S::zero(); 4]; XN];
    for g in 0..groups {
        let mut sums = begin::<S, XN>(&x, g, groups);
        let w = w.add(g * GROUP * TILE / 2);
        let values = x.values.add(g * GROUP);
        for k in (0..GROUP).step_by(8) {
            for p in 0..S::PARTS {
                let at = k * TILE / 2 + p * 4 * S::LANES;
                if p == 0 && distance > 0 {
                    S::prefetch(w.wrapping_add(at + distance));
                }
                let (low, high) = S::load_w4(w.add(at), &CODES);
                for i in 0..XN {
                    let values = values.add(i * x.cols + k);
                    sums[i][p] = S::dot(sums[i][p], low, S::load_x(values));
                    sums[i][p] = S::dot(sums[i][p], high, S::load_x(values.add(4)));
                }
            }
        }
        for p in 0..S::PARTS {
            let weight_scale = S::load_f16(scales.add(g * TILE + p * S::LANES));
            for i in 0..XN {
                let scale = S::mul(weight_scale, S::splat(*x.scales.add((i * groups + g) / (BLOCK / GROUP))));
                totals[i][p] = S::fma(S::to_f(sums[i][p]), scale, totals[i][p]);
            }
        }
    }
    write::<S, XN>(&totals, out, stride, rows);
}

/// Calls a block function for all rows of x, as many at once as the instruction set likes.
macro_rules! for_rows {
    ($s:ident, $block:ident, $w:expr, $scales:expr, $x:ident, $per_sum:expr, $out:expr, $stride:ident, $rows:expr) => {{
        let mut i = 0;
        while $x.n - i >= $s::BLOCK_Q {
            let (x, out) = ($x.from(i, $per_sum), $out.add(i * $stride));
            match $s::BLOCK_Q {
                12 => $block::<$s, 12>($w, $scales, x, out, $stride, $rows),
                4 => $block::<$s, 4>($w, $scales, x, out, $stride, $rows),
                _ => $block::<$s, 2>($w, $scales, x, out, $stride, $rows),
            }
            i += $s::BLOCK_Q;
        }
        while $s::BLOCK_Q > 8 && $x.n - i >= 8 {
            $block::<$s, 8>($w, $scales, $x.from(i, $per_sum), $out.add(i * $stride), $stride, $rows);
            i += 8;
        }
        while $s::BLOCK_Q > 4 && $x.n - i >= 4 {
            $block::<$s, 4>($w, $scales, $x.from(i, $per_sum), $out.add(i * $stride), $stride, $rows);
            i += 4;
        }
        while $s::BLOCK_Q > 2 && $x.n - i >= 2 {
            $block::<$s, 2>($w, $scales, $x.from(i, $per_sum), $out.add(i * $stride), $stride, $rows);
            i += 2;
        }
        while i < $x.n {
            $block::<$s, 1>($w, $scales, $x.from(i, $per_sum), $out.add(i * $stride), $stride, $rows);
            i += 1;
        }
    }};
}

#[inline(always)]
unsafe fn product8_kernel<S: Simd>(
    w: *const i8,
    scales: *const f32,
    rows: usize,
    x: &Rows,
    out: *mut f32,
    stride: usize,
) {
    for r in (0..rows).step_by(TILE) {
        let (w, scales, out) = (w.add(r * x.cols), scales.add(r), out.add(r));
        for_rows!(S, block8, w, scales, x, BLOCK, out, stride, (rows - r).min(TILE));
    }
}

#[inline(always)]
unsafe fn product4_kernel<S: Simd>(
    w: *const u8,
    scales: *const u16,
    rows: usize,
    x: &Rows,
    out: *mut f32,
    stride: usize,
) {
    for r in (0..rows).step_by(TILE) {
        let (w, scales, out) = (w.add(r * x.cols / 2), scales.add(r * x.cols / GROUP), out.add(r));
        for_rows!(S, block4, w, scales, x, GROUP, out, stride, (rows - r).min(TILE));
    }
}

dispatch! {
    unsafe fn run8(w: *const i8, scales: *const f32, rows: usize, x: &Rows, out: *mut f32, stride: usize)
        = product8_kernel
}
dispatch! {
    unsafe fn run4(w: *const u8, scales: *const u16, rows: usize, x: &Rows, out: *mut f32, stride: usize)
        = product4_kernel
}

/// The rows `rows` of W, which begin at a tile, times all rows of x, into `out`.
///
/// # Safety
/// The machine has the instruction set, and nobody else uses those numbers of `out`.
pub(super) unsafe fn product8(isa: Isa, w: &Int8, x: &QuantizedRows, rows: Range<usize>, out: &Output<'_>) {
    if rows.is_empty() || x.rows == 0 {
        return;
    }
    let padded = padded_rows(rows.end);
    let packed = &w.packed.slice()[rows.start * x.cols..padded * x.cols];
    let scales = &w.scales.slice()[rows.start..padded];
    let x = Rows {
        values: x.values.as_ptr(),
        scales: x.scales.as_ptr(),
        sums: x.block_sums.as_ptr(),
        n: x.rows,
        cols: x.cols,
    };
    let target = out.pointer(x.n, rows.len());
    run8(isa, packed.as_ptr(), scales.as_ptr(), rows.len(), &x, target, out.stride);
}

/// As [`product8`], for 4-bit weights.
///
/// # Safety
/// As there.
pub(super) unsafe fn product4(isa: Isa, w: &Int4, x: &QuantizedRows, rows: Range<usize>, out: &Output<'_>) {
    if rows.is_empty() || x.rows == 0 {
        return;
    }
    let padded = padded_rows(rows.end);
    let packed = &w.packed.slice()[rows.start * x.cols / 2..padded * x.cols / 2];
    let scales = &w.scales.slice()[rows.start * x.cols / GROUP..padded * x.cols / GROUP];
    let x = Rows {
        values: x.values.as_ptr(),
        scales: x.scales.as_ptr(),
        sums: x.group_sums.as_ptr(),
        n: x.rows,
        cols: x.cols,
    };
    let target = out.pointer(x.n, rows.len());
    run4(isa, packed.as_ptr(), scales.as_ptr(), rows.len(), &x, target, out.stride);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::compute::Parts;
    use crate::kernels::testing::{LENGTHS, assert_close, each_isa, noise};
    use crate::pool::Pool;
    use crate::quantize::{pack_int4, pack_int8};

    fn numbers<T: bytemuck::Pod>(bytes: &[u8]) -> Numbers<T> {
        Numbers::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
    }

    /// What the quantized product should be, exactly: the unpacked weights times the unpacked activations.
    fn reference(
        rows: usize,
        cols: usize,
        copy_row: impl Fn(usize, &mut [f32]),
        x: &QuantizedRows,
        i: usize,
    ) -> Vec<f64> {
        let padded = padded_cols(cols);
        let mut row = vec![0.0; cols];
        (0..rows)
            .map(|r| {
                copy_row(r, &mut row);
                (0..cols)
                    .map(|c| {
                        let scale = x.scales[(i * padded + c) / BLOCK];
                        row[c] as f64 * x.values[i * padded + c] as f64 * scale as f64
                    })
                    .sum()
            })
            .collect()
    }

    #[test]
    fn products_agree_on_every_instruction_set() {
        let pool = std::sync::Arc::new(Pool::new(2).unwrap());
        each_isa(|isa| {
            for &cols in LENGTHS.iter().filter(|&&n| n > 0) {
                for (rows, n) in [(1, 1), (16, 1), (37, 1), (17, 2), (33, 5), (20, 13)] {
                    let w = noise(rows * cols, 1);
                    let x = noise(n * cols, 2);
                    let mut compute = Compute::new(&pool, n, cols, false);
                    compute.isa = isa;
                    let mut q = compute.quantized.borrow_mut();
                    q.fill(&compute, cols, &x);
                    for (i, v) in x.iter().enumerate() {
                        let at = i / cols * padded_cols(cols) + i % cols;
                        let got = q.values[at] as f32 * q.scales[at / BLOCK];
                        assert!((got - v).abs() <= 0.51 * q.scales[at / BLOCK], "{got} for {v}");
                    }
                    let (packed, scales) = pack_int8(rows, &w);
                    let int8 = Int8 { packed: numbers(&packed), scales: numbers(&scales) };
                    let (packed, scales) = pack_int4(rows, &w);
                    let int4 = Int4 { packed: numbers(&packed), scales: numbers(&scales) };
                    let (mut got8, mut got4) = (vec![f32::NAN; n * rows], vec![f32::NAN; n * rows]);
                    let cut = rows / 2 / TILE * TILE;
                    for range in [0..cut, cut..rows] {
                        let output = |parts| Output { parts, start: range.start, stride: rows };
                        // SAFETY: `each_isa` gives sets that the machine has; the outputs are ours.
                        unsafe {
                            product8(isa, &int8, &q, range.clone(), &output(Parts::new(&mut got8)));
                            product4(isa, &int4, &q, range.clone(), &output(Parts::new(&mut got4)));
                        }
                    }
                    for i in 0..n {
                        let want = reference(rows, cols, |r, row| int8.copy_row(cols, r, row), &q, i);
                        assert_close(&got8[i * rows..(i + 1) * rows], &want, 1e-5);
                        let want = reference(rows, cols, |r, row| int4.copy_row(cols, r, row), &q, i);
                        assert_close(&got4[i * rows..(i + 1) * rows], &want, 1e-5);
                    }
                }
            }
        });
    }
}
