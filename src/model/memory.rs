//! What a session remembers between bytes, and where the rows of one pass stand: those of one session in a row, or one
//! each of several sessions that step together.

use super::conv_frontend::ConvHistory;
use super::streams::CoarseMemory;
use crate::kernels::KvLayer;

/// What is left of the bytes that a session took in.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// How many bytes those are, of a causal model.
    pub len: usize,
    /// Of the convolutional frontend; causal models.
    pub history: ConvHistory,
    /// Keys and values of the byte stream's blocks.
    pub caches: Vec<KvLayer>,
    pub coarse: Option<CoarseMemory>,
}

impl Memory {
    /// Bytes of keys and values.
    pub(crate) fn cache_bytes(&self) -> usize {
        let coarse = self.coarse.iter().flat_map(|coarse| &coarse.caches);
        self.caches.iter().chain(coarse).map(KvLayer::bytes).sum()
    }
}

/// Where the rows that pass through a stack of blocks stand.
pub(crate) trait Places {
    /// The position of a row.
    fn position(&mut self, row: usize) -> usize;

    /// The keys and values that a row sees in a layer.
    fn cache(&mut self, row: usize, layer: usize) -> &mut KvLayer;

    /// How many of the rows `row..n` see the same keys and values, at positions one after the other.
    fn run(&self, row: usize, n: usize) -> usize;
}

/// Rows of one session from position `first` on.
pub(crate) struct Chunk<'a> {
    pub first: usize,
    pub caches: &'a mut [KvLayer], // a layer each
}

impl Places for Chunk<'_> {
    fn position(&mut self, row: usize) -> usize {
        self.first + row
    }

    fn cache(&mut self, _row: usize, layer: usize) -> &mut KvLayer {
        &mut self.caches[layer]
    }

    fn run(&self, row: usize, n: usize) -> usize {
        n - row
    }
}

/// Sessions of one causal model that take in a byte each, in one pass: session `row` has that row.
pub(crate) trait Members {
    /// How many there are.
    fn len(&self) -> usize;

    /// What one of them remembers.
    fn memory(&mut self, row: usize) -> &mut Memory;
}

/// Their rows in the byte stream.
pub(crate) struct ByteRows<'a>(pub &'a mut dyn Members);

impl Places for ByteRows<'_> {
    fn position(&mut self, row: usize) -> usize {
        self.0.memory(row).len
    }

    fn cache(&mut self, row: usize, layer: usize) -> &mut KvLayer {
        &mut self.0.memory(row).caches[layer]
    }

    fn run(&self, _row: usize, _n: usize) -> usize {
        1
    }
}

/// The rows of those whose byte completes a window of the coarse stream.
pub(crate) struct CoarseRows<'a> {
    pub members: &'a mut dyn Members,
    /// Which sessions they are.
    pub complete: &'a [usize],
    pub stride: usize,
}

impl Places for CoarseRows<'_> {
    fn position(&mut self, row: usize) -> usize {
        self.members.memory(self.complete[row]).len / self.stride
    }

    fn cache(&mut self, row: usize, layer: usize) -> &mut KvLayer {
        let memory = self.members.memory(self.complete[row]);
        &mut memory.coarse.as_mut().expect("a parallel model's session remembers its coarse stream").caches
            [layer]
    }

    fn run(&self, _row: usize, _n: usize) -> usize {
        1
    }
}
