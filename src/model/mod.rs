//! The model: a checkpoint, read into the graph that computes it.
//!
//! One file a part, in the order in which a byte passes through them: `embedding`, `conv_frontend`, `streams` (made of
//! `block`s, each of `attention` and `feed_forward`), `head`. The trainer has a twin of each under the same name.
//! A [`Model`] is immutable and shared: sessions keep their own state (see [`crate::session`]).

mod attention;
mod block;
mod conv_frontend;
mod embedding;
mod feed_forward;
mod first_layer;
mod head;
mod layers;
mod memory;
mod positions;
mod streams;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::Xxh3Default;

pub(crate) use block::BlockScratch;
pub(crate) use conv_frontend::{ConvFrontend, ConvHistory};
pub(crate) use embedding::Embedding;
use first_layer::FirstLayer;
pub(crate) use head::Head;
pub(crate) use memory::{ByteRows, Chunk, MAX_TOGETHER, Members, Memory};
pub(crate) use streams::{CoarseScratch, Streams};

use crate::backend::cpu::CpuEngine;
use crate::backend::{DeviceModel, Engine};
use crate::cancel::Cancel;
use crate::checkpoint::{Checkpoint, StoredMatrix};
use crate::config::{Dropout, ModelConfig, Positions, VOCAB};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{Log, LogLevel, Progress, say};
use crate::manifest::ModelTensors;
use crate::pool::Pool;
use crate::session::max_saved_bytes;
use crate::simd::Isa;

/// The metadata entry that names the byte between documents, 0 to 255, where the model learned one.
pub const END_BYTE_KEY: &str = "grug.end_byte";

/// How much of the progress of loading is for the file, and how much of the rest for locking it in memory.
const FILE_PART: f32 = 0.5;
const LOCK_PART: f32 = 0.5;

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Threads that compute, the caller's included. 0 = one for each core; 1 = the calling thread alone.
    pub n_threads: usize,
    /// Map the file (the default) instead of reading it into memory.
    pub mmap: bool,
    /// Compute logits whose bits are the same on every machine, instruction set and thread count, however bytes are
    /// fed: on the CPU, with scalar kernels in a fixed order. Slower. Compression needs it.
    pub portable: bool,
    /// Keep the file's bytes in memory: the system may not page them out. Refused where the system's limit is lower.
    pub mlock: bool,
    /// Stops loading when triggered.
    pub cancel: Option<Cancel>,
    /// What sessions run on, by name: `cpu` (the default), `wgpu:0`, `cuda:0`, or `auto` for the best there is
    /// ([`crate::device`]).
    pub device: String,
    /// On another device than the CPU: compare a few bytes' logits with the CPU's, and fail where they differ.
    pub self_check: bool,
    /// Hears how far loading is.
    pub progress: Option<Progress>,
    /// Receives the log of the model and of its sessions. The library prints nothing.
    pub log: Option<Log>,
}

impl Default for ModelOptions {
    fn default() -> ModelOptions {
        ModelOptions {
            n_threads: 0,
            mmap: true,
            portable: false,
            mlock: false,
            cancel: None,
            device: "cpu".into(),
            self_check: true,
            progress: None,
            log: None,
        }
    }
}

impl ModelOptions {
    /// Loading has come this far. An error where it was canceled.
    fn step(&self, fraction: f32) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), Cancel::check)?;
        if self.progress.as_ref().is_some_and(|progress| !progress.report(fraction)) {
            return Err(Error::new(ErrorKind::Canceled, "loading was canceled by the progress function"));
        }
        Ok(())
    }
}

/// The parts of a model, ready to compute on the CPU.
#[derive(Debug)]
pub(crate) struct Graph {
    pub pool: Arc<Pool>,
    /// Columns of the widest quantized matrix; 0 where there is none.
    pub quantized_cols: usize,
    /// Whether results have the same bits on every machine.
    pub portable: bool,
    pub embedding: Embedding,
    pub conv_frontend: Option<ConvFrontend>,
    pub streams: Streams,
    pub head: Head,
    /// Made with the first engine of a model that it serves.
    first_layer: OnceLock<Option<FirstLayer>>,
}

impl Graph {
    pub(crate) fn first_layer(&self, config: &ModelConfig) -> Option<&FirstLayer> {
        self.first_layer.get_or_init(|| FirstLayer::new(self, config)).as_ref()
    }
}

#[derive(Debug)]
struct Inner {
    device: DeviceModel,
    file: Arc<Checkpoint>,
    graph: Arc<Graph>,
    n_params: u64,
    end_byte: Option<u8>,
    fingerprint: OnceLock<u64>,
    log: Option<Log>,
}

/// Immutable weights and the threads that compute with them. Clones share both.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

impl Model {
    /// Loads a model file.
    pub fn load(path: &Path, options: &ModelOptions) -> Result<Model> {
        options.step(0.0)?;
        let file = if options.mmap {
            Checkpoint::open(path)?
        } else {
            Checkpoint::read(path, |part| options.step(part * FILE_PART))?
        };
        Model::build(file, options).map_err(|e| e.in_file(path))
    }

    /// Makes a model of an open checkpoint.
    pub fn from_checkpoint(file: Checkpoint, options: &ModelOptions) -> Result<Model> {
        options.step(0.0)?;
        Model::build(file, options)
    }

    /// The second part of loading.
    fn build(mut file: Checkpoint, options: &ModelOptions) -> Result<Model> {
        options.step(FILE_PART)?;
        let after = |part: f32| options.step(FILE_PART + part * (1.0 - FILE_PART));
        if options.mlock {
            file.lock(|part| after(part * LOCK_PART))?;
        }
        let log = options.log.as_ref();
        let file = Arc::new(file);
        let config = file.config();
        let specs = ModelTensors::specs(config);
        say(log, LogLevel::Info, || {
            let (parameters, bytes) = (ModelTensors::count_parameters(config), file.weight_bytes());
            format!("model: {parameters} parameters in {bytes} bytes, {}", file.place())
        });
        if !file.is_aligned() {
            let line =
                || "model: its weights are not aligned to 4 bytes where they lie, so they are copied".into();
            say(log, LogLevel::Warn, line);
        }
        let end_byte = match file.metadata().get(END_BYTE_KEY) {
            Some(text) => Some(text.parse().map_err(|_| {
                Error::format(format!("metadata {END_BYTE_KEY:?} is {text:?}, not a byte 0 to 255"))
            })?),
            None => None,
        };
        let pool = Arc::new(Pool::new(options.n_threads)?);
        let embedding = Embedding::load(&file, &specs)?;
        let conv_frontend = ConvFrontend::load(&file, config, &specs.conv_frontend)?;
        after(0.6)?;
        let streams = Streams::load(&file, config, &specs)?;
        after(0.9)?;
        let graph = Graph {
            pool,
            quantized_cols: file.quantized_cols(),
            portable: options.portable,
            embedding,
            conv_frontend,
            streams,
            head: Head::load(&file, config, &specs)?,
            first_layer: OnceLock::new(),
        };
        let n_params = ModelTensors::count_parameters(config) as u64;
        let graph = Arc::new(graph);
        let device = match options.device.as_str() {
            "auto" if options.portable => "cpu",
            name => name,
        };
        let device = DeviceModel::load(&file, device)?;
        if options.portable && !matches!(device, DeviceModel::Cpu) {
            return Err(Error::new(ErrorKind::Unsupported, "portable logits are computed on the CPU alone"));
        }
        if options.self_check {
            device.check(&graph, config)?;
        }
        say(log, LogLevel::Info, || {
            let isa = if options.portable { Isa::Scalar } else { Isa::current() };
            let threads = graph.pool.n_threads();
            let portable = if options.portable { ", portable" } else { "" };
            format!("computing on {}: {threads} threads, {}{portable}", device.device(), isa.name())
        });
        options.step(1.0)?;
        Ok(Model {
            inner: Arc::new(Inner {
                device,
                graph,
                n_params,
                end_byte,
                file,
                fingerprint: OnceLock::new(),
                log: options.log.clone(),
            }),
        })
    }

    /// The name of the device that sessions run on, such as `cpu` or `wgpu:0`.
    pub fn device(&self) -> String {
        self.inner.device.device().to_string()
    }

    /// What the model computes.
    pub fn config(&self) -> &ModelConfig {
        self.inner.file.config()
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.inner.file.metadata()
    }

    /// How many numbers the model has.
    pub fn n_params(&self) -> u64 {
        self.inner.n_params
    }

    /// Bytes of the weights as stored.
    pub fn weight_bytes(&self) -> u64 {
        self.inner.file.weight_bytes() as u64
    }

    /// The byte that ends a document, where the model learned one.
    pub fn end_byte(&self) -> Option<u8> {
        self.inner.end_byte
    }

    /// What tells this model from others: a hash of what it computes, the configuration and every weight. Dropout
    /// and other metadata do not matter. Computed when it is first asked for, which reads the whole file.
    pub fn fingerprint(&self) -> u64 {
        *self.inner.fingerprint.get_or_init(|| {
            let mut config = self.config().clone();
            config.dropout = Dropout::default();
            let mut hash = Xxh3Default::new();
            hash.update(config.to_toml().as_bytes());
            for spec in ModelTensors::specs(&config).into_leaves() {
                match self.inner.file.matrix(&spec).expect("the file was validated when it was opened") {
                    StoredMatrix::Float(tensor) => {
                        let head = format!("\0{} {:?} {:?}\0", spec.name, tensor.dtype, tensor.shape);
                        hash.update(head.as_bytes());
                        hash.update(tensor.bytes);
                    }
                    StoredMatrix::Int8 { packed, scales } | StoredMatrix::Int4 { packed, scales } => {
                        let head = format!("\0{} {} {:?}\0", spec.name, packed.len(), spec.shape);
                        hash.update(head.as_bytes());
                        hash.update(packed);
                        hash.update(scales);
                    }
                }
            }
            hash.digest()
        })
    }

    /// How far [`Session::rewind`](crate::Session::rewind) always works, in a session of the whole context.
    pub fn rewind_bytes(&self) -> u64 {
        self.config().window_bytes() as u64
    }

    /// The most bytes that [`Session::save`](crate::Session::save) gives.
    pub fn saved_session_bytes(&self) -> u64 {
        max_saved_bytes(self.config().window_bytes()) as u64
    }

    /// Whether its logits have the same bits everywhere; see [`ModelOptions::portable`].
    pub fn is_portable(&self) -> bool {
        self.inner.graph.portable
    }

    /// Whether both are handles of one model.
    pub fn is_same(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Who listens to the model and its sessions.
    pub(crate) fn log(&self) -> Option<&Log> {
        self.inner.log.as_ref()
    }

    /// Threads that compute.
    pub fn n_threads(&self) -> usize {
        self.inner.graph.pool.n_threads()
    }

    /// A new state for a context of `context` bytes on this model's device.
    pub(crate) fn new_engine(&self, context: usize) -> Result<Box<dyn Engine>> {
        let engine = self.inner.device.new_engine(&self.inner.graph, self.config(), context)?;
        say(self.inner.log.as_ref(), LogLevel::Debug, || {
            format!("session: a context of {context} bytes, {} bytes of state", engine.state_bytes())
        });
        Ok(engine)
    }

    /// One pass over exactly this input, without window, padding or start byte: the logits of the byte that follows.
    /// This is the model as a function, for comparing implementations; sessions generate.
    pub fn raw_logits(&self, input: &[u8]) -> Result<[f32; VOCAB]> {
        let config = self.config();
        config.check_input_len(input.len())?;
        if input.len() > config.context_bytes && (config.is_causal() || config.positions == Positions::Rotary)
        {
            return Err(Error::invalid(format!(
                "an input of {} bytes is longer than the context of {}",
                input.len(),
                config.context_bytes
            )));
        }
        let mut engine = CpuEngine::new(&self.inner.graph, config, input.len())?.without_padding();
        engine.feed(input, input.len(), None)?;
        engine.logits(input, None).copied()
    }
}
