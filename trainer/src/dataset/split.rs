//! Which bytes train and which validate.

use std::ops::Range;

use grug::error::{Error, Result};

/// Two contiguous spans of a corpus that share no byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Bytes that windows are trained on.
    pub train: Range<u64>,
    /// Bytes that only validate; empty where there is no validation.
    pub validation: Range<u64>,
}

impl Split {
    /// The last `fraction` of a corpus of `len` bytes validates; of what comes before, the last `guard` bytes are
    /// left out, and the rest trains. Each span must hold a window of `window_bytes` inputs and one target.
    pub fn contiguous(len: u64, fraction: f64, guard: usize, window_bytes: usize) -> Result<Split> {
        let needed = window_bytes as u64 + 1;
        if len < needed {
            return Err(Error::invalid(format!(
                "the corpus has {len} bytes, but one window needs {needed} (the context and the byte after it)"
            )));
        }
        if fraction <= 0.0 {
            return Ok(Split { train: 0..len, validation: len..len });
        }
        // As everyone computes it: the training part is the rounded-down one.
        let start = ((len as f64 * (1.0 - fraction)) as u64).min(len);
        let split = Split { train: 0..start.saturating_sub(guard as u64), validation: start..len };
        for (what, span) in [("training", &split.train), ("validation", &split.validation)] {
            let have = span.end - span.start;
            if have < needed {
                return Err(Error::invalid(format!(
                    "the {what} part has {have} of the corpus's {len} bytes (validation_fraction = {fraction}, \
                     guard_bytes = {guard}), but one window needs {needed}"
                )));
            }
        }
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shakespeare_splits_as_others_split_it() {
        let split = Split::contiguous(1_115_394, 0.1, 0, 256).unwrap();
        assert_eq!((split.train, split.validation), (0..1_003_854, 1_003_854..1_115_394));
    }

    #[test]
    fn spans_keep_their_distance_or_are_refused() {
        let split = Split::contiguous(1000, 0.25, 10, 32).unwrap();
        assert_eq!((split.train, split.validation), (0..740, 750..1000));
        assert_eq!(Split::contiguous(33, 0.0, 10, 32).unwrap(), Split { train: 0..33, validation: 33..33 });
        for (len, fraction, guard, part) in [
            (32, 0.0, 0, "the corpus has 32 bytes"),
            (100, 0.1, 0, "validation part has 10"),
            (100, 0.5, 40, "training part has 10"),
            (100, 0.5, 4000, "training part has 0"),
        ] {
            let error = Split::contiguous(len, fraction, guard, 32).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }
}
