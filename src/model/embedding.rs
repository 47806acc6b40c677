//! Bytes → vectors: the byte table, and the exact table of byte pairs where a model has one.
//! Twin of trainer/src/model/embedding.rs.

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::config::VOCAB;
use crate::error::Result;
use crate::kernels::{Compute, Matrix, add_assign, matmul};
use crate::manifest::{ModelTensors, TensorSpec};

#[derive(Debug)]
pub(crate) struct Embedding {
    pub table: Matrix, // (256, E)
    bigram: Option<Bigram>,
}

#[derive(Debug)]
struct Bigram {
    table: Matrix,      // (65536, bigram_dim)
    projection: Matrix, // (E, bigram_dim)
}

impl Embedding {
    pub(crate) fn load(file: &Arc<Checkpoint>, specs: &ModelTensors<TensorSpec>) -> Result<Embedding> {
        Ok(Embedding {
            table: Matrix::load(file, &specs.embedding)?,
            bigram: match &specs.bigram {
                Some(bigram) => Some(Bigram {
                    table: Matrix::load(file, &bigram.table)?,
                    projection: Matrix::load(file, &bigram.projection)?,
                }),
                None => None,
            },
        })
    }

    pub(crate) fn dim(&self) -> usize {
        self.table.cols()
    }

    /// Whether a byte's vector depends on the byte before it.
    pub(crate) fn depends_on_context(&self) -> bool {
        self.bigram.is_some()
    }

    /// Scratch that [`forward`](Self::forward) needs for each byte.
    pub(crate) fn scratch_per_byte(&self) -> usize {
        self.bigram.as_ref().map_or(0, |bigram| bigram.table.cols() + self.dim())
    }

    /// The vectors of bytes into `out`, (n, E). `pairs` are each byte and the one before it, which is 0 at the start.
    pub(crate) fn forward(
        &self,
        compute: &Compute,
        pairs: impl Iterator<Item = (u8, u8)> + Clone,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        for ((_, byte), row) in pairs.clone().zip(out.chunks_exact_mut(self.dim())) {
            self.table.copy_row(byte as usize, row);
        }
        let Some(bigram) = &self.bigram else { return };
        let n = out.len() / self.dim();
        let (rows, projected) = scratch.split_at_mut(n * bigram.table.cols());
        for ((previous, byte), row) in pairs.zip(rows.chunks_exact_mut(bigram.table.cols())) {
            bigram.table.copy_row(previous as usize * VOCAB + byte as usize, row);
        }
        let projected = &mut projected[..out.len()];
        matmul(compute, &bigram.projection, None, rows, projected);
        add_assign(out, projected);
    }
}
