//! Writing a model as GGUF, the file format of llama.cpp and its kin.
//!
//! # What can be expressed
//! GGUF names an architecture and its tensors; the nearest one is `gpt2`: pre-norm blocks of LayerNorm, attention and a
//! GELU feed-forward, positions added at the input. So a model can be exported if it is causal, in floats, with one
//! stream, `norm_first`, `norm = "layer"`, GELU, no window of attention, and learned or sinusoidal positions. The rest
//! is translated:
//!
//! - a projection of the embedding is multiplied into the table of bytes, sinusoidal positions become a learned table,
//!   biases that the model does not have become zeros;
//! - `gpt2` has no bias at the output layer. It becomes a part of the last norm's bias, wherever the output layer's
//!   matrix has 256 independent rows (so d_model is at least 256); a model without biases has none;
//! - everything else (rotary positions, RMSNorm, other activations, `qk_norm`, softcap, a norm of the
//!   embedding, convolutions, a second stream) is refused by name.
//!
//! Bytes are the tokens 0 to 255 of a byte-level BPE without merges, so that programs for text work as they are.
//! llama.cpp computes GELU by its approximation with tanh, in f16: logits differ in the third digit.

mod blocks;
mod output_bias;

use std::io::Write;
use std::path::Path;

use crate::checkpoint::{Checkpoint, StoredMatrix, write_atomically};
use crate::config::{Activation, ModelConfig, NORM_EPS, Norm, Positions, VOCAB};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{BlockTensors, ModelTensors, NormTensors, TensorSpec};
use crate::model::END_BYTE_KEY;
use crate::positions::sinusoidal;
pub use blocks::Kind;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// Each tensor's data begins at a multiple of this many bytes.
const ALIGNMENT: usize = 32;

/// One entry of the metadata.
enum Value<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<String>),
}

/// One tensor, row-major, in the order of its numbers in the file.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
    bytes: Vec<u8>,
}

/// Writes `file` to `path` as GGUF, its matrices as `kind`, and the rest as f32. Atomic.
///
/// # Errors
/// [`ErrorKind::Unsupported`] names what GGUF cannot express; see the top of this page.
pub fn export(file: &Checkpoint, kind: Kind, path: &Path) -> Result<()> {
    let config = file.config();
    check(config)?;
    let tensors = Exporter { file, kind, tensors: Vec::new() }.tensors()?;
    let end_byte: u32 = match file.metadata().get(END_BYTE_KEY) {
        Some(text) => {
            text.parse().map_err(|_| Error::format(format!("metadata {END_BYTE_KEY:?} is {text:?}")))?
        }
        None => 0,
    };
    let number = |v: usize| Value::U32(v as u32);
    let metadata: Vec<(&str, Value<'_>)> = vec![
        ("general.architecture", Value::Text("gpt2")),
        ("general.name", Value::Text("GrugV3")),
        ("general.file_type", Value::U32(kind.file_type())),
        ("general.quantization_version", Value::U32(2)),
        ("gpt2.context_length", number(config.context_bytes)),
        ("gpt2.embedding_length", number(config.d_model)),
        ("gpt2.block_count", number(config.n_layers)),
        ("gpt2.feed_forward_length", number(config.d_model * config.ffn_multiplier)),
        ("gpt2.attention.head_count", number(config.n_heads)),
        ("gpt2.attention.head_count_kv", number(config.kv_heads())),
        ("gpt2.attention.layer_norm_epsilon", Value::F32(NORM_EPS)),
        ("gpt2.vocab_size", number(VOCAB)),
        ("tokenizer.ggml.model", Value::Text("gpt2")),
        ("tokenizer.ggml.pre", Value::Text("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Texts((0..=255).map(|byte| byte_char(byte).to_string()).collect())),
        ("tokenizer.ggml.merges", Value::Texts(Vec::new())),
        // A session that is asked before it is fed begins with byte 0.
        ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ("tokenizer.ggml.eos_token_id", Value::U32(end_byte)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
    ];
    write_atomically(path, |out| write_file(out, &metadata, &tensors))
}

/// Refuses what the architecture cannot express.
fn check(config: &ModelConfig) -> Result<()> {
    let problems = [
        (!config.is_causal(), "attention = \"bidirectional\""),
        (config.aggregated_stream.is_some(), "an aggregated stream"),
        (config.conv_frontend.is_some(), "a convolutional frontend"),
        (!config.norm_first, "norm_first = false"),
        (config.norm != Norm::Layer, "norm = \"rms\""),
        (config.positions == Positions::Rotary, "positions = \"rotary\""),
        (config.ffn_activation != Activation::Gelu, "an activation other than GELU"),
        (config.ffn_gamma != 0.0, "ffn_gamma"),
        (config.qk_norm, "qk_norm"),
        (config.attention_window != 0, "attention_window"),
        (config.embedding_norm, "embedding_norm"),
        (config.logit_softcap != 0.0, "logit_softcap"),
    ];
    match problems.iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{what} cannot be expressed in GGUF, whose nearest architecture is gpt2"),
        )),
        None => Ok(()),
    }
}

/// The character that stands for a byte in a byte-level vocabulary: itself where it is a visible character of Latin-1,
/// and others from 256 on.
fn byte_char(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if visible(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|b| !visible(*b)).count() as u32;
    char::from_u32(256 + hidden_before).expect("letters of Latin Extended-A")
}

struct Exporter<'a> {
    file: &'a Checkpoint,
    kind: Kind,
    tensors: Vec<Tensor>,
}

impl Exporter<'_> {
    fn tensors(mut self) -> Result<Vec<Tensor>> {
        let config = self.file.config();
        let specs = ModelTensors::specs(config);
        let width = config.d_model;

        let table = self.numbers(&specs.embedding)?;
        let bytes = match &specs.projection {
            None => table.clone(),
            Some(linear) => {
                let weight = self.numbers(&linear.weight)?;
                let bias = linear.bias.as_ref().map(|bias| self.numbers(bias)).transpose()?;
                project(&table, &weight, bias.as_deref(), width)
            }
        };
        self.matrix("token_embd", &[VOCAB, width], bytes)?;
        let positions = match &specs.positions {
            Some(spec) => self.numbers(spec)?,
            None => sinusoidal(config.context_bytes, width),
        };
        let positions = &positions[..config.context_bytes * width];
        self.floats("position_embd.weight", &[config.context_bytes, width], positions);
        for (n, block) in specs.blocks.iter().enumerate() {
            self.block(n, block)?;
        }

        let head = match &specs.head_weight {
            Some(spec) => self.numbers(spec)?,
            None => table,
        };
        self.matrix("output", &[VOCAB, width], head)?;
        let mut norm_bias = match &specs.final_norm.bias {
            Some(bias) => self.numbers(bias)?,
            None => vec![0.0; width],
        };
        if let Some(bias) = &specs.head_bias {
            let bias = self.numbers(bias)?;
            let output = self.tensors.last().expect("the output layer was just added");
            let shift = output_bias::as_input(&output.kind.unpack(&output.bytes), &bias).ok_or_else(|| {
                Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the bias of the output layer cannot be expressed in GGUF's gpt2, which has none: that needs an \
                         output layer of 256 independent rows (d_model = {width}), or a model without biases"
                    ),
                )
            })?;
            norm_bias.iter_mut().zip(shift).for_each(|(bias, shift)| *bias += shift);
        }
        let gain = self.numbers(&specs.final_norm.weight)?;
        self.floats("output_norm.weight", &[width], &gain);
        self.floats("output_norm.bias", &[width], &norm_bias);
        Ok(self.tensors)
    }

    fn block(&mut self, n: usize, block: &BlockTensors<TensorSpec>) -> Result<()> {
        for (norm, name) in [(&block.norm1, "attn_norm"), (&block.norm2, "ffn_norm")] {
            let NormTensors { weight, bias } = norm;
            self.vector(&format!("blk.{n}.{name}.weight"), Some(weight), weight.len())?;
            self.vector(&format!("blk.{n}.{name}.bias"), bias.as_ref(), weight.len())?;
        }
        for (linear, name) in [
            (&block.in_proj, "attn_qkv"),
            (&block.out_proj, "attn_output"),
            (&block.linear1, "ffn_up"),
            (&block.linear2, "ffn_down"),
        ] {
            let weight = self.numbers(&linear.weight)?;
            self.matrix(&format!("blk.{n}.{name}"), &linear.weight.shape, weight)?;
            self.vector(&format!("blk.{n}.{name}.bias"), linear.bias.as_ref(), linear.weight.shape[0])?;
        }
        Ok(())
    }

    /// The numbers of a tensor of floats.
    fn numbers(&self, spec: &TensorSpec) -> Result<Vec<f32>> {
        match self.file.matrix(spec)? {
            StoredMatrix::Float(view) => Ok(view.to_f32()),
            StoredMatrix::Int8 { .. } | StoredMatrix::Int4 { .. } => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "tensor {:?} is quantized: export the model in floats that it was made from",
                    spec.name
                ),
            )),
        }
    }

    /// Adds `NAME.weight`, (outputs, inputs), in the kind of the file.
    fn matrix(&mut self, name: &str, shape: &[usize], numbers: Vec<f32>) -> Result<()> {
        let kind = self.kind;
        if !shape[1].is_multiple_of(kind.block_len()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{name} has rows of {} numbers: {} needs a multiple of {}",
                    shape[1],
                    kind.name(),
                    kind.block_len()
                ),
            ));
        }
        let bytes = kind.pack(&numbers);
        self.tensors.push(Tensor { name: format!("{name}.weight"), shape: shape.to_vec(), kind, bytes });
        Ok(())
    }

    fn floats(&mut self, name: &str, shape: &[usize], numbers: &[f32]) {
        let bytes = Kind::F32.pack(numbers);
        self.tensors.push(Tensor { name: name.into(), shape: shape.to_vec(), kind: Kind::F32, bytes });
    }

    /// Adds a vector, zeros where the model has none.
    fn vector(&mut self, name: &str, spec: Option<&TensorSpec>, len: usize) -> Result<()> {
        let numbers = match spec {
            Some(spec) => self.numbers(spec)?,
            None => vec![0.0; len],
        };
        self.floats(name, &[len], &numbers);
        Ok(())
    }
}

/// Each row of `table`, (256, E), through a Linear, (width, E): (256, width).
fn project(table: &[f32], weight: &[f32], bias: Option<&[f32]>, width: usize) -> Vec<f32> {
    let inputs = weight.len() / width;
    table
        .chunks_exact(inputs)
        .flat_map(|x| {
            weight.chunks_exact(inputs).enumerate().map(move |(r, w)| {
                let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                (sum + bias.map_or(0.0, |bias| f64::from(bias[r]))) as f32
            })
        })
        .collect()
}

fn write_text(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn write_file(
    out: &mut impl Write,
    metadata: &[(&str, Value<'_>)],
    tensors: &[Tensor],
) -> std::io::Result<()> {
    let mut head = Vec::new();
    head.write_all(MAGIC)?;
    head.write_all(&VERSION.to_le_bytes())?;
    head.write_all(&(tensors.len() as u64).to_le_bytes())?;
    head.write_all(&(metadata.len() as u64).to_le_bytes())?;
    for (key, value) in metadata {
        write_text(&mut head, key)?;
        // A number for the type, then the value.
        let mut typed = |kind: u32, bytes: &[u8]| {
            head.write_all(&kind.to_le_bytes())?;
            head.write_all(bytes)
        };
        match value {
            Value::U32(v) => typed(4, &v.to_le_bytes())?,
            Value::F32(v) => typed(6, &v.to_le_bytes())?,
            Value::Bool(v) => typed(7, &[u8::from(*v)])?,
            Value::Text(v) => {
                typed(8, &[])?;
                write_text(&mut head, v)?;
            }
            Value::Texts(v) => {
                typed(9, &8u32.to_le_bytes())?;
                head.write_all(&(v.len() as u64).to_le_bytes())?;
                v.iter().try_for_each(|text| write_text(&mut head, text))?;
            }
        }
    }
    let mut offset = 0;
    for tensor in tensors {
        write_text(&mut head, &tensor.name)?;
        head.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
        for len in tensor.shape.iter().rev() {
            head.write_all(&(*len as u64).to_le_bytes())?;
        }
        head.write_all(&tensor.kind.number().to_le_bytes())?;
        head.write_all(&(offset as u64).to_le_bytes())?;
        offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&head)?;
    for tensor in tensors {
        out.write_all(&tensor.bytes)?;
        let padding = tensor.bytes.len().next_multiple_of(ALIGNMENT) - tensor.bytes.len();
        out.write_all(&[0; ALIGNMENT][..padding])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_characters_of_byte_level_vocabularies() {
        let chars: std::collections::BTreeSet<char> = (0..=255).map(byte_char).collect();
        assert_eq!(chars.len(), 256);
        assert_eq!([b' ', b'\n', b'a', 0x7F, 0xAD, 0xE9].map(byte_char), ['Ġ', 'Ċ', 'a', 'ġ', 'Ń', 'é']);
    }
}
