//! Makes `.pth` files for tests, good and bad ones: a writer of the pickles and archives that `torch.save` writes.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use grug::config::ModelConfig;
use grug::manifest::{ModelTensors, TensorSpec};
use serde_json::{Value as Json, json};

/// The names of the published checkpoints under `tests/fixtures/published`.
pub const FIXTURES: [&str; 7] = [
    "curved",
    "learned_cnn",
    "learned_plain",
    "parallel",
    "parallel_cnn",
    "single_projected",
    "sinusoidal_cnn_relu",
];

/// A file of a published fixture.
pub fn fixture(name: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/published").join(name).join(file)
}

/// The `.pth` file of a published fixture.
pub fn fixture_pth(name: &str) -> PathBuf {
    fixture(name, &format!("{name}_best.pth"))
}

/// A pickle under construction.
#[derive(Default, Clone)]
pub struct Pickler(pub Vec<u8>);

impl Pickler {
    /// A pickle of protocol 2.
    pub fn new() -> Pickler {
        Pickler(vec![0x80, 2])
    }

    pub fn op(&mut self, op: u8) -> &mut Self {
        self.0.push(op);
        self
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.op(b'X').raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub fn int(&mut self, n: i64) -> &mut Self {
        match u8::try_from(n) {
            Ok(n) => self.op(b'K').op(n),
            Err(_) => self.op(0x8a).op(8).raw(&n.to_le_bytes()),
        }
    }

    pub fn float(&mut self, x: f64) -> &mut Self {
        self.op(b'G').raw(&x.to_be_bytes())
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(b'c').raw(format!("{module}\n{name}\n").as_bytes())
    }

    /// A tuple of whole numbers.
    pub fn ints(&mut self, items: &[i64]) -> &mut Self {
        self.op(b'(');
        for &item in items {
            self.int(item);
        }
        self.op(b't')
    }

    pub fn json(&mut self, value: &Json) -> &mut Self {
        match value {
            Json::Null => self.op(b'N'),
            Json::Bool(b) => self.op(if *b { 0x88 } else { 0x89 }),
            Json::Number(n) => match n.as_i64() {
                Some(n) => self.int(n),
                None => self.float(n.as_f64().unwrap()),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => {
                self.op(b']').op(b'(');
                for item in items {
                    self.json(item);
                }
                self.op(b'e')
            }
            Json::Object(map) => {
                self.op(b'}').op(b'(');
                for (key, value) in map {
                    self.text(key).json(value);
                }
                self.op(b'u')
            }
        }
    }

    /// A tensor as `torch.save` writes it.
    pub fn tensor(&mut self, tensor: &Tensor) -> &mut Self {
        self.global("torch._utils", "_rebuild_tensor_v2").op(b'(').op(b'(').text("storage");
        self.global("torch", tensor.storage_type).text(&tensor.key).text("cpu").int(tensor.len);
        self.op(b't').op(b'Q').int(tensor.offset).ints(&tensor.shape).ints(&tensor.strides);
        self.op(0x89).global("collections", "OrderedDict").op(b')').op(b'R').op(b't').op(b'R')
    }
}

/// A tensor of a `.pth` file, and the bytes of its storage.
#[derive(Clone)]
pub struct Tensor {
    pub storage_type: &'static str,
    pub key: String,
    /// Numbers in the storage.
    pub len: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A contiguous f32 tensor.
    pub fn f32(key: &str, shape: &[usize], values: &[f32]) -> Tensor {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis] as i64;
        }
        Tensor {
            storage_type: "FloatStorage",
            key: key.into(),
            len: values.len() as i64,
            offset: 0,
            shape: shape.iter().map(|&n| n as i64).collect(),
            strides,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// A checkpoint under construction: valid until a test spoils it.
#[derive(Clone)]
pub struct Pth {
    pub config: Json,
    pub tensors: BTreeMap<String, Tensor>,
    /// Deflate the entries.
    pub deflate: bool,
    /// Entries of the archive besides the pickle and the storages.
    pub more: Vec<(String, Vec<u8>)>,
}

/// The values of tensor `index` of [`Pth::small`].
pub fn small_values(spec: &TensorSpec, index: usize) -> Vec<f32> {
    (0..spec.len()).map(|i| ((i * 7 + index * 13) % 101) as f32 / 64.0 - 0.75).collect()
}

impl Pth {
    /// A tiny parallel-stream model.
    pub fn small() -> Pth {
        let config = json!({
            "sequence_length": 16, "embedding_dim": 4, "use_parallel_stream_model": true, "use_cnn_frontend": false,
            "num_byte_stream_layers": 1, "num_agg_stream_layers": 1, "agg_cnn_kernel_size": 4, "agg_cnn_stride": 4,
            "agg_cnn_out_dim": 8, "attention_d_model": 4, "attention_num_heads": 2, "ffn_dim_multiply": 2,
            "vocab_size": 256, "learning_rate": 5e-5,
        });
        let model = grug::import::PublishedConfig::from_json(&config.to_string()).unwrap();
        let specs = Pth::specs(&model.to_model_config().unwrap());
        let tensors = specs
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                (spec.name.clone(), Tensor::f32(&i.to_string(), &spec.shape, &small_values(spec, i)))
            })
            .collect();
        Pth { config, tensors, deflate: false, more: Vec::new() }
    }

    /// What tensors a model has.
    pub fn specs(model: &ModelConfig) -> Vec<TensorSpec> {
        ModelTensors::specs(model).into_leaves()
    }

    /// The pickle of the checkpoint.
    pub fn pickle(&self) -> Pickler {
        let mut pickle = Pickler::new();
        pickle.op(b'}').op(b'(').text("epoch").int(3).text("model_state_dict");
        pickle.global("collections", "OrderedDict").op(b')').op(b'R').op(b'(');
        for (name, tensor) in &self.tensors {
            pickle.text(name).tensor(tensor);
        }
        // `_metadata`, an attribute of the state dict.
        pickle.op(b'u').op(b'}').text("_metadata").op(b'}').op(b's').op(b'b');
        pickle.text("loss").float(2.5).text("config").json(&self.config);
        pickle.text("current_global_step").int(1200).op(b'u').op(b'.');
        pickle
    }

    /// The whole file.
    pub fn file(&self) -> Vec<u8> {
        self.file_with(&self.pickle().0)
    }

    /// The whole file with another pickle.
    pub fn file_with(&self, pickle: &[u8]) -> Vec<u8> {
        let mut zip = ZipWriter::default();
        let mut put = |name: &str, bytes: &[u8]| zip.entry(&format!("small/{name}"), bytes, self.deflate);
        put("data.pkl", pickle);
        put("byteorder", b"little");
        let storages: BTreeMap<&str, &[u8]> =
            self.tensors.values().map(|t| (t.key.as_str(), t.bytes.as_slice())).collect();
        for (key, bytes) in storages {
            put(&format!("data/{key}"), bytes);
        }
        for (name, bytes) in &self.more {
            put(name, bytes);
        }
        zip.finish()
    }
}

/// Writes zip archives, the 32-bit kind.
#[derive(Default)]
pub struct ZipWriter {
    pub data: Vec<u8>,
    pub directory: Vec<u8>,
    pub entries: u16,
}

impl ZipWriter {
    /// Adds an entry.
    pub fn entry(&mut self, name: &str, bytes: &[u8], deflate: bool) {
        let packed = if deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        } else {
            bytes.to_vec()
        };
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        self.entry_raw(name, if deflate { 8 } else { 0 }, crc.sum(), &packed, bytes.len() as u32);
    }

    /// Adds an entry that may lie about itself.
    pub fn entry_raw(&mut self, name: &str, method: u16, crc: u32, packed: &[u8], size: u32) {
        let offset = self.data.len() as u32;
        let mut common = Vec::new();
        common.extend([20, 0, 0, 0]);
        common.extend(method.to_le_bytes());
        common.extend([0; 4]);
        for n in [crc, packed.len() as u32, size] {
            common.extend(n.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        self.data.extend(b"PK\x03\x04");
        self.data.extend(&common);
        self.data.extend(name.as_bytes());
        self.data.extend(packed);
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&common);
        self.directory.extend([0; 10]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
    }

    /// The whole archive.
    pub fn finish(self) -> Vec<u8> {
        let ZipWriter { mut data, directory, entries } = self;
        let start = data.len() as u32;
        data.extend(&directory);
        data.extend(b"PK\x05\x06\0\0\0\0");
        data.extend(entries.to_le_bytes());
        data.extend(entries.to_le_bytes());
        data.extend((directory.len() as u32).to_le_bytes());
        data.extend(start.to_le_bytes());
        data.extend([0, 0]);
        data
    }
}
