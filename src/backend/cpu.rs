//! The CPU engine: runs the graph of `model` on the calling thread and the model's pool.
//!
//! A causal model's bytes pass once and leave keys and values behind. A bidirectional model's window passes anew for
//! every prediction, when that is asked for. All memory is taken when the engine is made.

use std::sync::Arc;

use super::{Engine, surprise};
use crate::cancel::Cancel;
use crate::config::{ModelConfig, VOCAB};
use crate::error::Result;
use crate::kernels::Compute;
use crate::model::{AggregatedState, ConvHistory, Graph, StackState};

/// Rows of a causal model that pass through the blocks together: enough to reuse each weight from the cache, few
/// enough that cancelling is prompt and scratch stays small.
const CHUNK: usize = 128;

#[derive(Clone)]
pub(crate) struct CpuEngine {
    graph: Arc<Graph>,
    compute: Compute,
    config: ModelConfig,
    causal: bool,
    /// Pad the context with zero bytes on the left to this length.
    pad_to: usize,
    /// Bytes taken in, of a causal model.
    len: usize,
    /// Whether `logits` are those of the bytes taken in; causal: whether `states` is.
    logits_ready: bool,
    states_ready: bool,

    padded: Vec<u8>,      // (pad_to)
    history: ConvHistory, // causal
    arriving: Vec<f32>,   // (rows, widest of the embedding and the frontend)
    frontend: Vec<f32>,   // scratch of embedding and frontend
    bytes: StackState,    //
    x: Vec<f32>,          // (rows, D)
    aggregated: Option<AggregatedState>,
    states: Vec<f32>, // (rows, output_dim)
    logits: Vec<f32>, // (rows that are scored together, 256)
}

impl CpuEngine {
    pub(crate) fn new(graph: &Arc<Graph>, config: &ModelConfig, context: usize) -> Result<CpuEngine> {
        let causal = config.is_causal();
        let rows = if causal { context.min(CHUNK) } else { context };
        let positions = config.frontend_len(context)?;
        let conv = graph.conv_frontend.as_ref();
        let embedding_width = graph.embedding.dim();
        let arriving_len = (rows * embedding_width).max(conv.map_or(0, |conv| conv.activation_len(rows)));
        let frontend_len =
            (rows * graph.embedding.scratch_per_byte()).max(conv.map_or(0, |conv| conv.scratch_len(rows)));
        let stack_rows = if causal { rows } else { positions };
        let n_threads = graph.pool.n_threads();
        graph.first_layer(config);
        let aggregated = graph.streams.aggregated.as_ref();
        Ok(CpuEngine {
            graph: graph.clone(),
            compute: Compute::new(&graph.pool, stack_rows.max(rows), graph.quantized_cols, graph.portable),
            config: config.clone(),
            causal,
            pad_to: if config.pad_short_input { context } else { 0 },
            len: 0,
            logits_ready: false,
            states_ready: false,
            padded: vec![0; if config.pad_short_input { context } else { 0 }],
            history: conv.map_or_else(ConvHistory::default, |conv| conv.new_history()),
            arriving: vec![0.0; arriving_len],
            frontend: vec![0.0; frontend_len],
            bytes: graph.streams.bytes.new_state(n_threads, stack_rows, positions),
            x: vec![0.0; stack_rows * config.d_model],
            aggregated: aggregated.map(|agg| agg.new_state(n_threads, stack_rows, positions)),
            states: vec![0.0; if causal { rows } else { 1 } * config.output_dim()],
            logits: vec![0.0; if causal { rows } else { 1 } * VOCAB],
        })
    }

    /// The same engine, feeding short inputs as they are.
    pub(crate) fn without_padding(mut self) -> CpuEngine {
        self.pad_to = 0;
        self
    }

    /// Runs `bytes` through the embedding and the frontend; returns how many rows arrive at the streams.
    fn arrive(&mut self, previous: u8, bytes: &[u8]) -> usize {
        let graph = &*self.graph;
        let compute = &self.compute;
        let len = bytes.len();
        let embedded = &mut self.arriving[..len * graph.embedding.dim()];
        graph.embedding.forward(compute, previous, bytes, &mut self.frontend, embedded);
        match &graph.conv_frontend {
            Some(conv) => {
                conv.forward(compute, &mut self.history, &mut self.arriving, len, &mut self.frontend)
            }
            None => len,
        }
    }

    /// Brings the memories of the convolutions to the end of `kept`, all of which was taken in: a causal model's keys
    /// and values are still there, so only the rows that the memories depend on pass, and those not through the blocks
    /// of the byte stream.
    fn replay(&mut self, kept: &[u8]) {
        let graph = self.graph.clone();
        let streams = &graph.streams;
        self.history.clear();
        if let (Some(agg), Some(state)) = (&streams.aggregated, &mut self.aggregated) {
            agg.clear(state);
        }
        let (first, compute) =
            streams.aggregated.as_ref().map_or((kept.len(), kept.len()), |agg| agg.replay_range(kept.len()));
        let mut at = first.saturating_sub(graph.conv_frontend.as_ref().map_or(0, |conv| conv.reach()));
        while at < kept.len() {
            let end = if at < compute { compute } else { kept.len() }.min(at + self.max_feed());
            let rows = self.arrive(if at == 0 { 0 } else { kept[at - 1] }, &kept[at..end]);
            if let (Some(agg), Some(state)) = (&streams.aggregated, &mut self.aggregated) {
                let arriving = &self.arriving[..rows * streams.arriving_width()];
                if at < compute {
                    agg.remember(state, arriving);
                } else {
                    agg.forward(&self.compute, state, at, true, None, arriving, |_, _| ())
                        .expect("nothing cancels this");
                }
            }
            at = end;
        }
    }

    /// Runs `bytes` from the embedding to the states before the output layer, at positions `first..`. Writes the
    /// states of all of them, or with `last_only` the last one's, and returns how many there are.
    fn run(
        &mut self,
        previous: u8,
        bytes: &[u8],
        first: usize,
        last_only: bool,
        cancel: Option<&Cancel>,
    ) -> Result<usize> {
        let len = self.arrive(previous, bytes);
        let graph = &*self.graph;
        let compute = &self.compute;
        let streams = &graph.streams;
        let x = &mut self.x[..len * streams.bytes.width];
        let arriving = &self.arriving[..len * streams.arriving_width()];
        let tables = graph.first_layer(&self.config).filter(|tables| last_only && len <= tables.positions());
        let rows = match tables {
            Some(tables) => {
                streams.bytes.forward_window(compute, &mut self.bytes, tables, bytes, cancel, x)?
            }
            None => {
                streams.project(compute, arriving, x);
                streams.bytes.forward(compute, &mut self.bytes, first, last_only, cancel, x)?
            }
        };
        let width = self.config.output_dim();
        for (state, x) in
            self.states.chunks_exact_mut(width).zip(x.chunks_exact(streams.bytes.width)).take(rows)
        {
            state[..streams.bytes.width].copy_from_slice(x);
        }
        if let (Some(agg), Some(coarse)) = (&streams.aggregated, &mut self.aggregated) {
            let states = &mut self.states;
            agg.forward(compute, coarse, first, last_only, cancel, arriving, |i, coarse| {
                states[i * width + streams.bytes.width..(i + 1) * width].copy_from_slice(coarse);
            })?;
        }
        Ok(rows)
    }

    /// The output layer on the first `rows` states.
    fn run_head(&mut self, rows: usize) {
        let graph = &*self.graph;
        let states = &mut self.states[..rows * self.config.output_dim()];
        graph.head.forward(&self.compute, &graph.embedding.table, states, &mut self.logits[..rows * VOCAB]);
    }

    fn previous(context: &[u8], new: usize) -> u8 {
        context.len().checked_sub(new + 1).map_or(0, |i| context[i])
    }
}

impl Engine for CpuEngine {
    fn feed(&mut self, context: &[u8], new: usize, cancel: Option<&Cancel>) -> Result<()> {
        self.compute.check_fork()?;
        self.logits_ready = false;
        if !self.causal || new == 0 {
            return Ok(());
        }
        cancel.map_or(Ok(()), Cancel::check)?;
        let bytes = &context[context.len() - new..];
        for (i, chunk) in bytes.chunks(self.max_feed()).enumerate() {
            let before = new - i * self.max_feed();
            if let Err(error) = self.run(Self::previous(context, before), chunk, self.len, true, cancel) {
                self.rewind(&context[..context.len() - new]);
                return Err(error);
            }
            self.len += chunk.len();
        }
        self.states_ready = true;
        Ok(())
    }

    fn logits(&mut self, context: &[u8], cancel: Option<&Cancel>) -> Result<&[f32; VOCAB]> {
        if !self.logits_ready {
            self.compute.check_fork()?;
            if !self.causal {
                self.config.check_input_len(context.len().max(self.pad_to))?;
                if context.len() < self.pad_to {
                    let mut padded = std::mem::take(&mut self.padded);
                    let (zeros, bytes) = padded.split_at_mut(self.pad_to - context.len());
                    zeros.fill(0);
                    bytes.copy_from_slice(context);
                    let result = self.run(0, &padded, 0, true, cancel);
                    self.padded = padded;
                    result?;
                } else {
                    self.run(0, context, 0, true, cancel)?;
                }
            } else {
                assert!(self.states_ready, "logits are asked for before any byte was taken in");
            }
            self.run_head(1);
            // The head normalizes the states in place.
            self.states_ready = false;
            self.logits_ready = true;
        }
        Ok(self.logits.first_chunk().expect("there is room for at least one row"))
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
        cancel.map_or(Ok(()), Cancel::check)?;
        nats[0] = surprise(self.logits(&context[..old], cancel)?, bytes[0]);
        let rows = match self.run(Self::previous(context, new), bytes, self.len, false, cancel) {
            Ok(rows) => rows,
            Err(error) => {
                self.rewind(&context[..old]);
                return Err(error);
            }
        };
        self.run_head(rows);
        for i in 1..new {
            nats[i] = surprise(&self.logits[(i - 1) * VOCAB..i * VOCAB], bytes[i]);
        }
        self.logits.copy_within((rows - 1) * VOCAB..rows * VOCAB, 0);
        let width = self.config.output_dim();
        self.states.copy_within((rows - 1) * width..rows * width, 0);
        self.len += new;
        self.states_ready = false;
        self.logits_ready = true;
        Ok(())
    }

    fn clear(&mut self) {
        self.len = 0;
        self.logits_ready = false;
        self.states_ready = false;
        self.history.clear();
        if let (Some(agg), Some(state)) = (&self.graph.streams.aggregated, &mut self.aggregated) {
            agg.clear(state);
        }
    }

    fn rewind(&mut self, kept: &[u8]) {
        self.logits_ready = false;
        self.states_ready = false;
        if self.causal {
            self.len = kept.len();
            self.replay(kept);
        }
    }

    fn fork(&self) -> Result<Box<dyn Engine>> {
        Ok(Box::new(self.clone()))
    }

    fn embedding(&self) -> &[f32] {
        &self.states[..self.config.output_dim()]
    }

    fn max_feed(&self) -> usize {
        // Taking in bytes is no work for a bidirectional model.
        if self.causal { self.logits.len() / VOCAB } else { usize::MAX }
    }

    fn is_windowed(&self) -> bool {
        !self.causal
    }

    fn state_bytes(&self) -> usize {
        self.bytes.cache_bytes() + self.aggregated.as_ref().map_or(0, |state| state.cache_bytes())
    }
}
