//! From text files to training windows.
//!
//! [`prepare`](prepare::prepare) joins the sources into one byte file; [`Corpus`] maps it; [`Split`] cuts it into a
//! training and a validation span that share no byte; [`WindowSampler`] says, for any step, where that step's
//! windows start. Data order is a pure function of (seed, step): nothing is shuffled in memory, any step is found in
//! O(1), and a resumed run needs no state but its step.
//!
//! A window is `window_bytes + 1` bytes of one span: the inputs, and one byte more because targets are the inputs
//! moved by one.

mod corpus;
mod dummy;
mod layout;
mod npy;
mod permutation;
pub mod prepare;
mod split;
mod windows;

pub use corpus::Corpus;
pub use layout::Layout;
pub use permutation::Permutation;
pub use split::Split;
pub use windows::{WindowSampler, Windows, validation_offsets};
