//! Where keys and values are kept, and how they get there.
#![allow(unsafe_op_in_unsafe_fn, reason = "every kernel asks what the operations of `Simd` ask")]

use super::AttentionShape;
use super::int8::Int8Cache;
use crate::error::Result;
use crate::kernels::compute::Compute;
use crate::pages::Buffer;
use crate::simd::{Isa, Simd, TILE, dispatch};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KvPrecision {
    /// int8 with a scale for each key and value of a head; f16 for shapes that are too large for it.
    Int8,
    F16,
    F32,
}

/// Numbers of keys and values.
#[derive(Debug)]
pub(super) enum Numbers {
    F32 { keys: Buffer<f32>, values: Buffer<f32> },
    F16 { keys: Buffer<u16>, values: Buffer<u16> },
    Int8(Int8Cache),
}

/// Keys and values of the layers of a stack for up to `capacity` positions.
#[derive(Debug)]
pub(crate) struct KvCache {
    pub(super) shape: AttentionShape,
    n_layers: usize,
    pub(super) capacity: usize, // a multiple of 16
    /// Width of a value with its padding, a multiple of 16.
    pub(super) value_dim: usize,
    /// Keys (n_layers, n_kv_heads, capacity / 16, head_dim, 16) and values (n_layers, n_kv_heads, capacity, value_dim);
    /// int8 has its own layout.
    pub(super) numbers: Numbers,
}

#[inline(always)]
unsafe fn to_f16_kernel<S: Simd>(x: *const f32, n: usize, out: *mut u16) {
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        S::store_f16(out.add(i), S::load(x.add(i)));
    }
    if whole < n {
        let mut buffer = [0u16; TILE];
        S::store_f16(buffer.as_mut_ptr(), S::load_first(x.add(whole), n - whole));
        std::ptr::copy_nonoverlapping(buffer.as_ptr(), out.add(whole), n - whole);
    }
}
dispatch! { unsafe fn to_f16(x: *const f32, n: usize, out: *mut u16) = to_f16_kernel }

impl KvCache {
    /// An empty cache.
    pub(crate) fn new(
        shape: AttentionShape,
        n_layers: usize,
        capacity: usize,
        precision: KvPrecision,
    ) -> Result<KvCache> {
        let capacity = capacity.next_multiple_of(TILE);
        let value_dim = shape.head_dim.next_multiple_of(TILE);
        let positions = n_layers * shape.n_kv_heads * capacity;
        let (keys, values) = (positions * shape.head_dim, positions * value_dim);
        let numbers = match precision {
            KvPrecision::F32 => Numbers::F32 { keys: Buffer::zeroed(keys)?, values: Buffer::zeroed(values)? },
            KvPrecision::Int8 if Int8Cache::serves(shape, capacity) => {
                Numbers::Int8(Int8Cache::new(positions, shape.head_dim, value_dim)?)
            }
            _ => Numbers::F16 { keys: Buffer::zeroed(keys)?, values: Buffer::zeroed(values)? },
        };
        Ok(KvCache { shape, n_layers, capacity, value_dim, numbers })
    }

    /// The same cache once more.
    pub(crate) fn try_clone(&self) -> Result<KvCache> {
        let numbers = match &self.numbers {
            Numbers::F32 { keys, values } => {
                Numbers::F32 { keys: keys.try_clone()?, values: values.try_clone()? }
            }
            Numbers::F16 { keys, values } => {
                Numbers::F16 { keys: keys.try_clone()?, values: values.try_clone()? }
            }
            Numbers::Int8(cache) => Numbers::Int8(cache.try_clone()?),
        };
        Ok(KvCache { numbers, ..*self })
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        match &self.numbers {
            Numbers::F32 { keys, values } => size_of_val(&keys[..]) + size_of_val(&values[..]),
            Numbers::F16 { keys, values } => size_of_val(&keys[..]) + size_of_val(&values[..]),
            Numbers::Int8(cache) => cache.bytes(),
        }
    }

    /// Number of the first position of a head of a layer.
    pub(super) fn first_position(&self, layer: usize, kv_head: usize) -> usize {
        assert!(layer < self.n_layers && kv_head < self.shape.n_kv_heads);
        (layer * self.shape.n_kv_heads + kv_head) * self.capacity
    }

    /// Stores key and value, each (n_kv_heads, head_dim), of a position in a layer.
    ///
    /// # Safety
    /// The machine has the instruction set, and nobody else uses what is stored of this position meanwhile.
    unsafe fn store(&self, isa: Isa, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let dim = self.shape.head_dim;
        let width = self.shape.n_kv_heads * dim;
        assert!(position < self.capacity && key.len() == width && value.len() == width);
        for head in 0..self.shape.n_kv_heads {
            let at = self.first_position(layer, head) + position;
            let key_at = at / TILE * TILE * dim + at % TILE;
            let value_at = at * self.value_dim;
            let (key, value) = (&key[head * dim..(head + 1) * dim], &value[head * dim..(head + 1) * dim]);
            match &self.numbers {
                Numbers::Int8(cache) => cache.store(isa, at, self.value_dim, key, value),
                Numbers::F32 { keys, values } => {
                    scatter(key, keys.pointer().add(key_at));
                    std::ptr::copy_nonoverlapping(value.as_ptr(), values.pointer().add(value_at), dim);
                }
                Numbers::F16 { keys, values } => {
                    to_f16(isa, value.as_ptr(), dim, values.pointer().add(value_at));
                    for (part, key) in key.chunks(TILE).enumerate() {
                        let mut buffer = [0u16; TILE];
                        to_f16(isa, key.as_ptr(), key.len(), buffer.as_mut_ptr());
                        scatter(&buffer[..key.len()], keys.pointer().add(key_at + part * TILE * TILE));
                    }
                }
            }
        }
    }
}

/// Writes the numbers of one position into a block of 16.
unsafe fn scatter<T: Copy>(numbers: &[T], to: *mut T) {
    for (i, number) in numbers.iter().enumerate() {
        *to.add(i * TILE) = *number;
    }
}

/// Makes the queries and keys of each row of `rows`, (n, stride), ready with `prepare`, and stores its key and value, which
/// are its last numbers, on all threads. `prepare` gets the row's position and all of it but the value.
///
/// `seen` are the caches of one or more sessions and the position of the first row of each; they have as many rows each.
///
/// # Safety
/// No cache is there twice, and nobody else uses them meanwhile.
pub(crate) unsafe fn store(
    compute: &Compute,
    seen: &[(&KvCache, usize)],
    layer: usize,
    rows: &mut [f32],
    stride: usize,
    prepare: impl Fn(usize, &mut [f32]) + Sync,
) {
    let AttentionShape { n_kv_heads, head_dim, .. } = seen[0].0.shape;
    let kv_width = n_kv_heads * head_dim;
    let n_each = rows.len() / stride / seen.len();
    let isa = compute.isa;
    compute.for_rows(rows, stride, 8 * stride, |first, rows| {
        for (row, numbers) in (first..).zip(rows.chunks_exact_mut(stride)) {
            let (cache, begin) = seen[row / n_each];
            let position = begin + row % n_each;
            let (heads, value) = numbers.split_at_mut(stride - kv_width);
            prepare(position, heads);
            cache.store(isa, layer, position, &heads[heads.len() - kv_width..], value);
        }
    });
}
