//! Weight matrices as the checkpoint stores them, and their product with rows of activations.

use std::sync::Arc;

use half::{bf16, f16};

use crate::checkpoint::{Checkpoint, Dtype};
use crate::error::Result;
use crate::manifest::TensorSpec;
use crate::pool::Pool;

/// The numbers of a matrix: a part of the mapped file where it is aligned, a copy elsewhere.
enum Numbers<T: 'static> {
    Mapped { file: Arc<Checkpoint>, start: usize, len: usize, kind: std::marker::PhantomData<T> },
    Owned(Vec<T>),
}

impl<T: bytemuck::Pod> Numbers<T> {
    fn new(file: &Arc<Checkpoint>, bytes: &[u8]) -> Numbers<T> {
        if cfg!(target_endian = "little") && bytemuck::try_cast_slice::<u8, T>(bytes).is_ok() {
            let start = bytes.as_ptr() as usize - file.bytes().as_ptr() as usize;
            return Numbers::Mapped {
                file: file.clone(),
                start,
                len: bytes.len(),
                kind: std::marker::PhantomData,
            };
        }
        Numbers::Owned(
            bytes
                .chunks_exact(size_of::<T>())
                .map(|chunk| {
                    let mut chunk = chunk.to_vec();
                    if cfg!(target_endian = "big") {
                        chunk.reverse();
                    }
                    bytemuck::pod_read_unaligned(&chunk)
                })
                .collect(),
        )
    }

    fn slice(&self) -> &[T] {
        match self {
            Numbers::Mapped { file, start, len, .. } => {
                bytemuck::cast_slice(&file.bytes()[*start..*start + *len])
            }
            Numbers::Owned(values) => values,
        }
    }
}

enum Storage {
    F32(Numbers<f32>),
    F16(Numbers<u16>),
    BF16(Numbers<u16>),
}

/// A weight matrix, (outputs, inputs), row-major, in the dtype of the file.
pub(crate) struct Matrix {
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} × {})", self.rows, self.cols)
    }
}

impl Matrix {
    /// The matrix of a tensor; a convolution (outputs, inputs, kernel) is a matrix (outputs, inputs · kernel).
    pub(crate) fn load(file: &Arc<Checkpoint>, spec: &TensorSpec) -> Result<Matrix> {
        let view = file.tensor(spec)?;
        let rows = spec.shape[0];
        Ok(Matrix {
            rows,
            cols: spec.len() / rows,
            storage: match view.dtype {
                Dtype::F32 => Storage::F32(Numbers::new(file, view.bytes)),
                Dtype::F16 => Storage::F16(Numbers::new(file, view.bytes)),
                Dtype::BF16 => Storage::BF16(Numbers::new(file, view.bytes)),
            },
        })
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Row `r` as f32, (cols).
    pub(crate) fn copy_row(&self, r: usize, out: &mut [f32]) {
        let range = r * self.cols..(r + 1) * self.cols;
        match &self.storage {
            Storage::F32(n) => out.copy_from_slice(&n.slice()[range]),
            Storage::F16(n) => {
                out.iter_mut().zip(&n.slice()[range]).for_each(|(o, b)| *o = f16::from_bits(*b).to_f32())
            }
            Storage::BF16(n) => {
                out.iter_mut().zip(&n.slice()[range]).for_each(|(o, b)| *o = bf16::from_bits(*b).to_f32())
            }
        }
    }
}

/// Σ a·b, in eight interleaved sums.
fn dot<T: Copy>(w: &[T], x: &[f32], to_f32: impl Fn(T) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (w8, w_rest) = w.as_chunks::<8>();
    let (x8, x_rest) = x.as_chunks::<8>();
    for (w, x) in w8.iter().zip(x8) {
        for i in 0..8 {
            lanes[i] += to_f32(w[i]) * x[i];
        }
    }
    w_rest.iter().zip(x_rest).fold(lanes.iter().sum(), |sum, (w, x)| sum + to_f32(*w) * x)
}

/// `out[i, r] = Σ_c w[r, c] · x[i, c] + bias[r]` for x (n, cols) and out (n, rows).
pub(crate) fn matmul(pool: &Pool, w: &Matrix, bias: Option<&[f32]>, x: &[f32], out: &mut [f32]) {
    let _ = pool;
    debug_assert_eq!(x.len() / w.cols * w.rows, out.len());
    for r in 0..w.rows {
        let row = r * w.cols..(r + 1) * w.cols;
        let bias = bias.map_or(0.0, |b| b[r]);
        for (x, out) in x.chunks_exact(w.cols).zip(out.chunks_exact_mut(w.rows)) {
            out[r] = bias
                + match &w.storage {
                    Storage::F32(n) => dot(&n.slice()[row.clone()], x, |v| v),
                    Storage::F16(n) => dot(&n.slice()[row.clone()], x, |b| f16::from_bits(b).to_f32()),
                    Storage::BF16(n) => dot(&n.slice()[row.clone()], x, |b| bf16::from_bits(b).to_f32()),
                };
        }
    }
}
