//! What every operation computes with.

use std::cell::RefCell;
use std::sync::Arc;

use super::quantized::QuantizedRows;
use crate::error::Result;
use crate::pool::Pool;
use crate::simd::Isa;

/// The threads, the instruction set, and the scratch memory of one engine.
#[derive(Debug, Clone)]
pub(crate) struct Compute {
    pub(super) pool: Arc<Pool>,
    pub(super) isa: Isa,
    /// The input of the product under way, where weights are quantized.
    pub(super) quantized: RefCell<QuantizedRows>,
}

impl Compute {
    /// With room for the products of `rows` rows with quantized matrices of at most `cols` columns.
    ///
    /// `portable`: with the scalar set, whatever the machine has, whose results have the same bits everywhere.
    pub(crate) fn new(pool: &Arc<Pool>, rows: usize, cols: usize, portable: bool) -> Compute {
        Compute {
            pool: pool.clone(),
            isa: if portable { Isa::Scalar } else { Isa::current() },
            quantized: RefCell::new(QuantizedRows::new(rows, cols)),
        }
    }

    /// The instruction set.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Refuses work in a forked child that did not inherit the threads.
    pub(crate) fn check_fork(&self) -> Result<()> {
        self.pool.check_fork()
    }

    /// Calls `f` for ranges that cover 0..len, each but the last a multiple of `unit` long, on all threads. `work` is
    /// the cost of the whole, in bytes read or about as many operations; what is too small is not divided.
    pub(super) fn split(
        &self,
        len: usize,
        unit: usize,
        work: usize,
        f: impl Fn(std::ops::Range<usize>) + Sync,
    ) {
        /// Work below which handing over costs more than it brings.
        const SMALL: usize = 24 << 10;
        /// The most work of a chunk, so that no thread waits long for the last one: around 100 µs.
        const LARGE: usize = 4 << 20;
        let units = len.div_ceil(unit);
        let threads = self.pool.n_threads();
        let chunks = if threads == 1 || work < SMALL {
            1
        } else {
            (threads * if work < 16 * SMALL { 1 } else { 4 }).max(work / LARGE).min(units)
        };
        if chunks <= 1 {
            return f(0..len);
        }
        self.pool.run(chunks, |chunk| {
            let (begin, end) = (units * chunk / chunks, units * (chunk + 1) / chunks);
            f(begin * unit..(end * unit).min(len));
        });
    }

    /// Calls `f` with rows of x, (n, width), one after the other, and the number of the first of them, so that every row
    /// comes once, on all threads. `work` is the cost of a row, as that of [`split`](Self::split).
    pub(crate) fn for_rows(
        &self,
        x: &mut [f32],
        width: usize,
        work: usize,
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let n = x.len() / width;
        let x = Parts::new(x);
        self.split(n, 1, n * work, |rows| {
            // SAFETY: ranges do not overlap.
            f(rows.start, unsafe { x.part(rows.start * width..rows.end * width) });
        });
    }

    /// As [`for_rows`](Self::for_rows), for each row of two matrices of one shape.
    pub(crate) fn for_row_pairs(
        &self,
        x: &mut [f32],
        y: &mut [f32],
        width: usize,
        work: usize,
        f: impl Fn(&mut [f32], &mut [f32]) + Sync,
    ) {
        assert_eq!(x.len(), y.len());
        let y = Parts::new(y);
        self.for_rows(x, width, work, |first, x| {
            for (row, x) in (first..).zip(x.chunks_exact_mut(width)) {
                // SAFETY: each row comes once.
                f(x, unsafe { y.part(row * width..(row + 1) * width) });
            }
        });
    }
}

/// A slice that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    start: *mut f32,
    len: usize,
    life: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the parts that threads take do not overlap; that is the contract of `part`.
unsafe impl Sync for Parts<'_> {}
// SAFETY: as above.
unsafe impl Send for Parts<'_> {}

impl<'a> Parts<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Parts<'a> {
        Parts { start: slice.as_mut_ptr(), len: slice.len(), life: std::marker::PhantomData }
    }

    /// Part `range` of the slice.
    ///
    /// # Safety
    /// No other part that overlaps it is in use.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, range: std::ops::Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range lies inside the slice, which is borrowed for 'a, and nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Where the numbers from `start` on lie, having checked that there are `len`.
    pub(super) fn pointer(&self, start: usize, len: usize) -> *mut f32 {
        assert!(start + len <= self.len);
        self.start.wrapping_add(start)
    }
}
