//! Single steps: products, norms, copies, and what they have as their arguments.

use std::ops::Range;

use super::build::Builder;
use super::{BYTES, Dim, Kernel, Op};
use crate::backend::gpu::args::*;
use crate::backend::gpu::layout::Rows;
use crate::backend::gpu::weights::Part;
use crate::config::{Activation, Norm, VOCAB};
use crate::error::Result;
use crate::manifest::{LinearTensors, NormTensors};

impl Builder<'_> {
    pub(super) fn head(&mut self, states: Rows, dim: Dim) -> Result<()> {
        let config = self.config;
        let tensors = &self.parts.tensors;
        let head = LinearTensors {
            weight: tensors.head_weight.unwrap_or(tensors.embedding),
            bias: tensors.head_bias,
        };
        let mut args = norm_args(&tensors.final_norm, config.norm);
        if config.logit_softcap > 0.0 {
            args.epilogue = EPILOGUE_SOFTCAP;
            args.scalar = (config.logit_softcap as f32).to_bits();
        }
        self.linear(&head, states, Rows::new(self.places.logits, VOCAB), dim, args);
        Ok(())
    }

    /// A product; `args` says what comes before and after it.
    pub(super) fn linear(&mut self, linear: &LinearTensors<Part>, x: Rows, y: Rows, dim: Dim, args: Args) {
        let mut op = op(Kernel::Linear);
        op.args = Args { rows: dim.0, bias: linear.bias.map_or(NONE, vector), ..args };
        let shape = self.set_weight(&mut op, linear.weight);
        (op.args.inputs, op.args.outputs) = (shape.1 as u32, shape.0 as u32);
        x.as_input(&mut op.args);
        y.as_result(&mut op.args);
        if self.single { self.ops.push(op) } else { self.push_in_tiles(op) }
    }

    /// A product of many rows: what the prologue makes is written down once.
    fn push_in_tiles(&mut self, mut op: Op) {
        op.kernel = Kernel::Matmul;
        if op.args.prologue != PROLOGUE_NONE {
            let kernel = if op.args.prologue == PROLOGUE_NORM { Kernel::Norm } else { Kernel::Activate };
            let at = if kernel == Kernel::Norm { self.places.normed } else { self.places.gated };
            let made = Rows::new(at, op.args.inputs as usize);
            let mut before = Op { kernel, weights: None, ..op.clone() };
            before.args.outputs = op.args.inputs;
            (before.args.add, before.args.positions) = (0, NONE);
            made.as_result(&mut before.args);
            self.ops.push(before);
            op.args.prologue = PROLOGUE_NONE;
            made.as_input(&mut op.args);
        }
        self.ops.push(op);
    }

    /// These steps of a single row, for a row each of several sessions.
    pub(super) fn for_each_session(&mut self, single: &Range<usize>, in_tiles: bool) -> Range<usize> {
        let start = self.ops.len();
        for i in single.clone() {
            let mut op = self.ops[i].clone();
            op.args.rows = BYTES.0;
            let remembers =
                matches!(op.kernel, Kernel::Embed | Kernel::Attention | Kernel::Join | Kernel::Sample);
            if remembers || op.args.x_shift + op.args.y_shift > 0 || op.args.positions != NONE {
                op.alone = Some(i);
            } else if in_tiles && op.kernel == Kernel::Linear {
                self.push_in_tiles(op);
                continue;
            }
            self.ops.push(op);
        }
        start..self.ops.len()
    }

    pub(super) fn norm(
        &mut self,
        norm: &NormTensors<Part>,
        kind: Norm,
        x: Rows,
        y: Rows,
        dim: Dim,
        positions: u32,
    ) {
        let mut op = op(Kernel::Norm);
        op.args = Args { rows: dim.0, positions, ..norm_args(norm, kind) };
        let width = x.stride as u32;
        (op.args.inputs, op.args.outputs) = (width, width);
        x.as_input(&mut op.args);
        y.as_result(&mut op.args);
        self.ops.push(op);
    }

    /// Copies rows of `x`, from the one that a dimension names on or from the first, to `y`.
    pub(super) fn copy_rows(&mut self, x: Rows, from: Option<Dim>, y: Rows, dim: Dim, width: usize) {
        let mut op = op(Kernel::CopyRows);
        op.args.rows = dim.0;
        (op.args.skip, op.args.outputs) = (from.map_or(0, |dim| dim.0), width as u32);
        x.as_input(&mut op.args);
        y.as_result(&mut op.args);
        self.ops.push(op);
    }

    /// Positions that a cache holds.
    pub(super) fn cache_rows(&self, cache: usize) -> usize {
        let positions = self.config.frontend_len(self.context).unwrap_or(self.context);
        if cache < self.config.n_layers {
            positions
        } else {
            self.config.aggregated_len(positions).unwrap_or(positions)
        }
    }

    /// Sets the weights of a step and returns the matrix's (rows, cols).
    pub(super) fn set_weight(&self, op: &mut Op, part: Part) -> (usize, usize) {
        let Part::Matrix(index) = part else { unreachable!("a matrix is laid out as one") };
        let shape = self.parts.shapes[index];
        op.weights = Some(index);
        (op.args.w_stride, op.args.w_kind, op.args.scales) = (shape.stride as u32, shape.kind, shape.scales);
        (shape.rows, shape.cols)
    }
}

pub(super) fn op(kernel: Kernel) -> Op {
    Op { kernel, args: Args::default(), weights: None, cache: None, alone: None }
}

pub(super) fn vector(part: Part) -> u32 {
    match part {
        Part::Vector(at) => at,
        Part::Matrix(_) => unreachable!("a vector is laid out as one"),
    }
}

pub(super) fn norm_args(norm: &NormTensors<Part>, kind: Norm) -> Args {
    Args {
        prologue: PROLOGUE_NORM,
        gain: vector(norm.weight),
        gain_bias: norm.bias.map_or(NONE, vector),
        rms: (kind == Norm::Rms) as u32,
        ..Args::default()
    }
}

/// The code of a nonlinearity that works number by number; a gate is the next product's prologue.
pub(super) fn epilogue(activation: Activation) -> u32 {
    match activation {
        Activation::Gelu => EPILOGUE_GELU,
        Activation::Relu => EPILOGUE_RELU,
        Activation::Relu2 => EPILOGUE_RELU2,
        Activation::Swiglu => EPILOGUE_NONE,
    }
}
