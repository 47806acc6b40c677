//! What the GPU engines share: everything but the driver and the kernels.
//!
//! A model is compiled once for a session into a [`plan`]: a flat list of steps on numbered buffers, each a kernel
//! with a few dozen integers as its arguments. An [`Executor`] puts such steps on a device and reads results back; it
//! knows nothing about models. [`engine`] is the [`Engine`](super::Engine) of both: which bytes are on the device,
//! what is to run, how far to run ahead.
//!
//! All state stays on the device and every piece of it is indexed by position (keys, values, inputs of the
//! convolutions, the bytes themselves), so that truncating a context is forgetting a number, and a byte can be run
//! again at its place without harm.

pub(crate) mod args;
mod engine;
mod layout;
mod plan;
mod together;
mod weights;

pub(crate) use engine::{GpuEngine, check_bytes, self_check};
pub(crate) use plan::{Kernel, MAX_AHEAD, Op, Plan, state};
#[cfg(feature = "cuda")]
pub(crate) use together::MAX_TOGETHER;
pub(crate) use together::{Others, Row};
pub(crate) use weights::Parts;

use std::any::Any;
use std::ops::Range;

use crate::error::Result;

/// Runs the steps of a plan on a device, in order, on the buffers of one session.
pub(crate) trait Executor: Send + Any {
    /// Sets the words of the state from `at`.
    fn write_state(&mut self, at: usize, words: &[u32]) -> Result<()>;

    /// Runs these ranges of the plan's steps, one after the other. `dims` are the numbers of rows that the steps refer
    /// to. Does not wait.
    fn run(&mut self, plan: &Plan, program: &[Range<usize>], dims: &[u32]) -> Result<()>;

    /// From how many rows on products in tiles pay.
    fn rows_that_fill_tiles(&self) -> usize;

    /// Runs ranges of the plan's [`few`](Plan::few) or [`many`](Plan::many) steps in this session's memory, each row for
    /// the session that it names: this one, or one of the others, whose plans are the same. Where `chosen` has room for
    /// them, waits, and writes what was chosen for each row: a byte, or something larger where none was.
    fn run_together(
        &mut self,
        plan: &Plan,
        program: &[Range<usize>],
        rows: &[Row],
        others: &mut dyn Others,
        chosen: &mut [u32],
    ) -> Result<()>;

    /// Waits, and reads words of the state, from each of these places on.
    fn read_state(&mut self, reads: &mut [(usize, &mut [u32])]) -> Result<()>;

    /// Waits, and reads numbers of the activations, from each of these places on.
    fn read_activations(&mut self, reads: &mut [(usize, &mut [f32])]) -> Result<()>;

    /// Waits until all is done that was started.
    fn wait(&mut self) -> Result<()>;

    /// A copy of this session's buffers.
    fn fork(&self, plan: &Plan) -> Result<Box<dyn Executor>>;
}
