//! A model's tensors as the devices want them: matrices whose rows are whole 16-byte vectors, and one array of f32 for
//! everything small.

use super::args::{NONE, WEIGHT_BF16, WEIGHT_F16, WEIGHT_F32};
use crate::checkpoint::{Checkpoint, Dtype, StoredMatrix};
use crate::config::{ModelConfig, Positions};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{ModelTensors, Role, TensorSpec};
use crate::positions::{rotary, sinusoidal};

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
}

impl Parts {
    /// Lays out the parts; reads the small ones.
    pub(crate) fn new(file: &Checkpoint) -> Result<Parts> {
        let config = file.config().clone();
        let specs = ModelTensors::specs(&config);
        let learned = [specs.positions.clone(), specs.aggregated.as_ref().and_then(|a| a.positions.clone())];
        let mut constants = Vec::new();
        let (mut shapes, mut matrices) = (Vec::new(), Vec::new());
        let tensors = specs.try_map(|spec| {
            let small = match spec.role {
                Role::Gain | Role::Bias => true,
                Role::Table => learned.iter().flatten().any(|l| l.name == spec.name),
                Role::Matrix | Role::Head | Role::Conv => false,
            };
            if small {
                return append(&mut constants, &file.tensor(&spec)?.to_f32()).map(Part::Vector);
            }
            let kind = match file.matrix(&spec)? {
                StoredMatrix::Float(view) => match view.dtype {
                    Dtype::F32 => WEIGHT_F32,
                    Dtype::F16 => WEIGHT_F16,
                    Dtype::BF16 => WEIGHT_BF16,
                },
                stored @ (StoredMatrix::Int8 { .. } | StoredMatrix::Int4 { .. }) => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "tensor {:?} is stored as {}; the GPU engines take floats (F32, F16, BF16)",
                            spec.name,
                            stored.kind_name()
                        ),
                    ));
                }
            };
            let rows = spec.shape[0];
            let cols = spec.len() / rows;
            let per_vector = if kind == WEIGHT_F32 { 4 } else { 8 };
            shapes.push(Shape { rows, cols, stride: cols.div_ceil(per_vector), kind });
            matrices.push(spec);
            Ok(Part::Matrix(shapes.len() - 1))
        })?;
        let positions = config.frontend_len(config.window_bytes())?;
        let mut tables = |width: usize, rows: usize, learned: Option<Part>| -> Result<Tables> {
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
                (Positions::Sinusoidal, _) => {
                    tables.added = append(&mut constants, &sinusoidal(rows, width))?
                }
                (Positions::Rotary, _) => {
                    let (cos, sin) = rotary(rows, width / config.n_heads);
                    tables.cos = append(&mut constants, &cos)?;
                    tables.sin = append(&mut constants, &sin)?;
                }
            }
            Ok(tables)
        };
        let bytes = tables(config.d_model, positions, tensors.positions)?;
        let aggregated = match &config.aggregated_stream {
            Some(agg) => tables(
                agg.d_model,
                config.aggregated_len(positions)?,
                tensors.aggregated.as_ref().and_then(|a| a.positions),
            )?,
            None => bytes,
        };
        if constants.is_empty() {
            constants.push(0.0);
        }
        Ok(Parts { tensors, shapes, specs: matrices, constants, bytes, aggregated, config })
    }

    /// The numbers of matrix `index`.
    pub(crate) fn pack(&self, file: &Checkpoint, index: usize) -> Result<Packed> {
        let (spec, shape) = (&self.specs[index], self.shapes[index]);
        let view = file.tensor(spec)?;
        let size = view.dtype.size();
        // A convolution's row is put in the order of its input: position by position, all channels of each.
        let kernel = spec.shape.get(2).copied().unwrap_or(1);
        let channels = shape.cols / kernel;
        let mut bytes = vec![0; shape.rows * shape.stride * 16];
        for (row, out) in
            view.bytes.chunks_exact(shape.cols * size).zip(bytes.chunks_exact_mut(shape.stride * 16))
        {
            if kernel == 1 {
                out[..row.len()].copy_from_slice(row);
                continue;
            }
            for (i, number) in row.chunks_exact(size).enumerate() {
                let (channel, position) = (i / kernel, i % kernel);
                out[(position * channels + channel) * size..][..size].copy_from_slice(number);
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
