//! Published checkpoints: the `.pth` files of the PyTorch project, read without PyTorch and without executing them.
//!
//! A file is a zip archive ([`zip`], [`archive`]) with a pickle ([`pickle`]) that holds the configuration ([`published`]) and
//! names the tensors. [`read_pth`] turns it into a model of ours: it takes the generation from the configuration and
//! the weights, drops the buffers that a configuration determines, gives the feed-forward its canonical names, and
//! accepts the rest only if it is exactly what the manifest calls for. Optimizer and scheduler states are ignored.

pub mod archive;
pub mod pickle;
mod pickle_machine;
pub mod published;
pub mod zip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::checkpoint::{TensorToWrite, f32_bytes, save_model};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::manifest::{ModelTensors, TensorSpec};
use archive::Archive;
use pickle::{Id, Pickle, StorageType, TensorRef, Value};
pub use published::{Generation, PublishedConfig};

/// Generation 1's position table; that it is there tells generation 1 from 2a.
const LEARNED_POSITIONS: &str = "positional_encoder.pos_embedding.weight";
/// Buffers of generation 1: the numbers 0, 1, 2, ….
const LEARNED_BUFFERS: [&str; 1] = ["positional_encoder.position_ids"];
/// Buffers of the others: the sinusoidal tables.
const SINUSOIDAL_BUFFERS: [&str; 3] =
    ["positional_encoder.pe", "byte_positional_encoder.pe", "agg_positional_encoder.pe"];
/// How deep a configuration may be.
const MAX_CONFIG_DEPTH: usize = 8;
/// How many values and bytes of text it may have, counted as often as they are referred to.
const MAX_CONFIG_SIZE: usize = 1 << 18;

/// One tensor of a published checkpoint, under its name in our manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedTensor {
    /// Its name.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers, row-major.
    pub values: Vec<f32>,
}

/// A published checkpoint, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The whole published configuration.
    pub config: PublishedConfig,
    /// The model it describes.
    pub model: ModelConfig,
    /// The model's tensors, in the order of the manifest.
    pub tensors: Vec<ImportedTensor>,
    /// What the checkpoint says about its training, for the metadata of our file: keys start with `published.`.
    pub metadata: BTreeMap<String, String>,
}

impl Imported {
    /// Writes it as a model of ours. Atomic.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes: Vec<Vec<u8>> = self.tensors.iter().map(|tensor| f32_bytes(&tensor.values)).collect();
        let tensors: Vec<_> = self
            .tensors
            .iter()
            .zip(&bytes)
            .map(|(t, bytes)| TensorToWrite { name: &t.name, dtype: "F32", shape: &t.shape, bytes })
            .collect();
        save_model(path, &self.model, &self.metadata, &tensors)
    }
}

/// Reads a published `.pth` checkpoint. Errors name the file and what is wrong in it.
pub fn read_pth(path: &Path) -> Result<Imported> {
    let file = File::open(path).map_err(|e| Error::io("opening", path, e))?;
    read_from(BufReader::new(file)).map_err(|e| e.in_file(path))
}

/// Reads a published checkpoint from anything that can be read and sought, such as bytes in memory.
pub fn read_from(reader: impl Read + Seek) -> Result<Imported> {
    let mut archive = Archive::open(reader)?;
    let bytes = archive.pickle()?;
    let pickle = Pickle::parse(&bytes)?;
    let state = StateDict::find(&pickle)?;
    let mut map = config_map(&pickle)?;
    let early = !map.contains_key(published::LATER_KEY);
    let generation = match (state.tensors.contains_key(LEARNED_POSITIONS), early) {
        (true, _) => Generation::Learned,
        (false, true) => Generation::Sinusoidal,
        (false, false) => Generation::Later,
    };
    state.derive_missing_keys(&mut map);
    let config = PublishedConfig::from_map(&map, Some(generation))?;
    let model = config.to_model_config()?;
    let specs = ModelTensors::specs(&model).into_leaves();
    let found = state.select(&specs, &config)?;
    let tensors = read_tensors(&mut archive, &specs, &found)?;
    let metadata = training_metadata(&pickle, &config);
    Ok(Imported { config, model, tensors, metadata })
}

/// Text of a file as it may stand in a message: short and without control characters.
fn printable(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

/// A value of the configuration as JSON. A number that JSON lacks becomes text, and is refused where a number belongs.
fn to_json(pickle: &Pickle<'_>, id: Id, depth: usize, left: &mut usize) -> Result<Json> {
    let too_much = || Error::format("its config is nested too deep or too large");
    let mut charge = |size: usize| {
        *left = left.checked_sub(size).ok_or_else(too_much)?;
        Ok(())
    };
    charge(1)?;
    if depth == 0 {
        return Err(too_much());
    }
    Ok(match pickle.get(id) {
        Value::None => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Float(x) => {
            serde_json::Number::from_f64(*x).map_or_else(|| x.to_string().into(), Json::Number)
        }
        Value::Str(text) => {
            charge(text.len())?;
            Json::from(*text)
        }
        Value::List(items) | Value::Tuple(items) => {
            items.iter().map(|&item| to_json(pickle, item, depth - 1, left)).collect::<Result<_>>()?
        }
        Value::Dict(entries) => {
            let mut map = Map::new();
            for &(key, value) in entries {
                let Value::Str(key) = pickle.get(key) else {
                    return Err(Error::format(format!("its config has {} as a key", pickle.get(key).kind())));
                };
                *left = left.checked_sub(key.len()).ok_or_else(too_much)?;
                map.insert(key.to_string(), to_json(pickle, value, depth - 1, left)?);
            }
            Json::Object(map)
        }
        other @ (Value::BigInt
        | Value::Bytes(_)
        | Value::Global(_)
        | Value::Storage(_)
        | Value::Tensor(_)) => Json::from(format!("({})", other.kind())),
    })
}

/// The flat configuration dict inside a checkpoint.
fn config_map(pickle: &Pickle<'_>) -> Result<Map<String, Json>> {
    let id = pickle
        .entry(pickle.root(), "config")
        .ok_or_else(|| Error::format("has no \"config\": not a checkpoint of the published trainer"))?;
    match to_json(pickle, id, MAX_CONFIG_DEPTH, &mut { MAX_CONFIG_SIZE })? {
        Json::Object(map) => Ok(map),
        _ => Err(Error::format(format!("its config is {}, not a dict", pickle.get(id).kind()))),
    }
}

/// What the checkpoint tells about its training.
fn training_metadata(pickle: &Pickle<'_>, config: &PublishedConfig) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("published.generation".to_string(), config.generation.name().to_string()),
        ("published.config".to_string(), config.to_json()),
    ]);
    for (key, name) in [
        ("epoch", "published.epoch"),
        ("current_global_step", "published.step"),
        ("loss", "published.loss"),
        ("best_val_loss", "published.best_val_loss"),
    ] {
        match pickle.entry(pickle.root(), key).map(|id| pickle.get(id)) {
            Some(Value::Int(n)) => drop(metadata.insert(name.into(), n.to_string())),
            Some(Value::Float(x)) => drop(metadata.insert(name.into(), x.to_string())),
            _ => {}
        }
    }
    metadata
}

/// How a published feed-forward is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedForward {
    Plain,
    Curved,
}

/// A published tensor's name as our manifest has it, and what it shows about the feed-forward.
fn canonical_name(published: &str) -> (String, Option<FeedForward>) {
    let mut name = published;
    // Wrappers for several devices and for torch.compile put their own word in front.
    while let Some(inner) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_orig_mod.")) {
        name = inner;
    }
    for (part, canonical, kind) in [
        (".ffn.0.", ".linear1.", FeedForward::Plain),
        (".ffn.3.", ".linear2.", FeedForward::Plain),
        (".ffn.linear1.", ".linear1.", FeedForward::Curved),
        (".ffn.linear2.", ".linear2.", FeedForward::Curved),
        (".linear1.", ".linear1.", FeedForward::Plain),
        (".linear2.", ".linear2.", FeedForward::Plain),
    ] {
        if name.contains(part) {
            return (name.replacen(part, canonical, 1), Some(kind));
        }
    }
    (name.to_string(), None)
}

/// One tensor of the state dict.
struct StateTensor<'p> {
    tensor: &'p TensorRef<'p>,
    published_name: &'p str,
    feed_forward: Option<FeedForward>,
}

/// The state dict by canonical names.
struct StateDict<'p> {
    tensors: BTreeMap<String, StateTensor<'p>>,
}

impl<'p> StateDict<'p> {
    fn find(pickle: &'p Pickle<'p>) -> Result<StateDict<'p>> {
        let missing =
            || Error::format("has no \"model_state_dict\": not a checkpoint of the published trainer");
        let id = pickle.entry(pickle.root(), "model_state_dict").ok_or_else(missing)?;
        let Value::Dict(entries) = pickle.get(id) else {
            return Err(Error::format(format!(
                "its model_state_dict is {}, not a dict",
                pickle.get(id).kind()
            )));
        };
        let mut tensors = BTreeMap::new();
        for &(key, value) in entries {
            let (Value::Str(published_name), Value::Tensor(tensor)) = (pickle.get(key), pickle.get(value))
            else {
                return Err(Error::format(format!(
                    "its model_state_dict has an entry from {} to {}, not from a name to a tensor",
                    pickle.get(key).kind(),
                    pickle.get(value).kind()
                )));
            };
            let (name, feed_forward) = canonical_name(published_name);
            if tensors.insert(name, StateTensor { tensor, published_name, feed_forward }).is_some() {
                return Err(Error::format(format!(
                    "tensor \"{}\" is there twice",
                    printable(published_name)
                )));
            }
        }
        Ok(StateDict { tensors })
    }

    fn dim(&self, name: &str, axis: usize) -> Option<usize> {
        self.tensors.get(name)?.tensor.shape.get(axis).copied()
    }

    /// How many of `{prefix}0{suffix}`, `{prefix}1{suffix}`, … there are.
    fn count(&self, prefix: &str, suffix: &str) -> usize {
        (0..).take_while(|i| self.tensors.contains_key(&format!("{prefix}{i}{suffix}"))).count()
    }

    /// Fills in keys that the configuration lacks and the weights show, so that a default is not held against them.
    fn derive_missing_keys(&self, map: &mut Map<String, Json>) {
        let mut derive = |key: &str, value: Option<Json>| {
            if let (false, Some(value)) = (map.contains_key(key), value) {
                map.insert(key.into(), value);
            }
        };
        let number = |n: Option<usize>| n.map(Json::from);
        let layers = |stack: &str| {
            Some(self.count(&format!("{stack}."), ".norm1.weight")).filter(|&n| n > 0).map(Json::from)
        };
        let conv_layers = self.count("cnn_frontend.conv_layers.", ".weight");
        let conv_dims = |axis: usize| -> Option<Json> {
            (0..conv_layers)
                .map(|i| self.dim(&format!("cnn_frontend.conv_layers.{i}.weight"), axis))
                .collect::<Option<Vec<_>>>()
                .filter(|dims| !dims.is_empty())
                .map(Json::from)
        };
        derive("embedding_dim", number(self.dim("embedding.weight", 1)));
        derive("use_cnn_frontend", Some((conv_layers > 0).into()));
        derive("cnn_out_channels_list", conv_dims(0));
        derive("cnn_kernel_sizes", conv_dims(2));
        derive(
            "cnn_use_layernorm",
            (conv_layers > 0).then(|| self.tensors.contains_key("cnn_frontend.layer_norms.0.weight").into()),
        );
        derive("max_positional_encoding_len", number(self.dim(LEARNED_POSITIONS, 0)));
        derive("num_attention_layers", layers("transformer_encoder_layers"));
        derive("num_byte_stream_layers", layers("byte_stream_encoder"));
        derive("num_agg_stream_layers", layers("agg_stream_encoder"));
        derive("agg_cnn_out_dim", number(self.dim("aggregator_cnn.weight", 0)));
        derive("agg_cnn_kernel_size", number(self.dim("aggregator_cnn.weight", 2)));
        for stack in ["transformer_encoder_layers", "byte_stream_encoder"] {
            derive("attention_d_model", number(self.dim(&format!("{stack}.0.norm1.weight"), 0)));
            let ffn = self.dim(&format!("{stack}.0.linear1.weight"), 0);
            let width = self.dim(&format!("{stack}.0.linear1.weight"), 1);
            derive("ffn_dim_multiply", ffn.zip(width).and_then(|(f, d)| f.checked_div(d)).map(Json::from));
        }
    }

    /// The tensors that the manifest calls for, in its order. What is missing, of another shape, left over, or named
    /// for another feed-forward than the configuration's is an error that names it.
    fn select(&self, specs: &[TensorSpec], config: &PublishedConfig) -> Result<Vec<&'p TensorRef<'p>>> {
        let buffers: &[&str] = match config.generation {
            Generation::Learned => &LEARNED_BUFFERS,
            Generation::Sinusoidal | Generation::Later => &SINUSOIDAL_BUFFERS,
        };
        let known: std::collections::HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        for (name, entry) in &self.tensors {
            let published_name = printable(entry.published_name);
            if !known.contains(name.as_str()) && !buffers.contains(&name.as_str()) {
                return Err(Error::format(format!(
                    "has a tensor \"{published_name}\" that its config does not call for"
                )));
            }
            match entry.feed_forward {
                Some(FeedForward::Plain) if config.use_curved_ffn => {
                    return Err(Error::format(format!(
                        "tensor \"{published_name}\" is of a plain feed-forward, but use_curved_ffn is set"
                    )));
                }
                Some(FeedForward::Curved) if !config.use_curved_ffn => {
                    return Err(Error::format(format!(
                        "tensor \"{published_name}\" is of a curved feed-forward, but use_curved_ffn is not set"
                    )));
                }
                Some(FeedForward::Plain | FeedForward::Curved) | None => {}
            }
        }
        specs
            .iter()
            .map(|spec| {
                let name = &spec.name;
                let entry = self
                    .tensors
                    .get(name)
                    .ok_or_else(|| Error::format(format!("tensor {name:?} is missing")))?;
                if entry.tensor.shape != spec.shape {
                    return Err(Error::format(format!(
                        "tensor \"{}\" has shape {:?}, but its config calls for {:?}",
                        printable(entry.published_name),
                        entry.tensor.shape,
                        spec.shape
                    )));
                }
                Ok(entry.tensor)
            })
            .collect()
    }
}

/// Checks that a tensor lies inside its storage and uses no number twice as a whole, and returns how many it has.
fn check_view(name: &str, tensor: &TensorRef<'_>) -> Result<u64> {
    let fail = |text: &str| Err(Error::format(format!("tensor {name:?} {text}")));
    if let StorageType::Int(_) = tensor.storage.dtype {
        return fail("holds integers, not weights");
    }
    let mut count = Some(1u64);
    let mut last = Some(tensor.offset);
    for (&n, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        count = count.and_then(|c| c.checked_mul(n as u64));
        let reach = (n as u64).saturating_sub(1).checked_mul(stride);
        last = last.and_then(|l| l.checked_add(reach?));
    }
    match (count, last) {
        (Some(count), _) if count > tensor.storage.len => fail("repeats the numbers of its storage"),
        (Some(count), Some(last)) if last < tensor.storage.len => Ok(count),
        _ => fail("reaches beyond its storage"),
    }
}

/// The numbers of a view that [`check_view`] accepted, row-major.
fn gather(tensor: &TensorRef<'_>, bytes: &[u8]) -> Vec<f32> {
    let number: fn(&[u8], usize) -> f32 = match tensor.storage.dtype {
        StorageType::F64 => |b, i| f64::from_le_bytes(b.as_chunks().0[i]) as f32,
        StorageType::F32 => |b, i| f32::from_le_bytes(b.as_chunks().0[i]),
        StorageType::F16 => |b, i| half::f16::from_le_bytes(b.as_chunks().0[i]).to_f32(),
        StorageType::BF16 => |b, i| half::bf16::from_le_bytes(b.as_chunks().0[i]).to_f32(),
        StorageType::Int(_) => unreachable!("check_view refuses integers"),
    };
    let rank = tensor.shape.len();
    let mut index = vec![0; rank];
    let mut at = tensor.offset;
    let mut values = Vec::with_capacity(tensor.shape.iter().product());
    loop {
        values.push(number(bytes, at as usize));
        // Count up, the last dimension fastest.
        let Some(axis) = (0..rank).rev().find(|&axis| index[axis] + 1 < tensor.shape[axis]) else {
            return values;
        };
        index[axis] += 1;
        at += tensor.strides[axis];
        for (index, stride) in index.iter_mut().zip(&tensor.strides).skip(axis + 1) {
            at -= *index as u64 * stride;
            *index = 0;
        }
    }
}

/// Reads every storage once and takes its tensors from it. All views are checked before anything is read, and
/// together they may not have more numbers than the storages.
fn read_tensors<R: Read + Seek>(
    archive: &mut Archive<R>,
    specs: &[TensorSpec],
    found: &[&TensorRef<'_>],
) -> Result<Vec<ImportedTensor>> {
    let mut by_storage: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let (mut wanted, mut there) = (0u64, 0u64);
    for (i, (spec, tensor)) in specs.iter().zip(found).enumerate() {
        wanted = wanted.saturating_add(check_view(&spec.name, tensor)?);
        let users = by_storage.entry(tensor.storage.key).or_default();
        match users.first() {
            None => there = there.saturating_add(tensor.storage.len),
            Some(&first) if found[first].storage != tensor.storage => {
                return Err(Error::format(format!(
                    "tensors {:?} and {:?} disagree about their storage \"{}\"",
                    specs[first].name,
                    spec.name,
                    printable(tensor.storage.key)
                )));
            }
            Some(_) => {}
        }
        users.push(i);
        if wanted > there {
            return Err(Error::format(format!("tensor {:?} overlaps others in its storage", spec.name)));
        }
    }
    let mut tensors: Vec<ImportedTensor> = specs
        .iter()
        .map(|spec| ImportedTensor { name: spec.name.clone(), shape: spec.shape.clone(), values: Vec::new() })
        .collect();
    for users in by_storage.values() {
        let first = users[0];
        let bytes = archive
            .storage(&found[first].storage)
            .map_err(|e| e.at(format_args!("tensor {:?}", specs[first].name)))?;
        for &i in users {
            tensors[i].values = gather(found[i], &bytes);
        }
    }
    Ok(tensors)
}
