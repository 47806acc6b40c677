//! Training of GrugV3 models on libtorch: from a folder of text to a checkpoint that the runtime loads.
//!
//! # The floor plan
//! Nothing points up.
//!
//! ```text
//!   cli ──► train ──► {batch, evaluate, generate, state} ──► {model, optimizer, amp, average, guard, parallel} ──► torch
//!             └─────► {config, dataset, schedule, telemetry}
//!   ground floor, shared with the runtime: the crate `grug` (configuration, manifest, checkpoint, sampler)
//! ```
//!
//! - [`config`] is a run as one TOML file; its `[model]` table is the runtime's own `ModelConfig`.
//! - [`dataset`] prepares text and says where the windows of any step start.
//! - [`model`] is the model in autograd tensors, a twin of the runtime's graph, file by file.
//! - [`optimizer`], [`amp`], [`schedule`], [`average`] and [`guard`] change the weights; all their state is visible, so
//!   that a run resumes exactly. [`state`] is that state as a file.
//! - [`torch`] is what libtorch can do and `tch` has no binding for: the one room with `unsafe` in it.
//! - [`telemetry`] is what a person sees of a run and what stays of it.
//! - [`parallel`] is the other processes of a run that has several: what they exchange, and what to do when one is lost.
//! - [`profile`] takes traces of steps.
//! - [`train`] is the loop, and the self-checks that take steps as it does.
#![deny(unsafe_code)]

pub mod amp;
pub mod average;
pub mod batch;
pub mod cli;
pub mod config;
pub mod dataset;
pub mod evaluate;
pub mod generate;
pub mod guard;
pub mod model;
pub mod optimizer;
pub mod parallel;
pub mod profile;
pub mod schedule;
pub mod state;
pub mod telemetry;
pub mod torch;
pub mod train;
