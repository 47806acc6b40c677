//! A token that stops work from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Cancels the operations it was given to. Clones share one flag; any thread, and a signal handler, may trigger it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A token that is not triggered.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Asks everything that holds this token to stop. Stays so until [`reset`](Self::reset).
    pub fn trigger(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lets work go on again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error of kind [`ErrorKind::Canceled`] where it was triggered.
    pub fn check(&self) -> Result<()> {
        if self.is_triggered() {
            Err(Error::new(ErrorKind::Canceled, "canceled by the caller"))
        } else {
            Ok(())
        }
    }
}
