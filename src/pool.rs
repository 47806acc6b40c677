//! The worker threads of a model. `Pool::new(1)` makes none: everything runs on the calling thread.
//!
//! Work is split by rows into as many equal parts as there are threads. Each output number is computed by one thread
//! in one order, so results do not depend on the thread count.

use crate::error::Result;

/// A set of threads that run one job at a time.
#[derive(Debug)]
pub struct Pool {
    n_threads: usize,
}

impl Pool {
    /// A pool that computes on this many threads, the caller's included. 0 = one for each core.
    pub fn new(n_threads: usize) -> Result<Pool> {
        Ok(Pool { n_threads: n_threads.max(1) })
    }

    /// How many threads compute, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }
}
