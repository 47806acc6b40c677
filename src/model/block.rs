//! One transformer block: attention and feed-forward, each with its residual and its norm before or after.
//! Twin of trainer/src/model/block.rs.

use std::sync::Arc;

use super::attention::{Attention, Pass};
use super::feed_forward::FeedForward;
use super::layers::NormLayer;
use super::memory::Places;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kernels::{Compute, add_assign, attention_scratch_len};
use crate::manifest::{BlockTensors, TensorSpec};

#[derive(Debug)]
pub(crate) struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    norm1: NormLayer,
    norm2: NormLayer,
    norm_first: bool,
}

/// Memory for the rows that go through the blocks of a stack together.
#[derive(Debug, Clone)]
pub(crate) struct BlockScratch {
    branch: Vec<f32>, // (rows, D): what a residual branch computes
    mixed: Vec<f32>,  // (rows, D): attention's output before its projection
    wide: Vec<f32>,   // (rows, max(qkv_width, hidden_width))
    scores: Vec<f32>, // scratch of the attention
}

impl BlockScratch {
    /// Numbers in a row of `wide`.
    fn widest(blocks: &[Block]) -> usize {
        let wide = blocks.iter().map(|b| b.attention.qkv_width().max(b.feed_forward.hidden_width()));
        wide.max().unwrap_or(0)
    }

    /// Numbers in the scratch that [`new`](Self::new) makes.
    pub(crate) fn len(
        blocks: &[Block],
        width: usize,
        n_threads: usize,
        rows: usize,
        positions: usize,
    ) -> usize {
        rows.saturating_mul(2 * width + BlockScratch::widest(blocks))
            .saturating_add(attention_scratch_len(n_threads, positions))
    }

    /// For `rows` rows that see `positions` positions.
    pub(crate) fn new(
        blocks: &[Block],
        width: usize,
        n_threads: usize,
        rows: usize,
        positions: usize,
    ) -> Self {
        BlockScratch {
            branch: vec![0.0; rows * width],
            mixed: vec![0.0; rows * width],
            wide: vec![0.0; rows * BlockScratch::widest(blocks)],
            scores: vec![0.0; attention_scratch_len(n_threads, positions)],
        }
    }
}

impl BlockScratch {
    /// Where a block's queries, keys and values lie, (rows, qkv_width).
    pub(crate) fn qkv(&mut self) -> &mut [f32] {
        &mut self.wide
    }
}

impl Block {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        window: usize,
        specs: &BlockTensors<TensorSpec>,
    ) -> Result<Block> {
        Ok(Block {
            attention: Attention::load(file, config, window, specs)?,
            feed_forward: FeedForward::load(file, config, specs)?,
            norm1: NormLayer::load(file, config.norm, &specs.norm1)?,
            norm2: NormLayer::load(file, config.norm, &specs.norm2)?,
            norm_first: config.norm_first,
        })
    }

    pub(crate) fn attention(&self) -> &Attention {
        &self.attention
    }

    /// Runs the rows of x, (n, D), which stand at `places`, in place, and returns how many rows come out: n, or where the
    /// pass is for the last position alone 1, which then is the first row of `x`.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        places: &dyn Places,
        pass: Pass<'_>,
        x: &mut [f32],
        width: usize,
        scratch: &mut BlockScratch,
    ) -> usize {
        let BlockScratch { branch, mixed, wide, scores } = scratch;
        let n = x.len() / width;
        let branch = &mut branch[..x.len()];
        let isa = compute.isa();
        let work = 4 * width;
        compute.for_row_pairs(x, branch, width, work, |x, branch| {
            branch.copy_from_slice(x);
            if self.norm_first {
                self.norm1.apply(isa, branch);
            }
        });
        self.attention.forward(compute, places, pass, branch, wide, scores, mixed);
        let rows = if pass.last_only {
            x.copy_within((n - 1) * width.., 0);
            1
        } else {
            n
        };
        let (x, branch) = (&mut x[..rows * width], &mut branch[..rows * width]);
        compute.for_row_pairs(x, branch, width, work, |x, branch| {
            add_assign(x, branch);
            if !self.norm_first {
                self.norm1.apply(isa, x);
            }
            branch.copy_from_slice(x);
            if self.norm_first {
                self.norm2.apply(isa, branch);
            }
        });
        self.feed_forward.forward(compute, branch, wide);
        compute.for_row_pairs(x, branch, width, work, |x, branch| {
            add_assign(x, branch);
            if !self.norm_first {
                self.norm2.apply(isa, x);
            }
        });
        rows
    }
}
