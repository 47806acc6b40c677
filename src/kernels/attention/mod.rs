//! Scaled dot-product attention over keys and values kept by head.
//!
//! Keys lie in blocks of 16 positions, dimension by dimension, so that a vector of scores is a sum over dimensions
//! without adding across lanes; values lie position by position. A query's numbers are computed in the same order
//! whichever other queries it is grouped with.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

mod cache;
mod int8;

use std::ops::Range;

use self::cache::Numbers;
pub(crate) use self::cache::{KvCache, KvPrecision, store};
use super::compute::{Compute, Parts};
use super::math;
use crate::simd::{Simd, TILE, dispatch};

/// Heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttentionShape {
    pub n_heads: usize,
    /// Query head h reads key and value head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    pub head_dim: usize,
}

/// Most queries that are computed together.
const QUERIES: usize = 4;

/// How the cache stores numbers.
trait Stored: Copy + 'static {
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::F {
        S::load(p)
    }
}

impl Stored for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::F {
        S::load_f16(p)
    }
}

/// Which positions a query sees.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Visible {
    /// All of the first so many.
    All(usize),
    /// Query `i` stands at position `first + i` and sees itself and at most `window - 1` before it (0 = all).
    Causal { first: usize, window: usize },
}

impl Visible {
    fn range(self, query: usize) -> Range<usize> {
        match self {
            Visible::All(len) => 0..len,
            Visible::Causal { first, window } => {
                let end = first + query + 1;
                let start = if window == 0 { 0 } else { end.saturating_sub(window) };
                start..end
            }
        }
    }
}

/// Up to [`QUERIES`] queries of one key and value head, however that is stored.
#[derive(Clone, Copy)]
struct Queries {
    head_dim: usize,
    /// Width of a value with its padding.
    value_dim: usize,
    n: usize,
    queries: [*const f32; QUERIES], // (head_dim) each
    outs: [*mut f32; QUERIES],      // (head_dim) each
    ranges: [(usize, usize); QUERIES],
    scores: *mut f32, // (QUERIES, score_stride)
    score_stride: usize,
}

/// Those queries, and the keys and values that they see.
struct Group<T> {
    keys: *const T,
    values: *const T,
    asked: Queries,
}

impl<T> std::ops::Deref for Group<T> {
    type Target = Queries;

    #[inline(always)]
    fn deref(&self) -> &Queries {
        &self.asked
    }
}

/// The scores of QN queries, from number `q` on, for BN blocks of positions from `block` on.
#[inline(always)]
unsafe fn score<S: Simd, T: Stored, const QN: usize, const BN: usize>(g: &Group<T>, q: usize, block: usize) {
    let mut sums = [[[S::zero(); 4]; BN]; QN];
    for d in 0..g.head_dim {
        for b in 0..BN {
            let keys = g.keys.add(((block + b) * g.head_dim + d) * TILE);
            for p in 0..S::PARTS {
                let key = T::load::<S>(keys.add(p * S::LANES));
                for i in 0..QN {
                    let query = S::splat(*g.queries[q + i].add(d));
                    sums[i][b][p] = S::fma(key, query, sums[i][b][p]);
                }
            }
        }
    }
    let scale = S::splat(1.0 / (g.head_dim as f32).sqrt());
    for i in 0..QN {
        for b in 0..BN {
            let scores = g.scores.add((q + i) * g.score_stride + (block + b) * TILE);
            for p in 0..S::PARTS {
                S::store(scores.add(p * S::LANES), S::mul(sums[i][b][p], scale));
            }
        }
    }
}

/// Σ score · value over positions for QN queries from number `q` on and VN registers of dimensions from `d` on.
#[inline(always)]
unsafe fn mix<S: Simd, T: Stored, const QN: usize, const VN: usize>(
    g: &Group<T>,
    q: usize,
    d: usize,
    range: Range<usize>,
    sums: &[f32; QUERIES],
) {
    let mut totals = [[S::zero(); VN]; QN];
    for position in range {
        let values = g.values.add(position * g.value_dim + d);
        let mut v = [S::zero(); VN];
        for j in 0..VN {
            v[j] = T::load::<S>(values.add(j * S::LANES));
        }
        for i in 0..QN {
            let weight = S::splat(*g.scores.add((q + i) * g.score_stride + position));
            for j in 0..VN {
                totals[i][j] = S::fma(weight, v[j], totals[i][j]);
            }
        }
    }
    for i in 0..QN {
        let inverse = S::splat(1.0 / sums[q + i]);
        for j in 0..VN {
            let at = d + j * S::LANES;
            let v = S::mul(totals[i][j], inverse);
            if at + S::LANES <= g.head_dim {
                S::store(g.outs[q + i].add(at), v);
            } else if at < g.head_dim {
                S::store_first(g.outs[q + i].add(at), g.head_dim - at, v);
            }
        }
    }
}

#[inline(always)]
unsafe fn attend_kernel<S: Simd, T: Stored>(g: &Group<T>) {
    let mut lowest = usize::MAX;
    let mut highest = 0;
    for &(start, end) in &g.ranges[..g.n] {
        lowest = lowest.min(start);
        highest = highest.max(end);
    }
    let blocks = lowest / TILE..highest.div_ceil(TILE);
    let mut q = 0;
    while q < g.n {
        let together = if g.n - q >= 2 { 2 } else { 1 };
        let mut block = blocks.start;
        while block < blocks.end {
            match (together, blocks.end - block) {
                (2, 2..) => {
                    score::<S, T, 2, 2>(g, q, block);
                    block += 2;
                }
                (2, _) => {
                    score::<S, T, 2, 1>(g, q, block);
                    block += 1;
                }
                (_, 4..) => {
                    score::<S, T, 1, 4>(g, q, block);
                    block += 4;
                }
                _ => {
                    score::<S, T, 1, 1>(g, q, block);
                    block += 1;
                }
            }
        }
        q += together;
    }
    let mut sums = [0.0; QUERIES];
    for q in 0..g.n {
        let (start, end) = g.ranges[q];
        let scores = g.scores.add(q * g.score_stride);
        for position in (blocks.start * TILE..start).chain(end..blocks.end * TILE) {
            *scores.add(position) = f32::NEG_INFINITY;
        }
        let span = (blocks.start * TILE..blocks.end * TILE).step_by(S::LANES);
        let mut max = S::splat(f32::NEG_INFINITY);
        for i in span.clone() {
            max = S::max(max, S::load(scores.add(i)));
        }
        let max = S::splat(S::max_lane(max));
        let mut sum = S::zero();
        for i in span {
            let e = math::exp::<S>(S::sub(S::load(scores.add(i)), max));
            S::store(scores.add(i), e);
            sum = S::add(sum, e);
        }
        sums[q] = S::sum(sum);
    }
    let mut q = 0;
    while q < g.n {
        let together = if g.n - q >= 2 { 2 } else { 1 };
        let mut d = 0;
        while d < g.value_dim {
            let range = lowest..highest;
            let vectors = (g.value_dim - d) / S::LANES;
            let step = match (together, vectors) {
                (2, 4..) => {
                    mix::<S, T, 2, 4>(g, q, d, range, &sums);
                    4
                }
                (2, _) => {
                    mix::<S, T, 2, 1>(g, q, d, range, &sums);
                    1
                }
                (_, 4..) => {
                    mix::<S, T, 1, 4>(g, q, d, range, &sums);
                    4
                }
                (_, 2..) => {
                    mix::<S, T, 1, 2>(g, q, d, range, &sums);
                    2
                }
                _ => {
                    mix::<S, T, 1, 1>(g, q, d, range, &sums);
                    1
                }
            };
            d += step * S::LANES;
        }
        q += together;
    }
}

#[inline(always)]
unsafe fn attend_f32_kernel<S: Simd>(g: &Group<f32>) {
    attend_kernel::<S, f32>(g);
}
#[inline(always)]
unsafe fn attend_f16_kernel<S: Simd>(g: &Group<u16>) {
    attend_kernel::<S, u16>(g);
}
dispatch! { unsafe fn attend_f32(g: &Group<f32>) = attend_f32_kernel }
dispatch! { unsafe fn attend_f16(g: &Group<u16>) = attend_f16_kernel }

/// Chunks that the work is divided into at most; each has scratch of its own.
fn max_chunks(n_threads: usize) -> usize {
    if n_threads == 1 { 1 } else { 4 * n_threads }
}

/// Numbers of scratch that [`attention`] needs with `n_threads` threads over `capacity` positions.
pub(crate) fn attention_scratch_len(n_threads: usize, capacity: usize) -> usize {
    max_chunks(n_threads) * QUERIES * capacity.next_multiple_of(TILE)
}

/// Attention of each query over the positions that it sees in a layer: `out[i, h] = Σ_p softmax(q·k_p / √head_dim) · v_p`.
///
/// `seen` are the caches of one or more sessions of a model, each with a position that `visible` makes of what the queries
/// see there; they have as many each, n in all. `queries` is (n, query_stride) with the heads, (n_heads, head_dim), at the start of each row;
/// `out` is (n, n_heads · head_dim); `scores` is scratch of [`attention_scratch_len`] for the longest context.
pub(crate) fn attention(
    compute: &Compute,
    seen: &[(&KvCache, usize)],
    visible: impl Fn(usize) -> Visible + Sync,
    layer: usize,
    queries: &[f32],
    query_stride: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let AttentionShape { n_heads, n_kv_heads, head_dim } = seen[0].0.shape;
    let width = n_heads * head_dim;
    let n = out.len() / width;
    if n == 0 {
        return;
    }
    assert!(queries.len() >= (n - 1) * query_stride + width);
    // Queries of one session.
    let n_each = n / seen.len();
    assert_eq!(n_each * seen.len(), n);
    let (mut longest, mut total) = (0, 0);
    for &(kv, position) in seen {
        let visible = visible(position);
        let end = (0..n_each).map(|i| visible.range(i).end).max().unwrap_or(0);
        assert!(kv.shape == seen[0].0.shape && end <= kv.capacity);
        assert!((0..n_each).all(|i| !visible.range(i).is_empty()));
        longest = longest.max(end);
        total += n_each * end;
    }
    // Query heads that read the same keys, and the groups that the queries of one key head form.
    let sharing = n_heads / n_kv_heads;
    let pairs = n_each * sharing;
    let groups = pairs.div_ceil(QUERIES);
    let tasks = seen.len() * n_kv_heads * groups;
    let threads = compute.pool.n_threads();
    let small = width * total < 16 << 10;
    let chunks = if small { 1 } else { tasks.min(max_chunks(threads)) };
    let score_stride = longest.next_multiple_of(TILE);
    assert!(scores.len() >= chunks * QUERIES * score_stride);
    let (scores, out) = (Parts::new(scores), Parts::new(out));
    let isa = compute.isa;
    compute.pool.run(chunks, |chunk| {
        let scores = scores.pointer(chunk * QUERIES * score_stride, QUERIES * score_stride);
        for task in tasks * chunk / chunks..tasks * (chunk + 1) / chunks {
            let (session, task) = (task / (n_kv_heads * groups), task % (n_kv_heads * groups));
            let (kv, position) = seen[session];
            let visible = visible(position);
            let (kv_head, first) = (task / groups, task % groups * QUERIES);
            let mut asked = Queries {
                head_dim,
                value_dim: kv.value_dim,
                n: (pairs - first).min(QUERIES),
                queries: [std::ptr::null(); QUERIES],
                outs: [std::ptr::null_mut(); QUERIES],
                ranges: [(0, 0); QUERIES],
                scores,
                score_stride,
            };
            for q in 0..asked.n {
                let (i, head) = ((first + q) / sharing, kv_head * sharing + (first + q) % sharing);
                let range = visible.range(i);
                asked.ranges[q] = (range.start, range.end);
                let i = session * n_each + i;
                asked.queries[q] = queries[i * query_stride + head * head_dim..].as_ptr();
                asked.outs[q] = out.pointer(i * width + head * head_dim, head_dim);
            }
            let at = kv.first_position(layer, kv_head);
            let (key_at, value_at) = (at * head_dim, at * kv.value_dim);
            // SAFETY: the instruction set is one that the machine has. The ranges lie within the capacity, checked
            // above, of this head's keys and values. Each task has queries of its own and so outputs of its own, and
            // each chunk its own scratch.
            unsafe {
                match &kv.numbers {
                    Numbers::F32 { keys, values } => {
                        let (keys, values) = (keys[key_at..].as_ptr(), values[value_at..].as_ptr());
                        attend_f32(isa, &Group { keys, values, asked });
                    }
                    Numbers::F16 { keys, values } => {
                        let (keys, values) = (keys[key_at..].as_ptr(), values[value_at..].as_ptr());
                        attend_f16(isa, &Group { keys, values, asked });
                    }
                    Numbers::Int8(cache) => int8::attend(isa, &cache.group(at, asked)),
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kernels::testing::{assert_close, each_isa, noise};
    use crate::pool::Pool;

    #[test]
    fn every_instruction_set_agrees_with_the_formula() {
        for (n_heads, n_kv_heads, head_dim, len) in
            [(1, 1, 1, 1), (2, 2, 5, 17), (4, 2, 16, 40), (3, 1, 33, 70), (2, 2, 64, 100)]
        {
            let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
            let (width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
            let stride = width + 3;
            let queries = noise(len * stride, 1);
            let round =
                |v: Vec<f32>| v.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect::<Vec<_>>();
            let (keys, values) = (round(noise(len * kv_width, 2)), round(noise(len * kv_width, 3)));
            for visible in [
                Visible::All(len),
                Visible::Causal { first: 0, window: 0 },
                Visible::Causal { first: 0, window: 7 },
            ] {
                let mut want = vec![0.0f64; len * width];
                for (i, head) in (0..len).flat_map(|i| (0..n_heads).map(move |h| (i, h))) {
                    let at = head / (n_heads / n_kv_heads) * head_dim;
                    let query = &queries[i * stride + head * head_dim..][..head_dim];
                    let weights: Vec<f64> = visible
                        .range(i)
                        .map(|p| {
                            let key = &keys[p * kv_width + at..][..head_dim];
                            let dot: f64 = query.iter().zip(key).map(|(q, k)| *q as f64 * *k as f64).sum();
                            (dot / (head_dim as f64).sqrt()).exp()
                        })
                        .collect();
                    for (p, weight) in visible.range(i).zip(&weights) {
                        for d in 0..head_dim {
                            want[i * width + head * head_dim + d] +=
                                weight / weights.iter().sum::<f64>() * values[p * kv_width + at + d] as f64;
                        }
                    }
                }
                each_isa(|isa| {
                    let mut results = Vec::new();
                    use KvPrecision::{F16, F32, Int8};
                    for (n_threads, precision) in
                        [(1, F32), (3, F32), (1, F16), (3, F16), (1, Int8), (3, Int8)]
                    {
                        let mut compute = Compute::new(&Arc::new(Pool::new(n_threads).unwrap()), 0, 0, false);
                        compute.isa = isa;
                        let kv = KvCache::new(shape, 2, len, precision).unwrap();
                        for (layer, first, second) in [(0, &values, &keys), (1, &keys, &values)] {
                            let pairs = first.chunks_exact(kv_width).zip(second.chunks_exact(kv_width));
                            let mut rows: Vec<f32> =
                                pairs.flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
                            // SAFETY: nobody else has the cache.
                            unsafe {
                                store(&compute, &[(&kv, 0)], layer, &mut rows, 2 * kv_width, |_, _| {})
                            };
                        }
                        let mut scores = vec![f32::NAN; attention_scratch_len(n_threads, len)];
                        let mut got = vec![f32::NAN; len * width];
                        attention(
                            &compute,
                            &[(&kv, 0)],
                            |_| visible,
                            1,
                            &queries,
                            stride,
                            &mut scores,
                            &mut got,
                        );
                        assert_close(&got, &want, if precision == Int8 { 0.02 } else { 2e-6 });
                        results.push(got);
                        // The last query alone gets the same bits.
                        let alone = match visible {
                            Visible::All(len) => Visible::All(len),
                            Visible::Causal { window, .. } => Visible::Causal { first: len - 1, window },
                        };
                        let mut last = vec![f32::NAN; width];
                        let query = &queries[(len - 1) * stride..];
                        attention(&compute, &[(&kv, 0)], |_| alone, 1, query, stride, &mut scores, &mut last);
                        assert_eq!(last, results.last().unwrap()[(len - 1) * width..]);
                        // And so do queries of several sessions at once.
                        let early = match visible {
                            Visible::All(_) => Visible::All(len.div_ceil(2)),
                            Visible::Causal { window, .. } => Visible::Causal { first: len / 2, window },
                        };
                        let mut want = vec![f32::NAN; width];
                        attention(
                            &compute,
                            &[(&kv, 0)],
                            |_| early,
                            1,
                            &queries,
                            stride,
                            &mut scores,
                            &mut want,
                        );
                        let pair = [&queries[..stride], query].concat();
                        let mut both = vec![f32::NAN; 2 * width];
                        let seen = [(&kv, 0), (&kv, 1)];
                        attention(
                            &compute,
                            &seen,
                            |i| [early, alone][i],
                            1,
                            &pair,
                            stride,
                            &mut scores,
                            &mut both,
                        );
                        assert_eq!(both, [want, last].concat());
                    }
                    let (exact, int8) = results.split_at(4);
                    for results in [exact, int8] {
                        let same = results.windows(2).all(|pair| pair[0] == pair[1]);
                        assert!(same, "{isa:?}: threads or cache matter");
                    }
                });
            }
        }
    }
}
