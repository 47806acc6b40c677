//! The stacks of blocks: the byte stream of every model, and the aggregated stream of a parallel one.
//! Twin of trainer/src/model/streams.rs.

use std::sync::Arc;

use super::block::{Block, BlockScratch};
use super::conv_frontend::Conv1d;
use super::layers::{Linear, NormLayer};
use super::positions::{AddedPositions, Rotary};
use crate::cancel::Cancel;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kernels::KvLayer;
use crate::manifest::{BlockTensors, ModelTensors, TensorSpec};
use crate::pool::Pool;

/// Positions and blocks of one stream.
#[derive(Debug)]
pub(crate) struct Stack {
    pub width: usize,
    positions: Option<AddedPositions>,
    rotary: Option<Rotary>,
    input_norm: Option<NormLayer>,
    blocks: Vec<Block>,
}

/// What a session keeps for one stack: the keys and values of every block, and scratch.
#[derive(Debug, Clone)]
pub(crate) struct StackState {
    caches: Vec<KvLayer>,
    scratch: BlockScratch,
}

impl StackState {
    /// Bytes of keys and values.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.caches.iter().map(KvLayer::bytes).sum()
    }
}

impl Stack {
    fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        width: usize,
        rows: usize,
        learned: Option<&TensorSpec>,
        input_norm: Option<NormLayer>,
        blocks: &[BlockTensors<TensorSpec>],
    ) -> Result<Stack> {
        Ok(Stack {
            width,
            positions: AddedPositions::new(file, config, learned, width, rows)?,
            rotary: Rotary::new(config, width, rows),
            input_norm,
            blocks: blocks.iter().map(|specs| Block::load(file, config, specs)).collect::<Result<_>>()?,
        })
    }

    /// State for a context of `positions`, of which at most `rows` go through at once.
    pub(crate) fn new_state(&self, pool: &Pool, rows: usize, positions: usize) -> StackState {
        StackState {
            caches: self.blocks.iter().map(|block| block.new_cache(positions)).collect(),
            scratch: BlockScratch::new(&self.blocks, self.width, pool, rows, positions),
        }
    }

    /// Runs the rows of x, (n, width), at positions `first..first + n`, in place. Returns the rows that come out: n,
    /// or with `last_only` one, the last position's, which then is the first row of `x`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        state: &mut StackState,
        first: usize,
        last_only: bool,
        cancel: Option<&Cancel>,
        x: &mut [f32],
    ) -> Result<usize> {
        if let Some(positions) = &self.positions {
            positions.add(first, x);
        }
        if let Some(norm) = &self.input_norm {
            norm.forward(x);
        }
        let mut rows = x.len() / self.width;
        for (i, (block, cache)) in self.blocks.iter().zip(&mut state.caches).enumerate() {
            cancel.map_or(Ok(()), Cancel::check)?;
            let last_only = last_only && i + 1 == self.blocks.len();
            let rotary = self.rotary.as_ref();
            rows = block.forward(pool, cache, first, rotary, last_only, x, self.width, &mut state.scratch);
        }
        Ok(rows)
    }
}

/// The coarse stream of a parallel model.
#[derive(Debug)]
pub(crate) struct Aggregated {
    pub conv: Conv1d,
    pub stack: Stack,
}

/// Everything between the embeddings and the output layer.
#[derive(Debug)]
pub(crate) struct Streams {
    arriving_width: usize,
    projection: Option<Linear>,
    pub bytes: Stack,
    pub aggregated: Option<Aggregated>,
}

impl Streams {
    pub(crate) fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        specs: &ModelTensors<TensorSpec>,
    ) -> Result<Streams> {
        let rows = config.frontend_len(config.window_bytes())?;
        let input_norm = specs.embedding_norm.as_ref();
        let input_norm = input_norm.map(|norm| NormLayer::load(file, config.norm, norm)).transpose()?;
        Ok(Streams {
            arriving_width: config.arriving_dim(),
            projection: specs.projection.as_ref().map(|linear| Linear::load(file, linear)).transpose()?,
            bytes: Stack::load(
                file,
                config,
                config.d_model,
                rows,
                specs.positions.as_ref(),
                input_norm,
                &specs.blocks,
            )?,
            aggregated: match (&specs.aggregated, &config.aggregated_stream) {
                (Some(specs), Some(agg)) => Some(Aggregated {
                    conv: Conv1d::load(file, &specs.conv, agg.stride)?,
                    stack: Stack::load(
                        file,
                        config,
                        agg.d_model,
                        config.aggregated_len(rows)?,
                        specs.positions.as_ref(),
                        None,
                        &specs.blocks,
                    )?,
                }),
                _ => None,
            },
        })
    }

    /// Width of the vectors that come in.
    pub(crate) fn arriving_width(&self) -> usize {
        self.arriving_width
    }

    /// Brings arriving vectors to the width of the byte stream: (n, arriving) → (n, D).
    pub(crate) fn project(&self, pool: &Pool, arriving: &[f32], x: &mut [f32]) {
        match &self.projection {
            Some(linear) => linear.forward(pool, arriving, x),
            None => x.copy_from_slice(arriving),
        }
    }
}
