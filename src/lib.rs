//! libgrug: an embedded runtime for byte-level language models. One library, one model file.
//!
//! ```no_run
//! use grug::{Model, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions};
//!
//! # fn main() -> grug::Result<()> {
//! let model = Model::load("model.safetensors".as_ref(), &ModelOptions::default())?;
//! let mut session = Session::new(&model, &SessionOptions::default())?;
//! let mut sampler = Sampler::new(&SamplerOptions { temperature: 0.8, seed: 1, ..Default::default() })?;
//! session.feed(b"ROMEO:\n")?;
//! let (mut text, mut n) = ([0u8; 200], 0);
//! session.generate(&mut sampler, &[], &mut text, &mut n)?;
//! println!("{}", String::from_utf8_lossy(&text[..n]));
//! # Ok(()) }
//! ```
//!
//! # The floor plan
//! Nothing points up.
//!
//! ```text
//!   ffi (C) ──► session ──► model (the graph) ──► backend (an engine for each device) ──► kernels, pool
//!                  └──────► sampler ──► grammar, rng
//!   ground floor, used by all and by the trainer:
//!   error, cancel, hooks ◄ config ◄ manifest, positions, init ◄ checkpoint, import
//! ```
//!
//! - [`config`] is the one schema of a model, [`manifest`] the one list of its tensors; the trainer asks there too.
//! - [`checkpoint`] reads, validates and atomically writes the one file that a model is.
//! - [`model`] is the graph, a file for each part, with a twin of the same name in the trainer.
//! - [`compress`](mod@compress) codes bytes losslessly by what a session predicts.
//! - [`session`] owns a stream of bytes: context, sliding, generating, scoring. It computes nothing itself.
//! - [`device`] names the devices that a model can run on.
//! - [`hooks`] are what a host may listen to: the log, and the progress of loading.
//! - [`sampler`] chooses a byte from logits, from a counter-based generator ([`rng`]).
//! - [`grammar`] says which bytes may come: a regular expression, GBNF or a JSON Schema as an automaton over bytes.
//!
//! Unsafe code is confined to the rooms that say so (`ffi`, `pool`, `kernels`, the one mapping in [`checkpoint`]).
#![deny(unsafe_code)]

pub(crate) mod backend;
pub mod cancel;
pub mod checkpoint;
pub mod compress;
pub mod config;
pub mod device;
pub mod error;
pub mod ffi;
pub mod gguf;
pub mod grammar;
pub mod hooks;
#[cfg(feature = "import")]
pub mod import;
pub mod init;
pub(crate) mod kernels;
pub mod manifest;
pub mod model;
pub(crate) mod pages;
pub(crate) mod pool;
pub mod positions;
pub mod quantize;
pub mod rng;
pub mod sampler;
pub mod session;
pub(crate) mod simd;

pub use cancel::Cancel;
pub use compress::{compress, compress_bound, decompress, decompressed_len};
pub use config::ModelConfig;
pub use error::{Error, ErrorKind, Result};
pub use grammar::{Grammar, GrammarKind};
pub use hooks::{Log, LogLevel, Progress};
pub use model::{Model, ModelOptions};
pub use sampler::{Sampler, SamplerOptions};
pub use session::{Drafts, Overflow, Session, SessionOptions, Step, StopReason, next_batch};
