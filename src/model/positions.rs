//! How the runtime adds positions: tables for the usual length, the formula beyond it.

use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, Positions};
use crate::error::Result;
use crate::kernels::add_assign;
use crate::manifest::TensorSpec;
use crate::positions::{rotary, sinusoidal};

/// What is added to the input of a stack.
#[derive(Debug)]
pub(crate) struct AddedPositions {
    table: Vec<f32>, // (rows, dim)
    dim: usize,
    learned: bool,
}

impl AddedPositions {
    /// The table of a stream of this width for `rows` positions; `None` where nothing is added.
    pub(crate) fn new(
        file: &Checkpoint,
        config: &ModelConfig,
        learned: Option<&TensorSpec>,
        dim: usize,
        rows: usize,
    ) -> Result<Option<AddedPositions>> {
        let table = match (config.positions, learned) {
            (Positions::Learned, Some(spec)) => file.tensor(spec)?.to_f32(),
            (Positions::Sinusoidal, _) => sinusoidal(rows, dim),
            (Positions::Learned, None) | (Positions::Rotary, _) => return Ok(None),
        };
        Ok(Some(AddedPositions { table, dim, learned: config.positions == Positions::Learned }))
    }

    /// Adds positions `first..` to the rows of x, (n, dim).
    pub(crate) fn add(&self, first: usize, x: &mut [f32]) {
        let stored = self.table.len() / self.dim;
        let last = first + x.len() / self.dim;
        if last <= stored {
            add_assign(x, &self.table[first * self.dim..last * self.dim]);
        } else {
            debug_assert!(!self.learned, "the length of a learned model's input is checked before");
            let longer = sinusoidal(last, self.dim);
            add_assign(x, &longer[first * self.dim..]);
        }
    }
}

/// The rotation of queries and keys.
#[derive(Debug)]
pub(crate) struct Rotary {
    cos: Vec<f32>, // (rows, half)
    sin: Vec<f32>, // (rows, half)
    half: usize,
}

impl Rotary {
    pub(crate) fn new(config: &ModelConfig, width: usize, rows: usize) -> Option<Rotary> {
        let head_dim = width / config.n_heads;
        (config.positions == Positions::Rotary).then(|| {
            let (cos, sin) = rotary(rows, head_dim);
            Rotary { cos, sin, half: head_dim / 2 }
        })
    }

    /// Turns every head of one row, (heads, head_dim), which stands at `position`.
    pub(crate) fn turn(&self, position: usize, heads: &mut [f32]) {
        let range = position * self.half..(position + 1) * self.half;
        let (cos, sin) = (&self.cos[range.clone()], &self.sin[range]);
        for head in heads.chunks_exact_mut(2 * self.half) {
            let (a, b) = head.split_at_mut(self.half);
            for i in 0..self.half {
                (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], a[i] * sin[i] + b[i] * cos[i]);
            }
        }
    }
}
