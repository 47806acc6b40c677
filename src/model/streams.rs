//! The stacks of blocks: the byte stream of every model, and the aggregated stream of a parallel one.
//! Twin of trainer/src/model/streams.rs.

use std::sync::Arc;

use super::attention::{Attention, Pass};
use super::block::{Block, BlockScratch};
use super::conv_frontend::Conv1d;
use super::first_layer::FirstLayer;
use super::layers::{Linear, NormLayer, load_vector};
use super::memory::{Chunk, CoarseRows, LastRows, MAX_TOGETHER, Members, Places};
use super::positions::{AddedPositions, Rotary};
use crate::cancel::Cancel;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kernels::{Compute, KvCache};
use crate::manifest::{BlockTensors, ModelTensors, TensorSpec};

/// Positions and blocks of one stream.
#[derive(Debug)]
pub(crate) struct Stack {
    pub width: usize,
    positions: Option<AddedPositions>,
    rotary: Option<Rotary>,
    input_norm: Option<NormLayer>,
    blocks: Vec<Block>,
}

impl Stack {
    fn load(
        file: &Arc<Checkpoint>,
        config: &ModelConfig,
        width: usize,
        rows: usize,
        window: usize,
        learned: Option<&TensorSpec>,
        input_norm: Option<NormLayer>,
        blocks: &[BlockTensors<TensorSpec>],
    ) -> Result<Stack> {
        Ok(Stack {
            width,
            positions: AddedPositions::new(file, config, learned, width, rows)?,
            rotary: Rotary::new(config, width, rows),
            input_norm,
            blocks: blocks
                .iter()
                .map(|specs| Block::load(file, config, window, specs))
                .collect::<Result<_>>()?,
        })
    }

    /// Room for the keys and values of a context of `positions`, as precise as the most precise weights.
    pub(crate) fn new_cache(&self, positions: usize) -> Result<KvCache> {
        let attentions = || self.blocks.iter().map(Block::attention);
        let shape = attentions().next().expect("a stack has blocks").shape();
        let precision = attentions().map(Attention::kv_precision).max().expect("as above");
        KvCache::new(shape, self.blocks.len(), positions, precision)
    }

    /// Scratch for a context of `positions`, of which at most `rows` go through at once.
    pub(crate) fn new_scratch(&self, n_threads: usize, rows: usize, positions: usize) -> BlockScratch {
        BlockScratch::new(&self.blocks, self.width, n_threads, rows, positions)
    }

    /// Numbers in that scratch.
    pub(crate) fn scratch_len(&self, n_threads: usize, rows: usize, positions: usize) -> usize {
        BlockScratch::len(&self.blocks, self.width, n_threads, rows, positions)
    }

    /// The attention of the first block, where nothing stands before it but what is added for positions.
    pub(crate) fn first_attention(&self) -> Option<&Attention> {
        self.blocks
            .first()
            .filter(|_| self.input_norm.is_none() && self.rotary.is_none())
            .map(Block::attention)
    }

    /// Adds what stands for positions `first..` to the rows of x, (n, width).
    pub(crate) fn add_positions(&self, first: usize, x: &mut [f32]) {
        if let Some(positions) = &self.positions {
            positions.add(first, x);
        }
    }

    /// As [`forward`](Self::forward) on a whole window of bytes, by its tables; to the last position.
    pub(crate) fn forward_window(
        &self,
        compute: &Compute,
        scratch: &mut BlockScratch,
        places: &dyn Places,
        tables: &FirstLayer,
        bytes: &[u8],
        cancel: Option<&Cancel>,
        x: &mut [f32],
    ) -> Result<usize> {
        tables.fill(self, bytes, x, scratch.qkv());
        self.run_blocks(compute, scratch, places, true, true, cancel, x)
    }

    /// Runs the rows of x, (n, width), which stand at `places`, in place. Returns the rows that come out: n, or with
    /// `last_only` (for rows of one session) one, the last position's, which then is the first row of `x`.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        scratch: &mut BlockScratch,
        places: &dyn Places,
        last_only: bool,
        cancel: Option<&Cancel>,
        x: &mut [f32],
    ) -> Result<usize> {
        let rows = x.len() / self.width;
        let mut row = 0;
        while row < rows {
            let run = places.run(row, rows);
            self.add_positions(places.position(row), &mut x[row * self.width..(row + run) * self.width]);
            row += run;
        }
        if let Some(norm) = &self.input_norm {
            norm.forward(compute, x);
        }
        self.run_blocks(compute, scratch, places, last_only, false, cancel, x)
    }

    /// `has_qkv`: the first block's queries, keys and values lie in the scratch.
    fn run_blocks(
        &self,
        compute: &Compute,
        scratch: &mut BlockScratch,
        places: &dyn Places,
        last_only: bool,
        has_qkv: bool,
        cancel: Option<&Cancel>,
        x: &mut [f32],
    ) -> Result<usize> {
        let mut rows = x.len() / self.width;
        for (layer, block) in self.blocks.iter().enumerate() {
            cancel.map_or(Ok(()), Cancel::check)?;
            let last_only = last_only && layer + 1 == self.blocks.len();
            let rotary = self.rotary.as_ref();
            let pass = Pass { layer, rotary, last_only, has_qkv: has_qkv && layer == 0 };
            rows = block.forward(compute, places, pass, x, self.width, scratch);
        }
        Ok(rows)
    }
}

/// The coarse stream of a parallel model.
#[derive(Debug)]
pub(crate) struct Aggregated {
    conv: Conv1d,
    /// Before the first window is complete, (A); causal models.
    start: Option<Vec<f32>>,
    pub stack: Stack,
}

/// What a session remembers of the coarse stream.
#[derive(Debug)]
pub(crate) struct CoarseMemory {
    /// Keys and values of its blocks.
    pub cache: KvCache,
    /// Causal: the last `kernel - 1` arriving rows.
    input: LastRows,
    /// Causal: the latest coarse state, (A).
    states: LastRows,
    stride: usize,
}

impl CoarseMemory {
    /// The last `n` bytes never came; `len` are left.
    pub(crate) fn turn_back(&mut self, len: usize, n: usize) {
        self.input.turn_back(n);
        self.states.turn_back((len + n) / self.stride - len / self.stride);
    }

    /// The same memory once more.
    pub(crate) fn try_clone(&self) -> Result<CoarseMemory> {
        Ok(CoarseMemory {
            cache: self.cache.try_clone()?,
            input: self.input.clone(),
            states: self.states.clone(),
            stride: self.stride,
        })
    }
}

/// Memory for the rows that go through the coarse stream together.
#[derive(Debug, Clone)]
pub(crate) struct CoarseScratch {
    blocks: BlockScratch,
    padded: Vec<f32>, // causal: (kernel - 1 + rows, arriving)
    patches: Vec<f32>,
    coarse: Vec<f32>, // (coarse rows, A)
}

impl CoarseScratch {
    /// How many rows it has room for.
    pub(crate) fn rows(&self, streams: &Aggregated) -> usize {
        self.coarse.len() / streams.stack.width
    }
}

impl Aggregated {
    /// Coarse rows that `rows` arriving ones complete at most, and coarse positions of a context of `positions`.
    fn coarse_len(&self, rows: usize, positions: usize) -> (usize, usize) {
        if self.start.is_some() {
            return (rows.div_ceil(self.conv.stride()), positions / self.conv.stride());
        }
        let len = self.conv.output_len(positions);
        (len, len)
    }

    /// Numbers in the scratch that [`new_state`](Self::new_state) makes, about: those that grow with the context.
    pub(crate) fn scratch_len(&self, n_threads: usize, rows: usize, positions: usize) -> usize {
        let (rows, positions) = self.coarse_len(rows, positions);
        let row = self.conv.patches_len(1) + self.stack.width;
        rows.saturating_mul(row).saturating_add(self.stack.scratch_len(n_threads, rows, positions))
    }

    /// Memory and scratch for a context whose frontend gives `positions` rows, of which at most `rows` arrive at once.
    pub(crate) fn new_state(
        &self,
        n_threads: usize,
        rows: usize,
        positions: usize,
    ) -> Result<(CoarseMemory, CoarseScratch)> {
        let causal = self.start.is_some();
        let (coarse_rows, coarse_positions) = self.coarse_len(rows, positions);
        let padded = if causal { (self.conv.kernel() - 1 + rows) * self.conv.inputs() } else { 0 };
        let of_causal =
            |needed, width| if causal { LastRows::new(needed, width) } else { LastRows::default() };
        let mut memory = CoarseMemory {
            cache: self.stack.new_cache(coarse_positions)?,
            input: of_causal(self.conv.kernel() - 1, self.conv.inputs()),
            states: of_causal(1, self.stack.width),
            stride: self.conv.stride(),
        };
        self.clear(&mut memory);
        let scratch = CoarseScratch {
            blocks: self.stack.new_scratch(n_threads, coarse_rows, coarse_positions),
            padded: vec![0.0; padded],
            patches: vec![0.0; self.conv.patches_len(coarse_rows)],
            coarse: vec![0.0; coarse_rows * self.stack.width],
        };
        Ok((memory, scratch))
    }

    /// Back to before the first byte.
    pub(crate) fn clear(&self, memory: &mut CoarseMemory) {
        memory.input.clear();
        memory.states.clear();
        if let Some(start) = &self.start {
            memory.states.push(start);
        }
    }

    /// Of a causal model at position `len`: the first row that the state depends on beyond keys and values, and the
    /// row at which the last coarse position is computed. The rows between are history alone.
    pub(crate) fn replay_range(&self, len: usize) -> (usize, usize) {
        let complete = len / self.conv.stride() * self.conv.stride();
        let compute = if complete == 0 { len } else { complete - 1 };
        (complete.saturating_sub(self.conv.kernel()).min(len.saturating_sub(self.conv.kernel() - 1)), compute)
    }

    /// Takes arriving rows, (n, arriving), of a causal model into the history, and computes nothing.
    pub(crate) fn remember(&self, memory: &mut CoarseMemory, arriving: &[f32]) {
        memory.input.push(arriving);
    }

    /// Runs the stream on arriving rows, (n, arriving), at positions `first..first + n` of the context, and calls
    /// `each(i, state)` with the coarse state, (A), that row i uses: for every row, or with `last_only` for row 0
    /// alone, which then is the last one.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        memory: &mut CoarseMemory,
        scratch: &mut CoarseScratch,
        first: usize,
        last_only: bool,
        cancel: Option<&Cancel>,
        arriving: &[f32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let width = self.stack.width;
        let CoarseMemory { cache, input, states, .. } = memory;
        let CoarseScratch { blocks, padded, patches, coarse } = scratch;
        if self.start.is_none() {
            let len = self.conv.forward(compute, arriving, patches, coarse);
            let places = Chunk { first: 0, cache };
            self.stack.forward(compute, blocks, &places, true, cancel, &mut coarse[..len * width])?;
            each(0, &coarse[..width]);
            return Ok(());
        }
        let (inputs, stride) = (self.conv.inputs(), self.conv.stride());
        let past = self.conv.kernel() - 1;
        let n = arriving.len() / inputs;
        // The windows that these rows complete.
        let (begin, end) = (first / stride, (first + n) / stride);
        if end > begin {
            // The window of coarse position j begins kernel - 1 rows before its last; so much history stands in front.
            let offset = (stride * begin + stride - 1 - first) * inputs;
            let len = ((end - begin - 1) * stride + self.conv.kernel()) * inputs;
            padded[..past * inputs].copy_from_slice(input.last(past));
            padded[past * inputs..][..arriving.len()].copy_from_slice(arriving);
            self.conv.forward(compute, &padded[offset..offset + len], patches, coarse);
            let rows = &mut coarse[..(end - begin) * width];
            let places = Chunk { first: begin, cache };
            self.stack.forward(compute, blocks, &places, false, cancel, rows)?;
        }
        for i in if last_only { n - 1..n } else { 0..n } {
            let complete = (first + i + 1) / stride;
            let row = if complete > begin {
                &coarse[(complete - 1 - begin) * width..][..width]
            } else {
                states.last(1)
            };
            each(if last_only { 0 } else { i }, row);
        }
        if end > begin {
            states.push(&coarse[..(end - begin) * width]);
        }
        input.push(arriving);
        Ok(())
    }

    /// As [`forward`](Self::forward) for the arriving row that each session of a causal model has, (n, arriving).
    pub(crate) fn step(
        &self,
        compute: &Compute,
        scratch: &mut CoarseScratch,
        members: &mut dyn Members,
        arriving: &[f32],
        mut each: impl FnMut(usize, &[f32]),
    ) {
        let (width, inputs, stride) = (self.stack.width, self.conv.inputs(), self.conv.stride());
        let remembers = "a parallel model's session remembers its coarse stream";
        let CoarseScratch { blocks, patches, coarse, .. } = scratch;
        let mut complete = [0; MAX_TOGETHER];
        let mut n = 0;
        for (row, arriving) in arriving.chunks_exact(inputs).enumerate() {
            let memory = members.memory(row);
            let completes = (memory.len + 1).is_multiple_of(stride);
            let input = &mut memory.coarse.as_mut().expect(remembers).input;
            input.push(arriving);
            if completes {
                self.conv.patch(n, input.last(self.conv.kernel()), patches);
                complete[n] = row;
                n += 1;
            }
        }
        let complete = &complete[..n];
        if n > 0 {
            self.conv.forward_patches(compute, n, patches, coarse);
            let coarse = &mut coarse[..n * width];
            let places = CoarseRows { members, complete, stride };
            self.stack.forward(compute, blocks, &places, false, None, coarse).expect("nothing cancels this");
            for (&row, state) in complete.iter().zip(coarse.chunks_exact(width)) {
                let memory = members.memory(row).coarse.as_mut().expect(remembers);
                memory.states.push(state);
            }
        }
        for row in 0..members.len() {
            each(row, members.memory(row).coarse.as_ref().expect(remembers).states.last(1));
        }
    }
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
                config.attention_window,
                specs.positions.as_ref(),
                input_norm,
                &specs.blocks,
            )?,
            aggregated: match (&specs.aggregated, &config.aggregated_stream) {
                (Some(specs), Some(agg)) => Some(Aggregated {
                    conv: Conv1d::load(file, &specs.conv, agg.stride)?,
                    start: specs.start.as_ref().map(|start| load_vector(file, start)).transpose()?,
                    stack: Stack::load(
                        file,
                        config,
                        agg.d_model,
                        config.aggregated_len(rows)?,
                        0,
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
    pub(crate) fn project(&self, compute: &Compute, arriving: &[f32], x: &mut [f32]) {
        match &self.projection {
            Some(linear) => linear.forward(compute, arriving, x),
            None => x.copy_from_slice(arriving),
        }
    }
}
