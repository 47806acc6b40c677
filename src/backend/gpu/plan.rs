//! The model's graph as a flat list of steps, in the order of `model/`: embedding, conv_frontend, streams of blocks
//! (attention, feed_forward), head; and then the sampler.
//!
//! Two forms of each pass exist. Many rows at once (prefill, windows) go through matrix products, with normalizations
//! as steps of their own. A single row (decode) goes through matrix-vector products that take the normalization, the
//! gate of SwiGLU and the residual along, because there a step costs more than its arithmetic.

mod build;
mod steps;

use std::ops::Range;

use self::build::Builder;
use super::args::Args;
use super::weights::Parts;
use crate::config::ModelConfig;
use crate::error::Result;

/// Bytes that are generated ahead at most.
pub(crate) const MAX_AHEAD: usize = 32;

/// The words of the state: a header, the dimensions of the pass, and the bytes, one a word.
pub(crate) mod state {
    /// Position of the pass's first row.
    pub(crate) const FIRST: usize = 0;
    /// Which of the bytes is the first row's.
    pub(crate) const BASE: usize = 1;
    /// The index of the next draw, low and high.
    pub(crate) const DRAWS: usize = 2;
    /// Two words each: draws and seed; one each: temperature, top_k, top_p, min_p.
    pub(crate) const TEMPERATURE: usize = 6;
    /// Not 0: a logit was no number; nothing was chosen since.
    pub(crate) const FAILED: usize = 10;
    /// Bytes chosen since it was set to 0.
    pub(crate) const CHOSEN: usize = 11;
    /// Where the dimensions start. The first is always 0, the second always 1.
    pub(crate) const DIMS: usize = 16;
}

/// What computes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Rows of the byte table.
    Embed,
    /// The rows beyond both ends of a convolution's input.
    Pad,
    /// A matrix times one row.
    Linear,
    /// A matrix times many rows.
    Matmul,
    /// Normalization of rows.
    Norm,
    /// Normalizes and turns queries and keys, and stores keys and values.
    StoreKv,
    /// Attention of rows over the cache.
    Attention,
    /// SwiGLU or the curved GELU on rows.
    Activate,
    /// Copies rows.
    CopyRows,
    /// Puts the states of both streams of a causal model side by side.
    Join,
    /// Chooses a byte and appends it.
    Sample,
}

impl Kernel {
    #[cfg(any(feature = "cuda", test))]
    pub(crate) const ALL: [Kernel; 11] = [
        Kernel::Embed,
        Kernel::Pad,
        Kernel::Linear,
        Kernel::Matmul,
        Kernel::Norm,
        Kernel::StoreKv,
        Kernel::Attention,
        Kernel::Activate,
        Kernel::CopyRows,
        Kernel::Join,
        Kernel::Sample,
    ];

    /// Its name in the kernels' sources.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kernel::Embed => "embed",
            Kernel::Pad => "pad_sides",
            Kernel::Linear => "linear",
            Kernel::Matmul => "matmul",
            Kernel::Norm => "norm",
            Kernel::StoreKv => "store_kv",
            Kernel::Attention => "attention",
            Kernel::Activate => "activate",
            Kernel::CopyRows => "copy_rows",
            Kernel::Join => "join",
            Kernel::Sample => "sample",
        }
    }
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub kernel: Kernel,
    pub args: Args,
    /// A matrix by its index in [`Parts`].
    pub weights: Option<usize>,
    /// Which of the caches.
    pub cache: Option<usize>,
    /// Where each row is another session's: the step that does the same for the one row of a session.
    pub alone: Option<usize>,
}

/// The steps of a pass with a row for each of several sessions, by what they are for a single row. Those that have to
/// do with what a session remembers have a twin for that session [`alone`](Op::alone); the others see rows.
#[derive(Debug)]
pub(crate) struct Together {
    pub step: Range<usize>,
    /// Of those sessions whose bytes complete a row of the aggregated stream.
    pub coarse: Range<usize>,
    pub join: Range<usize>,
    pub head: Range<usize>,
    pub embedding: Range<usize>,
    pub sample: Range<usize>,
}

/// Which dimension holds a number of rows; the one after it holds that number less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dim(u32);

/// The dimension that is always 1; the one that is 0 stands before it.
const ONE: Dim = Dim(1);
/// The number of bytes that come in.
const BYTES: Dim = Dim(2);
/// The rows of a causal model's aggregated stream.
const COARSE: Dim = Dim(4);

/// Everything that a session runs, for one context length.
#[derive(Debug)]
pub(crate) struct Plan {
    pub ops: Vec<Op>,
    /// All rows of a pass, up to the state of the last one. A bidirectional model's only pass.
    pub feed: Range<usize>,
    /// One row of a causal model's byte stream.
    pub step: Range<usize>,
    /// The row of its aggregated stream that ends with the step's byte.
    pub coarse: Range<usize>,
    /// What is left between both and the state.
    pub join: Range<usize>,
    /// All rows of a causal model, up to the logits of each.
    pub score: Range<usize>,
    /// The logits of the state.
    pub head: Range<usize>,
    /// The state, normalized.
    pub embedding: Range<usize>,
    /// Chooses a byte after a pass of many rows, or of one.
    pub sample: Range<usize>,
    /// A causal model's passes with a row for each of several sessions: the products of few rows are those of a single
    /// row, many times,
    pub few: Together,
    /// and those of many rows are made in tiles.
    pub many: Together,
    /// Numbers of activations.
    pub activations: usize,
    /// Numbers in each cache of keys and values.
    pub caches: Vec<usize>,
    /// Where the logits stand, (score_rows, 256).
    pub logits: usize,
    /// Where the normalized states stand, (score_rows, states_width).
    pub normed: usize,
    pub states_width: usize,
    /// Rows of states and logits that there is room for.
    pub score_rows: usize,
    /// Where the bytes start in the state, and how many there is room for.
    pub bytes: usize,
    pub bytes_len: usize,
    /// Rows of one pass at most.
    pub rows: usize,
    /// The longest attention head.
    pub head_dim: usize,
}

impl Plan {
    /// The plan of a context of `context` bytes; what is passed of a bidirectional model is its whole window.
    pub(crate) fn new(parts: &Parts, context: usize) -> Result<Plan> {
        Builder::new(parts, context)?.build()
    }

    /// Words of the state.
    pub(crate) fn state_words(&self) -> usize {
        self.bytes + self.bytes_len
    }
}

/// The dimensions of a pass over `len` bytes at positions `first..`: 0, 1, then each number of rows and that number
/// less one.
pub(super) fn dims(config: &ModelConfig, first: usize, len: usize) -> Result<Vec<u32>> {
    let mut dims = vec![0, 1];
    let mut push = |len: usize| dims.extend([len as u32, len.saturating_sub(1) as u32]);
    push(len);
    let mut positions = len;
    if config.is_causal() {
        if let Some(agg) = &config.aggregated_stream {
            push((first + len) / agg.stride - first / agg.stride);
        }
        return Ok(dims);
    }
    if let Some(conv) = &config.conv_frontend {
        config.frontend_len(len)?;
        for (i, kernel) in conv.kernels.iter().enumerate() {
            positions = (positions + 2 * conv.side_padding(i) - kernel) / conv.stride + 1;
            push(positions);
        }
    }
    if config.aggregated_stream.is_some() {
        push(config.aggregated_len(positions)?);
    }
    Ok(dims)
}
