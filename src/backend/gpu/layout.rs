//! Where things stand in a session's activations.

use super::args::Args;

/// Hands out places in the activations, each starting at a multiple of 16 bytes.
#[derive(Debug, Default)]
pub(super) struct Arena {
    len: usize,
}

impl Arena {
    pub(super) fn take(&mut self, numbers: usize) -> usize {
        let at = self.len;
        self.len += numbers.next_multiple_of(4);
        at
    }

    /// Numbers in all.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Rows of numbers: where they start, and how far it is from one to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rows {
    pub at: usize,
    pub stride: usize,
    /// Whether row i stands at position `first + i`, or simply at i.
    pub by_position: bool,
}

impl Rows {
    pub(super) fn new(at: usize, stride: usize) -> Rows {
        Rows { at, stride, by_position: false }
    }

    /// Writes these rows into the arguments as the input.
    pub(super) fn as_input(self, args: &mut Args) {
        (args.x, args.x_stride, args.x_shift) = (self.at as u32, self.stride as u32, self.by_position as u32);
    }

    /// Writes these rows into the arguments as the result.
    pub(super) fn as_result(self, args: &mut Args) {
        (args.y, args.y_stride, args.y_shift) = (self.at as u32, self.stride as u32, self.by_position as u32);
    }
}
