//! Keys and values in int8, for models whose weights are quantized: a quarter of the bytes of f32 and, with the integer
//! products that the weights use, an eighth of the instructions of f16.
//!
//! A key or value of a head has one scale. Scores are integer products of a key with the query, quantized alike. For
//! the mixture each probability is multiplied by its value's scale and written as two digits, `128 · high + low` of
//! 16319ths of the largest: probabilities keep 14 bits, where a single int8 would lose the many small ones beside a
//! large one. All sums are of integers, so exact and the same in any order.

use std::ops::Range;

use super::math;
use super::{AttentionShape, Queries};
use crate::error::Result;
use crate::pages::Buffer;
use crate::simd::{Isa, Simd, TILE, dispatch};

/// Widest head; a quantized query lies on the stack.
const MAX_HEAD_DIM: usize = 512;
/// Most positions: beyond them a sum of integers could overflow.
const MAX_CAPACITY: usize = 1 << 17;
/// The largest probability, in two digits of which the high one is at most 127 and the low one within ±64.
const LARGEST: f32 = (127 * 128 + 63) as f32;

/// Positions of all heads of all layers, one head's after the other's.
#[derive(Debug)]
pub(super) struct Int8Cache {
    keys: Buffer<i8>,          // (positions / 16, key_dim / 4, 16, 4)
    key_scales: Buffer<f32>,   // (positions)
    values: Buffer<i8>,        // (positions / 4, value_dim, 4)
    value_scales: Buffer<f32>, // (positions)
}

/// A head's dimensions with the padding of keys.
fn key_dim(head_dim: usize) -> usize {
    head_dim.next_multiple_of(4)
}

impl Int8Cache {
    /// Whether heads of this shape can be kept so.
    pub(super) fn serves(shape: AttentionShape, capacity: usize) -> bool {
        shape.head_dim <= MAX_HEAD_DIM && capacity <= MAX_CAPACITY
    }

    /// For so many positions, a multiple of 16, of all heads together, and values of `value_dim` numbers with their
    /// padding.
    pub(super) fn new(positions: usize, head_dim: usize, value_dim: usize) -> Result<Int8Cache> {
        Ok(Int8Cache {
            keys: Buffer::zeroed(positions * key_dim(head_dim))?,
            key_scales: Buffer::zeroed(positions)?,
            values: Buffer::zeroed(positions * value_dim)?,
            value_scales: Buffer::zeroed(positions)?,
        })
    }

    pub(super) fn try_clone(&self) -> Result<Int8Cache> {
        Ok(Int8Cache {
            keys: self.keys.try_clone()?,
            key_scales: self.key_scales.try_clone()?,
            values: self.values.try_clone()?,
            value_scales: self.value_scales.try_clone()?,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.len() + self.values.len() + 4 * (self.key_scales.len() + self.value_scales.len())
    }

    /// Stores key and value, (head_dim) each, of the position with number `at`.
    ///
    /// # Safety
    /// The machine has the instruction set, there is such a position, heads are as wide as the cache was made for, and
    /// nobody else uses what is stored of it meanwhile.
    pub(super) unsafe fn store(&self, isa: Isa, at: usize, value_dim: usize, key: &[f32], value: &[f32]) {
        let mut digits = [0i8; MAX_HEAD_DIM];
        let padded = key_dim(key.len());
        let scale = quantize_head(isa, key.as_ptr(), key.len(), digits.as_mut_ptr());
        *self.key_scales.pointer().add(at) = scale;
        let block = self.keys.pointer().add(at / TILE * TILE * padded + at % TILE * 4);
        for (i, four) in digits[..padded].as_chunks::<4>().0.iter().enumerate() {
            *block.add(i * 4 * TILE).cast::<[i8; 4]>() = *four;
        }
        let scale = quantize_head(isa, value.as_ptr(), value.len(), digits.as_mut_ptr());
        *self.value_scales.pointer().add(at) = scale;
        let fours = self.values.pointer().add(at / 4 * 4 * value_dim + at % 4);
        for (i, digit) in digits[..value.len()].iter().enumerate() {
            *fours.add(i * 4) = *digit;
        }
    }
}

/// Quantizes n ≤ 512 numbers to `out` and gives their scale; zeros follow up to a multiple of 16.
#[inline(always)]
unsafe fn quantize_head_kernel<S: Simd>(x: *const f32, n: usize, out: *mut i8) -> f32 {
    let whole = n - n % S::LANES;
    let at = |i: usize| if i < whole { S::load(x.add(i)) } else { S::load_first(x.add(i), n - i) };
    let mut max = S::zero();
    for i in (0..n).step_by(S::LANES) {
        let v = at(i);
        max = S::max(max, S::max(v, S::sub(S::zero(), v)));
    }
    let max = S::max_lane(max);
    // Subnormals count as zeros: their inverse overflows.
    let (scale, inverse) = if max > 1e-35 { (max / 127.0, 127.0 / max) } else { (0.0, 0.0) };
    for i in (0..n).step_by(S::LANES) {
        S::store_i8(out.add(i), S::mul(at(i), S::splat(inverse)));
    }
    scale
}
dispatch! { unsafe fn quantize_head(x: *const f32, n: usize, out: *mut i8) -> f32 = quantize_head_kernel }

/// Queries of one key and value head, and what they see. Of the scratch, the scores of one query come first,
/// (score_stride), and then its probabilities' digits, twice (score_stride) bytes.
pub(super) struct Group {
    keys: *const i8,
    key_scales: *const f32,
    values: *const i8,
    value_scales: *const f32,
    asked: Queries,
}

impl std::ops::Deref for Group {
    type Target = Queries;

    #[inline(always)]
    fn deref(&self) -> &Queries {
        &self.asked
    }
}

impl Int8Cache {
    /// These queries of the head whose first position has number `at`.
    pub(super) fn group(&self, at: usize, asked: Queries) -> Group {
        Group {
            keys: self.keys[at * key_dim(asked.head_dim)..].as_ptr(),
            key_scales: self.key_scales[at..].as_ptr(),
            values: self.values[at * asked.value_dim..].as_ptr(),
            value_scales: self.value_scales[at..].as_ptr(),
            asked,
        }
    }
}

/// Minus the sum of n numbers, as often as products are too large by; see [`Simd::DOT_OFFSET`].
#[inline(always)]
unsafe fn offset<S: Simd>(x: *const i8, n: usize) -> S::I {
    if S::DOT_OFFSET == 0 {
        return S::splat_i(0);
    }
    let sum: i32 = std::slice::from_raw_parts(x, n).iter().map(|&v| v as i32).sum();
    S::splat_i(sum.wrapping_mul(-S::DOT_OFFSET))
}

/// The scores of a quantized query, of this scale, for BN blocks of 16 positions.
#[inline(always)]
unsafe fn score_blocks<S: Simd, const BN: usize>(
    g: &Group,
    query: *const i8,
    start: S::I,
    scale: S::F,
    block: usize,
) {
    let dim = key_dim(g.head_dim);
    let keys = g.keys.add(block * TILE * dim);
    let mut sums = [[start; 4]; BN];
    for k in (0..dim).step_by(4) {
        let query = S::load_x(query.add(k));
        for b in 0..BN {
            for p in 0..S::PARTS {
                let keys = S::load_w(keys.add((b * dim + k) * TILE + p * 4 * S::LANES));
                sums[b][p] = S::dot(sums[b][p], keys, query);
            }
        }
    }
    for b in 0..BN {
        for p in 0..S::PARTS {
            let at = (block + b) * TILE + p * S::LANES;
            let scale = S::mul(scale, S::load(g.key_scales.add(at)));
            S::store(g.scores.add(at), S::mul(S::to_f(sums[b][p]), scale));
        }
    }
}

/// The scores of a query for the blocks of 16 positions.
#[inline(always)]
unsafe fn score<S: Simd>(g: &Group, query: *const f32, blocks: Range<usize>) {
    let mut digits = [0i8; MAX_HEAD_DIM];
    let scale = quantize_head_kernel::<S>(query, g.head_dim, digits.as_mut_ptr());
    let scale = S::splat(scale / (g.head_dim as f32).sqrt());
    let start = offset::<S>(digits.as_ptr(), key_dim(g.head_dim));
    let mut block = blocks.start;
    // Two sums do not wait for one another.
    while blocks.end - block >= 2 {
        score_blocks::<S, 2>(g, digits.as_ptr(), start, scale, block);
        block += 2;
    }
    if block < blocks.end {
        score_blocks::<S, 1>(g, digits.as_ptr(), start, scale, block);
    }
}

/// Σ value · probability over the fours of positions for VN registers of dimensions from `d` on.
#[inline(always)]
unsafe fn mix<S: Simd, const VN: usize>(
    g: &Group,
    out: *mut f32,
    d: usize,
    fours: Range<usize>,
    high: *const i8,
    low: *const i8,
    start: (S::I, S::I),
    scale: S::F,
) {
    let mut highs = [start.0; VN];
    let mut lows = [start.1; VN];
    for four in fours {
        let values = g.values.add((four * g.value_dim + d) * 4);
        let (h, l) = (S::load_x(high.add(4 * four)), S::load_x(low.add(4 * four)));
        for j in 0..VN {
            let v = S::load_w(values.add(j * 4 * S::LANES));
            highs[j] = S::dot(highs[j], v, h);
            lows[j] = S::dot(lows[j], v, l);
        }
    }
    for j in 0..VN {
        let at = d + j * S::LANES;
        let sum = S::fma(S::to_f(highs[j]), S::splat(128.0), S::to_f(lows[j]));
        let v = S::mul(sum, scale);
        if at + S::LANES <= g.head_dim {
            S::store(out.add(at), v);
        } else if at < g.head_dim {
            S::store_first(out.add(at), g.head_dim - at, v);
        }
    }
}

#[inline(always)]
unsafe fn attend_kernel<S: Simd>(g: &Group) {
    let scores = g.scores;
    let high = scores.add(g.score_stride).cast::<i8>();
    let low = high.add(g.score_stride);
    for q in 0..g.n {
        let (begin, end) = g.ranges[q];
        let blocks = begin / TILE..end.div_ceil(TILE);
        let span = (blocks.start * TILE..blocks.end * TILE).step_by(S::LANES);
        score::<S>(g, g.queries[q], blocks.clone());
        for position in (blocks.start * TILE..begin).chain(end..blocks.end * TILE) {
            *scores.add(position) = f32::NEG_INFINITY;
        }
        let mut max = S::splat(f32::NEG_INFINITY);
        for i in span.clone() {
            max = S::max(max, S::load(scores.add(i)));
        }
        let max = S::splat(S::max_lane(max));
        let (mut sum, mut largest) = (S::zero(), S::zero());
        for i in span.clone() {
            let e = math::exp::<S>(S::sub(S::load(scores.add(i)), max));
            sum = S::add(sum, e);
            let weight = S::mul(e, S::load(g.value_scales.add(i)));
            largest = S::max(largest, weight);
            S::store(scores.add(i), weight);
        }
        let largest = S::max_lane(largest);
        let inverse = S::splat(if largest > 1e-30 { LARGEST / largest } else { 0.0 });
        for i in span {
            let digits = S::round(S::mul(S::load(scores.add(i)), inverse));
            let first = S::round(S::mul(digits, S::splat(1.0 / 128.0)));
            S::store_i8(high.add(i), first);
            S::store_i8(low.add(i), S::fma(first, S::splat(-128.0), digits));
        }
        let (first, len) = (blocks.start * TILE, blocks.len() * TILE);
        let start = (offset::<S>(high.add(first), len), offset::<S>(low.add(first), len));
        let scale = S::splat(largest / LARGEST / S::sum(sum));
        let fours = first / 4..(first + len) / 4;
        let mut d = 0;
        while d < g.value_dim {
            let out = g.outs[q];
            let step = match (g.value_dim - d) / S::LANES {
                4.. => {
                    mix::<S, 4>(g, out, d, fours.clone(), high, low, start, scale);
                    4
                }
                2.. => {
                    mix::<S, 2>(g, out, d, fours.clone(), high, low, start, scale);
                    2
                }
                _ => {
                    mix::<S, 1>(g, out, d, fours.clone(), high, low, start, scale);
                    1
                }
            };
            d += step * S::LANES;
        }
    }
}
dispatch! { pub(super) unsafe fn attend(g: &Group) = attend_kernel }
