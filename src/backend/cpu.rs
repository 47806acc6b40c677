//! The CPU engine: runs the graph of `model` on the calling thread and the model's pool.
//!
//! A causal model's bytes pass once and leave keys and values behind. A bidirectional model's window passes anew for
//! every prediction, when that is asked for. All memory is taken when the engine is made.

mod together;

use std::sync::Arc;

use super::{Engine, MAX_DRAFT, Others, surprise};
use crate::cancel::Cancel;
use crate::config::{ModelConfig, VOCAB};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Compute;
use crate::model::{
    BlockScratch, Chunk, CoarseScratch, ConvFrontend, ConvHistory, Graph, MAX_TOGETHER, Memory,
};

/// Rows of a causal model that pass through the blocks together: enough to reuse each weight from the cache, few
/// enough that cancelling is prompt and scratch stays small.
const CHUNK: usize = 128;

pub(crate) struct CpuEngine {
    graph: Arc<Graph>,
    config: ModelConfig,
    causal: bool,
    /// Pad the context with zero bytes on the left to this length.
    pad_to: usize,
    /// About the bytes of `scratch`.
    room: usize,
    /// Whether `logits` are those of the bytes taken in; causal: whether `states` is.
    logits_ready: bool,
    states_ready: bool,
    /// Causal: what was computed for bytes that may come next.
    ahead: Ahead,
    memory: Memory,
    scratch: Scratch,
    padded: Vec<u8>, // (pad_to)
}

/// What a pass computes with, for up to as many rows.
#[derive(Clone)]
struct Scratch {
    compute: Compute,
    arriving: Vec<f32>, // (rows, widest of the embedding and the frontend)
    frontend: Vec<f32>, // scratch of the frontend
    x: Vec<f32>,        // (rows, D)
    blocks: BlockScratch,
    coarse: Option<CoarseScratch>,
    states: Vec<f32>, // (rows, output_dim)
    logits: Vec<f32>, // (rows, 256)
}

/// A draft: bytes that passed through the model after those that were taken in, with a row of states and logits each.
#[derive(Clone, Copy, Default)]
struct Ahead {
    bytes: [u8; MAX_DRAFT],
    len: usize,
    /// How many of them were taken in since; row `taken` of states and logits is that of the last byte taken in.
    taken: usize,
}

/// Refuses scratch memory that is not there. A model's file may claim any context, and a vector that gets no memory ends
/// the process: so what grows with the context is asked for as a whole before it is taken piece by piece.
fn check_room(bytes: usize) -> Result<()> {
    let mut room: Vec<u8> = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| {
        Error::new(ErrorKind::OutOfMemory, format!("no memory for a session of {bytes} bytes"))
    })?;
    // Or the compiler leaves out an allocation that nobody uses, and says that it went well.
    std::hint::black_box(room.as_ptr());
    Ok(())
}

impl CpuEngine {
    pub(crate) fn new(graph: &Arc<Graph>, config: &ModelConfig, context: usize) -> Result<CpuEngine> {
        let causal = config.is_causal();
        let rows = if causal { context.min(CHUNK) } else { context };
        let positions = config.frontend_len(context)?;
        let conv = graph.conv_frontend.as_ref();
        let embedding_width = graph.embedding.dim();
        let arriving_len = (rows * embedding_width).max(conv.map_or(0, |conv| conv.activation_len(rows)));
        let frontend_len = conv.map_or(0, |conv| conv.scratch_len(rows));
        let stack_rows = if causal { rows } else { positions };
        let n_threads = graph.pool.n_threads();
        let stack = &graph.streams.bytes;
        let aggregated = graph.streams.aggregated.as_ref();
        let numbers = [
            arriving_len,
            frontend_len,
            stack_rows.saturating_mul(config.d_model),
            stack.scratch_len(n_threads, stack_rows, positions),
            aggregated.map_or(0, |agg| agg.scratch_len(n_threads, stack_rows, positions)),
            // Quantized, a number takes less than half the bytes.
            stack_rows.max(rows).saturating_mul(graph.quantized_cols) / 2,
        ];
        let room = numbers.into_iter().fold(0, usize::saturating_add).saturating_mul(size_of::<f32>());
        check_room(room)?;
        graph.first_layer(config);
        let (coarse_memory, coarse_scratch) =
            aggregated.map(|agg| agg.new_state(n_threads, stack_rows, positions)).transpose()?.unzip();
        let result_rows = if causal { rows } else { 1 };
        Ok(CpuEngine {
            graph: graph.clone(),
            config: config.clone(),
            causal,
            pad_to: if config.pad_short_input { context } else { 0 },
            room,
            logits_ready: false,
            states_ready: false,
            ahead: Ahead::default(),
            memory: Memory {
                len: 0,
                history: conv.map_or_else(ConvHistory::default, ConvFrontend::new_history),
                cache: stack.new_cache(positions)?,
                coarse: coarse_memory,
            },
            scratch: Scratch {
                compute: Compute::new(
                    &graph.pool,
                    stack_rows.max(rows),
                    graph.quantized_cols,
                    graph.portable,
                ),
                arriving: vec![0.0; arriving_len],
                frontend: vec![0.0; frontend_len],
                x: vec![0.0; stack_rows * config.d_model],
                blocks: stack.new_scratch(n_threads, stack_rows, positions),
                coarse: coarse_scratch,
                states: vec![0.0; result_rows * config.output_dim()],
                logits: vec![0.0; result_rows * VOCAB],
            },
            padded: vec![0; if config.pad_short_input { context } else { 0 }],
        })
    }

    /// The same engine, feeding short inputs as they are.
    pub(crate) fn without_padding(mut self) -> CpuEngine {
        self.pad_to = 0;
        self
    }

    /// Runs `bytes` through the embedding and the frontend; returns how many rows arrive at the streams.
    fn arrive(&mut self, bytes: &[u8]) -> usize {
        let graph = &*self.graph;
        let Scratch { compute, arriving, frontend, .. } = &mut self.scratch;
        let len = bytes.len();
        graph.embedding.forward(bytes.iter().copied(), &mut arriving[..len * graph.embedding.dim()]);
        match &graph.conv_frontend {
            Some(conv) => conv.forward(compute, &mut self.memory.history, arriving, len, frontend),
            None => len,
        }
    }

    /// Brings the memories of the convolutions to the end of `kept`, all of which was taken in: a causal model's keys
    /// and values are still there, so only the rows that the memories depend on pass, and those not through the blocks
    /// of the byte stream.
    fn replay(&mut self, kept: &[u8]) {
        let graph = self.graph.clone();
        let streams = &graph.streams;
        self.memory.history.clear();
        if let (Some(agg), Some(memory)) = (&streams.aggregated, &mut self.memory.coarse) {
            agg.clear(memory);
        }
        let (first, compute) =
            streams.aggregated.as_ref().map_or((kept.len(), kept.len()), |agg| agg.replay_range(kept.len()));
        let mut at = first.saturating_sub(graph.conv_frontend.as_ref().map_or(0, |conv| conv.reach()));
        while at < kept.len() {
            let end = if at < compute { compute } else { kept.len() }.min(at + self.max_feed());
            let rows = self.arrive(&kept[at..end]);
            let scratch = &mut self.scratch;
            if let (Some(agg), Some(memory), Some(coarse)) =
                (&streams.aggregated, &mut self.memory.coarse, &mut scratch.coarse)
            {
                let arriving = &scratch.arriving[..rows * streams.arriving_width()];
                if at < compute {
                    agg.remember(memory, arriving);
                } else {
                    agg.forward(&scratch.compute, memory, coarse, at, true, None, arriving, |_, _| ())
                        .expect("nothing cancels this");
                }
            }
            at = end;
        }
    }

    /// Runs `bytes` from the embedding to the states before the output layer, at positions `first..`. Writes the
    /// states of all of them, or with `last_only` the last one's, and returns how many there are.
    fn run(&mut self, bytes: &[u8], first: usize, last_only: bool, cancel: Option<&Cancel>) -> Result<usize> {
        let len = self.arrive(bytes);
        let graph = &*self.graph;
        let streams = &graph.streams;
        let Scratch { compute, arriving, x, blocks, coarse, states, .. } = &mut self.scratch;
        let x = &mut x[..len * streams.bytes.width];
        let arriving = &arriving[..len * streams.arriving_width()];
        let places = Chunk { first, cache: &mut self.memory.cache };
        let tables = graph.first_layer(&self.config).filter(|tables| last_only && len <= tables.positions());
        let rows = match tables {
            Some(tables) => {
                streams.bytes.forward_window(compute, blocks, &places, tables, bytes, cancel, x)?
            }
            None => {
                streams.project(compute, arriving, x);
                streams.bytes.forward(compute, blocks, &places, last_only, cancel, x)?
            }
        };
        let width = self.config.output_dim();
        for (state, x) in states.chunks_exact_mut(width).zip(x.chunks_exact(streams.bytes.width)).take(rows) {
            state[..streams.bytes.width].copy_from_slice(x);
        }
        if let (Some(agg), Some(memory), Some(coarse)) =
            (&streams.aggregated, &mut self.memory.coarse, coarse)
        {
            agg.forward(compute, memory, coarse, first, last_only, cancel, arriving, |i, coarse| {
                states[i * width + streams.bytes.width..(i + 1) * width].copy_from_slice(coarse);
            })?;
        }
        Ok(rows)
    }

    /// The output layer on the first `rows` states.
    fn run_head(&mut self, rows: usize) {
        let graph = &*self.graph;
        let Scratch { compute, states, logits, .. } = &mut self.scratch;
        let states = &mut states[..rows * self.config.output_dim()];
        graph.head.forward(compute, &graph.embedding.table, states, &mut logits[..rows * VOCAB]);
    }

    /// Forgets what was computed for bytes that did not come.
    fn drop_ahead(&mut self) {
        let Ahead { len, taken, .. } = std::mem::take(&mut self.ahead);
        self.memory.turn_back(len - taken);
    }
}

impl Engine for CpuEngine {
    fn feed(&mut self, context: &[u8], new: usize, cancel: Option<&Cancel>) -> Result<()> {
        self.scratch.compute.check_fork()?;
        let bytes = &context[context.len() - new..];
        if self.causal && self.ahead().starts_with(bytes) {
            // They passed already.
            self.ahead.taken += new;
            self.memory.len += new;
            return Ok(());
        }
        self.logits_ready = false;
        self.drop_ahead();
        if !self.causal {
            return Ok(());
        }
        cancel.map_or(Ok(()), Cancel::check)?;
        for chunk in bytes.chunks(self.max_feed()) {
            if let Err(error) = self.run(chunk, self.memory.len, true, cancel) {
                self.rewind(&context[..context.len() - new]);
                return Err(error);
            }
            self.memory.len += chunk.len();
        }
        self.states_ready = true;
        Ok(())
    }

    fn max_draft(&self) -> usize {
        if self.causal { MAX_DRAFT.min(self.max_feed() - 1) } else { 0 }
    }

    fn feed_draft(&mut self, context: &[u8], draft: &[u8], cancel: Option<&Cancel>) -> Result<()> {
        if draft.is_empty() || draft.len() > self.max_draft() {
            return self.feed(context, 1, cancel);
        }
        self.scratch.compute.check_fork()?;
        cancel.map_or(Ok(()), Cancel::check)?;
        self.logits_ready = false;
        self.states_ready = false;
        self.drop_ahead();
        self.ahead = Ahead { len: draft.len(), ..Ahead::default() };
        self.ahead.bytes[..draft.len()].copy_from_slice(draft);
        let (last, kept) = context.split_last().expect("there is a byte to take in");
        let mut bytes = [*last; MAX_DRAFT + 1];
        bytes[1..=draft.len()].copy_from_slice(draft);
        let bytes = &bytes[..=draft.len()];
        match self.run(bytes, self.memory.len, false, cancel) {
            Ok(rows) => self.run_head(rows),
            Err(error) => {
                self.rewind(kept);
                return Err(error);
            }
        }
        self.memory.len += 1;
        self.logits_ready = true;
        Ok(())
    }

    fn ahead(&self) -> &[u8] {
        &self.ahead.bytes[self.ahead.taken..self.ahead.len]
    }

    fn max_together(&self) -> usize {
        let coarse = self.scratch.coarse.as_ref().zip(self.graph.streams.aggregated.as_ref());
        let coarse_rows = coarse.map_or(usize::MAX, |(scratch, agg)| scratch.rows(agg));
        if self.causal { self.max_feed().min(coarse_rows).min(MAX_TOGETHER) } else { 1 }
    }

    fn feed_together(&mut self, context: &[u8], others: &mut dyn Others) -> Result<()> {
        if self.causal { self.step_together(context, others) } else { self.feed(context, 1, None) }
    }

    fn logits(&mut self, context: &[u8], cancel: Option<&Cancel>) -> Result<&[f32; VOCAB]> {
        if !self.logits_ready {
            self.scratch.compute.check_fork()?;
            if !self.causal {
                self.config.check_input_len(context.len().max(self.pad_to))?;
                if context.len() < self.pad_to {
                    let mut padded = std::mem::take(&mut self.padded);
                    let (zeros, bytes) = padded.split_at_mut(self.pad_to - context.len());
                    zeros.fill(0);
                    bytes.copy_from_slice(context);
                    let result = self.run(&padded, 0, true, cancel);
                    self.padded = padded;
                    result?;
                } else {
                    self.run(context, 0, true, cancel)?;
                }
            } else {
                assert!(self.states_ready, "logits are asked for before any byte was taken in");
            }
            self.run_head(1);
            // The head normalizes the states in place.
            self.states_ready = false;
            self.logits_ready = true;
        }
        let row = &self.scratch.logits[self.ahead.taken * VOCAB..];
        Ok(row.first_chunk().expect("there is room for each row"))
    }

    fn score(&mut self, context: &[u8], new: usize, nats: &mut [f32], cancel: Option<&Cancel>) -> Result<()> {
        let old = context.len() - new;
        let bytes = &context[old..];
        if !self.causal {
            for i in 0..new {
                nats[i] = surprise(self.logits(&context[..old + i], cancel)?, bytes[i]);
                self.feed(&context[..old + i + 1], 1, cancel)?;
            }
            return Ok(());
        }
        self.scratch.compute.check_fork()?;
        cancel.map_or(Ok(()), Cancel::check)?;
        nats[0] = surprise(self.logits(&context[..old], cancel)?, bytes[0]);
        self.drop_ahead();
        let rows = match self.run(bytes, self.memory.len, false, cancel) {
            Ok(rows) => rows,
            Err(error) => {
                self.rewind(&context[..old]);
                return Err(error);
            }
        };
        self.run_head(rows);
        let Scratch { states, logits, .. } = &mut self.scratch;
        for i in 1..new {
            nats[i] = surprise(&logits[(i - 1) * VOCAB..i * VOCAB], bytes[i]);
        }
        logits.copy_within((rows - 1) * VOCAB..rows * VOCAB, 0);
        let width = self.config.output_dim();
        states.copy_within((rows - 1) * width..rows * width, 0);
        self.memory.len += new;
        self.states_ready = false;
        self.logits_ready = true;
        Ok(())
    }

    fn clear(&mut self) {
        self.memory.len = 0;
        self.logits_ready = false;
        self.states_ready = false;
        self.ahead = Ahead::default();
        self.memory.history.clear();
        if let (Some(agg), Some(memory)) = (&self.graph.streams.aggregated, &mut self.memory.coarse) {
            agg.clear(memory);
        }
    }

    fn rewind(&mut self, kept: &[u8]) {
        self.logits_ready = false;
        self.states_ready = false;
        self.ahead = Ahead::default();
        if self.causal {
            self.memory.len = kept.len();
            self.replay(kept);
        }
    }

    fn fork(&self) -> Result<Box<dyn Engine>> {
        check_room(self.room)?;
        Ok(Box::new(CpuEngine {
            graph: self.graph.clone(),
            config: self.config.clone(),
            memory: self.memory.try_clone()?,
            scratch: self.scratch.clone(),
            padded: self.padded.clone(),
            ..*self
        }))
    }

    fn embedding(&self) -> &[f32] {
        let width = self.config.output_dim();
        &self.scratch.states[self.ahead.taken * width..(self.ahead.taken + 1) * width]
    }

    fn max_feed(&self) -> usize {
        // Taking in bytes is no work for a bidirectional model.
        if self.causal { self.scratch.logits.len() / VOCAB } else { usize::MAX }
    }

    fn is_windowed(&self) -> bool {
        !self.causal
    }

    fn state_bytes(&self) -> usize {
        self.memory.cache_bytes()
    }
}
