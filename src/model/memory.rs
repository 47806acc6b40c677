//! What a session remembers between bytes, and where the rows of one pass stand: those of one session in a row, or one
//! each of several sessions that step together.

use super::conv_frontend::ConvHistory;
use super::streams::CoarseMemory;
use crate::backend::MAX_DRAFT;
use crate::error::Result;
use crate::kernels::KvCache;

/// Most sessions that take in a byte each in one pass.
pub(crate) const MAX_TOGETHER: usize = 128;

/// The last rows of a stream, and enough before them that it can turn back by a whole draft: that is forgetting a number.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastRows {
    rows: Vec<f32>, // (2 · (needed + MAX_DRAFT), width), as far as `end`
    end: usize,
    width: usize,
}

impl LastRows {
    /// Zeros, of which the last `needed` rows matter.
    pub(crate) fn new(needed: usize, width: usize) -> LastRows {
        let half = (needed + MAX_DRAFT) * width;
        LastRows { rows: vec![0.0; 2 * half], end: half, width }
    }

    /// Zeros again.
    pub(crate) fn clear(&mut self) {
        self.end = self.rows.len() / 2;
        self.rows[..self.end].fill(0.0);
    }

    /// The last `n` rows, (n, width): those that matter, or one more after each [`push`](Self::push).
    pub(crate) fn last(&self, n: usize) -> &[f32] {
        &self.rows[self.end - n * self.width..self.end]
    }

    /// Rows, (n, width), come.
    pub(crate) fn push(&mut self, new: &[f32]) {
        let half = self.rows.len() / 2;
        let new = &new[new.len().saturating_sub(half)..];
        if self.end + new.len() > self.rows.len() {
            let old = half - new.len();
            self.rows.copy_within(self.end - old..self.end, 0);
            self.end = old;
        }
        self.rows[self.end..self.end + new.len()].copy_from_slice(new);
        self.end += new.len();
    }

    /// The last `n` rows never came. There were more since the last time, and at most [`MAX_DRAFT`] are turned back.
    pub(crate) fn turn_back(&mut self, n: usize) {
        self.end -= n * self.width;
    }
}

/// What is left of the bytes that a session took in.
#[derive(Debug)]
pub(crate) struct Memory {
    /// How many bytes those are, of a causal model.
    pub len: usize,
    /// Of the convolutional frontend; causal models.
    pub history: ConvHistory,
    /// Keys and values of the byte stream's blocks.
    pub cache: KvCache,
    pub coarse: Option<CoarseMemory>,
}

impl Memory {
    /// Bytes of keys and values.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache.bytes() + self.coarse.as_ref().map_or(0, |coarse| coarse.cache.bytes())
    }

    /// The same memory once more.
    pub(crate) fn try_clone(&self) -> Result<Memory> {
        Ok(Memory {
            len: self.len,
            history: self.history.clone(),
            cache: self.cache.try_clone()?,
            coarse: self.coarse.as_ref().map(CoarseMemory::try_clone).transpose()?,
        })
    }

    /// After `n` bytes more than the present `len` passed, at most [`MAX_DRAFT`] and not all of their pass: they never came.
    /// Keys and values of later positions are as good as none.
    pub(crate) fn turn_back(&mut self, n: usize) {
        self.history.turn_back(n);
        if let Some(coarse) = &mut self.coarse {
            coarse.turn_back(self.len, n);
        }
    }
}

/// Where the rows that pass through a stack of blocks stand.
pub(crate) trait Places {
    /// The position of a row.
    fn position(&self, row: usize) -> usize;

    /// The keys and values that a row sees, and where it stores its own.
    fn seen(&self, row: usize) -> &KvCache;

    /// How many of the rows `row..n` see the same keys and values, at positions one after the other.
    fn run(&self, row: usize, n: usize) -> usize;
}

/// Rows of one session from position `first` on.
pub(crate) struct Chunk<'a> {
    pub first: usize,
    pub cache: &'a mut KvCache,
}

impl Places for Chunk<'_> {
    fn position(&self, row: usize) -> usize {
        self.first + row
    }

    fn seen(&self, _row: usize) -> &KvCache {
        self.cache
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

    /// As [`memory`](Self::memory), to read.
    fn seen(&self, row: usize) -> &Memory;
}

/// Their rows in the byte stream.
pub(crate) struct ByteRows<'a>(pub &'a mut dyn Members);

impl Places for ByteRows<'_> {
    fn position(&self, row: usize) -> usize {
        self.0.seen(row).len
    }

    fn seen(&self, row: usize) -> &KvCache {
        &self.0.seen(row).cache
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
    fn position(&self, row: usize) -> usize {
        self.members.seen(self.complete[row]).len / self.stride
    }

    fn seen(&self, row: usize) -> &KvCache {
        let memory = self.members.seen(self.complete[row]);
        &memory.coarse.as_ref().expect("a parallel model's session remembers its coarse stream").cache
    }

    fn run(&self, _row: usize, _n: usize) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_rows_are_those_of_the_whole_stream() {
        for needed in [0, 1, 3, 20] {
            let mut rows = LastRows::new(needed, 2);
            let mut all = vec![0.0; 2 * needed];
            let mut next = 0.0f32;
            for round in 0..500usize {
                let n = [1, 1, 2, 16, 1, 9, 70][round % 7];
                let new: Vec<f32> = (0..2 * n).map(|i| next + i as f32).collect();
                next += new.len() as f32;
                rows.push(&new);
                all.extend(&new);
                assert_eq!(rows.last(needed + 1), &all[all.len() - 2 * (needed + 1)..]);
                let back = (round * 5 % 16).min(n - 1);
                rows.turn_back(back);
                all.truncate(all.len() - 2 * back);
                assert_eq!(rows.last(needed), &all[all.len() - 2 * needed..], "{needed} {round}");
            }
            rows.clear();
            assert!(rows.last(needed).iter().all(|v| *v == 0.0));
        }
    }
}
