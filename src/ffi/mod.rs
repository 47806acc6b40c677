//! The C API: what `include/grug.h` declares, one file per C type. Code here converts and does nothing else; what
//! computes belongs in [`session`](crate::session), [`sampler`](crate::sampler) and [`model`](crate::model).
//!
//! `build.rs` makes the header from these files, so the documentation of a function here is what a C programmer reads,
//! and types carry their C names. The order of the files in the header is the table in `build.rs`.
//!
//! What every function keeps:
//! - It runs inside [`guard::call`], which turns an error into a status and a panic into `GRUG_EPANIC`, without
//!   printing. Functions that cannot fail are the exception and say why.
//! - A handle that one thread may use at a time is an [`Exclusive`](guard::Exclusive): a second thread is told
//!   `GRUG_EBUSY`, and a panic poisons that handle alone.
//! - Outputs are written last, when nothing can fail any more.
//! - Pointers become references in [`mod@pointer`], which says what the caller vouches for.
#![allow(unsafe_code)]
// The types carry the names that C sees.
#![allow(non_camel_case_types)]
// What a caller must keep is the contract of the header, on top of `include/grug.h` and per function, said once.
#![allow(clippy::missing_safety_doc)]
// The docs of functions become the C header's, in its notation: nats[i].
#![allow(rustdoc::broken_intra_doc_links)]

pub mod batch;
pub mod cancel;
pub mod compress;
pub mod device;
pub mod error;
pub mod grammar;
mod guard;
pub mod library;
pub mod model;
mod options;
mod pointer;
pub mod sampler;
pub mod session;
#[cfg(target_family = "wasm")]
pub mod wasm;

#[cfg(test)]
mod tests;
