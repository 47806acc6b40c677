//! Twin of src/model/embedding.rs: bytes to vectors, and their positions.

use grug::config::Positions;
use grug::manifest::ModelTensors;
use tch::{Device, Kind, Tensor};

use super::Model;

/// The published sinusoidal table of one stream, long enough for the model's own context.
#[derive(Debug)]
pub struct SinusoidalTable {
    table: Tensor, // (rows, width)
}

impl SinusoidalTable {
    /// The table for positions `0..rows`.
    pub fn new(rows: usize, width: usize, device: Device) -> SinusoidalTable {
        let values = grug::positions::sinusoidal(rows, width);
        SinusoidalTable {
            table: Tensor::from_slice(&values).view([rows as i64, width as i64]).to_device(device),
        }
    }

    /// Its first `len` rows, (len, width); longer inputs than expected get a table of their own.
    fn rows(&self, len: i64) -> Tensor {
        let (rows, width) = self.table.size2().expect("a table has two dimensions");
        if len <= rows {
            self.table.narrow(0, 0, len)
        } else {
            SinusoidalTable::new(len as usize, width as usize, self.table.device()).table
        }
    }
}

/// Bytes (batch, T) to vectors (batch, T, E).
pub fn embed(tensors: &ModelTensors<Tensor>, bytes: &Tensor) -> Tensor {
    let bytes = match bytes.kind() {
        Kind::Int64 | Kind::Int => bytes.shallow_clone(),
        _ => bytes.to_kind(Kind::Int64),
    };
    Tensor::embedding(&tensors.embedding, &bytes, -1, false, false)
}

/// Adds the positions of stream 0 (bytes) or 1 (aggregated) to x, (batch, T, width).
pub fn add_positions(model: &Model, stream: usize, x: Tensor) -> Tensor {
    let len = x.size()[1];
    match model.config.positions {
        Positions::Learned => {
            let table = match stream {
                0 => model.tensors.positions.as_ref(),
                _ => model.tensors.aggregated.as_ref().and_then(|agg| agg.positions.as_ref()),
            };
            x + table.expect("a learned model has a table for each stream").narrow(0, 0, len)
        }
        Positions::Sinusoidal => x + model.sinusoidal[stream].rows(len),
        // Told in the attention.
        Positions::Rotary => x,
    }
}
