//! How the runtime adds positions: from tables, and by the formula beyond them.

use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, Positions};
use crate::error::Result;
use crate::kernels::add_assign;
use crate::manifest::TensorSpec;
use crate::positions::{rotary, rotary_angle, sinusoidal, sinusoidal_at};

/// Numbers in a table at most: ample for real models, and what a file that claims an enormous context can cost.
const MAX_TABLE: usize = 1 << 22;

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
            (Positions::Sinusoidal, _) => sinusoidal(rows.min(MAX_TABLE / dim), dim),
            (Positions::Learned, None) | (Positions::Rotary, _) => return Ok(None),
        };
        Ok(Some(AddedPositions { table, dim, learned: config.positions == Positions::Learned }))
    }

    /// Adds positions `first..` to the rows of x, (n, dim).
    pub(crate) fn add(&self, first: usize, x: &mut [f32]) {
        let stored = self.table.len() / self.dim;
        let tabled = stored.saturating_sub(first).min(x.len() / self.dim) * self.dim;
        let (x, beyond) = x.split_at_mut(tabled);
        if tabled > 0 {
            add_assign(x, &self.table[first * self.dim..first * self.dim + tabled]);
        }
        debug_assert!(
            beyond.is_empty() || !self.learned,
            "the length of a learned model's input is checked before"
        );
        for (i, row) in beyond.chunks_exact_mut(self.dim).enumerate() {
            for (column, v) in row.iter_mut().enumerate() {
                *v += sinusoidal_at(first.max(stored) + i, column, self.dim);
            }
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
            let (cos, sin) = rotary(rows.min(MAX_TABLE / head_dim), head_dim);
            Rotary { cos, sin, half: head_dim / 2 }
        })
    }

    /// Turns every head of one row, (heads, head_dim), which stands at `position`.
    pub(crate) fn turn(&self, position: usize, heads: &mut [f32]) {
        let half = self.half;
        let tabled = position * half..(position + 1) * half;
        let (cos, sin) = (self.cos.get(tabled.clone()), self.sin.get(tabled));
        for head in heads.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for i in 0..half {
                let (cos, sin) = match (cos, sin) {
                    (Some(cos), Some(sin)) => (cos[i], sin[i]),
                    _ => rotary_angle(position, i, 2 * half),
                };
                (a[i], b[i]) = (a[i] * cos - b[i] * sin, a[i] * sin + b[i] * cos);
            }
        }
    }
}
