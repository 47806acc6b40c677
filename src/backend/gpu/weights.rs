//! A model's tensors as the devices want them: matrices whose rows are whole 16-byte vectors, and one array of f32 for
//! everything small.

use super::args::{NONE, WEIGHT_BF16, WEIGHT_F16, WEIGHT_F32, WEIGHT_INT8};
use crate::checkpoint::{Checkpoint, Dtype, StoredMatrix};
use crate::config::{ModelConfig, Positions};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::quantized::{CODES, GROUP, padded_cols};
use crate::manifest::{ModelTensors, Role, TensorSpec};
use crate::positions::{rotary, sinusoidal};
use crate::simd::TILE;

/// Numbers in a table of positions at most: ample for real models, and what a file that claims an enormous context
/// can cost.
const MAX_TABLE: usize = 1 << 25;

/// Where a tensor went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// The matrix of this index.
    Matrix(usize),
    /// This offset in the constants.
    Vector(u32),
}

/// What is known of a matrix without its numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub rows: usize,
    pub cols: usize,
    /// 16-byte vectors in a row.
    pub stride: usize,
    pub kind: u32,
    /// Offset in the constants of a scale for each row; `NONE` where the numbers need none.
    pub scales: u32,
}

impl Shape {
    /// Bytes of a number.
    fn size(&self) -> usize {
        match self.kind {
            WEIGHT_F32 => 4,
            WEIGHT_INT8 => 1,
            _ => 2,
        }
    }
}

/// A matrix to be put on a device: rows of `stride` 16-byte vectors, zeros at the end.
#[derive(Debug)]
pub(crate) struct Packed {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Offsets in the constants of the tables that depend on the position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    pub added: u32,
    pub cos: u32,
    pub sin: u32,
}

impl Tables {
    /// Those of a stream of this width with so many positions; they are added to the constants.
    fn new(
        constants: &mut Vec<f32>,
        config: &ModelConfig,
        width: usize,
        rows: usize,
        learned: Option<Part>,
    ) -> Result<Tables> {
        if config.positions != Positions::Learned && rows.saturating_mul(width) > MAX_TABLE {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("a table of {rows} positions of width {width} is too large for a GPU engine"),
            ));
        }
        let mut tables = Tables { added: NONE, cos: NONE, sin: NONE };
        match (config.positions, learned) {
            (Positions::Learned, Some(Part::Vector(at))) => tables.added = at,
            (Positions::Learned, _) => {}
            (Positions::Sinusoidal, _) => tables.added = append(constants, &sinusoidal(rows, width))?,
            (Positions::Rotary, _) => {
                let (cos, sin) = rotary(rows, width / config.n_heads);
                tables.cos = append(constants, &cos)?;
                tables.sin = append(constants, &sin)?;
            }
        }
        Ok(tables)
    }
}

/// The parts of a model, by the names of the manifest.
#[derive(Debug)]
pub(crate) struct Parts {
    pub tensors: ModelTensors<Part>,
    pub shapes: Vec<Shape>,
    specs: Vec<TensorSpec>,
    pub constants: Vec<f32>,
    pub bytes: Tables,
    pub aggregated: Tables,
    pub config: ModelConfig,
    /// How far logits may be from the CPU's, which rounds more than the devices do: it keeps keys and values in 16 bits
    /// where the weights are not f32, and in 8 bits, as activations too, where they are integers.
    pub tolerance: f32,
}

impl Parts {
    /// Lays out the parts; reads the small ones.
    pub(crate) fn new(file: &Checkpoint) -> Result<Parts> {
        let config = file.config().clone();
        let specs = ModelTensors::specs(&config);
        let learned = [specs.positions.clone(), specs.aggregated.as_ref().and_then(|a| a.positions.clone())];
        let mut constants = Vec::new();
        let (mut shapes, mut matrices) = (Vec::new(), Vec::new());
        let mut tolerance = 1e-3f32;
        let tensors = specs.try_map(|spec| {
            let small = match spec.role {
                Role::Gain | Role::Bias => true,
                Role::Table => learned.iter().flatten().any(|l| l.name == spec.name),
                Role::Matrix | Role::Head | Role::Conv => false,
            };
            if small {
                return append(&mut constants, &file.tensor(&spec)?.to_f32()).map(Part::Vector);
            }
            let rows = spec.shape[0];
            let mut scales = NONE;
            let (kind, apart) = match file.matrix(&spec)? {
                StoredMatrix::Float(view) => match view.dtype {
                    Dtype::F32 => (WEIGHT_F32, 1e-3),
                    Dtype::F16 => (WEIGHT_F16, 1e-2),
                    Dtype::BF16 => (WEIGHT_BF16, 1e-2),
                },
                StoredMatrix::Int8 { scales: stored, .. } => {
                    let stored = stored.as_chunks::<4>().0[..rows].iter();
                    scales =
                        append(&mut constants, &stored.map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>())?;
                    (WEIGHT_INT8, 1e-1)
                }
                // They grow to 16 bits on the way: a device reads those as fast as it can decode codes.
                StoredMatrix::Int4 { .. } => (WEIGHT_F16, 1e-1),
            };
            tolerance = tolerance.max(apart);
            let mut shape = Shape { rows, cols: spec.len() / rows, stride: 0, kind, scales };
            shape.stride = (shape.cols * shape.size()).div_ceil(16);
            shapes.push(shape);
            matrices.push(spec);
            Ok(Part::Matrix(shapes.len() - 1))
        })?;
        let positions = config.frontend_len(config.window_bytes())?;
        let bytes = Tables::new(&mut constants, &config, config.d_model, positions, tensors.positions)?;
        let aggregated = match &config.aggregated_stream {
            Some(agg) => {
                let learned = tensors.aggregated.as_ref().and_then(|a| a.positions);
                let rows = config.aggregated_len(positions)?;
                Tables::new(&mut constants, &config, agg.d_model, rows, learned)?
            }
            None => bytes,
        };
        if constants.is_empty() {
            constants.push(0.0);
        }
        Ok(Parts { tensors, shapes, specs: matrices, constants, bytes, aggregated, config, tolerance })
    }

    /// The numbers of matrix `index`.
    pub(crate) fn pack(&self, file: &Checkpoint, index: usize) -> Result<Packed> {
        let (spec, shape) = (&self.specs[index], self.shapes[index]);
        let stored = file.matrix(spec)?;
        let size = shape.size();
        // A convolution's row is put in the order of its input: position by position, all channels of each.
        let kernel = spec.shape.get(2).copied().unwrap_or(1);
        let channels = shape.cols / kernel;
        let mut bytes = vec![0; shape.rows * shape.stride * 16];
        for (r, out) in bytes.chunks_exact_mut(shape.stride * 16).enumerate() {
            if let (StoredMatrix::Float(view), 1) = (&stored, kernel) {
                out[..shape.cols * size]
                    .copy_from_slice(&view.bytes[r * shape.cols * size..][..shape.cols * size]);
                continue;
            }
            for c in 0..shape.cols {
                let at = (c % kernel * channels + c / kernel) * size;
                number(&stored, shape.cols, r, c, &mut out[at..at + size]);
            }
        }
        Ok(Packed { name: spec.name.clone(), bytes })
    }
}

/// Adds numbers to the constants and returns where they start.
fn append(constants: &mut Vec<f32>, values: &[f32]) -> Result<u32> {
    let at = constants.len();
    constants.extend_from_slice(values);
    constants.resize(constants.len().next_multiple_of(4), 0.0);
    if constants.len() >= NONE as usize {
        return Err(Error::new(ErrorKind::Unsupported, "the model's tables are too large for a GPU engine"));
    }
    Ok(at as u32)
}

/// Number (r, c) of a matrix as a device has it. The layouts are those of [`crate::quantize`].
fn number(stored: &StoredMatrix<'_>, cols: usize, r: usize, c: usize, out: &mut [u8]) {
    let (tile, row, padded) = (r / TILE, r % TILE, padded_cols(cols));
    match stored {
        StoredMatrix::Float(view) => {
            out.copy_from_slice(&view.bytes[(r * cols + c) * out.len()..][..out.len()])
        }
        StoredMatrix::Int8 { packed, .. } => {
            out[0] = packed[tile * TILE * padded + c / 4 * 4 * TILE + row * 4 + c % 4];
        }
        StoredMatrix::Int4 { packed, scales } => {
            let both = packed[tile * TILE * padded / 2 + c / 8 * 4 * TILE + row * 4 + c % 4];
            let code = if (c / 4).is_multiple_of(2) { both & 15 } else { both >> 4 };
            let scale = &scales[2 * (tile * TILE * padded / GROUP + c / GROUP * TILE + row)..];
            let scale = half::f16::from_le_bytes([scale[0], scale[1]]).to_f32();
            let value = half::f16::from_f32(scale * CODES[code as usize] as f32);
            out.copy_from_slice(&value.to_le_bytes());
        }
    }
}
