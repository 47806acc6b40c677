//! Smaller weights: int8, 4-bit, and 16-bit floats.
//!
//! # In the file
//! A quantized model is an ordinary model file whose metadata has `grug.quantization`, the name of the layout that
//! follows. A quantized matrix `NAME` of shape (rows, cols) (a convolution counts as (outputs, inputs · kernel)) is
//! two tensors, and lies as the kernels read it, so that it is mapped without a copy. Rows are padded with zeros to a
//! multiple of 16 (R tiles), columns to a multiple of 64 (C):
//!
//! - **int8**: `NAME`, I8 (R, C / 4, 16, 4): element (t, k, r, j) is row `16·t + r`, column `4·k + j`;
//!   `NAME.scales`, F32 (R, 16). A weight is its scale times the integer, -127 to 127.
//! - **4-bit**: `NAME`, U8 (R, C / 8, 16, 4): the low half of byte (t, k, r, j) is column `8·k + j`, the high half
//!   column `8·k + 4 + j`; `NAME.scales`, F16 (R, C / 32, 16). A weight is its scale times [`CODES`]\[half byte].
//!
//! Tables (embeddings, learned positions), which are read a row at a time, become f16; gains and biases
//! stay f32. In a 4-bit model the output layer and the convolutions, which are small and matter most, are int8.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype as FileDtype;

use crate::checkpoint::{CONFIG_KEY, Checkpoint, TensorToWrite, f32_bytes, write_safetensors};
use crate::error::{Error, Result};
pub use crate::kernels::quantized::CODES;
use crate::kernels::quantized::{GROUP, padded_cols, padded_rows};
use crate::manifest::{ModelTensors, Role, TensorSpec};
use crate::simd::TILE;

/// The metadata entry that names the layout of quantized matrices.
pub const KEY: &str = "grug.quantization";
/// The layout described above.
pub const LAYOUT: &str = "tiles-16x4";

/// How a matrix is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantized {
    /// 8 bits a weight, a scale a row.
    Int8,
    /// 4 bits a weight, a scale for each 32 of a row: 4.5 bits in all.
    Int4,
}

impl Quantized {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Quantized::Int8 => "int8",
            Quantized::Int4 => "int4",
        }
    }
}

/// What [`quantize`] makes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Matrices in int8.
    Int8,
    /// Matrices in 4 bits.
    Int4,
    /// Matrices and tables in f16.
    F16,
    /// Matrices and tables in bf16.
    Bf16,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 4] = [Target::Int8, Target::Int4, Target::F16, Target::Bf16];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Int8 => "int8",
            Target::Int4 => "int4",
            Target::F16 => "f16",
            Target::Bf16 => "bf16",
        }
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Target> {
        Target::ALL.into_iter().find(|target| target.name() == text).ok_or_else(|| {
            Error::invalid(format!("{text:?} is no kind of weights: int8, int4, f16 and bf16 are"))
        })
    }
}

/// Whether tensors of this role may be quantized.
pub(crate) fn may_be_quantized(role: Role) -> bool {
    match role {
        Role::Matrix | Role::Head | Role::Conv => true,
        Role::Table | Role::Gain | Role::Bias => false,
    }
}

pub(crate) fn scales_name(name: &str) -> String {
    format!("{name}.scales")
}

/// One of the two tensors of a quantized matrix.
pub(crate) struct Part {
    pub name: String,
    pub dtype: FileDtype,
    pub shape: Vec<usize>,
}

/// The packed weights and the scales of a matrix of this shape.
pub(crate) fn layout(kind: Quantized, name: &str, shape: &[usize]) -> [Part; 2] {
    let (tiles, cols) = (padded_rows(shape[0]) / TILE, padded_cols(shape[1..].iter().product()));
    let part = |name: String, dtype, shape: &[usize]| Part { name, dtype, shape: shape.to_vec() };
    match kind {
        Quantized::Int8 => [
            part(name.to_string(), FileDtype::I8, &[tiles, cols / 4, TILE, 4]),
            part(scales_name(name), FileDtype::F32, &[tiles, TILE]),
        ],
        Quantized::Int4 => [
            part(name.to_string(), FileDtype::U8, &[tiles, cols / 8, TILE, 4]),
            part(scales_name(name), FileDtype::F16, &[tiles, cols / GROUP, TILE]),
        ],
    }
}

/// Packs `rows` rows in int8: the weights and their scales, as bytes of the file.
pub(crate) fn pack_int8(rows: usize, numbers: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let cols = numbers.len() / rows;
    let padded = padded_cols(cols);
    let mut packed = vec![0u8; padded_rows(rows) * padded];
    let mut scales = vec![0.0f32; padded_rows(rows)];
    for (r, row) in numbers.chunks_exact(cols).enumerate() {
        let max = row.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        if max < 1e-35 {
            continue;
        }
        scales[r] = max / 127.0;
        let tile = &mut packed[r / TILE * TILE * padded..][..TILE * padded];
        for (c, v) in row.iter().enumerate() {
            let q = (v * (127.0 / max)).round_ties_even() as i8;
            tile[c / 4 * 4 * TILE + r % TILE * 4 + c % 4] = q as u8;
        }
    }
    (packed, f32_bytes(&scales))
}

/// The code nearest to `v`.
fn nearest_code(v: f32) -> u8 {
    let above = CODES.partition_point(|&code| (code as f32) < v);
    match above {
        0 => 0,
        16 => 15,
        i if v - CODES[i - 1] as f32 <= CODES[i] as f32 - v => i as u8 - 1,
        i => i as u8,
    }
}

/// A group's scale and codes with the least squared error among those tried: the largest weight on either end of the
/// codes or a little beyond it, then the scale that fits the codes best.
fn fit_group(group: &[f32]) -> (half::f16, [u8; GROUP]) {
    let largest = group.iter().copied().fold(0.0f32, |max, v| if v.abs() > max.abs() { v } else { max });
    let mut best = (f32::INFINITY, half::f16::ZERO, [nearest_code(0.0); GROUP]);
    if largest.abs() < 1e-6 {
        // The scale would be lost in f16's subnormals.
        return (best.1, best.2);
    }
    for end in [CODES[0] as f32, CODES[15] as f32] {
        for step in 0..14 {
            let inverse = end / (largest * (0.76 + 0.03 * step as f32));
            let mut codes = [0u8; GROUP];
            let (mut product, mut square) = (0.0f32, 0.0f32);
            for (code, v) in codes.iter_mut().zip(group) {
                *code = nearest_code(v * inverse);
                let c = CODES[*code as usize] as f32;
                product += c * v;
                square += c * c;
            }
            let scale = half::f16::from_f32(product / square.max(1.0));
            let error: f32 = codes
                .iter()
                .zip(group)
                .map(|(&code, v)| (v - scale.to_f32() * CODES[code as usize] as f32).powi(2))
                .sum();
            if error < best.0 {
                best = (error, scale, codes);
            }
        }
    }
    (best.1, best.2)
}

/// Packs `rows` rows in 4 bits: the weights and their scales, as bytes of the file.
pub(crate) fn pack_int4(rows: usize, numbers: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let cols = numbers.len() / rows;
    let padded = padded_cols(cols);
    let mut packed = vec![0u8; padded_rows(rows) * padded / 2];
    let mut scales = vec![half::f16::ZERO; padded_rows(rows) * padded / GROUP];
    for (r, row) in numbers.chunks_exact(cols).enumerate() {
        let tile = &mut packed[r / TILE * TILE * padded / 2..][..TILE * padded / 2];
        let tile_scales = &mut scales[r / TILE * TILE * padded / GROUP..];
        for (g, group) in row.chunks(GROUP).enumerate() {
            let (scale, codes) = fit_group(group);
            tile_scales[g * TILE + r % TILE] = scale;
            for (i, code) in codes.into_iter().enumerate() {
                let c = g * GROUP + i;
                let byte = &mut tile[c / 8 * 4 * TILE + r % TILE * 4 + c % 4];
                *byte |= if (c / 4).is_multiple_of(2) { code } else { code << 4 };
            }
        }
    }
    (packed, scales.iter().flat_map(|s| s.to_bits().to_le_bytes()).collect())
}

/// The dtype and bytes of floats as `dtype` stores them. Numbers too large for f16 are errors.
fn convert(name: &str, dtype: FileDtype, numbers: &[f32]) -> Result<Vec<u8>> {
    Ok(match dtype {
        FileDtype::F16 => {
            if let Some(v) = numbers.iter().find(|v| half::f16::from_f32(**v).is_infinite()) {
                return Err(Error::invalid(format!("tensor {name:?} holds {v}, which is too large for f16")));
            }
            numbers.iter().flat_map(|v| half::f16::from_f32(*v).to_bits().to_le_bytes()).collect()
        }
        FileDtype::BF16 => {
            numbers.iter().flat_map(|v| half::bf16::from_f32(*v).to_bits().to_le_bytes()).collect()
        }
        _ => f32_bytes(numbers),
    })
}

struct Written {
    part: Part,
    bytes: Vec<u8>,
}

fn write_tensor(file: &Checkpoint, spec: &TensorSpec, target: Target, out: &mut Vec<Written>) -> Result<()> {
    let view = file.tensor(spec)?;
    let numbers = view.to_f32();
    if let Some(i) = numbers.iter().position(|v| !v.is_finite()) {
        return Err(Error::invalid(format!("tensor {:?} holds {} at {i}", spec.name, numbers[i])));
    }
    let quantized = match (target, spec.role) {
        (Target::Int8, Role::Matrix | Role::Head | Role::Conv) => Some(Quantized::Int8),
        (Target::Int4, Role::Matrix) => Some(Quantized::Int4),
        (Target::Int4, Role::Head | Role::Conv) => Some(Quantized::Int8),
        (_, Role::Table | Role::Gain | Role::Bias) | (Target::F16 | Target::Bf16, _) => None,
    };
    if let Some(kind) = quantized {
        let (packed, scales) = match kind {
            Quantized::Int8 => pack_int8(spec.shape[0], &numbers),
            Quantized::Int4 => pack_int4(spec.shape[0], &numbers),
        };
        let [packed_part, scales_part] = layout(kind, &spec.name, &spec.shape);
        out.push(Written { part: packed_part, bytes: packed });
        out.push(Written { part: scales_part, bytes: scales });
        return Ok(());
    }
    let dtype = match (target, spec.role) {
        (_, Role::Gain | Role::Bias) => FileDtype::F32,
        (Target::Bf16, _) => FileDtype::BF16,
        (Target::Int8 | Target::Int4 | Target::F16, _) => FileDtype::F16,
    };
    let bytes = convert(&spec.name, dtype, &numbers)?;
    out.push(Written { part: Part { name: spec.name.clone(), dtype, shape: spec.shape.clone() }, bytes });
    Ok(())
}

/// Writes the model of `file` to `path` with smaller weights; configuration and metadata stay. The model must be in
/// floats: quantizing twice would add up the errors.
pub fn quantize(file: &Checkpoint, target: Target, path: &Path) -> Result<()> {
    if file.metadata().contains_key(KEY) {
        return Err(Error::invalid(
            "the model is quantized already; quantize the one in floats that it came from",
        ));
    }
    let mut tensors = Vec::new();
    for spec in ModelTensors::specs(file.config()).into_leaves() {
        write_tensor(file, &spec, target, &mut tensors)?;
    }
    // The largest unit first, so that every tensor is aligned: packed weights are multiples of 64 bytes.
    tensors.sort_by_key(|t| match t.part.dtype {
        FileDtype::I8 | FileDtype::U8 => 0,
        FileDtype::F32 => 1,
        _ => 2,
    });
    let mut metadata: BTreeMap<String, String> = file.metadata().clone();
    metadata.insert(CONFIG_KEY.into(), file.config().to_toml());
    if matches!(target, Target::Int8 | Target::Int4) {
        metadata.insert(KEY.into(), LAYOUT.into());
    }
    let dtype_names: Vec<String> = tensors.iter().map(|t| format!("{:?}", t.part.dtype)).collect();
    let views: Vec<_> = tensors
        .iter()
        .zip(&dtype_names)
        .map(|(t, dtype)| TensorToWrite { name: &t.part.name, dtype, shape: &t.part.shape, bytes: &t.bytes })
        .collect();
    write_safetensors(path, &metadata, &views)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save_model;
    use crate::config::ModelConfig;
    use crate::init::initial_values;
    use crate::{Model, ModelOptions};

    fn save(path: &Path) -> ModelConfig {
        let config = ModelConfig::from_toml(
            "context_bytes = 32\nembedding_dim = 24\nd_model = 40\nn_heads = 4\nn_layers = 2\nnorm_first = true\n\
             positions = \"rotary\"\nconv_frontend = { channels = [24], kernels = [3] }",
        )
        .unwrap();
        let specs = ModelTensors::specs(&config).into_leaves();
        let bytes: Vec<_> =
            specs.iter().enumerate().map(|(i, spec)| f32_bytes(&initial_values(spec, i, 1))).collect();
        let tensors: Vec<_> = specs
            .iter()
            .zip(&bytes)
            .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
            .collect();
        save_model(path, &config, &BTreeMap::from([("grug.note".into(), "kept".into())]), &tensors).unwrap();
        config
    }

    #[test]
    fn every_target_loads_and_computes_nearly_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let config = save(&path);
        let file = Checkpoint::open(&path).unwrap();
        let options = ModelOptions { n_threads: 1, ..Default::default() };
        let want = Model::load(&path, &options).unwrap().raw_logits(b"some bytes of input").unwrap();
        let scale = want.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        for (target, tolerance) in
            [(Target::F16, 0.002), (Target::Bf16, 0.02), (Target::Int8, 0.03), (Target::Int4, 0.25)]
        {
            let small = folder.path().join(target.name());
            quantize(&file, target, &small).unwrap();
            let opened = Checkpoint::open(&small).unwrap();
            assert_eq!(opened.config(), &config);
            assert_eq!(opened.metadata()["grug.note"], "kept");
            assert!(opened.bytes().len() < file.bytes().len());
            let got = Model::load(&small, &options).unwrap().raw_logits(b"some bytes of input").unwrap();
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < tolerance * scale, "{}: {got} for {want}", target.name());
            }
            let again = quantize(&opened, Target::Int8, &folder.path().join("again"));
            assert_eq!(again.is_err(), matches!(target, Target::Int8 | Target::Int4));
        }
    }

    #[test]
    fn damage_to_a_quantized_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        save(&path);
        let small = folder.path().join("small");
        quantize(&Checkpoint::open(&path).unwrap(), Target::Int4, &small).unwrap();
        let whole = std::fs::read(&small).unwrap();
        // Each replacement keeps the header's length.
        for (from, to, expected) in [
            ("\"tiles-16x4\"", "\"tiles-16x8\"", "tiles-16x8"),
            ("fc_out.weight.scales", "fc_out.weight.scalez", "fc_out.weight.scales"),
            ("\"dtype\":\"U8\"", "\"dtype\":\"I8\"", "calls for"),
            ("\"grug.quantization\"", "\"grug.quantizatiom\"", "has shape"),
        ] {
            let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut spoiled = whole.clone();
            spoiled[at..at + to.len()].copy_from_slice(to.as_bytes());
            std::fs::write(&small, &spoiled).unwrap();
            let error = Checkpoint::open(&small).unwrap_err();
            assert!(error.message().contains(expected), "{from} → {to}: {error}");
        }
    }

    #[test]
    fn codes_are_the_nearest() {
        for i in -1300..1300 {
            let v = i as f32 / 10.0;
            let code = CODES[nearest_code(v) as usize] as f32;
            assert!(CODES.iter().all(|&c| (code - v).abs() <= (c as f32 - v).abs()), "{v}");
        }
        assert!("int9".parse::<Target>().is_err());
        Target::ALL.iter().for_each(|t| assert_eq!(t.name().parse::<Target>().unwrap(), *t));
    }
}
