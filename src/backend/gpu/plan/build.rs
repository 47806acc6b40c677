//! Lays out a session's activations, and puts the steps of each pass in order.

use std::ops::Range;

use super::steps::{epilogue, norm_args, op, vector};
use super::{BYTES, COARSE, Dim, Kernel, MAX_AHEAD, ONE, Op, Plan, Together, dims, state};
use crate::backend::gpu::args::*;
use crate::backend::gpu::layout::{Arena, Rows};
use crate::backend::gpu::together::MAX_TOGETHER;
use crate::backend::gpu::weights::{Part, Parts, Tables};
use crate::config::{Activation, ConvPadding, ModelConfig, Norm, VOCAB};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{BlockTensors, NormTensors};

/// Rows of a causal model that pass through the blocks together.
const CHUNK: usize = 256;

/// Where the parts of a pass stand.
pub(super) struct Places {
    /// Inputs of the convolutions, with room for what lies before and after them.
    conv: Vec<Rows>,
    /// What the streams start from.
    arriving: Rows,
    x: Rows,
    aggregated: Rows,
    /// A row of the aggregated stream in the making, of each of several sessions.
    coarse: Rows,
    pub(super) normed: usize,
    qkv: usize,
    mixed: usize,
    hidden: usize,
    pub(super) gated: usize,
    states: Rows,
    pub(super) logits: usize,
}

pub(super) struct Builder<'a> {
    pub(super) parts: &'a Parts,
    pub(super) config: &'a ModelConfig,
    pub(super) context: usize,
    rows: usize,
    pub(super) places: Places,
    arena: Arena,
    pub(super) ops: Vec<Op>,
    /// Rows that the pass in the making works on: `ONE`, or a dimension.
    pub(super) single: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(parts: &'a Parts, context: usize) -> Result<Builder<'a>> {
        let config = &parts.config;
        let causal = config.is_causal();
        let rows = if causal { context.min(CHUNK) } else { context };
        let positions = config.frontend_len(context)?;
        let stack_rows = if causal { rows } else { positions };
        let coarse = config.aggregated_len(positions)?;
        let mut arena = Arena::default();
        let mut conv_places = Vec::new();
        let mut width = config.embedding_dim;
        // No stage has more rows than the bytes that come in.
        let longest = context;
        if let Some(conv) = &config.conv_frontend {
            for (i, (&channels, &kernel)) in conv.channels.iter().zip(&conv.kernels).enumerate() {
                let before = if causal { kernel - 1 } else { conv.side_padding(i) };
                let beyond = if causal { before } else { 2 * before };
                let at = arena.take((longest + beyond) * width);
                conv_places.push(Rows { at: at + before * width, stride: width, by_position: causal });
                width = channels;
            }
        }
        let agg = config.aggregated_stream.as_ref();
        let agg_width = agg.map_or(0, |agg| agg.d_model);
        let together = if causal && agg.is_some() { rows.min(MAX_TOGETHER) } else { 0 };
        let coarse_rows = if agg.is_some() { coarse.max(together) } else { 0 };
        let widest =
            |of: &dyn Fn(usize) -> usize| (stack_rows * of(config.d_model)).max(coarse_rows * of(agg_width));
        let kv_width = |d: usize| d / config.n_heads * config.kv_heads();
        let ffn = |d: usize| d * config.ffn_multiplier;
        let gated = config.ffn_activation == Activation::Swiglu;
        let curved = config.ffn_gamma != 0.0;
        let places = Places {
            conv: conv_places,
            arriving: match agg {
                // Kept for the windows to come, behind zeros that stand for what was before the first byte.
                Some(agg) if causal => {
                    let at = arena.take((agg.kernel - 1 + context) * width) + (agg.kernel - 1) * width;
                    Rows { at, stride: width, by_position: true }
                }
                _ => Rows::new(arena.take(if causal { rows } else { longest } * width), width),
            },
            x: Rows::new(arena.take(stack_rows * config.d_model), config.d_model),
            // A causal model keeps its coarse states.
            aggregated: Rows { by_position: causal, ..Rows::new(arena.take(coarse * agg_width), agg_width) },
            coarse: Rows::new(arena.take(together * agg_width), agg_width),
            // The output layer's input is normalized here too, of every row where all are scored.
            normed: arena.take(widest(&|d| d).max(if causal { rows } else { 1 } * config.output_dim())),
            qkv: arena.take(widest(&|d| d + 2 * kv_width(d))),
            mixed: arena.take(widest(&|d| d)),
            hidden: arena.take(widest(&|d| if gated { 2 * ffn(d) } else { ffn(d) })),
            gated: arena.take(if gated || curved { widest(&|d| ffn(d)) } else { 0 }),
            states: Rows::new(
                arena.take(if causal { rows } else { 1 } * config.output_dim()),
                config.output_dim(),
            ),
            logits: arena.take(if causal { rows } else { 1 } * VOCAB),
        };
        Ok(Builder { parts, config, context, rows, places, arena, ops: Vec::new(), single: false })
    }

    pub(super) fn build(mut self) -> Result<Plan> {
        let config = self.config;
        let causal = config.is_causal();
        let parallel = config.aggregated_stream.is_some();
        let feed = self.range(|b| b.pass(true))?;
        let step = self.single_range(|b| if causal { b.pass(true) } else { Ok(()) })?;
        let coarse_step = self.single_range(|b| {
            if causal && parallel {
                b.coarse_stream(ONE, false);
            }
            Ok(())
        })?;
        let join = self.single_range(|b| {
            if causal && parallel {
                b.join(ONE, Dim(0));
            }
            Ok(())
        })?;
        let states = if causal && !parallel { self.places.x } else { self.places.states };
        let score = self.range(|b| {
            if !causal {
                return Ok(());
            }
            b.pass(false)?;
            b.head(states, BYTES)
        })?;
        let head = self.single_range(|b| b.head(states, ONE))?;
        let embedding = self.range(|b| {
            let norm = b.parts.tensors.final_norm.clone();
            let normed = Rows::new(b.places.normed, config.output_dim());
            let states = Rows { stride: config.output_dim(), ..states };
            b.norm(&norm, config.norm, states, normed, ONE, NONE);
            Ok(())
        })?;
        let sample = self.range(|b| {
            // What follows a causal pass of many rows is always a step of one row, so it is that which is sampled.
            let rows = if causal { ONE } else { BYTES };
            let mut op = op(Kernel::Sample);
            (op.args.rows, op.args.causal) = (rows.0, causal as u32);
            Rows::new(b.places.logits, VOCAB).as_input(&mut op.args);
            b.ops.push(op);
            Ok(())
        })?;
        let [few, many] = [false, true].map(|in_tiles| {
            // A window is many rows already.
            let mut each = |single: &Range<usize>| match causal {
                true => self.for_each_session(single, in_tiles),
                false => 0..0,
            };
            Together {
                step: each(&step),
                coarse: each(&coarse_step),
                join: each(&join),
                head: each(&head),
                embedding: each(&embedding),
                sample: each(&sample),
            }
        });
        let n_dims = dims(config, 0, self.context)?.len();
        let caches = self.caches()?;
        let agg_width = config.aggregated_stream.as_ref().map_or(0, |agg| agg.d_model);
        if self.arena.len() >= NONE as usize || caches.iter().any(|&c| c >= NONE as usize) {
            return Err(Error::new(ErrorKind::Unsupported, "this context is too long for a GPU engine"));
        }
        Ok(Plan {
            feed,
            step,
            coarse: coarse_step,
            join,
            score,
            head,
            embedding,
            sample,
            few,
            many,
            activations: self.arena.len(),
            caches,
            logits: self.places.logits,
            normed: self.places.normed,
            states_width: config.output_dim(),
            score_rows: if causal { self.rows } else { 1 },
            bytes: state::DIMS + n_dims.next_multiple_of(16),
            bytes_len: self.context + MAX_AHEAD,
            rows: self.rows,
            head_dim: config.d_model.max(agg_width) / config.n_heads,
            ops: self.ops,
        })
    }

    /// Numbers in each cache of keys and values.
    fn caches(&self) -> Result<Vec<usize>> {
        let config = self.config;
        let positions = config.frontend_len(self.context)?;
        let coarse = config.aggregated_len(positions)?;
        let kv_dim = |width: usize| 2 * width / config.n_heads * config.kv_heads();
        let positions = if config.is_causal() { self.context } else { positions };
        let mut caches = vec![positions * kv_dim(config.d_model); config.n_layers];
        if let Some(agg) = &config.aggregated_stream {
            caches.extend(vec![coarse * kv_dim(agg.d_model); agg.n_layers]);
        }
        Ok(caches)
    }

    /// The steps that these emit, of a single row.
    fn single_range(&mut self, emit: impl FnOnce(&mut Self) -> Result<()>) -> Result<Range<usize>> {
        self.single = true;
        let range = self.range(emit);
        self.single = false;
        range
    }

    fn range(&mut self, emit: impl FnOnce(&mut Self) -> Result<()>) -> Result<Range<usize>> {
        let start = self.ops.len();
        emit(self)?;
        Ok(start..self.ops.len())
    }

    /// From the bytes to the states: of all rows, or of the last one, which then is the first.
    fn pass(&mut self, last_only: bool) -> Result<()> {
        let config = self.config;
        let causal = config.is_causal();
        let mut dim = if self.single { ONE } else { BYTES };
        let x = self.places.x;
        let tables = self.parts.bytes;
        let first_conv = self.places.conv.first().copied();
        // The stage that writes `x` adds the positions; without a convolution or projection that is the embedding.
        let projected = config.has_projection();
        let (target, positions) = match first_conv {
            Some(rows) => (rows, NONE),
            None if projected => (self.places.arriving, NONE),
            None => (x, tables.added),
        };
        self.embed(dim, target, positions);
        for i in 0..self.places.conv.len() {
            let (target, positions) = match self.places.conv.get(i + 1) {
                Some(&next) => (next, NONE),
                None if projected => (self.places.arriving, NONE),
                None => (x, tables.added),
            };
            let from = dim;
            if !causal {
                dim = Dim(dim.0 + 2);
            }
            self.convolve(i, from, dim, target, positions);
        }
        let arriving = self.places.arriving;
        if let Some(projection) = self.parts.tensors.projection.clone() {
            let args = Args { positions: tables.added, ..Args::default() };
            self.linear(&projection, arriving, x, dim, args);
        }
        if let Some(norm) = self.parts.tensors.embedding_norm.clone() {
            self.norm(&norm, config.norm, x, x, dim, NONE);
        }
        let blocks = self.parts.tensors.blocks.clone();
        for (n, block) in blocks.iter().enumerate() {
            self.block(block, n, config.d_model, x, tables, dim, last_only && n + 1 == blocks.len());
        }
        if !causal {
            self.copy_rows(x, None, self.places.states, ONE, config.d_model);
        }
        if config.aggregated_stream.is_some() && !self.single {
            self.coarse_stream(if causal { COARSE } else { Dim(dim.0 + 2) }, !causal);
            match (causal, last_only) {
                (false, _) => {
                    let mut end = self.places.states;
                    end.at += config.d_model;
                    let width = config.output_dim() - config.d_model;
                    self.copy_rows(self.places.aggregated, None, end, ONE, width);
                }
                (true, false) => self.join(dim, Dim(0)),
                (true, true) => self.join(ONE, Dim(dim.0 + 1)),
            }
        }
        Ok(())
    }

    /// The aggregated stream, over `dim` rows of its own.
    fn coarse_stream(&mut self, dim: Dim, last_only: bool) {
        let config = self.config;
        let (Some(tensors), Some(agg)) = (self.parts.tensors.aggregated.clone(), &config.aggregated_stream)
        else {
            return;
        };
        let mut input = self.places.arriving;
        if config.is_causal() {
            // The window of position j ends with byte stride · (j + 1) - 1.
            input.at = input.at + agg.stride * input.stride - agg.kernel * input.stride;
        }
        input.stride *= agg.stride;
        let tables = self.parts.aggregated;
        let states = self.places.aggregated;
        let x = if self.single { self.places.coarse } else { states };
        let start = self.ops.len();
        self.linear(&tensors.conv, input, x, dim, Args { positions: tables.added, ..Args::default() });
        for (n, block) in tensors.blocks.iter().enumerate() {
            let last_only = last_only && n + 1 == tensors.blocks.len();
            self.block(block, config.n_layers + n, agg.d_model, x, tables, dim, last_only);
        }
        if self.single {
            self.copy_rows(x, None, states, dim, agg.d_model);
        }
        if config.is_causal() {
            self.ops[start..].iter_mut().for_each(|op| op.args.divide = agg.stride as u32);
        }
    }

    /// The states of `dim` rows of both streams side by side; the first stands `skip` rows behind the pass's first.
    fn join(&mut self, dim: Dim, skip: Dim) {
        let (Some(tensors), Some(agg)) = (&self.parts.tensors.aggregated, &self.config.aggregated_stream)
        else {
            return;
        };
        let mut op = op(Kernel::Join);
        op.args = Args {
            rows: dim.0,
            skip: skip.0,
            inputs: self.config.d_model as u32,
            outputs: self.config.output_dim() as u32,
            divide: agg.stride as u32,
            coarse: self.places.aggregated.at as u32,
            start: tensors.start.map_or(NONE, vector),
            ..Args::default()
        };
        self.places.x.as_input(&mut op.args);
        self.places.states.as_result(&mut op.args);
        self.ops.push(op);
    }

    fn embed(&mut self, dim: Dim, target: Rows, positions: u32) {
        let mut op = op(Kernel::Embed);
        op.args.rows = dim.0;
        op.args.positions = positions;
        op.args.causal = self.config.is_causal() as u32;
        target.as_result(&mut op.args);
        self.set_weight(&mut op, self.parts.tensors.embedding);
        op.args.outputs = self.config.embedding_dim as u32;
        self.ops.push(op);
    }

    /// Layer `i` of the frontend, from `from` rows to `dim` rows.
    fn convolve(&mut self, i: usize, from: Dim, dim: Dim, target: Rows, positions: u32) {
        let conv = self.config.conv_frontend.as_ref().expect("there is a layer");
        let tensors = self.parts.tensors.conv_frontend[i].clone();
        let mut input = self.places.conv[i];
        let width = input.stride;
        let causal = self.config.is_causal();
        let before = if causal { conv.kernels[i] - 1 } else { conv.side_padding(i) };
        if !causal && before > 0 {
            let mut op = op(Kernel::Pad);
            input.as_input(&mut op.args);
            (op.args.rows, op.args.inputs, op.args.pad) = (from.0, width as u32, before as u32);
            op.args.padding = match conv.padding {
                ConvPadding::Zeros => PADDING_ZEROS,
                ConvPadding::Reflect => PADDING_REFLECT,
                ConvPadding::Replicate => PADDING_REPLICATE,
                ConvPadding::Circular => PADDING_CIRCULAR,
            };
            self.ops.push(op);
        }
        // A row of the product is a run of the input: `kernel` positions, all channels of each.
        input.at -= before * width;
        input.stride *= conv.stride;
        let epilogue = epilogue(conv.activation);
        match &tensors.norm {
            None => self.linear(
                &tensors.conv,
                input,
                target,
                dim,
                Args { epilogue, positions, ..Args::default() },
            ),
            Some(norm) => {
                self.linear(&tensors.conv, input, target, dim, Args { epilogue, ..Args::default() });
                self.norm(norm, Norm::Layer, target, target, dim, positions);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn block(
        &mut self,
        block: &BlockTensors<Part>,
        cache: usize,
        width: usize,
        x: Rows,
        tables: Tables,
        dim: Dim,
        last_only: bool,
    ) {
        let config = self.config;
        let head_dim = width / config.n_heads;
        let kv_width = head_dim * config.kv_heads();
        let qkv = Rows::new(self.places.qkv, width + 2 * kv_width);
        let mixed = Rows::new(self.places.mixed, width);
        let ffn_width = width * config.ffn_multiplier;
        let gated = config.ffn_activation == Activation::Swiglu;
        let hidden = Rows::new(self.places.hidden, if gated { 2 * ffn_width } else { ffn_width });
        let before = |norm: &NormTensors<Part>| {
            if config.norm_first { norm_args(norm, config.norm) } else { Args::default() }
        };
        self.linear(&block.in_proj, x, qkv, dim, before(&block.norm1));
        let skip = if last_only && dim != ONE { Dim(dim.0 + 1) } else { Dim(0) };
        let attention = Args {
            rows: dim.0,
            skip: skip.0,
            heads: config.n_heads as u32,
            kv_heads: config.kv_heads() as u32,
            head_dim: head_dim as u32,
            capacity: self.cache_rows(cache) as u32,
            causal: config.is_causal() as u32,
            // The window is the byte stream's.
            window: if cache < config.n_layers { config.attention_window as u32 } else { 0 },
            qk_norm: config.qk_norm as u32,
            cos: tables.cos,
            sin: tables.sin,
            ..Args::default()
        };
        let mut store = Op { args: attention, cache: Some(cache), ..op(Kernel::StoreKv) };
        qkv.as_input(&mut store.args);
        let mut attend = Op { kernel: Kernel::Attention, ..store.clone() };
        mixed.as_result(&mut attend.args);
        if self.single {
            attend.args.store = 1;
        } else {
            self.ops.push(store);
        }
        self.ops.push(attend);
        let rows = if skip == Dim(0) { dim } else { ONE };
        if rows != dim {
            self.copy_rows(x, Some(skip), x, ONE, width);
        }
        // From here on, `last_only` makes this a single row, which goes the way of single rows.
        let single = std::mem::replace(&mut self.single, rows == ONE);
        self.linear(&block.out_proj, mixed, x, rows, Args { add: 1, ..Args::default() });
        if !config.norm_first {
            self.norm(&block.norm1, config.norm, x, x, rows, NONE);
        }
        let curved = config.ffn_gamma != 0.0;
        let mut args = before(&block.norm2);
        args.epilogue = if curved { EPILOGUE_NONE } else { epilogue(config.ffn_activation) };
        self.linear(&block.linear1, x, hidden, rows, args);
        let prologue = match (curved, gated) {
            (true, _) => PROLOGUE_CURVED,
            (_, true) => PROLOGUE_SWIGLU,
            _ => PROLOGUE_NONE,
        };
        let scalar = (config.ffn_gamma as f32).to_bits();
        self.linear(&block.linear2, hidden, x, rows, Args { add: 1, prologue, scalar, ..Args::default() });
        if !config.norm_first {
            self.norm(&block.norm2, config.norm, x, x, rows, NONE);
        }
        self.single = single;
    }
}
