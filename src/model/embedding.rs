//! Bytes → vectors: the byte table. Twin of trainer/src/model/embedding.rs.

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::kernels::Matrix;
use crate::manifest::{ModelTensors, TensorSpec};

#[derive(Debug)]
pub(crate) struct Embedding {
    pub table: Matrix, // (256, E)
}

impl Embedding {
    pub(crate) fn load(file: &Arc<Checkpoint>, specs: &ModelTensors<TensorSpec>) -> Result<Embedding> {
        Ok(Embedding { table: Matrix::load(file, &specs.embedding)? })
    }

    pub(crate) fn dim(&self) -> usize {
        self.table.cols()
    }

    /// The vectors of bytes into `out`, (n, E).
    pub(crate) fn forward(&self, bytes: impl Iterator<Item = u8>, out: &mut [f32]) {
        for (byte, row) in bytes.zip(out.chunks_exact_mut(self.dim())) {
            self.table.copy_row(byte as usize, row);
        }
    }
}
