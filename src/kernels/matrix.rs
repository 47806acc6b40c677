//! Weight matrices as the checkpoint stores them, and their product with rows of activations.

use std::sync::Arc;

use half::{bf16, f16};

use super::attention::KvPrecision;
use super::compute::{Compute, Parts};
use super::float::{self, BF16, F16, F32};
use super::quantized::{self, Int4, Int8};
use crate::checkpoint::{Checkpoint, Dtype, StoredMatrix};
use crate::config::Activation;
use crate::error::Result;
use crate::manifest::TensorSpec;
use crate::simd::TILE;

/// The numbers of a matrix: a part of the mapped file where it is aligned, a copy elsewhere.
pub(super) enum Numbers<T: 'static> {
    Mapped { file: Arc<Checkpoint>, start: usize, len: usize, kind: std::marker::PhantomData<T> },
    Owned(Vec<T>),
}

impl<T: bytemuck::Pod> Numbers<T> {
    pub(super) fn new(file: &Arc<Checkpoint>, bytes: &[u8]) -> Numbers<T> {
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

    pub(super) fn slice(&self) -> &[T] {
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
    Int8(Int8),
    Int4(Int4),
}

/// A weight matrix, (outputs, inputs), row-major, in the dtype of the file; or quantized, in tiles (see
/// [`crate::quantize`]).
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
        let rows = spec.shape[0];
        Ok(Matrix {
            rows,
            cols: spec.len() / rows,
            storage: match file.matrix(spec)? {
                StoredMatrix::Float(view) => match view.dtype {
                    Dtype::F32 => Storage::F32(Numbers::new(file, view.bytes)),
                    Dtype::F16 => Storage::F16(Numbers::new(file, view.bytes)),
                    Dtype::BF16 => Storage::BF16(Numbers::new(file, view.bytes)),
                },
                StoredMatrix::Int8 { packed, scales } => Storage::Int8(Int8 {
                    packed: Numbers::new(file, packed),
                    scales: Numbers::new(file, scales),
                }),
                StoredMatrix::Int4 { packed, scales } => Storage::Int4(Int4 {
                    packed: Numbers::new(file, packed),
                    scales: Numbers::new(file, scales),
                }),
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

    /// How keys and values that it gives are stored: as precisely as its numbers.
    pub(crate) fn kv_precision(&self) -> KvPrecision {
        match self.storage {
            Storage::F32(_) => KvPrecision::F32,
            Storage::F16(_) | Storage::BF16(_) => KvPrecision::F16,
            Storage::Int8(_) | Storage::Int4(_) => KvPrecision::Int8,
        }
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
            Storage::Int8(matrix) => matrix.copy_row(self.cols, r, out),
            Storage::Int4(matrix) => matrix.copy_row(self.cols, r, out),
        }
    }

    /// Bytes of its numbers.
    fn bytes(&self) -> usize {
        let n = self.rows * self.cols;
        match &self.storage {
            Storage::F32(_) => 4 * n,
            Storage::F16(_) | Storage::BF16(_) => 2 * n,
            Storage::Int8(_) => n,
            Storage::Int4(_) => n / 2,
        }
    }
}

/// `out[i, r] = Σ_c w[r, c] · x[i, c] + bias[r]` for x (n, cols) and out (n, rows).
pub(crate) fn matmul(compute: &Compute, w: &Matrix, bias: Option<&[f32]>, x: &[f32], out: &mut [f32]) {
    matmul_rows(compute, w, 0..w.rows, bias, None, x, out);
}

/// As [`matmul`], then the activation on each number of `out`; not SwiGLU, which takes two.
pub(crate) fn matmul_activate(
    compute: &Compute,
    w: &Matrix,
    bias: Option<&[f32]>,
    activation: Activation,
    x: &[f32],
    out: &mut [f32],
) {
    debug_assert_ne!(activation, Activation::Swiglu);
    matmul_rows(compute, w, 0..w.rows, bias, Some(activation), x, out);
}

/// As [`matmul`] for the outputs `rows` alone, which begin at a multiple of [`TILE`]: out is (n, rows.len()), and bias,
/// where there is one, that of all outputs.
pub(crate) fn matmul_rows(
    compute: &Compute,
    w: &Matrix,
    rows: std::ops::Range<usize>,
    bias: Option<&[f32]>,
    activation: Option<Activation>,
    x: &[f32],
    out: &mut [f32],
) {
    let n = x.len() / w.cols;
    let first = rows.start;
    let width = rows.len();
    assert!(x.len() == n * w.cols && out.len() == n * width);
    assert!(rows.end <= w.rows && bias.is_none_or(|bias| bias.len() == w.rows));
    assert_eq!(first % TILE, 0);
    if n == 0 {
        return;
    }
    let mut quantized = compute.quantized.borrow_mut();
    let is_quantized = matches!(w.storage, Storage::Int8(_) | Storage::Int4(_));
    if is_quantized {
        quantized.fill(compute, w.cols, x);
    }
    let quantized = &*quantized;
    let isa = compute.isa;
    let parts = Parts::new(out);
    // Bytes for one row of x, where memory decides; operations for many.
    let work = (w.bytes() / w.rows * width).max(n * width * w.cols / if is_quantized { 4 } else { 1 });
    let unit = if is_quantized { TILE } else { float::UNIT };
    compute.split(width, unit, work, |range| {
        let rows = first + range.start..first + range.end;
        // SAFETY: ranges do not overlap, so neither do the numbers of `out` that are computed; the instruction set is
        // one that the machine has; sizes were checked above.
        unsafe {
            let out = float::Output { parts, start: range.start, stride: width };
            match &w.storage {
                Storage::F32(m) => float::product::<F32>(isa, m.slice(), w.cols, rows.clone(), x, &out),
                Storage::F16(m) => float::product::<F16>(isa, m.slice(), w.cols, rows.clone(), x, &out),
                Storage::BF16(m) => float::product::<BF16>(isa, m.slice(), w.cols, rows.clone(), x, &out),
                Storage::Int8(m) => quantized::product8(isa, m, quantized, rows.clone(), &out),
                Storage::Int4(m) => quantized::product4(isa, m, quantized, rows.clone(), &out),
            }
            for i in 0..n {
                let out = out.row(i, range.len());
                if let Some(bias) = bias {
                    super::add_assign(out, &bias[rows.clone()]);
                }
                if let Some(activation) = activation {
                    super::activation::activate_on(isa, activation, out, range.len());
                }
            }
        }
    });
}
